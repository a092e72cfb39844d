import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import (
    SOURCES,
    DataError,
    WindowSpec,
    build_source,
    describe,
    make_windows,
    series_from_table,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
INDEX = pd.date_range("2013-01-01", periods=100, freq="1h")


def test_the_example_of_the_documentation_runs(tmp_path):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    stamps = pd.date_range("2013-01-01", periods=400, freq="30min", name="time")
    values = np.random.default_rng(0).gamma(2, size=(400, 3))
    pd.DataFrame(values, index=stamps, columns=["a", "b", "c"]).to_csv(tmp_path / "feeders.csv")
    try:
        exec(compile(code, str(PAGE), "exec"), {"__name__": "docs_data"})
        series = build_source("feeders", path=str(tmp_path / "feeders.csv")).load()
        with pytest.raises(DataError, match="There is no file nowhere"):
            build_source("feeders", path="nowhere").load()
    finally:
        SOURCES.pop("feeders", None)
    assert series.clients == ("a", "b", "c")
    assert series.unit == "kW"
    torch.testing.assert_close(series.of(1)[:, 0], torch.tensor(values[:, 1].reshape(-1, 2).mean(1)).float())
    make_windows(series, WindowSpec(lookback=24, horizon=6))


def test_columns_run_from_their_first_to_their_last_reading():
    table = pd.DataFrame({"a": np.arange(100.0), "b": np.arange(100.0), "c": np.nan}, index=INDEX)
    table.loc[INDEX[:5], "b"] = np.nan
    table.loc[INDEX[50], "b"] = np.nan
    known = pd.DataFrame({"place": ["x", "y"]}, index=["b", "a"])
    series = series_from_table("mine", table, unit="kWh", attributes=known)
    assert series.lengths.tolist() == [100, 95]
    assert series.starts[1] == np.datetime64("2013-01-01T05:00")
    assert series.of(1).isnan().sum() == 1
    assert series.attributes["place"].tolist() == ["y", "x"]
    assert [item.client for item in series.dropped] == ["c"]


def test_tables_that_do_not_fit_are_refused():
    table = pd.DataFrame({"a": np.arange(100.0), "b": "text"}, index=INDEX)
    with pytest.raises(DataError, match=r"Source 'mine': columns b are not numeric"):
        series_from_table("mine", table, unit="kWh")
    with pytest.raises(DataError, match="one regular step"):
        series_from_table("mine", table[["a"]].drop(INDEX[7]), unit="kWh")
    with pytest.raises(DataError, match="one regular step"):
        series_from_table("mine", table[["a"]].reset_index(drop=True), unit="kWh")


def test_steps_may_be_shorter_than_a_second():
    stamps = pd.date_range("2019-10-08T10:00:00", periods=50, freq="100ms", tz="UTC")
    series = series_from_table("cars", pd.DataFrame({"a": np.arange(50.0)}, index=stamps), unit="m/s")
    assert series.step_seconds == pytest.approx(0.1)
    assert series.stamps_of(0)[7] == np.datetime64("2019-10-08T10:00:00.7")
    assert make_windows(series, WindowSpec(lookback=5, horizon=2)).naive_error.item() == 1
    with pytest.raises(DataError, match=r"No column of source 'cars' has a reading, of 1\."):
        series_from_table("cars", pd.DataFrame({"a": np.nan}, index=stamps), unit="m/s")


def test_describe_has_one_row_a_client():
    table = pd.DataFrame({"a": np.arange(100.0), "b": 3.0}, index=INDEX)
    table.loc[INDEX[10:12], "a"] = np.nan
    series = series_from_table("mine", table, unit="kWh")
    before = describe(series)
    assert before.loc["a", "observed"] == pytest.approx(0.98)
    assert before.loc["a", "zeros"] == pytest.approx(0.01)
    assert before.loc["b", "mean"] == 3
    windows = make_windows(series, WindowSpec(lookback=6, horizon=2))
    after = describe(windows)
    assert after["train_windows"].tolist() == windows.count("train").tolist()
    assert after.loc["b", "mean"] == 3
    assert after.loc["b", "std"] == 1
    assert after.loc["a", "days"] == pytest.approx(100 / 24)


def test_stamps_with_a_time_zone_become_utc():
    table = pd.DataFrame({"a": np.arange(100)}, index=INDEX.tz_localize("Europe/Berlin"))
    assert series_from_table("mine", table, unit="kWh").starts[0] == np.datetime64("2012-12-31T23:00")
