"""Planted clusters are found, one cluster stays one, and every choice is a function of its arguments."""

import math
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, silhouette_score

from personalization import pairwise_distances
from personalization.cluster_count import CRITERIA, affinity, between, beyond_noise, coordinates
from personalization.clustering import (
    CLUSTERINGS,
    Agglomerative,
    Clustering,
    KMedoids,
    build_clustering,
    register_clustering,
)
from personalization.clusters import chance_of_largest, find_clusters, nearest_cluster, numbered

METHODS = sorted(CLUSTERINGS)


def planted(sizes, gap=8.0, seed=0):
    """Distances of clients in balls of radius about 2, all ``gap * sqrt(2)`` apart, and who is in which."""
    generator = np.random.default_rng(seed)
    dimensions = max(4, len(sizes))
    centres = np.linalg.qr(generator.normal(size=(dimensions, dimensions)))[0][: len(sizes)] * gap
    labels = generator.permutation(np.repeat(range(len(sizes)), sizes))
    points = centres[labels] + generator.normal(size=(len(labels), dimensions))
    return torch.tensor(between(points)), torch.tensor(labels)


def agreement(found, labels):
    return adjusted_rand_score(labels.numpy(), found.labels.numpy())


@pytest.mark.parametrize("choose", sorted(CRITERIA))
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sizes", [(6, 8), (7, 9, 8, 10)])
def test_planted_clusters_are_found(method, choose, sizes):
    distances, labels = planted(sizes)
    found = find_clusters(distances, method, choose=choose, max_clusters=6)
    assert found.count == len(sizes)
    assert agreement(found, labels) == 1
    assert found.reason
    assert set(found.scores) <= set(range(1, 7))


@pytest.mark.parametrize("choose", sorted(CRITERIA))
@pytest.mark.parametrize("method", METHODS)
def test_one_ball_is_one_cluster(method, choose):
    distances, _ = planted((24,), seed=1)
    found = find_clusters(distances, method, choose=choose, max_clusters=6)
    assert found.count == 1
    assert (found.labels == 0).all()


@pytest.mark.parametrize("choose", sorted(CRITERIA))
@pytest.mark.parametrize("method", METHODS)
def test_identical_clients_are_one_cluster(method, choose):
    found = find_clusters(torch.zeros(9, 9), method, choose=choose)
    assert (found.count, found.reason) == (1, "no two clients differ")


@pytest.mark.parametrize("method", METHODS)
def test_copies_of_a_few_clients_are_as_many_clusters(method):
    labels = torch.arange(15) % 3
    points = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 7.0]])[labels]
    found = find_clusters(torch.cdist(points, points), method, max_clusters=5)
    assert found.count == 3
    assert torch.equal(found.labels, labels)


def test_the_silhouettes_test_keeps_its_level():
    """One Gaussian law, drawn forty times at each of two shapes: at most a few are split."""
    split = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        points = generator.normal(size=(20, 2 + 3 * (seed % 2))) * np.array(
            [3, 1, 1, 1, 1][: 2 + 3 * (seed % 2)]
        )
        split += (
            find_clusters(
                torch.tensor(between(points)), "k_medoids", choose="silhouette", max_clusters=4
            ).count
            > 1
        )
    assert split <= 6  # 2 are expected at 5 %, more than 6 in one of 180 cases


def test_pairs_that_do_not_differ_are_one_cluster():
    distances, labels = planted((6, 8))
    z = torch.full_like(distances, 2.0)
    found = find_clusters(distances, z=z)
    assert found.count == 1
    assert "no two clients differ beyond chance: a largest z of 2.0" in found.reason
    z[distances > 8] = 20.0  # those of two groups
    assert agreement(find_clusters(distances, z=z), labels) == 1


