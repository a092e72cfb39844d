"""Runs within a client, and channels known in advance."""

import numpy as np
import pytest
import torch

from data_loaders import DataError, WindowSpec, make_windows
from data_loaders.runs import fill_gaps

SMALL = WindowSpec(lookback=3, horizon=2, on_short="drop")


def breaks(*rows):
    return torch.tensor(rows, dtype=torch.int64)


def test_runs_of_one_client_give_the_windows_of_as_many_clients(make_series):
    """Where spans do not matter, a break is as good as an offset."""
    runs = [np.random.default_rng(k).normal(size=n).astype(np.float32) for k, n in enumerate((40, 7, 4, 60))]
    tail = np.random.default_rng(9).normal(size=200).astype(np.float32)
    edges = np.cumsum([len(run) for run in runs])
    one = make_windows(make_series([np.concatenate([*runs, tail])], breaks=breaks(*edges)), SMALL)
    counted = sum(max(0, len(run) - 4) for run in runs)
    inside = int(0.6 * (edges[-1] + 200)) - edges[-1]
    assert one.count("train").tolist() == [counted + inside - 4]
    rows = one.positions("train", torch.tensor([0]), torch.arange(counted)[None])[0]
    targets = torch.cat([torch.from_numpy(run).unfold(0, 2, 1)[3:] for run in runs])
    _, y = one.gather(rows)
    torch.testing.assert_close(one.unscale(torch.tensor([0]), y[None])[0], targets, rtol=1e-4, atol=1e-5)


def test_the_naive_error_does_not_pair_across_a_break(make_series):
    values = np.array([0, 1, 2, 50, 51, 52, 53, 54, 55, 56] * 4, np.float32)
    at = [row for ten in range(4) for row in (10 * ten, 10 * ten + 3) if row]
    dense = WindowSpec(lookback=3, horizon=2, validation_stride=1)
    persistence = make_windows(make_series([values], step_seconds=0.1, breaks=breaks(*at)), dense)
    assert persistence.naive_error.item() == 1
    hourly = np.random.default_rng(0).gamma(2, size=300).astype(np.float32)
    windows = make_windows(make_series([hourly], breaks=breaks(100)), SMALL)
    pairs = [abs(hourly[t] - hourly[t - 24]) for t in range(24, 180) if not t - 24 < 100 <= t]
    assert windows.naive_error.item() == pytest.approx(np.mean(pairs), rel=1e-6)


def test_ten_hertz_has_a_day_and_the_last_value_as_its_naive_forecast(make_series):
    values = np.random.default_rng(0).normal(size=500).astype(np.float32)
    windows = make_windows(make_series([values], step_seconds=0.1), SMALL)
    assert windows.days.stride == 864_000
    assert windows.profiles(0).shape == (0, 864_000)
    assert windows.naive_error.item() == pytest.approx(np.abs(np.diff(values[:300])).mean(), rel=1e-6)
    # a minute's steps still have a day
    minutes = make_windows(make_series([np.arange(4000)], step_seconds=60.0), SMALL)
    assert minutes.naive_error.item() == 1440


def test_days_come_from_the_first_run_whose_midnights_are_known(make_series):
    series = make_series([np.arange(400)] * 2, starts=["2013-01-01T23:00", "2013-01-01"])
    whole = make_windows(series, SMALL).days.count().tolist()
    assert whole == [9, 10]
    cut = make_series(
        [np.arange(400)] * 2, starts=["2013-01-01T23:00", "2013-01-01"], breaks=breaks(48, 400 + 72)
    )
    windows = make_windows(cut, SMALL)
    assert windows.days.count().tolist() == [1, 3]
    first = windows.unscale(torch.zeros(1, dtype=torch.int64), windows.profiles(0)[None])[0]
    assert first.round()[0].tolist() == list(range(1, 25))


def test_a_gap_ends_where_its_run_does():
    nan = np.nan
    values = np.array([1, nan, nan, nan, nan, 6, nan, 8], np.float32)[:, None]
    assert np.isnan(fill_gaps(values, 2)[1:5]).all()
    filled = fill_gaps(values, 2, np.array([3]))[:, 0]
    np.testing.assert_array_equal(filled, np.array([1, 1, 1, nan, nan, 6, 6, 8], np.float32))


def test_a_channel_known_in_advance_is_seen_a_horizon_ahead(make_series):
    steps = np.arange(60, dtype=np.float32)
    series = make_series(
        [np.stack([steps, steps, steps], axis=1)], channel_names=("load", "wind", "hour"), known=("hour",)
    )
    windows = make_windows(series, SMALL)
    x, y = windows.gather(torch.tensor([7]))
    back = (x * windows.std[0] + windows.mean[0]).round()[0]
    assert back[:, 0].tolist() == back[:, 1].tolist() == [7, 8, 9]
    assert back[:, 2].tolist() == [9, 10, 11]
    assert windows.unscale(torch.tensor([0]), y).round().tolist() == [[10, 11]]
    # the last rows of the known channel are the forecast hours' own
    assert back[-2:, 2].tolist() == [10, 11]


