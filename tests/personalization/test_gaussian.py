import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization import bures_squared, bures_wasserstein, matrix_root, moments


def law(seed, features=4, rank=None):
    g = torch.Generator().manual_seed(seed)
    factor = torch.randn(features, rank or features, generator=g, dtype=torch.float64)
    return torch.randn(features, generator=g, dtype=torch.float64), factor @ factor.T


def test_moments_are_numpys():
    x = torch.randn(30, 4, dtype=torch.float64)
    mean, cov = moments(x)
    assert torch.allclose(mean, x.mean(0))
    assert torch.allclose(cov, torch.cov(x.T))


@pytest.mark.parametrize("seed", range(5))
def test_equals_pot(seed):
    (a, C), (b, D) = law(seed), law(seed + 100)
    expected = ot.gaussian.bures_wasserstein_distance(a, b, C, D)
    assert torch.allclose(bures_wasserstein(a, C, b, D), expected, rtol=1e-9)


def test_commuting_covariances_have_a_closed_form():
    _, C = law(0)
    _, vectors = torch.linalg.eigh(C)
    one, two = torch.tensor([1.0, 2, 3, 4]).double(), torch.tensor([4.0, 0, 1, 9]).double()
    a, b = torch.zeros(4).double(), torch.ones(4).double()
    value = bures_squared(a, vectors * one @ vectors.T, b, vectors * two @ vectors.T)
    assert torch.allclose(value, 4 + ((one.sqrt() - two.sqrt()) ** 2).sum())


def test_one_dimension_has_a_closed_form():
    a, b = torch.tensor([[1.0], [2.0]]).double(), torch.tensor([3.0]).double()
    C, D = torch.tensor([[[4.0]], [[0.0]]]).double(), torch.tensor([[9.0]]).double()
    assert torch.allclose(bures_wasserstein(a, C, b, D) ** 2, torch.tensor([4 + 1.0, 1 + 9.0]).double())


@given(seeds=st.tuples(*[st.integers(0, 10**6)] * 3), rank=st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_is_a_metric_singular_covariances_included(seeds, rank):
    laws = [law(s, rank=r) for s, r in zip(seeds, (4, rank, 4), strict=True)]
    (a, C), (b, D), (c, E) = laws
    ab, bc, ac = (
        bures_wasserstein(*x, *y) for x, y in (((a, C), (b, D)), ((b, D), (c, E)), ((a, C), (c, E)))
    )
    assert torch.allclose(ab, bures_wasserstein(b, D, a, C), rtol=1e-6)
    assert bures_wasserstein(b, D, b, D) < 1e-6
    assert ac <= ab + bc + 1e-9


@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 10))
@settings(deadline=None, max_examples=30)
def test_translation_rotation_scaling(seed, scale):
    (a, C), (b, D) = law(seed), law(seed + 1)
    move = law(seed + 2)[0]
    turn = torch.linalg.qr(law(seed + 3)[1]).Q
    value = bures_wasserstein(a, C, b, D)
    assert torch.allclose(bures_wasserstein(a + move, C, b + move, D), value)
    assert torch.allclose(bures_wasserstein(turn @ a, turn @ C @ turn.T, turn @ b, turn @ D @ turn.T), value)
    assert torch.allclose(bures_wasserstein(scale * a, scale**2 * C, scale * b, scale**2 * D), scale * value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batched_equals_loop(dtype):
    laws = [law(s, rank=1 + s % 4) for s in range(6)]
    mean, cov = torch.stack([m for m, _ in laws]).to(dtype), torch.stack([c for _, c in laws]).to(dtype)
    loop = torch.stack([bures_wasserstein(m, c, mean[0], cov[0]) for m, c in zip(mean, cov, strict=True)])
    batched = bures_wasserstein(mean, cov, mean[0], cov[0])
    assert batched.dtype == dtype
    assert torch.allclose(batched, loop, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 4])
def test_root_squares_to_the_matrix(rank):
    _, C = law(0, rank=rank)
    root = matrix_root(C)
    assert torch.allclose(root @ root, C, atol=1e-10)
    assert torch.allclose(root, root.T)


def test_gradient_is_right_and_bears_equal_eigenvalues():
    x = torch.randn(12, 3, dtype=torch.float64, requires_grad=True)
    b, D = law(1, features=3)
    assert torch.autograd.gradcheck(lambda z: bures_wasserstein(*moments(z), b, D), (x,))
    C = torch.eye(3, dtype=torch.float64, requires_grad=True)
    bures_squared(b, C, b, D).backward()
    # For C = 1 the transport map to D is its root: d/dC tr = 1 - D^(1/2).
    assert torch.allclose(C.grad, torch.eye(3).double() - matrix_root(D), atol=1e-8)


def test_gradient_is_finite_for_fewer_samples_than_features():
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    b, D = law(1, features=6)
    bures_wasserstein(*moments(x), b, D).backward()
    assert torch.isfinite(x.grad).all()


def test_is_a_lower_bound_of_the_exact_distance():
    x, y = torch.randn(80, 3, dtype=torch.float64), torch.rand(80, 3, dtype=torch.float64) * 3
    biased = [(z.mean(0), (z - z.mean(0)).T @ (z - z.mean(0)) / 80) for z in (x, y)]
    assert bures_squared(*biased[0], *biased[1]) <= ot.emd2([], [], ot.dist(x, y)) + 1e-9


def test_one_row_has_no_covariance():
    with pytest.raises(ValueError, match="at least two rows"):
        moments(torch.randn(1, 3))
