import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization import (
    distance_to_population,
    midpoint_levels,
    pairwise_distances,
    pairwise_sliced_wasserstein,
    quantile_sketch,
    sliced_wasserstein,
    unit_projections,
)
from personalization.kind import DistanceKind, standard_noise
from personalization.sliced import SlicedDistance, _slope_variance

F, L, Q = 5, 32, 120
DIRECTIONS, LEVELS = unit_projections(F, L).double(), midpoint_levels(Q)


def sketch(x):
    return quantile_sketch(x.double(), DIRECTIONS.to(x.device), LEVELS)


def draw(n, seed, shift=0.0):
    return torch.randn(n, F, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("n", "m"), [(120, 120), (60, 40), (8, 120)])
def test_equals_pot_where_the_sizes_divide_the_levels(n, m, order):
    x, y = draw(n, 0), draw(m, 1, shift=0.3)
    expected = ot.sliced_wasserstein_distance(x, y, projections=DIRECTIONS.T, p=order)
    assert torch.allclose(sliced_wasserstein(sketch(x), sketch(y), order=order), expected, rtol=1e-9)


def test_tends_to_pot_at_other_sizes():
    x, y = draw(431, 0), draw(217, 1, shift=0.5)
    expected = float(ot.sliced_wasserstein_distance(x, y, projections=DIRECTIONS.T, p=2))
    errors = []
    for quantiles in (16, 128, 4096):
        a, b = (quantile_sketch(z, DIRECTIONS, midpoint_levels(quantiles)) for z in (x, y))
        errors.append(abs(float(sliced_wasserstein(a, b)) / expected - 1))
    assert errors[-1] < 1e-3
    assert errors[1] < 0.02
    assert errors[0] > errors[-1]


def test_one_feature_equals_the_exact_distance():
    x, y = draw(60, 0)[:, :1], draw(40, 1)[:, :1] * 2
    one = torch.ones(1, 1, dtype=torch.float64)
    value = sliced_wasserstein(*(quantile_sketch(z, one, LEVELS) for z in (x, y)))
    assert torch.allclose(value**2, ot.wasserstein_1d(x, y, p=2))


@given(seeds=st.tuples(*[st.integers(0, 10**6)] * 3), order=st.sampled_from([1.0, 1.5, 2.0]))
@settings(deadline=None, max_examples=30)
def test_is_a_metric_on_sketches(seeds, order):
    a, b, c = (sketch(draw(20 + i, s) * (i + 1)) for i, s in enumerate(seeds))
    ab, bc, ac = (sliced_wasserstein(x, y, order=order) for x, y in ((a, b), (b, c), (a, c)))
    assert torch.equal(ab, sliced_wasserstein(b, a, order=order))
    assert float(sliced_wasserstein(a, a, order=order)) == 0
    assert ac <= ab + bc + 1e-12
    assert ab > 0


@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10))
@settings(deadline=None, max_examples=30)
def test_translation_and_scaling(seed, scale):
    x, y = draw(30, seed), draw(24, seed + 1)
    move = draw(1, seed + 2)
    value = sliced_wasserstein(sketch(x), sketch(y))
    assert torch.allclose(sliced_wasserstein(sketch(x + move), sketch(y + move)), value)
    assert torch.allclose(sliced_wasserstein(sketch(scale * x), sketch(scale * y)), scale * value)
    shift = (DIRECTIONS @ move[0]).square().mean().sqrt()
    assert torch.allclose(sliced_wasserstein(sketch(x), sketch(x + move)), shift)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairwise_and_broadcast_equal_the_loop(order, dtype):
    sketches = torch.stack([sketch(draw(20 + k, k, shift=k / 3)) for k in range(6)]).to(dtype)
    loop = torch.stack(
        [torch.stack([sliced_wasserstein(a, b, order=order) for b in sketches]) for a in sketches]
    )
    tolerance = 1e-3 if dtype == torch.float32 else 1e-7
    pairs = pairwise_sliced_wasserstein(sketches, order=order)
    assert pairs.dtype == dtype
    assert torch.allclose(pairs, loop, atol=tolerance)
    assert torch.equal(pairs.diagonal(), torch.zeros(6, dtype=dtype))
    assert torch.allclose(sliced_wasserstein(sketches[:, None], sketches, order=order), loop)
    assert torch.allclose(
        pairwise_sliced_wasserstein(sketches, sketches[:2], order=order), loop[:, :2], atol=tolerance
    )


def test_pairwise_is_precise_far_from_the_origin():
    sketches = torch.stack([sketch(draw(40, k, shift=1000)) for k in range(4)])
    loop = sliced_wasserstein(sketches[:, None], sketches)
    assert torch.allclose(pairwise_sliced_wasserstein(sketches.float()), loop.float(), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_gradient_flows_to_samples(order):
    x, y = draw(12, 0).requires_grad_(), draw(10, 1)
    assert torch.autograd.gradcheck(lambda z: sliced_wasserstein(sketch(z), sketch(y), order=order), (x,))


def test_gradient_at_zero_distance_is_zero():
    x = draw(12, 0).requires_grad_()
    sliced_wasserstein(sketch(x), sketch(x.detach())).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("order", [1.0, 1.5, 2.5, 3.0])
def test_where_nothing_differs_no_order_has_an_error_that_is_nan(order):
    alike = [draw(30, 0).float() for _ in range(4)]
    between = pairwise_distances(alike, "sliced", order=order, draws=16)
    constant = distance_to_population([torch.full((30, 2), 5.0)] * 4, "sliced", order=order, draws=16)
    assert between.std_error.isfinite().all()
    assert constant.std_error.tolist() == [0.0] * 4


def test_order_below_one_is_refused():
    with pytest.raises(ValueError, match=r"order=0\.5 is no Wasserstein order"):
        sliced_wasserstein(sketch(draw(5, 0)), sketch(draw(5, 1)), order=0.5)


def test_one_level_is_refused_for_its_null_would_not_vary():
    with pytest.raises(
        ValueError, match="quantiles=1 is no whole number of at least 2: one level shows no spread"
    ):
        SlicedDistance(quantiles=1)
    x = [draw(50, seed) for seed in range(10)]
    assert float(distance_to_population(x, SlicedDistance(quantiles=2)).p_value.max()) > 0.5


def test_unlike_sketches_are_refused():
    with pytest.raises(ValueError, match="same projections and levels"):
        sliced_wasserstein(torch.zeros(4, 8), torch.zeros(4, 9))


@pytest.mark.parametrize("order", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_slope_of_other_orders_is_that_of_autograd(order, scale, monkeypatch):
    g = torch.Generator().manual_seed(0)
    kind = SlicedDistance(projections=8, quantiles=16, order=order)
    features = [scale * (torch.randn(20, 3, generator=g) + k / 2) for k in range(6)]
    own = kind.statistics(torch.stack([*features, features[0]]))  # the first and last are equal
    reference = {name: x.mean(0) for name, x in own.items()}
    expected = DistanceKind.pair_variance(kind, own, reference, torch.Generator().manual_seed(1))
    noise = standard_noise(kind, reference, torch.Generator().manual_seed(1))["sketch"].flatten(1)
    found = _slope_variance(own["sketch"].flatten(1), noise.to(own["sketch"]), order)
    torch.testing.assert_close(found / scale**4, expected / scale**4, rtol=1e-4, atol=1e-9)
    monkeypatch.setattr(
        torch.autograd, "grad", None
    )  # which took a reverse pass and two wide copies a client
    found = kind.pair_variance(own, reference, torch.Generator().manual_seed(1))
    assert float(found[0, 6]) == 0
    assert float(found[0, 1]) > 0