@pytest.mark.parametrize("weights", [(1,), (1, 1, 1), (5, 1, 0.2), (1,) * 40])
def test_the_bound_holds_for_sums_of_squares(weights):
    """Ten clients whose squared distances are any such sum reach a z of chance .05 in at most a twentieth of cases."""
    squares = np.random.default_rng(0).normal(size=(2000, 45, len(weights))) ** 2 @ np.array(weights)
    z = (squares - sum(weights)) / math.sqrt(2 * sum(w**2 for w in weights))
    chance = [chance_of_largest(largest, 10) for largest in z.max(1)]
    assert np.mean(np.array(chance) < 0.05) <= 0.06
    assert chance_of_largest(-3.0, 10) == 1
    assert chance_of_largest(1e9, 10) == 0


@pytest.mark.parametrize("method", METHODS)
def test_the_same_again_in_any_order_and_unit(method):
    distances, labels = planted((6, 8, 7), seed=3)
    settings = {"max_clusters": 4, "seed": 5}
    first = find_clusters(distances, method, **settings)
    assert torch.equal(find_clusters(distances, method, **settings).labels, first.labels)
    assert torch.equal(find_clusters(distances * 1000, method, **settings).labels, first.labels)
    order = torch.randperm(21, generator=torch.Generator().manual_seed(0))
    other = find_clusters(distances[order][:, order].float(), method, **settings)
    assert adjusted_rand_score(other.labels.numpy(), labels[order].numpy()) == 1


def test_at_most_so_many_clusters():
    distances, _ = planted((6, 8, 7))
    assert find_clusters(distances, max_clusters=2).count <= 2
    assert find_clusters(distances, max_clusters=1).reason == "max_clusters is 1"
    assert find_clusters(distances[:3, :3]).count == 1


def test_labels_count_from_the_first_client():
    assert numbered(torch.tensor([7, 2, 7, 9, 2])).tolist() == [0, 1, 0, 2, 1]
    found = find_clusters(planted((6, 8, 7))[0])
    assert torch.equal(numbered(found.labels), found.labels)


def test_a_client_left_out_goes_to_the_nearest_cluster():
    distances, labels = planted((6, 8, 7))
    inside, outside = torch.arange(2, 21), torch.arange(2)
    found = find_clusters(distances[inside][:, inside])
    own = nearest_cluster(distances[outside][:, inside], found.labels)
    everyone = torch.cat([own, found.labels])
    assert adjusted_rand_score(labels.numpy(), everyone.numpy()) == 1


def test_the_nearest_cluster_is_that_of_the_least_mean_whatever_its_size():
    labels = torch.tensor([0, 0, 0, 0, 0, 1])
    distances = torch.tensor([[2.0, 2, 2, 2, 2, 3], [2, 2, 2, 2, 2, 1], [1, 1, 1, 1, 6, 3]])
    assert nearest_cluster(distances, labels).tolist() == [0, 1, 0]


# --- the parts ---------------------------------------------------------------------------------------------


def cost(distances, labels):
    """Least sum of distances to a member, cluster by cluster."""
    blocks = (distances[np.ix_(labels == label, labels == label)] for label in np.unique(labels))
    return sum(block.sum(0).min() for block in blocks)


@pytest.mark.parametrize("count", [2, 3])
def test_k_medoids_is_near_the_best_of_all_medoids_and_no_worse_than_greed(count):
    """All pairs and triples of medoids are tried one by one; swaps may end in a local minimum."""
    from itertools import combinations

    found, best, greedy = 0.0, 0.0, 0.0
    for seed in range(20):
        distances = between(np.random.default_rng(seed).normal(size=(14, 2)))
        best += min(distances[:, list(some)].min(1).sum() for some in combinations(range(14), count))
        labels, start = (KMedoids(swaps).split(distances, count, 0) for swaps in (1000, 0))
        assert len(np.unique(labels)) == count
        found, greedy = found + cost(distances, labels), greedy + cost(distances, start)
    assert best <= found + 1e-9
    assert found <= 1.02 * best
    assert found < 0.99 * greedy


@pytest.mark.parametrize("method", METHODS)
def test_splits_have_as_many_clusters_as_asked_for(method):
    distances = planted((20,))[0].numpy()
    for count in (2, 3, 7):
        assert len(np.unique(build_clustering(method).split(distances, count, 0))) == count


