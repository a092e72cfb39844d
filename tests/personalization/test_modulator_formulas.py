"""Every registered modulator is its formula, within its bounds, with its ends."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from personalization import MODULATORS, build_modulator

from .steering import NAMES, apply, at, column


def _weights(u, n, base, slope, offset):
    kept = (base / base.sum() - (slope * u - offset) / len(u)).clamp(min=0)
    return kept / kept.sum() * base.sum() if kept.any() else base


def _shrunk(u, n, base, ratio):
    signal = ratio * u**2 / n.median() + 1 / n.sum()
    return signal / (signal + 1 / n)


def _on_the_edge(u, base, quantile):
    """Whether a distance equals a layer's quantile to rounding, where two roundings may decide differently."""
    levels = quantile + (1 - quantile) * np.arange(base) / base
    gaps = np.abs(u.numpy()[:, None] - np.quantile(u.numpy(), levels))
    return len(u) > 1 and (bool((gaps < 1e-9).any()) or len(set(u.tolist())) < len(u))


def _depth(u, n, base, quantile):
    """Layer by layer, from the last: shared where the distance is at most its quantile."""
    depth = torch.zeros_like(base)
    for k, most in enumerate(base.long().tolist()):
        for layer in range(1, most + 1):
            level = quantile + (1 - quantile) * (layer - 1) / most
            depth[k] += bool(u[k] > np.quantile(u.numpy(), level))
    return depth


FORMULAS = {  # parameters, the formula of u, n and base (clients,), and bounds as functions of the base
    "align_by_distance": (
        {"tau": 1.7},
        lambda u, n, base, tau: base * torch.exp(-u / tau),
        lambda base: (0, base),
    ),
    "depth_by_distance": ({"quantile": 0.3}, _depth, lambda base: (0, base)),
    "mix_by_distance": (
        {"tau": 2.0, "power": 1.5},
        lambda u, n, base, tau, power: 1 - torch.exp(-((u / tau) ** power)),
        lambda base: (0, 1),
    ),
    "mix_by_shrinkage": ({"ratio": 0.7}, _shrunk, lambda base: (0, 1)),
    "mix_by_trend": (
        {"slope": 0.4},
        lambda u, n, base, slope: (base + slope * (torch.log(1 + u) - torch.log(1 + u).mean())).clamp(0, 1),
        lambda base: (0, 1),
    ),
    "prox_by_distance": (
        {"tau": 0.6},
        lambda u, n, base, tau: base * torch.exp(-u / tau),
        lambda base: (0, base),
    ),
    "prox_by_inverse_distance": (
        {"eps": 0.05, "ceiling": 4.0},
        lambda u, n, base, eps, ceiling: base * (1 / (eps + u**2)).clamp(max=ceiling),
        lambda base: (0, 4 * base),
    ),
    "prox_by_bayes": (
        {"ceiling": 5.0},
        lambda u, n, base, ceiling: torch.minimum(base * n.median() / (n * u**2), ceiling * base),
        lambda base: (0, 5 * base),
    ),
    "work_by_distance": (
        {"slope": 0.3, "max_factor": 2.0},
        lambda u, n, base, slope, max_factor: torch.minimum(
            (base * (1 + slope * u) * (1 - 1e-5)).ceil(), (max_factor * base * (1 - 1e-5)).ceil()
        ),
        lambda base: (base, 2 * base),
    ),
    "shared_work_by_distance": (
        {"slope": 0.3},
        lambda u, n, base, slope: (base / (1 + slope * u) * (1 + 1e-5)).floor().clamp(min=1),
        lambda base: (1, base),
    ),
    "lr_by_distance": (
        {"slope": 0.8},
        lambda u, n, base, slope: base / (1 + slope * u),
        lambda base: (0, base),
    ),
    "weight_by_distance": ({"slope": 0.2, "offset": 0.3}, _weights, lambda base: (0, base.sum())),
}

ENDS = {  # parameters, base, what u = 0 and an endless u give beside one another
    "align_by_distance": ({}, 3.0, 3.0, 0.0),
    "depth_by_distance": ({}, 3.0, 0.0, 3.0),
    "mix_by_distance": ({}, 0.5, 0.0, 1.0),
    "mix_by_shrinkage": ({"ratio": 2.0}, 0.5, 1 / 3, 1.0),
    "mix_by_trend": ({"slope": 1.0}, 0.5, 0.0, 1.0),
    "prox_by_distance": ({}, 3.0, 3.0, 0.0),
    "prox_by_inverse_distance": ({"eps": 0.5, "ceiling": 9.0}, 3.0, 6.0, 0.0),
    "prox_by_bayes": ({"ceiling": 9.0}, 3.0, 27.0, 0.0),
    "work_by_distance": ({"max_factor": 3.0}, 20.0, 20.0, 60.0),
    "shared_work_by_distance": ({}, 20.0, 20.0, 1.0),
    "lr_by_distance": ({}, 0.2, 0.2, 0.0),
    "weight_by_distance": ({"offset": 0.0}, 3.0, 6.0, 0.0),
}


