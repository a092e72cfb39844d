from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import SPANS, DataError, WindowSpec, make_windows

SMALL = WindowSpec(lookback=3, horizon=2, on_short="drop")


def reference_fill(values, max_gap, breaks=()):
    """The gap rule, one value after another, in every run by itself."""
    filled = values.copy()
    edges = [0, *breaks, len(values)]
    for begin, stop in pairwise(edges):
        for column in range(values.shape[1]):
            row = begin
            while row < stop:
                end = row
                while end < stop and np.isnan(values[end, column]):
                    end += 1
                if begin < row < end <= row + max_gap:
                    filled[row:end, column] = values[row - 1, column]
                row = end + 1
    return filled


def reference_windows(values, spec, span, breaks=(), known=()):
    """Every window of one client in a span, by trying every start: rows from the client's start."""
    steps, width, filled = len(values), spec.width, reference_fill(values, spec.max_gap, breaks)
    first_end = int(steps * spec.train + 1e-6)
    second_end = int(steps * (spec.train + spec.validation) + 1e-6)
    begin, end = {
        "train": (0, first_end),
        "validation": (first_end, second_end),
        "test": (second_end, steps),
    }[span]
    stride = spec.stride(span)
    fits = []
    for start in range(steps - width + 1):
        inside = start >= begin if span == "train" else start + spec.lookback >= begin
        if inside and start + width <= end:
            fits.append(start)
    grid = [start for start in fits if (start - fits[0]) % stride == 0]
    return [
        start
        for start in grid
        if not np.isnan(reference_input(filled, spec, start, known)).any()
        and not np.isnan(values[start + spec.lookback : start + width, 0]).any()
        and not any(start < row < start + width for row in breaks)
    ]


def reference_input(filled, spec, start, known=()):
    """What a window sees, channel by channel."""
    columns = []
    for channel in range(filled.shape[1]):
        first = start + spec.horizon if channel in known else start
        columns.append(filled[first : first + spec.lookback, channel])
    return np.stack(columns, axis=1)


def all_positions(windows, span):
    """The rows of all windows, one list a client."""
    counts = windows.count(span).tolist()
    return [
        windows.positions(span, torch.tensor([client]), torch.arange(count)[None])[0].tolist()
        for client, count in enumerate(counts)
    ]


@st.composite
def populations(draw):
    """Clients of unequal length in one or more runs, one to three channels, with gaps of all lengths; and a spec.

    Returns the clients' arrays, their breaks, the numbers of the channels known in advance, and the spec.
    """
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels, gaps = draw(st.integers(1, 3)), draw(st.sampled_from([0.0, 0.05, 0.3]))
    broken = draw(st.booleans())
    known = [channel for channel in range(1, channels) if draw(st.booleans())]
    arrays, breaks = [], []
    for _ in range(draw(st.integers(1, 4))):
        values = generator.normal(size=(int(generator.integers(1, 70)), channels)).astype(np.float32)
        for start in np.flatnonzero(generator.random(len(values)) < gaps):
            values[start : start + int(generator.integers(1, 6)), int(generator.integers(channels))] = np.nan
        arrays.append(values)
        cuts = generator.integers(1, max(2, len(values)), size=int(generator.integers(0, 4)))
        breaks.append(sorted({int(cut) for cut in cuts if broken and cut < len(values)}))
    spec = WindowSpec(
        lookback=draw(st.integers(1, 8)),
        horizon=draw(st.integers(1, 4)),
        train=draw(st.sampled_from([0.3, 0.5, 0.6])),
        validation=draw(st.sampled_from([0.1, 0.2, 0.35])),
        train_stride=draw(st.integers(1, 3)),
        validation_stride=draw(st.integers(1, 7)),
        test_stride=draw(st.integers(1, 3)),
        max_gap=draw(st.integers(0, 4)),
        on_short="drop",
    )
    return arrays, breaks, known, spec


def series_of(make_series, arrays, breaks, known):
    """The population as a series: channels are named by their number."""
    starts = np.cumsum([0, *(len(array) for array in arrays)])
    rows = [start + cut for start, cuts in zip(starts, breaks, strict=False) for cut in cuts]
    names = tuple(str(channel) for channel in range(arrays[0].shape[1])) if known else ()
    return make_series(
        arrays,
        channel_names=names,
        known=tuple(str(channel) for channel in known),
        breaks=torch.tensor(rows, dtype=torch.int64),
    )


@settings(max_examples=200, deadline=None)
@given(populations())
def test_windows_are_exactly_those_of_the_reference(make_series, population):
    arrays, breaks, known, spec = population
    expected = {
        span: [reference_windows(values, spec, span, breaks[k], known) for k, values in enumerate(arrays)]
        for span in SPANS
    }
    kept = [client for client in range(len(arrays)) if all(expected[span][client] for span in SPANS)]
    series = series_of(make_series, arrays, breaks, known)
    if not kept:
        with pytest.raises(DataError, match="is left"):
            make_windows(series, spec)
        return
    windows = make_windows(series, spec)
    assert windows.clients == tuple(series.clients[client] for client in kept)
    assert {item.client for item in windows.series.dropped} == set(series.clients) - set(windows.clients)
    assert [windows.series.breaks_of(k).tolist() for k in range(len(kept))] == [breaks[k] for k in kept]
    for span in SPANS:
        begins = windows.series.offsets.tolist()
        relative = [[row - begins[k] for row in rows] for k, rows in enumerate(all_positions(windows, span))]
        assert relative == [expected[span][client] for client in kept]


