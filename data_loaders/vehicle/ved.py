"""VED: 383 cars of Ann Arbor, Michigan, over a year, from their on-board diagnostics."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from ..cache import cached
from ..errors import DataError, raise_if_any
from ..home import find_root
from ..registry import About, register_source
from ..remote import Remote
from ..series import ClientSeries
from .traces import Layout, Trace, TraceRules, assemble
from .ved_energy import FUEL_ENERGY
from .ved_files import ATTRIBUTES, read_static, read_weeks
from .ved_trips import CHANNELS, UNITS, trips

ENGINES = ("ICE", "HEV", "PHEV", "EV")
_BASE = "https://raw.githubusercontent.com/gsoh/VED/master/Data/"


@register_source("ved")
@dataclass(frozen=True)
class VED:
    """Cars of the Vehicle Energy Dataset; every trip is a run of its car, and no window crosses trips.

    Reads weekly CSVs, unpacked or in the official 7z archives (``pip install 'persofl[ved]'``), and the cars' xlsx tables
    where they are there. What the tables do not know is ``"unknown"``.

    Args:
        root: folder of archives or CSVs, or one of them; None for what was fetched or prepared.
        target: ``"speed"`` km/h, or ``"energy"``: fuel and battery, kW.
        covariates: further channels, of ``speed``, ``energy``, ``rpm``, ``load``, ``temperature``.
        engines: only cars of these kinds, of ``ICE``, ``HEV``, ``PHEV``, ``EV``; none for all.
        hold_seconds: seconds without a reading, at most so many on end, take the last one.
        min_minutes: drop cars with fewer observed minutes of the target.
        min_run_seconds: leave out shorter trips.

    Raises:
        DataError: all options out of range, in one message.

    References:
        Oh, LeBlanc, Peng, Vehicle Energy Dataset (VED), a large-scale dataset for vehicle energy consumption research,
        IEEE Transactions on Intelligent Transportation Systems, 2020.
    """

    about: ClassVar[About] = About(
        kind="driving",
        what="speed and energy of cars second by second, trip by trip",
        clients="383",
        licence="Apache-2.0",
        attributes=(*ATTRIBUTES, "runs", "minutes"),
        needs="nothing, or root=FOLDER; the extra persofl[ved] for 7z and xlsx",
        size="176 MB, 3 GB unpacked",
        attribution="Oh, LeBlanc, Peng (2020), IEEE T-ITS, doi 10.1109/TITS.2020.3035596; github.com/gsoh/VED",
        remotes=(
            Remote(f"{_BASE}VED_DynamicData_Part1.7z", "VED_DynamicData_Part1.7z"),
            Remote(f"{_BASE}VED_DynamicData_Part2.7z", "VED_DynamicData_Part2.7z"),
            Remote(f"{_BASE}VED_Static_Data_ICE%26HEV.xlsx", "VED_Static_Data_ICE&HEV.xlsx"),
            Remote(f"{_BASE}VED_Static_Data_PHEV%26EV.xlsx", "VED_Static_Data_PHEV&EV.xlsx"),
        ),
    )

    root: str | None = None
    target: Literal["speed", "energy"] = "speed"
    covariates: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    hold_seconds: int = 3
    min_minutes: float = 10.0
    min_run_seconds: float = 60.0

    def __post_init__(self) -> None:
        raise_if_any(_problems(self) + TraceRules(self.min_minutes, self.min_run_seconds).problems())

    def load(self) -> ClientSeries:
        """Return the cars that keep the rules, one step a second.

        Raises:
            DataError: nothing to read at ``root``, a broken file, py7zr or openpyxl missing, or no car left.
        """
        root = find_root("ved", self.root)
        return cached(self, "ved", root, lambda: _read(root, self))


def _read(root: Path, source: VED) -> ClientSeries:
    wanted = (source.target, *source.covariates)
    static = read_static(root)
    if source.engines and static.empty:
        raise DataError(
            f"engines={source.engines} needs the cars' tables (*Static*.xlsx), and {root} has none."
        )
    kept = static.index[static["engine"].isin(source.engines)]
    found, again = dict[tuple[str, str], Trace](), 0

    def use(rows: pd.DataFrame, where: str) -> None:
        nonlocal again
        rows = rows[rows["VehId"].isin(kept)] if source.engines else rows
        for trace in trips(rows, static, wanted, source.hold_seconds, where) if len(rows) else []:
            again += (trace.car, trace.run) in found
            found.setdefault((trace.car, trace.run), trace)

    weeks = read_weeks(root, use)
    traces = sorted(found.values(), key=lambda trace: (trace.start, trace.run))
    layout = Layout("ved", UNITS[source.target], wanted, 1.0)
    series, _ = assemble(layout, traces, TraceRules(source.min_minutes, source.min_run_seconds))
    said = (
        f"{len(weeks)} weeks, {weeks[0]} to {weeks[-1]}",
        "a second is the mean of its readings, in whatever order they stand; local time",
        f"hold_seconds: up to {source.hold_seconds} seconds on end without a reading take the last one",
        f"{again} trips that stand in a second file too are taken once",
        *_energy_rule("energy" in wanted),
    )
    return replace(series, attributes=_attributes(series, static), rules=said + series.rules)


def _energy_rule(applies: bool) -> tuple[str, ...]:
    words = (
        f"energy is fuel at {FUEL_ENERGY} kWh/L (the rate the car says, or estimated from air flow, or from load and speed "
        "of the engine) of ICE, HEV and PHEV, and the battery's power of PHEV and EV"
    )
    return (words,) if applies else ()


def _attributes(series: ClientSeries, static: pd.DataFrame) -> pd.DataFrame:
    numbers = [int(car.removeprefix("veh")) for car in series.clients]
    known = static.reindex(numbers).set_axis(series.attributes.index)
    for name in ATTRIBUTES:
        if name in ("displacement_l", "weight_lb"):
            known[name] = known[name].astype(np.float64)
        else:
            known[name] = known[name].astype(object).where(known[name].notna(), "unknown").astype(str)
    return pd.concat([known[list(ATTRIBUTES)], series.attributes], axis=1)


def _problems(source: VED) -> list[str]:
    problems = []
    if source.target not in UNITS:
        problems.append(f"target must be 'speed' or 'energy', got {source.target!r}.")
    for name, known in (("covariates", tuple(CHANNELS)), ("engines", ENGINES)):
        unknown = [item for item in getattr(source, name) if item not in known]
        if unknown:
            problems.append(f"{name} must be of {', '.join(known)}, got {', '.join(map(repr, unknown))}.")
    wanted = (source.target, *source.covariates)
    if len(set(wanted)) < len(wanted):
        problems.append(f"covariates must differ from the target and each other, got {', '.join(wanted)}.")
    if source.hold_seconds < 0:
        problems.append(f"hold_seconds must not be negative, got {source.hold_seconds}.")
    return problems
