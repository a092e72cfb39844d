"""Gradients of the distance on the line in its weights, and the errors told from them."""

import pytest
import torch

from personalization import build_distance, wasserstein_line

SIZES = [(60, 60), (60, 40), (61, 43)]  # all levels meet, some do, none does


def drawn(n, m, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=g, dtype=torch.float64) + 1, torch.randn(
        m, generator=g, dtype=torch.float64
    )


def influences(x, y, a, b, order=2):
    weights = [w.clone().requires_grad_() for w in (a, b)]
    return torch.autograd.grad(wasserstein_line(x, y, *weights, order=order), weights)


def fair(n):
    return torch.full((n,), 1 / n, dtype=torch.float64)


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_rounding_of_the_weights_changes_no_gradient(n, m):
    """Where levels meet, which of them lies first is a matter of rounding: it differs between processors and GPUs."""
    x, y = drawn(n, m)
    want = influences(x, y, fair(n), fair(m))
    g = torch.Generator().manual_seed(1)
    for _ in range(4):
        a, b = (fair(k) * (1 + 1e-14 * torch.randn(k, generator=g, dtype=torch.float64)) for k in (n, m))
        for got, expected in zip(influences(x, y, a, b), want, strict=True):
            torch.testing.assert_close(got - got.mean(), expected - expected.mean())


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_a_gradient_is_the_mean_of_both_sides(n, m, order):
    x, y = drawn(n, m)
    a, b = fair(n), fair(m)
    moved = torch.zeros(n, dtype=torch.float64)
    moved[3], moved[17] = 1e-7, -1e-7
    sides = [wasserstein_line(x, y, a + way * moved, b, order=order) for way in (-1, 1)]
    told = (influences(x, y, a, b, order)[0] * moved).sum()
    torch.testing.assert_close(told, (sides[1] - sides[0]) / 2, rtol=1e-5, atol=1e-14)


@pytest.mark.parametrize("kind", ["exact", "max_sliced"])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_the_error_told_is_that_over_repeats(kind, n, m):
    """Samples of one size among them: the error told of them was a sixth of what it is."""
    distance, squared, told = build_distance(kind), [], []
    for seed in range(40):
        x, y = (z.unsqueeze(1) for z in drawn(n, m, seed))
        squared.append(distance.between(x, y)[0].square())
        told.append(distance.pair_variance(x, y))
    # a deviation over 40 repeats is known to 11 %
    assert 0.7 < float(torch.stack(told).mean().sqrt() / torch.stack(squared).std()) < 1.5