@settings(max_examples=80, deadline=None)
@given(populations())
def test_gathered_windows_hold_the_clients_own_values(make_series, population):
    arrays, breaks, known, spec = population
    series = series_of(make_series, arrays, breaks, known)
    try:
        windows = make_windows(series, spec)
    except DataError:
        return
    for span in SPANS:
        for client, rows in enumerate(all_positions(windows, span)):
            number = series.clients.index(windows.clients[client])
            values = arrays[number]
            mean, std = windows.mean[client].numpy(), windows.std[client].numpy()
            scaled = (reference_fill(values, spec.max_gap, breaks[number]) - mean) / std
            begin = int(windows.series.offsets[client])
            x, y = windows.gather(torch.tensor(rows))
            assert x.shape == (len(rows), spec.lookback, values.shape[1])
            assert y.shape == (len(rows), spec.horizon)
            assert x.isfinite().all()
            assert y.isfinite().all()
            for place, row in enumerate(rows):
                start = row - begin
                expected = reference_input(scaled, spec, start, known)
                torch.testing.assert_close(x[place], torch.from_numpy(expected))
                target = values[start + spec.lookback : start + spec.width, :1]
                back = windows.unscale(torch.tensor([client]), y[place][None])[0]
                torch.testing.assert_close(back, torch.from_numpy(target[:, 0]), rtol=1e-4, atol=1e-5)


def test_spans_are_chronological_and_their_targets_disjoint(make_series):
    windows = make_windows(make_series([np.arange(100), np.arange(63)]), SMALL)
    for client in range(2):
        targets = []
        for span in SPANS:
            rows = np.array(all_positions(windows, span)[client])
            targets.append({row + 3 + step for row in rows for step in range(2)})
        train, validation, test = targets
        assert max(train) < min(validation)
        assert max(validation) < min(test)


def test_a_training_window_lies_wholly_in_the_training_span(make_series):
    windows = make_windows(make_series([np.arange(100)]), SMALL)
    rows = all_positions(windows, "train")[0]
    assert rows == list(range(56))
    assert all_positions(windows, "validation")[0][0] == 57
    assert all_positions(windows, "test")[0] == list(range(77, 96))


def test_positions_takes_many_clients_and_any_order_of_ranks(make_series):
    windows = make_windows(make_series([np.arange(50), np.arange(80), np.arange(60)]), SMALL)
    ranks = torch.tensor([[3, 0, 1], [2, 2, 7]])
    rows = windows.positions("train", torch.tensor([2, 0]), ranks)
    everything = all_positions(windows, "train")
    assert rows.tolist() == [[everything[2][r] for r in (3, 0, 1)], [everything[0][r] for r in (2, 2, 7)]]
    x, y = windows.gather(rows)
    assert x.shape == (2, 3, 3, 1)
    assert y.shape == (2, 3, 2)


@pytest.mark.parametrize("rank", [-1, 26])
def test_a_rank_the_client_does_not_have_is_refused(make_series, rank):
    windows = make_windows(make_series([np.arange(50), np.arange(80)]), SMALL)
    with pytest.raises(
        DataError, match=rf"Client number 0 has 26 windows in this span, rank {rank} was asked for"
    ):
        windows.positions("train", torch.tensor([0]), torch.tensor([[0, rank]]))


def test_the_scaler_sees_the_training_span_only(make_series):
    values = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32)
    changed = values.copy()
    changed[:, 60:] = 1e3 * changed[:, 60:] + 5
    changed[0, 70:90] = np.nan
    before, after = (make_windows(make_series(list(v)), SMALL) for v in (values, changed))
    for name in ("mean", "std", "naive_error"):
        torch.testing.assert_close(getattr(before, name), getattr(after, name), rtol=0, atol=0)
    assert torch.equal(before.series.values[:60], after.series.values[:60])
    assert torch.equal(before.profiles(0), after.profiles(0))


def test_scaled_training_values_have_mean_zero_and_deviation_one(make_series):
    values = np.random.default_rng(0).gamma(2.0, size=(3, 200))
    values[1, 30:50] = np.nan
    windows = make_windows(make_series(list(values)), SMALL)
    for client in range(3):
        train = windows.series.of(client)[:120, 0]
        train = train[~train.isnan()]
        assert abs(float(train.mean())) < 1e-5
        assert float(train.std(correction=0)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e4])
