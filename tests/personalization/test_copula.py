import pytest
import torch

from personalization.copula import common_scales, interpolate, normal_scores, tail_index


def test_tail_of_a_gaussian_is_zero_and_of_a_mixture_the_variance_of_its_scales():
    g = torch.Generator().manual_seed(0)
    normal = torch.randn(200_000, 4, generator=g, dtype=torch.float64)
    assert float(tail_index(normal)) == pytest.approx(0, abs=0.02)
    scales = common_scales(torch.tensor(0.5), (200_000, 1), g)
    assert float((scales**2).mean()) == pytest.approx(1, abs=0.01)
    assert float(tail_index(normal * scales)) == pytest.approx(0.5, rel=0.1)


def test_tail_of_constants_is_zero():
    assert float(tail_index(torch.ones(5, 3))) == 0


@pytest.mark.parametrize("tail", [0.0, 0.5, 5.0])
def test_scores_of_the_mixture_are_standard_normal(tail):
    g = torch.Generator().manual_seed(0)
    y = torch.randn(200_000, generator=g) * common_scales(torch.tensor(tail), (200_000,), g)
    scores = normal_scores(y, torch.tensor(tail)).sort().values
    levels = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    inner = slice(200, -200)
    assert torch.allclose(torch.special.ndtr(scores.double())[inner], levels[inner], atol=0.005)
    if tail == 0:
        assert torch.allclose(normal_scores(y, torch.tensor(0.0)), y, atol=1e-3)


def test_interpolation_meets_its_knots_and_goes_on_beyond():
    knots, values = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([[0.0, 2.0, 2.0], [5.0, 4.0, 0.0]])
    x = torch.tensor([[-1.0, 0.0, 0.5, 3.0], [1.0, 2.0, 3.0, 4.0]])
    assert interpolate(x, knots, values).tolist() == [[-2, 0, 1, 2], [4, 2, 0, -2]]
    assert interpolate(x[0], knots, values[0]).tolist() == [-2, 0, 1, 2]
