"""Metrics against torchmetrics, their bounds, and the clients for which they have no meaning."""

import math

import numpy as np
import pytest
import torch
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st

from persofl.metrics import ErrorSums, client_metrics, share_worse, summarise


def forecasts(clients=4, windows=9, horizon=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = [
        torch.randn(clients, windows, horizon, generator=generator, dtype=torch.float64) for _ in range(2)
    ]
    valid = torch.rand(clients, windows, generator=generator) < 0.7
    valid[:, 0] = True
    return *draw, draw[0].square().mean(-1), valid


def metrics_of(prediction, target, losses, valid, naive=None):
    naive = torch.ones(len(target)) if naive is None else naive
    return client_metrics(ErrorSums.of(prediction, target, losses, valid), naive)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_torchmetrics(seed):
    prediction, target, losses, valid = forecasts(seed=seed)
    naive = torch.tensor([0.5, 1.0, 2.0, 4.0])
    got = metrics_of(prediction, target, losses, valid, naive)
    for client in range(4):
        ours, theirs = prediction[client][valid[client]], target[client][valid[client]]
        mae = torchmetrics.MeanAbsoluteError()(ours, theirs)
        expected = {
            "mae": mae,
            "rmse": torchmetrics.MeanSquaredError(squared=False)(ours, theirs),
            "nmae": torchmetrics.WeightedMeanAbsolutePercentageError()(ours, theirs),
            "mase": mae / naive[client],
            "loss": losses[client][valid[client]].mean(),
        }
        for name, want in expected.items():
            assert float(got[name][client]) == pytest.approx(float(want), rel=1e-6), name


def test_what_is_not_valid_does_not_count():
    prediction, target, losses, valid = forecasts()
    noise = 1e6 * (~valid).unsqueeze(-1)
    loud = metrics_of(prediction + noise, target - noise, losses + noise[..., 0], valid)
    for name, values in metrics_of(prediction, target, losses, valid).items():
        torch.testing.assert_close(loud[name], values)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
def test_metrics_scale_as_their_units_do(scale, seed):
    prediction, target, losses, valid = forecasts(seed=seed)
    plain = metrics_of(prediction, target, losses, valid)
    scaled = metrics_of(scale * prediction, scale * target, losses, valid, torch.full((4,), scale).double())
    for name, factor in (("nmae", 1), ("mae", scale), ("rmse", scale), ("mase", 1), ("loss", 1)):
        torch.testing.assert_close(scaled[name], factor * plain[name], rtol=1e-6, atol=1e-12)
    assert (plain["rmse"] >= plain["mae"] * (1 - 1e-12)).all()  # Jensen


def test_a_perfect_forecast_has_no_error():
    _, target, losses, valid = forecasts()
    got = metrics_of(target, target, 0 * losses, valid)
    for values in got.values():
        assert torch.equal(values, torch.zeros(4).double())


def test_a_client_without_load_has_no_relative_error_and_is_counted_out():
    prediction, target, losses, valid = forecasts()
    target[1] = 0
    got = metrics_of(prediction, target, losses, valid)
    assert got["nmae"].isnan().tolist() == [False, True, False, False]
    assert not got["mae"].isnan().any()
    summary = summarise(got["nmae"])
    assert summary["clients"] == 3
    assert summary["mean"] == pytest.approx(float(got["nmae"][[0, 2, 3]].mean()))


def test_export_counts_as_load():
    """Net load may be negative: its size counts, so that the relative error stays one."""
    prediction, target, losses, valid = forecasts()
    there, mirrored = (metrics_of(s * prediction, s * target, losses, valid)["nmae"] for s in (1, -1))
    torch.testing.assert_close(there, mirrored)
    assert (there > 0).all()


@pytest.mark.parametrize("naive", [0.0, math.nan])
def test_mase_needs_a_naive_error(naive):
    got = metrics_of(*forecasts(), naive=torch.tensor([1.0, naive, 1.0, 1.0]))
    assert got["mase"].isnan().tolist() == [False, True, False, False]


def test_a_client_without_windows_has_no_metric():
    prediction, target, losses, valid = forecasts()
    valid[2] = False
    for values in metrics_of(prediction, target, losses, valid).values():
        assert values.isnan().tolist() == [False, False, True, False]


def test_sums_of_parts_are_the_sums_of_the_whole():
    prediction, target, losses, valid = forecasts(windows=10)
    whole = ErrorSums.of(prediction, target, losses, valid)
    places = [torch.tensor([0, 2]), torch.tensor([3, 1]), torch.tensor([2, 0])]
    cuts = [slice(0, 10), slice(0, 10), slice(0, 0)]
    parts = [
        ErrorSums.of(prediction[p][:, c], target[p][:, c], losses[p][:, c], valid[p][:, c])
        for p, c in zip(places, cuts, strict=True)
    ]
    joined = ErrorSums.scatter(places, parts, 6)
    for name in ("absolute", "squared", "load", "loss", "steps", "windows"):
        torch.testing.assert_close(getattr(joined, name)[:4], getattr(whole, name))
        assert (getattr(joined, name)[4:] == 0).all()  # clients in no part


errors = st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(values=errors, scale=st.floats(0.01, 100))
def test_summaries_are_bounded_and_scale(values, scale):
    summary, scaled = summarise(values), summarise([scale * value for value in values])
    assert 1 / len(values) * (1 - 1e-9) <= summary["jain"] <= 1 + 1e-9
    assert min(values) <= summary["median"] <= max(values)
    assert summary["mean"] * (1 - 1e-9) <= summary["worst_decile"] <= max(values) * (1 + 1e-9)
    assert summary["clients"] == len(values)
    for name in ("mean", "median", "std", "worst_decile"):
        assert scaled[name] == pytest.approx(scale * summary[name], rel=1e-6, abs=1e-6)
    assert summarise(values[::-1])["worst_decile"] == pytest.approx(summary["worst_decile"])


def test_jain_at_its_ends():
    assert summarise([3.0] * 7)["jain"] == pytest.approx(1)
    assert summarise([5.0, 0, 0, 0])["jain"] == pytest.approx(1 / 4)  # one client bears it all
    assert summarise([1.0, 1.0, 0, 0])["jain"] == pytest.approx(1 / 2)
    assert summarise([0.0, 0.0])["jain"] == 1


@pytest.mark.parametrize(("clients", "worst"), [(1, 1), (4, 1), (10, 1), (20, 2), (100, 10)])
def test_the_worst_decile_is_the_mean_of_the_worst_tenth(clients, worst):
    values = np.random.default_rng(0).permutation(np.arange(1.0, clients + 1))
    assert summarise(values)["worst_decile"] == pytest.approx(np.sort(values)[-worst:].mean())


def test_nan_is_left_out_and_counted_out():
    assert summarise([1.0, math.nan, 3.0]) == summarise([1.0, 3.0])
    nothing = summarise([math.nan])
    assert nothing.pop("clients") == 0
    assert all(math.isnan(value) for value in nothing.values())
    assert summarise(torch.tensor([1.0, 2.0])) == summarise([1.0, 2.0])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=30))