def test_a_constant_client_gets_deviation_one_and_no_naive_scale(make_series, level):
    windows = make_windows(make_series([np.full(100, level)]), SMALL)
    assert windows.std.item() == 1
    assert windows.series.values.abs().max() < 1e-3
    assert windows.naive_error.isnan().all()


def test_the_naive_error_is_that_of_the_same_hour_a_day_ago(make_series):
    values = np.random.default_rng(0).gamma(2.0, size=200).astype(np.float32)
    values[[5, 40, 41]] = np.nan
    windows = make_windows(make_series([values]), SMALL)
    expected = np.nanmean([abs(values[t] - values[t - 24]) for t in range(24, 120)])
    assert windows.naive_error.item() == pytest.approx(expected, rel=1e-6)
    odd = make_windows(make_series([values], step_seconds=7000), SMALL)
    assert odd.naive_error.item() == pytest.approx(np.nanmean(np.abs(np.diff(values[:120]))), rel=1e-6)


def test_profiles_are_complete_training_days_from_midnight(make_series):
    values = np.arange(240, dtype=np.float32)
    values[60] = np.nan
    series = make_series([values, values], step_seconds=3600, starts=["2013-01-01T20:00", "2013-01-01T00:00"])
    windows = make_windows(series, SMALL)
    first = windows.unscale(torch.tensor([0] * 4), windows.profiles(0))
    # midnights at 4, 28, 52, 76, 100; the day from 52 has a gap, the one from 124 ends after 144
    assert first[:, 0].round().tolist() == [4, 28, 76, 100]
    assert first.shape == (4, 24)
    assert windows.profiles(1).shape == (5, 24)


def test_profiles_need_a_step_that_divides_a_day(make_series):
    windows = make_windows(make_series([np.arange(100)], step_seconds=7000), SMALL)
    with pytest.raises(DataError, match=r"steps of 7000 s\. Resample"):
        windows.profiles(0)


def test_a_population_shorter_than_a_day_has_no_profiles(make_series):
    assert make_windows(make_series([np.arange(20)]), SMALL).profiles(0).shape == (0, 24)


def test_selecting_clients_selects_their_windows(make_series):
    arrays = [np.random.default_rng(k).normal(size=40 + 10 * k) for k in range(4)]
    series = make_series(arrays)
    order = [3, 1]
    whole, part = make_windows(series, SMALL), make_windows(series.select(order), SMALL)
    for span in SPANS:
        assert torch.equal(part.count(span), whole.count(span)[order])
    for place, client in enumerate(order):
        assert torch.equal(part.series.of(place), whole.series.of(client))
    assert torch.equal(part.naive_error, whole.naive_error[order])


def test_a_short_client_is_named_with_what_to_do(make_series):
    series = make_series([np.arange(100), np.arange(9)])
    with pytest.raises(DataError) as caught:
        make_windows(series, WindowSpec(lookback=6, horizon=2))
    assert str(caught.value) == (
        "Client 'client 1' has too few windows: 9 steps give 0 in train, 0 in validation, min_windows=1. "
        "lookback=6 and horizon=2 need 8 steps in the training span and 2 target steps in each other span, "
        "without gaps beyond max_gap=3. Drop such clients with on_short='drop', or shorten lookback."
    )


def test_many_short_clients_are_counted_not_listed(make_series):
    with pytest.raises(DataError, match=r"So have 3 more clients\. lookback=168"):
        make_windows(make_series([np.arange(9)] * 8), WindowSpec())


def test_all_clients_dropped_is_an_error_with_the_reasons_counted(make_series):
    with pytest.raises(
        DataError, match=r"No client of source 'handmade' is left: 3 by too few windows \(first: "
    ):
        make_windows(make_series([np.arange(9)] * 3), WindowSpec(on_short="drop"))


def test_infinite_values_are_refused(make_series):
    values = np.arange(100, dtype=np.float32)
    values[7] = np.inf
    with pytest.raises(DataError, match="Client 'client 0' has infinite values"):
        make_windows(make_series([values]), SMALL)


def test_all_problems_of_a_spec_come_in_one_message():
    with pytest.raises(DataError) as caught:
        WindowSpec(
            lookback=0, horizon=-1, train=0.7, validation=0.3, test_stride=0, max_gap=-1, on_short="skip"
        )
    assert caught.value.problems == (
        "lookback must be at least 1, got 0.",
        "horizon must be at least 1, got -1.",
        "max_gap must be at least 0, got -1.",
        "test_stride must be at least 1, got 0.",
        "train + validation must leave a test span, got 0.7 + 0.3; make their sum less than 1.",
        "on_short must be 'error' or 'drop', got 'skip'.",
    )
    with pytest.raises(DataError, match=r"train must be a fraction between 0 and 1, got 1.5"):
        WindowSpec(train=1.5)


def test_on_another_device_everything_moves(make_series):
    windows = make_windows(make_series([np.arange(100)]), SMALL)
    moved = windows.to("cpu")
    assert torch.equal(moved.gather(torch.tensor([3]))[0], windows.gather(torch.tensor([3]))[0])
    assert moved.to("meta").mean.device.type == "meta"
