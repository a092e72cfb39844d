"""Weather beside London's tables, and readings that cannot be."""

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import DataError, London, WindowSpec, make_windows
from data_loaders.electricity.weather import BEDFORD, MAX_AGE_HOURS

STEPS = 96
ANY = {"min_days": 0, "min_coverage": 0}


def write(folder, load=None, hours=STEPS // 2, frequency="30min"):
    """A prepared table of two households from 2013-01-01, and the weather of so many hours."""
    load = np.ones(STEPS) if load is None else load
    index = pd.date_range("2013-01-01", periods=STEPS, freq=frequency, name="timestamp_utc")
    table = pd.DataFrame({"MAC000002": load, "MAC000003": np.ones(STEPS)}, index=index).astype(np.float32)
    table.to_parquet(folder / "load_halfhourly.parquet")
    stamps = pd.date_range("2013-01-01", periods=hours, freq="1h", name="timestamp_utc")
    weather = {"air_temp_c": np.arange(hours) / 10, "rel_hum_pct": 80.0, "global_irrad_wm2": 0.0}
    pd.DataFrame(weather, index=stamps).to_csv(folder / BEDFORD)


def test_weather_is_joined_by_stamp(tmp_path):
    write(tmp_path)
    series = London(str(tmp_path), weather=True, **ANY).load()
    assert series.channel_names == ("load", "air_temp_c", "rel_hum_pct", "global_irrad_wm2")
    assert series.values.shape == (2 * STEPS // 2, 4)
    for client in range(2):
        torch.testing.assert_close(series.of(client)[:, 1], torch.arange(48) / 10)
    assert torch.equal(series.values[:, :1], London(str(tmp_path), **ANY).load().values)
    assert any(rule.startswith("weather:") for rule in series.rules)


def test_a_half_hour_takes_the_hour_before_it_and_never_one_to_come(tmp_path):
    write(tmp_path)
    series = London(str(tmp_path), frequency="30min", weather=True, **ANY).load()
    torch.testing.assert_close(series.of(1)[:, 1], (torch.arange(STEPS) // 2) / 10)


def test_weather_that_is_too_old_is_missing(tmp_path):
    write(tmp_path, hours=20)
    temperature = London(str(tmp_path), weather=True, **ANY).load().of(0)[:, 1]
    assert temperature[: 20 + MAX_AGE_HOURS].isfinite().all()
    assert float(temperature[20 + MAX_AGE_HOURS - 1]) == pytest.approx(1.9)
    assert temperature[20 + MAX_AGE_HOURS :].isnan().all()


def test_weather_that_is_not_there_or_of_another_time_is_said(tmp_path):
    write(tmp_path)
    index = pd.date_range("2015-01-01", periods=9, freq="1h", name="timestamp_utc")
    pd.DataFrame({"air_temp_c": np.ones(9)}, index=index).to_csv(tmp_path / BEDFORD)
    with pytest.raises(
        DataError,
        match=r"No client of source 'london' has weather: 2 by weather \(first: 'MAC000002', weather: no air_temp_c\)",
    ):
        London(str(tmp_path), weather=True, **ANY).load()
    (tmp_path / BEDFORD).unlink()
    with pytest.raises(DataError, match=r"weather=True needs .*bedford_hourly\.csv\.gz, which is not there"):
        London(str(tmp_path), weather=True, **ANY).load()


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("timestamp_utc", ["2013-01-01 00:00:00", "soon"], "row 3: 'soon' is not a stamp"),
        ("air_temp_c", ["1,5", "2,5"], "columns air_temp_c do not hold numbers. Use '.' as decimal mark"),
        ("stamp", [1, 2], "has no column 'timestamp_utc', only stamp, air_temp_c"),
    ],
)
def test_a_broken_weather_file_is_named(tmp_path, column, values, message):
    write(tmp_path)
    table = {"timestamp_utc": ["2013-01-01 00:00:00", "2013-01-01 01:00:00"], "air_temp_c": [1.0, 2.0]}
    table = {
        column if column == "stamp" and name == "timestamp_utc" else name: v for name, v in table.items()
    }
    pd.DataFrame(table | {column: values}).to_csv(tmp_path / BEDFORD, index=False)
    with pytest.raises(DataError, match=message) as caught:
        London(str(tmp_path), weather=True, **ANY).load()
    assert BEDFORD in str(caught.value)


@pytest.mark.parametrize("frequency", ["1h", "30min"])
def test_negative_energy_is_an_error_that_names_meter_and_stamp_or_missing(tmp_path, frequency):
    load = np.ones(STEPS)
    load[[7, 30]] = -0.5
    write(tmp_path, load)
    with pytest.raises(DataError) as caught:
        London(str(tmp_path), frequency=frequency, **ANY).load()
    assert str(caught.value) == (
        "Household 'MAC000002' reads -0.5 kWh at 2013-01-01 03:30:00, the first of 2 such readings. It should "
        "only consume: correct the file, or take such readings as missing with negative='missing'."
    )
    series = London(str(tmp_path), frequency=frequency, negative="missing", **ANY).load()
    assert int(series.of(0).isnan().sum()) == 2
    assert "negative: 2 negative readings are missing" in series.rules
    assert London(str(tmp_path), frequency=frequency, end="2013-01-01T03:00", **ANY).load().of(0).min() > 0


def test_infinite_energy_is_an_error(tmp_path):
    load = np.ones(STEPS)
    load[5] = np.inf
    write(tmp_path, load)
    with pytest.raises(DataError, match="Household 'MAC000002' reads inf kWh at 2013-01-01 02:30:00"):
        London(str(tmp_path), negative="missing", **ANY).load()


def test_the_real_weather_of_2013_is_complete(shared_data):
    root = str(shared_data / "electricity" / "lcl_london_2013")
    series = London(root, weather=True, clients=5).load()
    assert series.values[:, 1:].isfinite().all()
    temperature = series.of(0)[:, 1].reshape(365, 24)
    assert -10 < float(temperature.min()) < 0 < 25 < float(temperature.max()) < 40
    assert temperature[:, 14].mean() > temperature[:, 4].mean() + 2
    half = London(root, frequency="30min", weather=True, clients=5).load()
    torch.testing.assert_close(half.of(0)[::2, 1], series.of(0)[:, 1])
    windows = make_windows(series, WindowSpec())
    x, _ = windows.gather(windows.positions("train", torch.arange(5), torch.zeros(5, 1, dtype=torch.int64)))
    assert x.shape == (5, 1, 168, 4)
