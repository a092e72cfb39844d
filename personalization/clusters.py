"""Groups of clients whose laws lie close, from pairwise distances, with as many groups as the data show.

    pairs = pairwise_distances(features)
    found = find_clusters(pairs.calibrated, z=pairs.z)
    found.labels                                             # (clients,) int64

One cluster is an answer, and the default one: see :mod:`personalization.cluster_count` for how many there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .cluster_count import CRITERIA, Array, Evidence, beyond_noise
from .clustering import CLUSTERINGS, Clustering, build_clustering, need_sklearn
from .errors import check_number, check_whole, unknown_name
from .graph import check_pairwise
from .numeric import power_unit, wide


@dataclass(frozen=True)
class Clusters:
    """Groups of clients.

    Attributes:
        labels: ``(clients,)`` int64 from 0, numbered by their first client.
        count: of the clusters.
        reason: why so many, in words and numbers.
        scores: the criterion at each number of clusters that was tried.
    """

    labels: Tensor
    count: int
    reason: str
    scores: dict[int, float] = field(default_factory=dict)


def find_clusters(
    distances: Tensor,
    method: str | Clustering = "agglomerative",
    *,
    choose: str = "eigengap",
    max_clusters: int = 10,
    z: Tensor | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> Clusters:
    """Group clients by their distances, into as many clusters as the data show.

    There is one cluster where no two clients differ (all distances 0), where there are fewer than four clients, where the
    largest given ``z`` is likely by chance (see :func:`chance_of_largest`), and where the criterion says so.

    Args:
        distances: calibrated, symmetric with a zero diagonal, ``(clients, clients)``.
        method: a name in ``CLUSTERINGS``, "agglomerative", "spectral" or "k_medoids", or a clustering built beforehand.
        choose: how many: a name in ``CRITERIA``, "eigengap", "silhouette" or "gap".
        max_clusters: at most so many, and at most ``clients - 1``.
        z: how far each squared distance lies beyond what chance shows, in its standard deviations, ``(clients, clients)``.
            Give it: it also tells the noise within a group from a difference.
        alpha: level of the tests for one cluster.
        seed: of the criterion's draws.

    Raises:
        ValueError: no distances; unknown method or criterion; no whole number of clusters; no level; z-scores of another
            shape, or NaN.
        ImportError: scikit-learn is missing; only ``method="k_medoids"`` with "eigengap" or "gap" does without.
    """
    check_pairwise(distances)
    _check(choose, max_clusters, alpha, seed)
    if z is not None:
        _check_z(z, distances)
    built = _built(method)
    if choose == "silhouette":
        need_sklearn()
    one = torch.zeros(len(distances), dtype=torch.int64, device=distances.device)
    reason = _why_one(distances, z, alpha, max_clusters)
    if reason:
        return Clusters(one, 1, reason)
    exact = wide(distances)
    numbers = _symmetric(exact / power_unit(exact, 4, (0, 1)))  # whose squares are squared
    most = min(max_clusters, len(numbers) - 1)
    beyond = beyond_noise(numbers) if z is None else _symmetric(z)
    chosen = CRITERIA[choose](
        Evidence(numbers, lambda d, k: built.split(d, k, seed), most, alpha, seed, beyond)
    )
    if chosen.count == 1:
        return Clusters(one, 1, chosen.reason, chosen.scores)
    labels = numbered(torch.as_tensor(built.split(numbers, chosen.count, seed))).to(distances.device)
    return Clusters(labels, int(labels.max()) + 1, chosen.reason, chosen.scores)


def _why_one(distances: Tensor, z: Tensor | None, alpha: float, max_clusters: int) -> str:
    """Why there is one cluster, before any criterion is asked; empty if that is open."""
    clients = len(distances)
    if max_clusters == 1:
        return "max_clusters is 1"
    if clients < 4:
        return f"{clients} clients are too few to tell clusters from single clients"
    if float(distances.max()) == 0:
        return "no two clients differ"
    if z is not None:
        largest = float(z[torch.triu(torch.ones_like(z, dtype=torch.bool), 1)].max())
        chance = chance_of_largest(largest, clients)
        if chance >= alpha:
            return f"no two clients differ beyond chance: a largest z of {largest:.1f} has chance {chance:.2g} or less"
    return ""


def _symmetric(pairs: Tensor) -> Array:
    """In float64, at least 0, and 0 on the diagonal; infinite z-scores become large ones, that arithmetic can hold."""
    numbers: Array = np.clip(pairs.detach().double().cpu().numpy(), 0, 1e300)
    numbers = numbers / 2 + numbers.T / 2
    np.fill_diagonal(numbers, 0)
    return numbers


def chance_of_largest(z: float, clients: int) -> float:
    r"""Bound on the chance that any pair of clients reaches z if all have one law.

    Under the null a squared distance is a weighted sum of squared normal variables; far out, the most likely of these
    sums to exceed z standard deviations is a single one, ``(x^2 - 1) / sqrt(2)``. Times the number of pairs (the union
    bound), which holds however the pairs depend.

    Returns:
        In [0, 1].
    """
    pairs = clients * (clients - 1) // 2
    return min(1.0, pairs * math.erfc(math.sqrt(max(0.0, 1 + math.sqrt(2) * z) / 2)))


def _built(method: object) -> Clustering:
    if isinstance(method, str):
        return build_clustering(method)
    if isinstance(method, Clustering):
        return method
    raise ValueError(
        f"method={method!r}: give a name, {', '.join(sorted(CLUSTERINGS))}, or a clustering built beforehand, such as "
        'build_clustering("agglomerative").'
    )


def _check(choose: str, max_clusters: object, alpha: float, seed: object) -> None:
    if not isinstance(choose, str) or choose not in CRITERIA:
        raise unknown_name("criterion", choose, CRITERIA)
    check_whole("max_clusters", max_clusters, "the most clusters there may be")
    check_whole("seed", seed, "that of the criterion's draws", least=0)
    check_number("alpha", alpha, "the level of a test, between 0 and 1")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha}: give the level of a test, between 0 and 1.")


def _check_z(z: object, distances: Tensor) -> None:
    if not isinstance(z, Tensor):
        raise ValueError(
            f"z is of type {type(z).__name__}; give a matrix, such as pairwise_distances(...).z."
        )
    if z.shape != distances.shape:
        raise ValueError(f"z has shape {tuple(z.shape)}; give one for every pair, {tuple(distances.shape)}.")
    if z.isnan().any():
        k, j = z.isnan().nonzero()[0].tolist()
        raise ValueError(f"z of clients {k} and {j} is NaN; give numbers, or no z where none are known.")


def numbered(labels: Tensor) -> Tensor:
    """The same groups with labels from 0 in the order of their first client, ``(clients,)`` int64."""
    _, inverse = torch.unique(labels, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(labels), device=labels.device)
    first = first.scatter_reduce(0, inverse, torch.arange(len(labels), device=labels.device), "amin")
    return first.argsort().argsort()[inverse]


def nearest_cluster(distances: Tensor, labels: Tensor) -> Tensor:
    """The cluster whose members lie nearest on average, for clients that were not clustered.

    Args:
        distances: to the clustered clients, ``(others, clients)``.
        labels: of these, ``(clients,)`` int64 from 0, none left out.

    Returns:
        ``(others,)`` int64; the first of equally near ones.

    Raises:
        ValueError: distances that are no finite matrix; labels of other clients, or that leave out a number.
    """
    _check_labelled(distances, labels)
    member = torch.nn.functional.one_hot(labels.long()).to(distances)
    return (distances @ member / member.sum(0)).argmin(1)


def _check_labelled(distances: object, labels: object) -> None:
    """Refuse clusters without members: their mean distance is 0/0, which argmin would take for the least."""
    if not isinstance(distances, Tensor) or distances.ndim != 2 or not distances.is_floating_point():
        raise ValueError(
            f"distances are {_sort(distances)}; give a floating-point matrix, (others, clients)."
        )
    if not torch.isfinite(distances).all():
        k, j = (~torch.isfinite(distances)).nonzero()[0].tolist()
        raise ValueError(
            f"The distance in row {k}, column {j} is {float(distances[k, j])}; give finite distances."
        )
    clients = distances.shape[1]
    integers = isinstance(labels, Tensor) and not labels.is_floating_point() and labels.dtype != torch.bool
    if not isinstance(labels, Tensor) or not integers or labels.shape != (clients,) or not clients:
        raise ValueError(f"labels are {_sort(labels)}; give one whole number for each column, ({clients},).")
    known = labels.unique()
    if not torch.equal(known.long(), torch.arange(len(known), device=known.device)):
        raise ValueError(
            f"labels are {known[:20].tolist()}; number the clusters from 0 and leave none out, as "
            "labels.unique(return_inverse=True)[1] does."
        )


def _sort(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
