"""Energy of a car from what its on-board diagnostics say, by hand."""

import numpy as np
import pandas as pd
import pytest

from data_loaders.vehicle.ved_energy import FUEL_ENERGY, energy, fuel_rate


def rows_of(**columns):
    names = {
        "fuel": "Fuel Rate[L/hr]",
        "maf": "MAF[g/sec]",
        "rpm": "Engine RPM[RPM]",
        "load": "Absolute Load[%]",
        "short": "Short Term Fuel Trim Bank 1[%]",
        "long": "Long Term Fuel Trim Bank 1[%]",
        "amps": "HV Battery Current[A]",
        "volts": "HV Battery Voltage[V]",
    }
    return pd.DataFrame(
        {names[name]: np.atleast_1d(np.asarray(value, float)) for name, value in columns.items()}
    )


def test_the_rate_the_car_says_comes_first():
    assert fuel_rate(rows_of(fuel=[3.0, np.nan], maf=[9.0, 9.0]), np.full(2, 2.0))[0] == 3
    assert fuel_rate(rows_of(fuel=[0.0], maf=[9.0]), np.full(1, 2.0)) == 0


def test_air_flow_gives_the_stoichiometric_rate():
    """14.7 g/s of air burn 1 g/s of fuel: 3600 g an hour at 745 g/L."""
    plain, trimmed = (
        fuel_rate(rows_of(maf=14.7, **trims), np.ones(1)) for trims in ({}, {"short": 5, "long": -2})
    )
    assert plain == pytest.approx(3600 / 745)
    assert trimmed / plain == pytest.approx(1.03)


def test_load_and_speed_of_the_engine_give_its_air_flow():
    """At full load a four-stroke engine fills half its displacement each turn."""
    rate = fuel_rate(rows_of(load=100, rpm=3000), np.full(1, 2.0))
    air = 2.0 / 2 * 3000 / 60 * 1.184
    assert rate == pytest.approx(air / 14.7 * 3600 / 745)
    assert np.isnan(fuel_rate(rows_of(load=100, rpm=3000), np.full(1, np.nan)))


def test_an_engine_that_stands_still_burns_nothing():
    assert fuel_rate(rows_of(maf=np.nan, rpm=0), np.full(1, np.nan)) == 0
    assert np.isnan(fuel_rate(rows_of(maf=np.nan, rpm=900), np.full(1, np.nan)))


def test_energy_by_the_kind_of_car():
    rows = rows_of(fuel=[2.0] * 5, amps=[-10.0] * 5, volts=[400.0] * 5)
    kinds = np.array(["ICE", "HEV", "PHEV", "EV", np.nan], object)
    fuel, battery = 2 * FUEL_ENERGY, 4.0
    np.testing.assert_allclose(energy(rows, kinds, np.ones(5)), [fuel, fuel, fuel + battery, battery, fuel])
    charging = energy(rows_of(amps=10, volts=400), np.array(["EV"], object), np.ones(1))
    assert charging == -4