def test_share_worse_counts_both_ways(pairs):
    ours, theirs = np.array(pairs).T
    assert share_worse(ours, ours) == 0
    ties = float((ours == theirs).mean())
    assert share_worse(ours, theirs) + share_worse(theirs, ours) + ties == pytest.approx(1)
    assert share_worse(ours, theirs, tolerance=0.1) <= share_worse(ours, theirs)
    assert share_worse(theirs * 1.05, theirs, tolerance=0.1) == 0
    assert share_worse(theirs * 1.2, theirs, tolerance=0.1) == 1


def test_share_worse_leaves_out_clients_without_both():
    nan = math.nan
    assert share_worse([1, nan, 3, 4], [2, 1, nan, 3]) == pytest.approx(1 / 2)
    assert math.isnan(share_worse([nan], [1.0]))


def test_a_broken_model_counts_and_a_client_without_meaning_does_not():
    summary = summarise([0.5, float("inf"), float("nan")])
    assert summary["mean"] == summary["worst_decile"] == float("inf")
    assert summary["clients"] == 2
    assert share_worse([0.5, float("inf"), float("nan")], [0.6, 0.6, 0.6]) == 0.5


# --- more is better ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clients", "worst"), [(1, 1), (10, 1), (20, 2)])
def test_the_worst_tenth_of_accuracies_is_the_lowest(clients, worst):
    values = np.random.default_rng(0).permutation(np.arange(1.0, clients + 1)) / clients
    assert summarise(values, higher=True)["worst_decile"] == pytest.approx(np.sort(values)[:worst].mean())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_worse_by_accuracy_is_worse_by_error(pairs):
    """Up to the rounding of ``1 - x``, which is exact on a grid of 1/64."""
    ours, theirs = np.round(64 * np.array(pairs).T) / 64
    assert share_worse(ours, theirs, higher=True) == share_worse(1 - ours, 1 - theirs)
    mirrored = summarise(1 - ours)
    assert summarise(ours, higher=True)["worst_decile"] == pytest.approx(1 - mirrored["worst_decile"])
