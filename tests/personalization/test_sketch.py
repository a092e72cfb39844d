import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization import midpoint_levels, quantile_sketch, quantile_sketches, unit_projections
from personalization.sketch import quantile_ranks


def test_projections_are_unit_and_a_function_of_the_seed_alone():
    one, two = unit_projections(7, 20, seed=3), unit_projections(7, 20, seed=3)
    assert torch.equal(one, two)
    assert torch.allclose(one.norm(dim=1), torch.ones(20))
    assert not torch.equal(one, unit_projections(7, 20, seed=4))


def test_projections_leave_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    unit_projections(5)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projections_take_the_dtype_asked_for(dtype):
    assert unit_projections(5, 4, like=torch.zeros(1, dtype=dtype)).dtype == dtype


def test_levels_are_the_midpoints():
    assert midpoint_levels(4).tolist() == [0.125, 0.375, 0.625, 0.875]


@given(n=st.integers(1, 400), quantiles=st.integers(1, 200))
@settings(deadline=None, max_examples=50)
def test_ranks_are_those_of_the_inverse_distribution_function(n, quantiles):
    sample, levels = np.arange(n), midpoint_levels(quantiles)
    # Away from the jumps, where numpy's own rounding decides.
    clear = np.abs(n * levels.numpy() - np.round(n * levels.numpy())) > 1e-6
    expected = np.quantile(sample, levels.numpy(), method="inverted_cdf")
    assert np.array_equal(quantile_ranks(n, levels).numpy()[clear], expected[clear])


def test_as_many_levels_as_samples_give_the_sorted_projections():
    x, directions = torch.randn(16, 3, dtype=torch.float64), unit_projections(3, 5).double()
    assert torch.equal(
        quantile_sketch(x, directions, midpoint_levels(16)), (directions @ x.T).sort(dim=1).values
    )


def test_sketch_ignores_the_order_of_samples():
    x, directions, levels = torch.randn(50, 4), unit_projections(4, 8), midpoint_levels(32)
    shuffled = x[torch.randperm(50)]
    assert torch.allclose(
        quantile_sketch(x, directions, levels), quantile_sketch(shuffled, directions, levels)
    )


@given(sizes=st.lists(st.integers(2, 12), min_size=1, max_size=9), limit=st.integers(1, 60))
@settings(deadline=None, max_examples=30)
def test_batched_equals_loop_for_unequal_sizes(sizes, limit):
    features = [torch.randn(n, 3, dtype=torch.float64) for n in sizes]
    directions, levels = unit_projections(3, 4).double(), midpoint_levels(10)
    loop = torch.stack([quantile_sketch(x, directions, levels) for x in features])
    assert torch.allclose(quantile_sketches(features, directions, levels, limit=limit), loop)


def test_gradient_reaches_the_samples_and_equals_the_path_without_one():
    x = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    directions, levels = unit_projections(3, 4).double(), midpoint_levels(8)
    with torch.no_grad():
        plain = quantile_sketch(x, directions, levels)
    sketch = quantile_sketch(x, directions, levels)
    assert torch.equal(sketch, plain)
    assert torch.autograd.gradcheck(lambda y: quantile_sketch(y, directions, levels), (x,))


def test_other_feature_count_is_refused():
    with pytest.raises(ValueError, match=r"\(10, 4\) do not match projections \(8, 3\)"):
        quantile_sketch(torch.randn(10, 4), unit_projections(3, 8), midpoint_levels(8))


@pytest.mark.parametrize("bad", [{"features": 0}, {"features": 3, "projections": 0}])
def test_empty_projections_are_refused(bad):
    with pytest.raises(ValueError, match="at least 1"):
        unit_projections(**bad)
