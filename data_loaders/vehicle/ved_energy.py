"""Energy of cars from what their on-board diagnostics say, in kW: fuel burnt, and what the battery gives."""

from typing import Any

import numpy as np
import pandas as pd

from .traces import Array

AIR_TO_FUEL = 14.7  # g of air for a g of petrol, stoichiometric
AIR_DENSITY = 1.184  # g/L at 25 C
FUEL_DENSITY = 745.0  # g/L of petrol; ours, to bring estimates to the litres of ``Fuel Rate[L/hr]``
FUEL_ENERGY = 8.9  # kWh/L of petrol, lower heating value
FUEL, MAF, RPM, LOAD = "Fuel Rate[L/hr]", "MAF[g/sec]", "Engine RPM[RPM]", "Absolute Load[%]"
CURRENT, VOLTAGE = "HV Battery Current[A]", "HV Battery Voltage[V]"
TRIMS = ("Short Term Fuel Trim Bank 1[%]", "Long Term Fuel Trim Bank 1[%]")
BURNS = ("ICE", "HEV", "PHEV")
DRAWS = ("PHEV", "EV")


def fuel_rate(rows: pd.DataFrame, displacement: Array) -> Array:
    r"""Return litres of fuel an hour, ``(rows,)``, from the first of these that a row has; NaN where it has none.

    1. the fuel rate the car says;
    2. its air flow, :math:`\mathrm{MAF} (1 + \mathrm{STFT} + \mathrm{LTFT}) / \mathrm{AFR}`;
    3. the air flow from load and speed of the engine, :math:`\mathrm{load} \rho V_d \mathrm{RPM} / 120`, then as 2;
    4. none where the engine stands still.

    Args:
        rows: with the VED's columns; fuel trims that are missing count as 0.
        displacement: ``(rows,)`` litres, NaN = unknown.

    References:
        Oh, LeBlanc, Peng, Vehicle Energy Dataset (VED), IEEE T-ITS 2020, section on fuel consumption rates.
    """
    said, air, turns, load = (column(rows, name) for name in (FUEL, MAF, RPM, LOAD))
    trim = 1 + sum(np.nan_to_num(column(rows, name)) for name in TRIMS) / 100
    air = np.where(np.isnan(air), load / 100 * AIR_DENSITY * displacement * turns / 120, air)
    estimated = air * trim / AIR_TO_FUEL / FUEL_DENSITY * 3600
    estimated = np.where(np.isnan(estimated) & (turns == 0), 0, estimated)
    return np.where(np.isnan(said), estimated, said)


def energy(rows: pd.DataFrame, engine: "np.ndarray[Any, Any]", displacement: Array) -> Array:
    """Return the power a car takes from tank and battery, kW, ``(rows,)``.

    Cars with an engine burn fuel; of plug-in hybrids and electric cars the battery's power counts, negative when it
    charges (the data's current is negative when it discharges). Of hybrids without a plug it does not: what is in
    the battery was fuel before. Where a plug-in hybrid says one of the two only, that one counts.

    Args:
        rows: with the VED's columns.
        engine: ``(rows,)`` ``"ICE"``, ``"HEV"``, ``"PHEV"`` or ``"EV"``; of others whatever they say counts, fuel first.
        displacement: ``(rows,)`` litres, NaN = unknown.
    """
    fuel = fuel_rate(rows, displacement) * FUEL_ENERGY
    battery = -column(rows, CURRENT) * column(rows, VOLTAGE) / 1000
    both = np.where(np.isnan(fuel), battery, np.where(np.isnan(battery), fuel, fuel + battery))
    either = np.where(np.isnan(fuel), battery, fuel)
    known = [np.isin(engine, [kind for kind in BURNS if kind not in DRAWS]), engine == "PHEV", engine == "EV"]
    return np.select(known, [fuel, both, battery], either)


def column(rows: pd.DataFrame, name: str) -> Array:
    """Return a column as numbers, NaN where the file has none of this name."""
    return rows[name].to_numpy(np.float64) if name in rows else np.full(len(rows), np.nan)
