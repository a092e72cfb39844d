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

from .cluster_count import CRITERIA, Array, Evidence
from .clustering import Clustering, build_clustering
from .errors import unknown_name
from .graph import check_pairwise


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
        alpha: level of the tests for one cluster.
        seed: of the criterion's draws.

    Raises:
        ValueError: no distances; unknown method or criterion; no clusters allowed; z-scores of another shape.
    """
    check_pairwise(distances)
    _check(choose, max_clusters, alpha, distances, z)
    built = build_clustering(method) if isinstance(method, str) else method
    one = torch.zeros(len(distances), dtype=torch.int64, device=distances.device)
    reason = _why_one(distances, z, alpha, max_clusters)
    if reason:
        return Clusters(one, 1, reason)
    numbers: Array = distances.detach().double().cpu().numpy()
    numbers = (numbers + numbers.T) / 2
    np.fill_diagonal(numbers, 0)
    most = min(max_clusters, len(numbers) - 1)
    chosen = CRITERIA[choose](Evidence(numbers, lambda d, k: built.split(d, k, seed), most, alpha, seed))
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


def _check(choose: str, max_clusters: int, alpha: float, distances: Tensor, z: Tensor | None) -> None:
    if choose not in CRITERIA:
        raise unknown_name("criterion", choose, CRITERIA)
    if max_clusters < 1:
        raise ValueError(f"max_clusters={max_clusters}: give at least 1.")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha}: give the level of a test, between 0 and 1.")
    if z is not None and z.shape != distances.shape:
        raise ValueError(f"z has shape {tuple(z.shape)}; give one for every pair, {tuple(distances.shape)}.")


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
    """
    member = torch.nn.functional.one_hot(labels).to(distances.dtype)
    return (distances @ member / member.sum(0)).argmin(1)
