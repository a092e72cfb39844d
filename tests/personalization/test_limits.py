"""The largest and smallest numbers: what is accepted is computed, the rest is refused in words."""

import math
import warnings
from dataclasses import dataclass

import pytest
import torch

from personalization import (
    DISTANCES,
    SampleDistance,
    build_distance,
    distance_to_population,
    find_clusters,
    labelled,
    pairwise_distances,
    pairwise_sliced_wasserstein,
    residual_norm,
    sliced_wasserstein,
    wasserstein_line,
)
from personalization.errors import value_limit
from personalization.null import null_of

SAMPLED = sorted(name for name, cls in DISTANCES.items() if issubclass(cls, SampleDistance))
ORDERED = [("sliced", {"order": order, "projections": 8, "quantiles": 16}) for order in (1.0, 1.5, 4.0, 8.0)]
COLUMNS = ("value", "null_mean", "z", "p_value", "calibrated", "std_error")


def clients(name, largest, dtype, count=4):
    """Samples whose largest value is exactly this; the first client's mean is another."""
    g = torch.Generator().manual_seed(0)
    rows = torch.rand(count, 12, 5, generator=g, dtype=torch.float64) / 2
    rows[0] += 0.5
    rows = (rows / rows.max() * largest).to(dtype)
    if name.startswith("label"):
        return [labelled(x, torch.randint(3, (12,), generator=g)) for x in rows]
    return list(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in sorted(DISTANCES)), *ORDERED])
def test_the_largest_and_smallest_features_accepted_are_computed(name, options, dtype):
    limit = value_limit(dtype)
    for largest in (limit * (1 - 1e-6), 1 / limit * (1 + 1e-6)):
        features = clients(name, largest, dtype)
        for function in (distance_to_population, pairwise_distances):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = function(features, name, draws=8, **options)
            for column in COLUMNS:
                assert torch.isfinite(getattr(found, column)).all(), (largest, column)
            if name != "label_marginal":
                assert float(found.value.max()) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_beyond_the_limits_are_refused(dtype):
    limit = value_limit(dtype)
    for function in (distance_to_population, pairwise_distances):
        with pytest.raises(ValueError, match=r"Client 0 has values up to .*; scale them to below"):
            function(clients("sliced", limit * 1.01, dtype))
        with pytest.raises(ValueError, match=r"features are at most .*; scale them to above"):
            function(clients("sliced", 0.99 / limit, dtype))
        for constant in (0.0, 0.1 / limit):  # there is nothing to square
            found = function([torch.full((6, 2), constant, dtype=dtype)] * 3, "gaussian", draws=4)
            assert not found.value.any()


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_beyond_the_limit_have_no_distance(name):
    x = torch.ones(6, 3, dtype=torch.float64)
    for pair in ((x * 1e160, x), (x, x * 1e160)):
        with pytest.raises(ValueError, match=r"[xy] has values up to 1e\+160; scale them to below 1e\+30"):
            build_distance(name).between(*pair)


@pytest.mark.parametrize("name", SAMPLED)
def test_weights_count_by_their_ratio_however_large(name):
    x, y = (torch.randint(3, (6, 3), generator=torch.Generator().manual_seed(k)).double() for k in (0, 1))
    even, odd = (torch.tensor([1.0, w] * 3, dtype=torch.float64) for w in (1.0, 2.0))
    for weights in (even, odd):
        plain = build_distance(name).between(x, y, weights)
        for factor in (8e307, 1e-300):
            found = build_distance(name).between(x, y, weights * factor)
            torch.testing.assert_close(found, plain)