def test_only_the_hours_a_window_sees_of_a_known_channel_must_be_there(make_series):
    values = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    values[:2, 1] = np.nan
    spec = WindowSpec(lookback=3, horizon=2, max_gap=0, on_short="drop")
    plain = make_windows(make_series([values]), spec)
    ahead = make_windows(make_series([values], channel_names=("a", "b"), known=("b",)), spec)
    assert int(plain.positions("train", torch.tensor([0]), torch.tensor([[0]]))) == 2
    assert int(ahead.positions("train", torch.tensor([0]), torch.tensor([[0]]))) == 0
    assert ahead.to("meta").ahead.device.type == "meta"
    assert plain.ahead is None


def test_without_known_channels_inputs_are_views_of_one_block(make_series):
    windows = make_windows(make_series([np.arange(100)]), SMALL)
    x, y = windows.gather(torch.tensor([3, 5]))
    assert x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


def test_what_the_engine_asks_of_every_population(make_series):
    windows = make_windows(make_series([np.zeros((50, 2)), np.zeros((60, 2))]), SMALL)
    assert windows.task == "forecast"
    assert windows.classes == ()
    assert windows.shape == (3, 2, 2)
    assert windows.clients == ("client 0", "client 1")


def test_features_are_days_where_all_clients_have_them_else_windows(make_series):
    long, short = np.arange(200, dtype=np.float32), np.arange(60, dtype=np.float32)
    days = make_windows(make_series([long, long[::-1].copy()]), SMALL)
    assert torch.equal(days.features(1), days.profiles(1))
    mixed = make_windows(make_series([long, short]), SMALL)
    assert [mixed.features(client).shape for client in range(2)] == [(58, 5), (16, 5)]
    both = [one[: mixed.spec.bounds(len(one))["train"][1]] for one in (long, short)]
    mean = np.mean([one.mean() for one in both])
    std = np.sqrt(np.mean([one.var() + (one.mean() - mean) ** 2 for one in both]))
    for client, one in enumerate((long, short)):
        raw = torch.from_numpy((one - mean) / std)[:11]
        torch.testing.assert_close(mixed.features(client)[:4], raw.unfold(0, 5, 2), rtol=1e-4, atol=1e-5)
    few = make_windows(make_series([long, np.arange(12)]), WindowSpec(3, 2, validation_stride=1))
    assert few.features(1).shape == (2, 5)
    odd = make_windows(make_series([long], step_seconds=7000), SMALL)
    assert odd.features(0).shape[1] == 5


def test_features_of_windows_hold_all_channels_and_the_target_on_one_scale(make_series):
    first = np.stack([np.arange(60.0), np.sin(np.arange(60))], 1)
    windows = make_windows(make_series([first, first * 3 + 5], step_seconds=7000), SMALL)
    assert windows.features(0).shape[1] == 3 * 2 + 2
    near, far = (windows.features(client) for client in range(2))
    ratio = (far[1:] - far[:1]) / (near[1:] - near[:1])
    torch.testing.assert_close(ratio, torch.full_like(ratio, 3.0), rtol=1e-3, atol=1e-3)


def test_days_of_mostly_zeros_keep_their_zeros_together(make_series):
    rng = np.random.default_rng(0)
    idle = [np.where(rng.random(400) < 0.1, size, 0.0) for size in (3.0, 9.0)]
    windows = make_windows(make_series(idle), SMALL)
    assert windows.idle
    zeros = [windows.features(k)[windows.profiles(k) == windows.profiles(k).min()] for k in range(2)]
    assert float(torch.cat(zeros).std()) < 1e-5
    busy = make_windows(make_series([one + 1 for one in idle]), SMALL)
    assert not busy.idle
    assert torch.equal(busy.features(0), busy.profiles(0))


def test_runs_that_are_too_short_are_part_of_the_remedy(make_series):
    series = make_series([np.arange(40)], breaks=breaks(*range(4, 40, 4)))
    with pytest.raises(DataError, match=r"without gaps beyond max_gap=3 and within one run"):
        make_windows(series, SMALL)


def test_infinities_name_client_step_and_stamp(make_series):
    values = np.zeros(100, np.float32)
    values[7] = -np.inf
    with pytest.raises(
        DataError, match=r"'client 0' has infinite values, the first at step 7 \(2013-01-01T00:00:00\.7"
    ):
        make_windows(make_series([values], step_seconds=0.1), SMALL)
    with pytest.raises(
        DataError, match=r"'client 0' has infinite values, the first at step 7\. Mark missing"
    ):
        make_windows(make_series([values], breaks=breaks(5)), SMALL)
