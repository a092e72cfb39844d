import pytest
import torch
from scipy.spatial.distance import cdist

from personalization import cosine_distance, l2_distance

U = torch.randn(7, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("function", "metric"), [(cosine_distance, "cosine"), (l2_distance, "euclidean")])
def test_pairs_equal_scipy(function, metric):
    pairs = function(U, pairwise=True)
    assert torch.allclose(pairs, torch.from_numpy(cdist(U, U, metric)), atol=1e-12)
    assert not pairs.diagonal().any()


@pytest.mark.parametrize(("function", "metric"), [(cosine_distance, "cosine"), (l2_distance, "euclidean")])
@pytest.mark.parametrize("weighted", [False, True])
def test_others_are_all_but_oneself(function, metric, weighted):
    w = torch.arange(1.0, 8.0, dtype=torch.float64) if weighted else torch.ones(7, dtype=torch.float64)
    found = function(U, weights=w if weighted else None)
    for k in range(7):
        keep = torch.arange(7) != k
        mean = (w[keep, None] * U[keep]).sum(0) / w[keep].sum()
        assert float(found[k]) == pytest.approx(cdist(U[k : k + 1], mean[None], metric)[0, 0])


def test_cosine_ignores_length_and_l2_moves_along():
    stretch = torch.rand(7, 1, dtype=torch.float64) + 0.1
    assert torch.allclose(
        cosine_distance(U * stretch, pairwise=True), cosine_distance(U, pairwise=True), atol=1e-12
    )
    assert torch.allclose(l2_distance(U + 5), l2_distance(U))
    assert torch.allclose(l2_distance(3 * U), 3 * l2_distance(U))
    two = torch.stack([U[0], -U[0]])
    assert cosine_distance(two).tolist() == pytest.approx([2, 2])


def test_no_direction_has_a_documented_distance():
    u = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert cosine_distance(u, pairwise=True).tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    assert cosine_distance(u).tolist() == [1, 1, 1]
    assert cosine_distance(torch.zeros(3, 2)).tolist() == [0, 0, 0]
    for scale in (1e-30, 1e30):  # whose squares are no float32
        assert cosine_distance(scale * torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 0.0]])).tolist() == [
            0,
            0,
            0,
        ]


@pytest.mark.parametrize("function", [cosine_distance, l2_distance])
def test_one_client_has_no_others_and_dtypes_stay(function):
    assert function(U[:1]).tolist() == [0]
    assert function(U[:1], pairwise=True).tolist() == [[0]]
    assert function(U.float()).dtype == torch.float32


@pytest.mark.parametrize("function", [cosine_distance, l2_distance])
def test_bad_updates_are_refused(function):
    broken = U.clone()
    broken[3, 1] = float("nan")
    with pytest.raises(ValueError, match=r"Client 3 has NaN or infinite parameters \(1 clients do\)"):
        function(broken)
    with pytest.raises(ValueError, match=r"shape \(20,\)"):
        function(U[0])
    with pytest.raises(ValueError, match=r"type torch\.int64"):
        function(U.long())
    with pytest.raises(ValueError, match="give 7 finite ones"):
        function(U, weights=torch.ones(6))
    with pytest.raises(ValueError, match="Only one client has a weight"):
        function(U, weights=torch.eye(7)[0])