def test_powers_of_gaps_neither_overflow_nor_vanish():
    ones = torch.ones(4, 8)
    for size, order in ((1e-25, 2), (1e25, 2), (10.0, 100), (1e-3, 100), (1e30, 4)):
        near, far = ones * size, ones * -size
        assert float(sliced_wasserstein(near, far, order=order)) == pytest.approx(2 * size)
        both = pairwise_sliced_wasserstein(torch.stack([near, far]), order=order)
        torch.testing.assert_close(both, 2 * size * (1 - torch.eye(2)))
    samples = [x * 1e12 for x in clients("sliced", 1.0, torch.float32)]
    wide = distance_to_population([x.double() for x in samples], order=8.0, draws=8)
    found = distance_to_population(samples, order=8.0, draws=8)
    torch.testing.assert_close(found.std_error.double(), wide.std_error, rtol=1e-3, atol=0)


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("name", ["exact", "max_sliced"])
def test_high_orders_have_no_unit(name, features):
    x, y = (torch.randn(2, 6, features, generator=torch.Generator().manual_seed(k)).double() for k in (0, 1))
    scales = torch.tensor([1e-25, 1e25], dtype=torch.float64)[:, None, None]
    for order in (2.0, 12.0, 100.0):
        kind = build_distance(name, order=order)
        found, converged = kind.between(x * scales, y * scales)
        assert converged.all()
        torch.testing.assert_close(found / scales[:, 0, 0], kind.between(x, y)[0], rtol=1e-3, atol=0)


def test_a_power_on_the_line_is_infinite_where_it_is_not_held_and_never_nan():
    x, y = torch.tensor([0.0, 1e30]), torch.tensor([0.0, -1e30])
    fair = torch.full((2,), 0.5)
    assert float(wasserstein_line(x, y, fair, fair)) == math.inf
    assert float(wasserstein_line(x, y, fair, fair, order=1)) == pytest.approx(1e30)
    assert float(wasserstein_line(x, x, fair, fair)) == 0


def test_a_residual_s_length_has_no_largest():
    errors = torch.full((3, 4), 1e200, dtype=torch.float64)
    assert float(residual_norm(errors)) == pytest.approx(1e200)
    assert float(residual_norm(errors / 1e200 / 1e200)) == pytest.approx(1e-200, rel=1e-6)


def test_the_null_of_tiny_squares_has_the_skewness_of_others():
    draws = torch.rand(6, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    sizes = torch.arange(2.0, 8.0, dtype=torch.float64)
    for scale in (1e-140, 1e140):
        torch.testing.assert_close(null_of(sizes, draws * scale).skew, null_of(sizes, draws).skew)


@pytest.mark.parametrize("choose", ["eigengap", "gap", "silhouette"])
def test_clusters_have_no_unit(choose):
    places = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]], dtype=torch.float64)
    distances = torch.cdist(places, places)
    plain = find_clusters(distances, choose=choose)
    for scale in (1e-200, 1e200):
        assert torch.equal(find_clusters(distances * scale, choose=choose).labels, plain.labels)


@dataclass(frozen=True, kw_only=True)
class MeanGap(SampleDistance):
    """Ignores weights, as one may: it is enough to say what lies between two samples."""

    def between(self, x, y, x_weights=None, y_weights=None):
        value = (x.mean(-2) - y.mean(-2)).norm(dim=-1)
        return value, torch.ones_like(value, dtype=torch.bool)


@dataclass(frozen=True, kw_only=True)
class OwnWeights(MeanGap):
    """Knows the weights of one side only."""

    def between(self, x, y, x_weights=None, y_weights=None):
        mean = x.mean(-2) if x_weights is None else (x_weights.unsqueeze(-1).to(x) * x).sum(-2)
        value = (mean - y.mean(-2)).norm(dim=-1)
        return value, torch.ones_like(value, dtype=torch.bool)


def test_without_a_gradient_to_the_weights_nobody_says_an_error():
    g = torch.Generator().manual_seed(0)
    x = [torch.randn(8, 3, generator=g) + (k == 0) for k in range(4)]
    found = distance_to_population(x, MeanGap(), draws=8)
    assert found.value.isfinite().all()
    assert found.std_error.isinf().all()
    assert OwnWeights().linear_variance(x[0], x[1]).isfinite()
    for kind in (MeanGap(), OwnWeights()):
        pairs = pairwise_distances(x, kind, draws=8)
        assert torch.equal(pairs.std_error.isinf(), ~torch.eye(4, dtype=torch.bool))
