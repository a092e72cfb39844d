import datetime
import re
from pathlib import Path
from textwrap import dedent

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import DataError, WindowSpec, make_windows
from data_loaders.calendar import add_calendar, add_covariate, calendar_features

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
EVERY = ("hour", "weekday", "weekend", "yearday", "holiday")


def slow_calendar(stamp, zone, holidays):
    """One stamp after the standard library's calendar."""
    local = pd.Timestamp(stamp).tz_localize("UTC").tz_convert(zone).to_pydatetime()
    day = local.date()
    year = 366 if day.year % 4 == 0 and (day.year % 100 or day.year % 400 == 0) else 365
    seconds = 3600 * local.hour + 60 * local.minute + local.second + local.microsecond / 1e6
    turns = [seconds / 86400, day.weekday() / 7, None, (day.timetuple().tm_yday - 1) / year]
    row = []
    for turn in turns:
        row += [day.weekday() >= 5] if turn is None else [np.sin(2 * np.pi * turn), np.cos(2 * np.pi * turn)]
    return np.array([*row, day in holidays], np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 4_000_000_000_000_000), min_size=1, max_size=5),
    st.sampled_from(["Europe/London", "Asia/Kathmandu", "America/New_York", "UTC"]),
)
def test_the_calendar_is_that_of_the_standard_library(micros, zone):
    stamps = np.array(micros).astype("datetime64[us]")
    holidays = [datetime.date(2012, 2, 29), stamps[0].astype("datetime64[D]").item()]
    names, found = calendar_features(stamps, EVERY, zone, holidays)
    two = [f"{name}_{part}" for name in ("hour", "weekday", "yearday") for part in ("sin", "cos")]
    assert list(names) == [*two[:4], "weekend", *two[4:], "holiday"]
    expected = np.stack([slow_calendar(stamp, zone, holidays) for stamp in stamps])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_client_gets_the_calendar_of_its_own_stamps(make_series):
    starts = ["2013-03-30T22:00", "2013-01-01", "2012-12-31T05:00"]
    series = make_series([np.arange(100), np.arange(60), np.arange(30)], starts=starts)
    for population in (series, series.select([1]), series.select([2, 0])):  # on one grid, and far apart
        found = add_calendar(population, EVERY, "Europe/London", ["2013-01-01"])
        assert torch.equal(found.values[:, :1], population.values)
        for client in range(len(population)):
            _, own = calendar_features(population.stamps_of(client), EVERY, "Europe/London", ["2013-01-01"])
            assert torch.equal(found.of(client)[:, 1:], torch.from_numpy(own))
        assert found.known == found.channel_names[1:]
        assert found.channel_names[0] == "target"
        assert found.rules[-1].startswith(
            "calendar on the clock of Europe/London: hour_sin, hour_cos, weekday_sin"
        )
    # odd phases are no common grid
    odd = make_series([np.arange(50)] * 2, starts=["2013-01-01", "2013-01-01T00:07"])
    assert not torch.equal(add_calendar(odd, ("hour",)).of(0)[:, 1], add_calendar(odd, ("hour",)).of(1)[:, 1])


def test_a_window_sees_the_calendar_of_the_forecast_hours(make_series):
    series = add_calendar(make_series([np.random.default_rng(0).random(400)]), ("hour",), "UTC")
    windows = make_windows(series, WindowSpec(lookback=24, horizon=6))
    rows = torch.tensor([0, 30])
    x, _ = windows.gather(rows)
    back = (x * windows.std[0] + windows.mean[0])[..., 1]
    hours = torch.arange(24)[-6:] + 6 + rows[:, None]
    torch.testing.assert_close(back[:, -6:], torch.sin(2 * torch.pi * hours / 24), rtol=0, atol=1e-5)


def test_the_example_of_the_documentation_runs():
    section = PAGE.read_text().split("## Covariates and the calendar")[1].split("\n## ")[0]
    code = dedent(re.search(r"\n\n((?:    .*\n|\n)+)", section).group(1))
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    said = re.search(r"channel_names +# (.*)", code).group(1).split(", ")
    assert list(names["series"].channel_names) == said
    windows, hours = names["windows"], torch.arange(48, 72)
    sine = names["x"][0, 0, -24:, 1] * windows.std[0, 1] + windows.mean[0, 1]
    first = windows.series.starts[0].astype(object)
    shift = first.hour + first.minute / 60
    torch.testing.assert_close(sine, torch.sin(2 * torch.pi * (hours + shift) / 24), rtol=0, atol=1e-5)


def test_no_holidays_no_channel(make_series):
    series = add_calendar(make_series([np.arange(30)]))
    assert series.channel_names[-1] == "yearday_cos"
    assert series.channels == 7