def test_scaling_gives_the_distances_back():
    points = np.random.default_rng(0).normal(size=(12, 3))
    place = coordinates(between(points))
    assert place.shape == (12, 3)
    np.testing.assert_allclose(between(place), between(points), atol=1e-10)
    squares = place.T @ place
    np.testing.assert_allclose(squares, np.diag(np.diag(squares)), atol=1e-10)


def test_affinity_is_nearness():
    near = affinity(planted((6, 8))[0].numpy())
    np.testing.assert_allclose(near, near.T)
    np.testing.assert_allclose(np.diag(near), 1)
    assert ((near >= 0) & (near <= 1)).all()


def test_the_scores_are_silhouettes():
    distances, _ = planted((6, 8))
    found = find_clusters(distances, "k_medoids", choose="silhouette")
    labels = KMedoids().split(distances.numpy(), 2, 0)
    assert found.scores[2] == pytest.approx(silhouette_score(distances.numpy(), labels, metric="precomputed"))


@pytest.mark.parametrize("seed", [2, 6])
def test_a_gap_larger_by_less_than_its_error_says_nothing(seed):
    """Clients spread evenly over a square are the law that the gap compares with: which number is largest is chance."""
    points = np.random.default_rng(seed).uniform(size=(24, 2))
    found = find_clusters(torch.tensor(between(points)), "k_medoids", choose="gap", max_clusters=5)
    assert max(found.scores, key=found.scores.get) > 1
    assert found.count == 1


# --- noise within groups: calibrated distances of mostly zeros ------------------------------------------------


def noisy(groups, clients, gap, seed):
    """Calibrated squared distances and z of clients in so many groups, noise chi-square per pair, below z = 1 cut to 0."""
    generator = np.random.default_rng(seed)
    labels = np.arange(clients) % groups
    errors = (
        generator.normal(size=(clients, 4)) / 2
    )  # of clients' own samples: pairs of one client go together
    centres = np.eye(4)[labels] * gap * (groups > 1)
    squares = between(centres + errors) ** 2
    z = (squares - 2.0) / math.sqrt(2.0)
    np.fill_diagonal(z, 0)
    distances = np.sqrt(np.where(z >= 1, z * math.sqrt(2.0), 0))
    return torch.tensor(distances), torch.tensor(z), torch.tensor(labels)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("gap", [10.0, 40.0, 1000.0])
@pytest.mark.parametrize(("groups", "clients"), [(2, 8), (2, 12), (2, 30), (3, 12), (3, 21)])
def test_noise_within_groups_does_not_split_them(groups, clients, gap, known):
    """However far apart the groups are: zeros within them are no unit to measure noise by."""
    right = 0
    for seed in range(20):
        distances, z, labels = noisy(groups, clients, gap, seed)
        found = find_clusters(distances, z=z if known else None)
        right += found.count == groups and agreement(found, labels) == 1
    assert right >= (20 if known else 17)


@pytest.mark.parametrize(("clients", "gap"), [(12, 10.0), (20, 1000.0)])
def test_the_gap_measures_in_noise(clients, gap):
    for seed in range(2):
        distances, z, labels = noisy(2, clients, gap, seed)
        found = find_clusters(distances, choose="gap", z=z, max_clusters=6)
        assert agreement(found, labels) == 1


def test_measured_clients_of_two_laws_are_two_clusters():
    torch.manual_seed(4)
    features = [torch.randn(60, 3) + 8 * (k % 2) for k in range(12)]
    pairs = pairwise_distances(features, draws=64, projections=16)
    assert find_clusters(pairs.calibrated, z=pairs.z).labels.tolist() == [0, 1] * 6


def test_copies_and_raw_distances_show_no_noise():
    labels = torch.arange(9) % 3
    copies = (labels[:, None] != labels).double().numpy()
    assert beyond_noise(copies) is None
    assert beyond_noise(planted((6, 8))[0].numpy()) is None
    copies[0, 3] = copies[3, 0] = 0.1  # though both are copies of client 6
    np.testing.assert_allclose(beyond_noise(copies)[0, [3, 6, 1]], [2, 0, 200])


# --- bad input ---------------------------------------------------------------------------------------------


