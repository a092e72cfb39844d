from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import DataError
from data_loaders.grid import detect_step, grid_rules, on_grid

HOUR = pd.date_range("2013-01-01", periods=6, freq="1h")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([0.1, 1, 60, 900, 3600, 7000]),
    st.sampled_from(["sum", "mean", "last"]),
)
def test_steps_hold_what_pandas_says(seed, step, how):
    generator = np.random.default_rng(seed)
    micros = np.unique(generator.integers(0, int(40 * step * 1e6), size=50)) + int(4e14)
    values = generator.normal(size=len(micros))
    values[generator.random(len(micros)) < 0.2] = np.nan
    values[0], values[-1] = 1.0, 2.0
    found = on_grid(micros.astype("datetime64[us]"), values, step, how)
    slots = pd.Series(micros // round(step * 1e6))
    groups = pd.Series(values).dropna().groupby(slots)
    expected = getattr(groups, how)()
    dense = np.full(int(slots.iloc[-1] - slots.iloc[0]) + 1, np.nan)
    dense[expected.index.to_numpy() - int(slots.iloc[0])] = expected.to_numpy()
    np.testing.assert_allclose(found.values, dense.astype(np.float32), rtol=1e-5)
    assert found.start.astype(np.int64) == int(slots.iloc[0]) * round(step * 1e6)
    assert found.counts["without a value"] == np.isnan(values).sum()


def test_what_is_off_the_grid_repeated_or_contradicted_is_counted():
    day, times = "2012-12-19T", ("12:00", "12:37:27", "12:30", "12:30", "12:30", "14:00", "", "14:30")
    stamps = np.array([day + time if time else "NaT" for time in times], "datetime64[us]")
    found = on_grid(stamps, [1, 9, 2, 2, 3, 4, 5, np.nan], 1800, order="sort")
    np.testing.assert_array_equal(found.values, np.array([1, 2, np.nan, np.nan, 4], np.float32))
    assert found.start == np.datetime64("2012-12-19T12:00")
    left_out = {"rows": 8, "without a stamp": 1, "without a value": 1, "off the grid": 1, "duplicated": 1}
    assert found.counts == Counter(left_out | {"conflicting": 1})
    assert grid_rules(found.counts + found.counts)[0] == "2 of 16 rows have no stamp and are left out"
    assert len(grid_rules(found.counts)) == 5
    assert grid_rules(Counter(rows=3)) == ()


def test_a_sum_with_a_missing_part_is_missing_and_too_few_readings_too():
    stamps = pd.date_range("2013-01-01T00:30", periods=7, freq="15min")
    values = np.array([[1, 10.0], [2, np.nan], [3, 30], [4, 40], [5, 50], [6, 60], [7, 70]])
    found = on_grid(stamps, values, 3600, "sum")
    np.testing.assert_array_equal(found.values, np.array([[3, np.nan], [18, 180], [7, 70]], np.float32))
    whole = on_grid(stamps, values, 3600, "sum", least=4)
    np.testing.assert_array_equal(whole.values, np.array([[np.nan] * 2, [18, 180], [np.nan] * 2], np.float32))
    mean = on_grid(stamps, values, 3600, "mean")
    np.testing.assert_array_equal(mean.values, np.array([[1.5, 10], [4.5, 45], [7, 70]], np.float32))


def test_duplicates_are_not_summed_twice():
    stamps = np.repeat(HOUR[:2], 2)
    assert on_grid(stamps, [1, 1, 2, 5], 3600 * 24, "sum").values.tolist() == [3]


def test_the_grid_has_the_phase_of_most_stamps_and_ten_hertz_is_exact():
    kathmandu = HOUR - pd.Timedelta("15min")
    found = on_grid(kathmandu.append(HOUR[5:]), range(7), 3600)
    assert found.start == np.datetime64("2012-12-31T23:45")
    assert found.values.tolist() == list(range(6))
    assert found.counts["off the grid"] == 1
    run = 1.57e9 + 0.3 + 0.1 * np.arange(36000)
    fast = on_grid(run, run - run[0], 0.1, tolerance=0.001)
    assert len(fast.values) == 36000
    assert not np.isnan(fast.values).any()
    third = on_grid(np.arange(3000) / 30, np.arange(3000), 1 / 30)
    np.testing.assert_array_equal(third.values, np.arange(3000, dtype=np.float32))


def test_a_tolerance_takes_the_nearest_step():
    found = on_grid([0.0, 1.04, 1.97, 3.2], [0, 1, 2, 3], 1.0, tolerance=0.05)
    assert found.values.tolist() == [0, 1, 2]
    assert found.counts["off the grid"] == 1


def test_bad_rows_are_named():
    with pytest.raises(
        DataError, match=r"Client 'b': infinite value at 2013-01-01T02:00:00\.000000 \(1 such rows"
    ):
        on_grid(HOUR, [0, 1, np.inf, 3, 4, 5], 3600, client="b")
    with pytest.raises(
        DataError, match=r"Client 'b': the clock goes back from 2013-01-01T05\S* to 2013-01-01T00\S* "
    ):
        on_grid(HOUR.append(HOUR[:1]), range(7), 3600, client="b")
    with pytest.raises(DataError, match=r"6 stamps do not fit values of shape \(5,\)"):
        on_grid(HOUR, range(5), 3600)
    with pytest.raises(DataError, match="how must be one of exact, sum, mean, last, got 'max'"):
        on_grid(HOUR, range(6), 3600, "max")
    with pytest.raises(DataError, match="at least a microsecond, got 0"):
        on_grid(HOUR, range(6), 0)
    with pytest.raises(DataError, match=r"Client 'b': stamps from 2013\S* to 2099\S* make \d+ steps of 1 s"):
        on_grid([*HOUR.to_numpy(), np.datetime64("2099-01-01")], range(7), 1, client="b")


def test_no_reading_gives_no_step():
    found = on_grid(HOUR, np.full((6, 2), np.nan), 3600)
    assert found.values.shape == (0, 2)
    assert np.isnat(found.start)
    assert on_grid([], [], 3600).values.shape == (0,)


def test_the_step_is_the_most_frequent_difference():
    assert detect_step(HOUR[[0, 1, 2, 4, 5, 5]]) == 3600
    assert detect_step(1.5e9 + 0.1 * np.arange(50)) == pytest.approx(0.1)
    with pytest.raises(
        DataError, match=r"Client 'c': stamps are irregular: the most frequent steps are 1 s \(25%\)"
    ):
        detect_step([0, 1, 3, 6, 10], client="c")
    with pytest.raises(DataError, match="fewer than two different stamps"):
        detect_step(HOUR[:1])


def test_a_grid_takes_readings_as_they_are(shared_data):
    rows = pd.read_csv(shared_data / "raw_samples" / "lcl_official" / "MAC000002.csv", skipinitialspace=True)
    rows.columns = rows.columns.str.strip()
    values = pd.to_numeric(rows["KWH/hh (per half hour)"], errors="coerce")
    found = on_grid(
        pd.to_datetime(rows["DateTime"], format="ISO8601"), values, 1800, client="MAC000002", order="sort"
    )
    assert found.counts["duplicated"] == 17
    assert found.counts["without a value"] == 1
    usable = len(rows) - 18
    assert np.count_nonzero(~np.isnan(found.values)) == usable
    assert found.values[0] == np.float32(values.iloc[0])