def test_calendars_that_cannot_be_are_refused(make_series):
    series = make_series([np.arange(30)])
    with pytest.raises(DataError, match=r"Unknown calendar feature 'hours'\. Did you mean 'hour'"):
        add_calendar(series, ("hours",))
    with pytest.raises(DataError, match="no time zone 'London'"):
        add_calendar(series, tz="London")
    with pytest.raises(DataError, match="holidays must be dates like '2013-12-25', got \\['Christmas'\\]"):
        add_calendar(series, holidays=["Christmas"])
    with pytest.raises(DataError, match="give no channel"):
        add_calendar(series, ("holiday",))
    with pytest.raises(DataError, match="has a channel 'hour_sin' already"):
        add_calendar(add_calendar(series), ("hour",))
    runs = make_series([np.arange(30)], breaks=torch.tensor([7]))
    for add in (
        add_calendar,
        lambda broken: add_covariate(broken, "t", pd.Series([1.0], pd.DatetimeIndex(["2013"]))),
    ):
        with pytest.raises(DataError, match="Client 'client 0' of source 'handmade' has 2 runs"):
            add(runs)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 5))
def test_a_covariate_is_the_last_value_observed_within_reach(make_series, seed, max_age):
    generator = np.random.default_rng(seed)
    series = make_series([np.zeros(40), np.zeros(25)], starts=["2013-01-01T05:00", "2013-01-01T20:00"])
    minutes = np.sort(generator.choice(3000, size=30, replace=False))
    minutes[0] = 300  # one at a step, so that some step has a value
    minutes = np.unique(minutes)
    stamps = pd.DatetimeIndex(np.datetime64("2013-01-01") + minutes.astype("timedelta64[m]"))
    values = pd.Series(generator.normal(size=len(stamps)).astype(np.float32), stamps)
    values[(generator.random(len(stamps)) < 0.3) & (minutes != 300)] = np.nan
    shuffled = values.iloc[generator.permutation(len(stamps))]
    found = add_covariate(series, "wind", shuffled, max_age=max_age)
    seen = values.dropna()
    for client in range(2):
        for step, stamp in enumerate(series.stamps_of(client)):
            before = seen[seen.index <= stamp]
            fresh = len(before) and stamp - before.index[-1] <= np.timedelta64(max_age, "h")
            expected = before.iloc[-1] if fresh else np.nan
            np.testing.assert_equal(found.of(client)[step, 1].item(), float(expected))


def test_a_covariate_of_each_client_its_own(make_series):
    series = make_series([np.zeros(30), np.zeros(30)])
    index = pd.date_range("2013-01-01T01:00", periods=30, freq="1h", tz="Europe/Berlin")
    table = pd.DataFrame({"client 1": 1.0, "other": 9.0, "client 0": 0.0}, index)
    found = add_covariate(series, "price", table, known=True)
    assert found.of(0)[:, 1].tolist() == [0.0] * 30
    assert found.of(1)[:, 1].tolist() == [1.0] * 30
    assert found.known == ("price",)
    assert found.rules[-1].startswith(
        "covariate price: the last value at or before a step, at most 3 steps old"
    )
    both = add_covariate(found, "temp", table["other"].tz_convert(None))
    assert both.channel_names == ("target", "price", "temp")
    assert both.known == ("price",)


def test_covariates_that_do_not_fit_are_refused(make_series):
    series = make_series([np.zeros(30), np.zeros(30)])
    hours = pd.date_range("2013-01-01", periods=3, freq="1h")
    cases = {
        "no column for 1 clients: 'client 1'": pd.DataFrame({"client 0": 1.0}, hours),
        "stamp 2013-01-01T00:00:00.000000 is missing or comes more": pd.Series(1.0, hours[[0, 0, 1]]),
        "infinite at 2013-01-01T01:00": pd.Series([1, np.inf, 2], hours),
        "is not numeric": pd.Series(["low", "high", "low"], hours),
        "needs a DatetimeIndex, got RangeIndex": pd.Series([1.0, 2, 3]),
        "no value for any step of source 'handmade': it runs from 2014-01-01": pd.Series(
            1.0, hours + pd.Timedelta("365D")
        ),
        "it is missing everywhere": pd.Series(np.nan, hours),
    }
    for message, table in cases.items():
        with pytest.raises(DataError, match=message):
            add_covariate(series, "t", table)
    with pytest.raises(DataError, match="max_age must not be negative, got -1"):
        add_covariate(series, "t", pd.Series(1.0, hours), max_age=-1)


def test_weather_of_the_shared_sample_joins_london(make_series, shared_data):
    folder = shared_data / "electricity" / "lcl_london_2013"
    files = sorted(folder.glob("*weather*"))
    if not files:
        pytest.skip("no weather beside the sample")
    weather = pd.read_csv(files[0], parse_dates=[0], index_col=0)
    weather = weather[~weather.index.duplicated()]
    series = make_series([np.zeros(17520)], step_seconds=1800)
    found = add_covariate(series, "temperature", weather.iloc[:, 0], max_age=6)
    share = float((~found.values[:, 1].isnan()).float().mean())
    assert share > 0.9
    assert found.values[:, 1].nan_to_num(10).abs().max() < 45