def test_bad_choices_are_refused():
    distances, _ = planted((6, 8))
    for options, message in (
        ({"method": "spectrum"}, "Unknown clustering 'spectrum'; did you mean 'spectral'"),
        ({"choose": "gaps"}, "Unknown criterion 'gaps'; did you mean 'gap'"),
        (
            {"method": None},
            "method=None: give a name, agglomerative, k_medoids, spectral, or a clustering built",
        ),
        ({"method": KMedoids}, "method=<class .*KMedoids'>: give a name"),
        ({"choose": None}, "Unknown criterion None"),
        ({"max_clusters": 0}, "max_clusters=0 is no whole number of at least 1: the most clusters"),
        ({"max_clusters": 2.5}, "max_clusters=2.5 is no whole number"),
        ({"max_clusters": "3"}, "max_clusters='3' is no whole number"),
        ({"seed": "a"}, "seed='a' is no whole number"),
        ({"alpha": 1.0}, "alpha=1.0: give the level of a test"),
        ({"alpha": ".1"}, "alpha='.1' is no number: give the level of a test"),
        ({"z": distances.tolist()}, "z is of type list; give a matrix, such as pairwise_distances"),
        (
            {"z": torch.ones(14, 14).index_put_((torch.tensor(2), torch.tensor(5)), torch.tensor(math.nan))},
            "z of clients 2 and 5 is NaN",
        ),
        ({"z": torch.ones(3, 3)}, r"z has shape \(3, 3\); give one for every pair, \(14, 14\)"),
    ):
        with pytest.raises(ValueError, match=message):
            find_clusters(distances, **options)
    with pytest.raises(ValueError, match="give all pairs"):
        find_clusters(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="linkage='single': 'average' or 'complete'"):
        Agglomerative("single")
    with pytest.raises(ValueError, match="Unknown parameter of clustering 'agglomerative' 'linkages'"):
        build_clustering("agglomerative", linkages="average")


def test_a_clustering_of_ones_own():
    @dataclass(frozen=True)
    class Halves(Clustering):
        def split(self, distances, count, seed):
            return np.arange(len(distances)) * count // len(distances)

    with pytest.raises(ValueError, match="belongs to Agglomerative"):
        register_clustering("agglomerative")(Halves)
    labels = torch.arange(12) // 6
    distances = (labels[:, None] != labels).double() * 3
    assert torch.equal(find_clusters(distances, Halves()).labels, labels)


def test_clusters_without_members_are_refused():
    distances = torch.tensor([[1.0, 5.0], [5.0, 1.0]])
    assert nearest_cluster(distances, torch.tensor([0, 1])).tolist() == [0, 1]
    for labels, message in (
        (torch.tensor([0, 2]), r"labels are \[0, 2\]; number the clusters from 0 and leave none out"),
        (torch.tensor([1, 1]), r"labels are \[1\]; number the clusters"),
        (torch.tensor([-1, 0]), r"labels are \[-1, 0\]; number the clusters"),
        (torch.tensor([0.0, 1.0]), r"labels are torch.float32 \(2,\); give one whole number for each column"),
        (
            torch.tensor([0, 1, 1]),
            r"labels are torch.int64 \(3,\); give one whole number for each column, \(2,\)",
        ),
        ([0, 1], "labels are list; give one whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            nearest_cluster(distances, labels)
    with pytest.raises(ValueError, match="row 1, column 0 is nan; give finite"):
        nearest_cluster(torch.tensor([[1.0, 5.0], [math.nan, 1.0]]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"distances are torch.float32 \(2,\); give a floating-point matrix"):
        nearest_cluster(distances[0], torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("method", "choose"), [("agglomerative", "gap"), ("spectral", "gap"), ("k_medoids", "silhouette")]
)
def test_without_scikit_learn_it_is_said_how_to_get_it(method, choose, monkeypatch):
    """Also where one cluster is found without it: not with some data only."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match="find_clusters needs scikit-learn: pip install scikit-learn"):
        find_clusters(torch.zeros(3, 3), method, choose=choose)


def test_medoids_do_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    distances, labels = planted((6, 8))
    assert agreement(find_clusters(distances, "k_medoids"), labels) == 1
