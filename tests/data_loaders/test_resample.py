import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import DataError
from data_loaders.grid import resample_series


def slow_groups(values, size, how, least):
    rows = []
    for begin in range(0, len(values) - size + 1, size):
        group = values[begin : begin + size]
        seen = group[~np.isnan(group)]
        if how == "sum":
            rows.append(group.sum() if len(seen) == size else np.nan)
        else:
            rows.append(
                (seen.mean() if how == "mean" else seen[-1]) if len(seen) >= max(1, least) else np.nan
            )
    return rows


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(2, 5),
    st.sampled_from(["sum", "mean", "last"]),
    st.sampled_from([0.4, 1.0]),
)
def test_groups_are_those_of_the_slow_way(make_series, seed, size, how, share):
    generator = np.random.default_rng(seed)
    runs = [generator.normal(size=int(generator.integers(size, 20))).astype(np.float32) for _ in range(4)]
    for run in runs:
        run[generator.random(len(run)) < 0.2] = np.nan
    # two clients of two runs each, starting on a multiple of the new step
    edges = np.cumsum([len(run) for run in runs])
    arrays = [np.concatenate(runs[:2]), np.concatenate(runs[2:])]
    series = make_series(
        arrays, step_seconds=0.1, starts=["1970-01-01"] * 2, breaks=torch.tensor([edges[0], edges[2]])
    )
    found = resample_series(series, 0.1 * size, how, min_share=share)
    expected = [slow_groups(run.astype(np.float64), size, how, share * size - 1e-9) for run in runs]
    np.testing.assert_allclose(found.values[:, 0].numpy(), np.concatenate(expected), rtol=1e-5, atol=1e-6)
    lengths = np.cumsum([len(run) for run in expected])
    assert found.breaks.tolist() == [lengths[0], lengths[2]]
    assert found.offsets.tolist() == [0, lengths[1], lengths[3]]
    assert found.step_seconds == pytest.approx(0.1 * size)


def test_hours_begin_at_the_hour(make_series):
    starts = ["2013-01-01T00:30", "2013-01-01T02:00"]
    series = make_series([np.arange(10), np.arange(9)], step_seconds=1800, starts=starts)
    hourly = resample_series(series, 3600, "sum")
    assert hourly.of(0)[:, 0].tolist() == [3, 7, 11, 15]
    assert hourly.of(1)[:, 0].tolist() == [1, 5, 9, 13]
    assert hourly.starts.astype(str).tolist() == ["2013-01-01T01:00:00", "2013-01-01T02:00:00"]
    assert hourly.rules[-1] == "2 steps of 1800 s make one of 3600 s: sum"
    frame = pd.Series(np.arange(9.0), pd.date_range(starts[1], periods=9, freq="30min"))
    assert hourly.of(1)[:, 0].tolist() == frame.resample("1h").sum()[:4].tolist()
    assert resample_series(series, 1800) is series


def test_channels_may_differ(make_series):
    values = np.array([[1, 10, np.nan], [2, 20, 5], [3, 30, 6], [4, np.nan, 7]])
    found = resample_series(make_series([values]), 7200, ("sum", "mean", "last"), min_share=0.5)
    np.testing.assert_array_equal(found.values.numpy(), [[3, 15, 5], [7, 30, 7]])


def test_what_is_too_short_is_dropped_and_a_lost_first_run_keeps_its_stamp(make_series):
    arrays = [np.arange(3), np.arange(12)]
    series = make_series(arrays, starts=["1970-01-01"] * 2, breaks=torch.tensor([3 + 2]))
    found = resample_series(series, 4 * 3600)
    assert found.clients == ("client 1",)
    assert found.dropped[0].client == "client 0"
    assert found.dropped[0].reason.startswith("resampling: no 4 steps in a row")
    np.testing.assert_array_equal(found.values[:, 0], [np.nan, 3.5, 7.5])
    assert found.breaks.tolist() == [1]
    with pytest.raises(DataError, match="2 runs"):
        found.stamps_of(0)


def test_all_problems_come_in_one_message(make_series):
    with pytest.raises(DataError) as caught:
        resample_series(make_series([np.arange(9)]), 5400, ("sum", "max"), min_share=0)
    assert caught.value.problems == (
        "step_seconds must be a multiple of the 3600 s of source 'handmade', got 5400. Series are made coarser, not "
        "finer.",
        "how must be one of sum, mean, last, or one for each channel, got sum, max.",
        "min_share must be a share above 0 and up to 1, got 0.",
    )
    with pytest.raises(DataError, match="coarser, not finer"):
        resample_series(make_series([np.arange(9)]), 1800)
