import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import DataError
from data_loaders.clocks import as_stamps, check_order, to_utc

ZONES = (
    "Europe/London",
    "Europe/Lisbon",
    "Europe/Oslo",
    "Europe/Dublin",
    "America/New_York",
    "Australia/Lord_Howe",
)


def text(stamps):
    return [str(stamp)[:16] for stamp in stamps]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from([1, 5, 15, 30]),
    st.integers(0, 2**31),
    st.floats(0, 0.4),
)
def test_what_a_local_clock_recorded_in_order_comes_back(zone, minutes, seed, gaps):
    generator = np.random.default_rng(seed)
    utc = pd.date_range("2019-01-01", "2020-01-01", freq=f"{minutes}min")
    changes = np.flatnonzero(np.diff(_offsets(utc, zone)))
    around = np.unique(np.concatenate([np.arange(c - 400, c + 400) for c in changes]))
    utc = utc[around[(around >= 0) & (around < len(utc))]]
    kept = utc[generator.random(len(utc)) >= gaps] if gaps < 0.2 else utc
    local = kept.tz_localize("UTC").tz_convert(zone).tz_localize(None)
    try:
        found = to_utc(local, zone)
    except DataError:
        found = None
    if found is None:  # with rows missing, the order of the rest may not tell
        assert len(kept) < len(utc)
        return
    if len(kept) == len(utc):
        np.testing.assert_array_equal(found, utc.to_numpy().astype("datetime64[us]"))
    # whatever was missing: the right clock time, and no decrease
    back = pd.DatetimeIndex(found).tz_localize("UTC").tz_convert(zone).tz_localize(None)
    assert (back == local).all()
    assert (np.diff(found) >= np.timedelta64(0, "us")).all()


def _offsets(utc, zone):
    local = utc.tz_localize("UTC").tz_convert(zone).tz_localize(None)
    return (local - utc).total_seconds().to_numpy()


def test_the_hour_that_comes_twice_is_summer_time_first():
    local = [
        "2014-10-26T00:30",
        "2014-10-26T01:00",
        "2014-10-26T01:30",
        "2014-10-26T01:00",
        "2014-10-26T01:30",
    ]
    expected = [
        "2014-10-25T23:30",
        "2014-10-26T00:00",
        "2014-10-26T00:30",
        "2014-10-26T01:00",
        "2014-10-26T01:30",
    ]
    assert text(to_utc(local, "Europe/Lisbon")) == expected
    # sorted by the local clock, or hourly: the pairs tell
    by_clock = [local[0], local[1], local[3], local[2], local[4]]
    assert text(to_utc(by_clock, "Europe/Lisbon")) == [expected[i] for i in (0, 1, 3, 2, 4)]
    assert text(to_utc(local[1:4:2], "Europe/Lisbon")) == ["2014-10-26T00:00", "2014-10-26T01:00"]
    # once only: summer time
    assert text(to_utc(local[:3], "Europe/Lisbon")) == expected[:3]


def test_rules_for_the_hour_that_comes_twice():
    local = ["2014-10-26T01:30", "2014-10-26T02:30", "2013-10-27T01:30"]
    zone = "Europe/London"
    assert text(to_utc(local, zone, ambiguous="summer")) == [
        "2014-10-26T00:30",
        "2014-10-26T02:30",
        "2013-10-27T00:30",
    ]
    assert text(to_utc(local, zone, ambiguous="winter")) == [
        "2014-10-26T01:30",
        "2014-10-26T02:30",
        "2013-10-27T01:30",
    ]
    assert np.isnat(to_utc(local, zone, ambiguous="missing")).tolist() == [True, False, True]
    with pytest.raises(
        DataError, match=r"Client 'm1': stamp 2014-10-26T01:30:00\S* comes twice in Europe/London"
    ):
        to_utc(local, zone, ambiguous="error", client="m1")


def test_order_that_does_not_tell_is_refused():
    night = "2014-10-26T01:"
    for minutes in (("00", "00", "30"), ("30", "00", "30", "00"), ("00", "00", "00")):
        with pytest.raises(
            DataError, match=r"Client 'a': the order of the rows does not tell summer from winter"
        ):
            to_utc([night + m for m in minutes], "Europe/London", client="a")


def test_rules_for_the_hour_that_is_missing():
    local = ["2019-03-31T01:59", "2019-03-31T02:30", "2019-03-31T03:00"]
    with pytest.raises(
        DataError, match=r"Client 'ev': stamp 2019-03-31T02:30\S* does not exist in Europe/Oslo"
    ):
        to_utc(local, "Europe/Oslo", client="ev")
    assert np.isnat(to_utc(local, "Europe/Oslo", nonexistent="missing")).tolist() == [False, True, False]
    shifted = to_utc(local, "Europe/Oslo", ambiguous="summer", nonexistent="shift")
    assert text(shifted) == ["2019-03-31T00:59", "2019-03-31T01:30", "2019-03-31T01:00"]


def test_a_clock_that_goes_back_is_named():
    local = ["2014-06-01T10:00", "2014-06-01T11:00", "2014-06-01T10:30"]
    with pytest.raises(DataError) as caught:
        to_utc(local, "Europe/London", client="MAC7")
    assert str(caught.value).startswith(
        "Client 'MAC7': the clock goes back from 2014-06-01T11:00:00.000000 to 2014-06-01T10:30:00.000000 at row 2, "
        "and no clock change explains it"
    )
    assert len(to_utc(local, "Europe/London", ambiguous="summer")) == 3
    check_order(as_stamps([0.0, np.nan, 1.0]))
    with pytest.raises(DataError, match="goes back"):
        check_order(as_stamps([1.0, np.nan, 0.0]))


def test_stamps_of_all_kinds():
    expected = np.array(["2013-01-01T00:00:00.5", "NaT"], "datetime64[us]")
    seconds = expected[0].astype(np.int64) / 1e6
    kinds = [
        np.array([seconds, np.nan]),
        pd.Series(expected),
        pd.DatetimeIndex(expected),
        pd.DatetimeIndex(expected).tz_localize("UTC").tz_convert("Asia/Kathmandu"),
        pd.Series(pd.DatetimeIndex(expected).tz_localize("UTC").tz_convert("Asia/Tokyo")),
        ["2013-01-01T00:00:00.5", "NaT"],
    ]
    for stamps in kinds:
        found = as_stamps(stamps)
        assert found.dtype == np.dtype("datetime64[us]")
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(to_utc(kinds[3], "Europe/London"), expected)
    with pytest.raises(DataError, match="neither ISO text nor datetimes"):
        as_stamps(["01.02.2013 10:00"])
    with pytest.raises(DataError, match="no time zone 'Europe/Londn'"):
        to_utc(expected, "Europe/Londn")