def test_no_modulator_goes_without_formula_and_ends():
    assert set(FORMULAS) == set(ENDS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@given(
    clients=st.lists(st.tuples(st.floats(0, 50), st.integers(2, 5000)), min_size=1, max_size=12),
    base=st.integers(1, 40),
)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])
def test_every_modulator_is_its_formula_within_its_bounds(name, clients, base):
    params, formula, bounds = FORMULAS[name]
    u, n = torch.tensor([c[0] for c in clients]).double(), torch.tensor([c[1] for c in clients])
    scale = 0.02 if MODULATORS[name].knob == "mix" else 1.0
    if name == "depth_by_distance":
        assume(not _on_the_edge(u, base, params["quantile"]))
    got = apply(name, u.tolist(), base=scale * base, n=n, **params)
    column_of = torch.full_like(u, scale * base)
    torch.testing.assert_close(got, formula(u, n.double(), column_of, **params))
    low, high = bounds(column_of)
    assert ((got >= low) & (got <= high + 1e-9)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("infinite", [1e30, math.inf])
def test_every_modulator_at_no_distance_and_at_an_endless_one(name, infinite):
    params, base, none, endless = ENDS[name]
    got = apply(name, [0.0, infinite], base=base, **params)
    assert got.tolist() == pytest.approx([none, endless], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "params", "base", "expected"),
    [
        ("mix_by_distance", {"tau": math.inf}, 0.5, 0.0),
        ("prox_by_distance", {"tau": math.inf}, 2.0, 2.0),
        ("align_by_distance", {"tau": math.inf}, 2.0, 2.0),
        ("work_by_distance", {"slope": 0.0}, 20.0, 20.0),
        ("shared_work_by_distance", {"slope": 0.0}, 20.0, 20.0),
        ("lr_by_distance", {"slope": 0.0}, 0.25, 0.25),
        ("mix_by_trend", {"slope": 0.0}, 0.25, 0.25),
        ("weight_by_distance", {"slope": 0.0}, 2.0, 2.0),
        ("mix_by_shrinkage", {"ratio": 0.0}, 0.5, 0.25),  # n_k / (n_k + N) of three
        ("prox_by_inverse_distance", {"eps": 1e-44, "ceiling": math.inf}, 0.0, 0.0),
    ],
)
def test_the_limits_of_parameters_are_numbers_at_both_ends_of_distance(name, params, base, expected, dtype):
    """Where one limit says 0 and the other infinity, their product would be NaN."""
    distances = at([0.0, math.inf, math.inf], dtype=dtype)
    steered = build_modulator(name, **params)(column(base, 3, dtype), distances).squeeze(1)
    assert steered.tolist() == pytest.approx([expected] * 3, abs=1e-6)


def test_depth_by_hand():
    u = [0.0, 1.0, 2.0, 3.0, 4.0]
    assert apply("depth_by_distance", u, base=2.0, quantile=0.5).tolist() == [0, 0, 0, 1, 2]
    assert apply("depth_by_distance", u, base=4.0, quantile=0.0).tolist() == [0, 1, 2, 3, 4]
    assert apply("depth_by_distance", u, base=3.0, quantile=1.0).tolist() == [0] * 5
    assert apply("depth_by_distance", u, base=0.0).tolist() == [0] * 5
    assert apply("depth_by_distance", [0.0, 0.0, 5.0], base=1.0).tolist() == [0, 0, 1]
    tied = [0.0, 1.0, 1.0, 1.0]  # medians and above are 1, which no distance exceeds
    assert apply("depth_by_distance", tied, base=2.0).tolist() == [0] * 4
    assert apply("depth_by_distance", tied, base=2.0, quantile=0.0).tolist() == [0, 1, 1, 1]
    most = torch.tensor([[4.0], [0.0], [1.0], [1.0], [4.0]])
    assert build_modulator("depth_by_distance")(most, at(u)).squeeze(1).tolist() == [0, 0, 0, 1, 4]


def test_the_bayesian_pull_asks_more_of_small_clients():
    n = [10, 100, 1000]
    assert apply("prox_by_bayes", [1.0] * 3, base=2.0, n=n).tolist() == pytest.approx([20.0, 2.0, 0.2])
    assert apply("prox_by_bayes", [2.0] * 3, base=2.0, n=n).tolist() == pytest.approx([5.0, 0.5, 0.05])
    assert apply("prox_by_bayes", [0.0, 1e-40, 1e200], base=2.0, n=n, ceiling=3.0).tolist() == [6, 6, 0]
    nobody = [0, 5, 5]
    assert apply("prox_by_bayes", [math.inf, 1.0, 0.0], base=2.0, n=nobody, ceiling=3.0).tolist() == [0, 2, 6]


def test_the_bayesian_pull_is_that_of_the_posterior_mode():
    """Mean of n normal samples with variance v, parameter drawn with variance kappa d^2: minimise the penalised loss."""
    v, kappa, n, d, mean = 2.0, 0.3, 40, 1.5, 0.8
    posterior = mean * kappa * d**2 / (kappa * d**2 + v / n)
    pull = v / (n * kappa * d**2)
    assert mean / (1 + pull) == pytest.approx(posterior)  # argmin_w (w - mean)^2 / 2 + pull / 2 w^2
