r"""How many clusters there are: three criteria, each of which can answer "one".

- *silhouette*: how much nearer a client lies to its own cluster than to the next (Rousseeuw 1987), the mean over clients,
  largest over the number of clusters. It is not defined for one cluster, so the largest value is tested: clients drawn
  from a single Gaussian law of the same spread, clustered in the same way, must rarely reach it (level ``alpha``).
  The law has the eigenvalues of the centred squared distances (classical scaling), as in SigClust (Liu et al., Statistical
  significance of clustering for high-dimension, low-sample size data, JASA 103, 2008).
- *gap*: log of the spread within clusters against its mean over clients spread evenly over the same box (Tibshirani,
  Walther and Hastie, Estimating the number of clusters via the gap statistic, JRSS B 63, 2001): the least k, from 1,
  whose gap is within a standard error of the largest. (The paper stops at the first k that k + 1 does not beat, and so at
  1 for three clusters all equally far apart.)
- *eigengap*: the largest step between neighbouring eigenvalues of the normalised Laplacian of :func:`affinity` (von
  Luxburg, A tutorial on spectral clustering, 2007), where the first step says one cluster. Nothing is drawn.

Calibrated distances within a group are mostly exact zeros, and a few are not, by chance. In units of zero these few are
infinitely far, and a clear group would fall apart; so eigengap and gap measure in units of noise where that is coarser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DRAWS = 39
"""Draws of the single Gaussian law: the largest of 39 is beaten by chance in one case of 40."""
GAP_DRAWS = 20
BEYOND = 3.0
"""Deviations of noise that count as one unit of distance: what lies less far says little against nearness."""
ADDED = 2.0
"""Deviations of noise that the gap adds to squared distances: about what is left of those that calibration let pass."""
TESTED = 300
"""Clients that a test by draws looks at, drawn at random of more."""


@dataclass(frozen=True)
class Evidence:
    """What a criterion judges.

    Attributes:
        distances: ``(clients, clients)`` float64, symmetric, zero diagonal, not all zero.
        split: labels of so many clusters.
        most: clusters to try.
        alpha: level of a test.
        seed: of draws.
        z: how far each squared distance lies beyond noise, in its deviations, ``(clients, clients)`` float64, at least 0;
            None where no noise is known.
    """

    distances: Array
    split: Callable[[Array, int], Array]
    most: int
    alpha: float
    seed: int
    z: Array | None = None


@dataclass(frozen=True)
class Choice:
    """A number of clusters, why, and the criterion at each number that was tried."""

    count: int
    reason: str
    scores: dict[int, float]


def by_silhouette(evidence: Evidence) -> Choice:
    """The number of largest mean silhouette, or one where a single Gaussian law would reach that."""
    scores = silhouettes(evidence, evidence.distances)
    best = max(scores, key=lambda k: scores[k])
    if _by_chance(evidence, scores[best]):
        reason = f"one Gaussian law of the same spread reaches a silhouette of {scores[best]:.2f} too"
        return Choice(1, reason, scores)
    return Choice(
        best, f"the silhouette is largest, {scores[best]:.2f}, beyond that of one Gaussian law", scores
    )


def silhouettes(evidence: Evidence, distances: Array) -> dict[int, float]:
    """Mean silhouette for every number of clusters from 2."""
    from sklearn.metrics import silhouette_score

    found = {}
    for count in range(2, min(evidence.most, len(distances) - 1) + 1):
        labels = evidence.split(distances, count)
        known = len(np.unique(labels))
        found[count] = (
            float(silhouette_score(distances, labels, metric="precomputed"))
            if 2 <= known < len(distances)
            else -1.0
        )
    return found


def _by_chance(evidence: Evidence, value: float) -> bool:
    """Whether single Gaussian laws reach the silhouette more often than the level allows."""
    generator, allowed = np.random.default_rng(evidence.seed), math.floor(evidence.alpha * (DRAWS + 1)) - 1
    distances = _some(evidence.distances, generator)
    if len(distances) < len(evidence.distances):
        value = max(silhouettes(evidence, distances).values())
    spread = np.sqrt((coordinates(distances) ** 2).mean(0))
    reached = 0
    for _ in range(DRAWS):
        drawn = between(generator.standard_normal((len(distances), len(spread))) * spread)
        reached += max(silhouettes(evidence, drawn).values()) >= value
        if reached > allowed:
            return True
    return False


def by_gap(evidence: Evidence) -> Choice:
    """The least number whose gap is within a standard error of the largest."""
    generator = np.random.default_rng(evidence.seed)
    distances = _some(evidence.distances, generator)
    place = coordinates(distances)
    low, high = place.min(0), place.max(0)
    noise = _noise(evidence.distances, evidence.z)
    spreads = [
        _log_spreads(evidence, between(generator.uniform(low, high, place.shape)), noise)
        for _ in range(GAP_DRAWS)
    ]
    expected, error = np.mean(spreads, axis=0), np.std(spreads, axis=0) * math.sqrt(1 + 1 / GAP_DRAWS)
    gaps = expected - _log_spreads(evidence, distances, noise)
    top = int(gaps.argmax())
    count = int((gaps >= gaps[top] - error[top]).argmax()) + 1
    scores = {k: float(gap) for k, gap in enumerate(gaps, start=1)}
    return Choice(
        count, f"the gap, {gaps[count - 1]:.2f}, is within an error of the largest, {gaps[top]:.2f}", scores
    )


def _some(distances: Array, generator: np.random.Generator) -> Array:
    """The distances of so many clients as a test by draws looks at."""
    if len(distances) <= TESTED:
        return distances
    chosen = np.sort(generator.choice(len(distances), TESTED, replace=False))
    part: Array = distances[np.ix_(chosen, chosen)]
    return part


def _noise(distances: Array, z: Array | None) -> float:
    """What noise adds to a squared distance; the spread of data and of draws is told apart down to that."""
    if z is None:
        return 0.0
    beyond = (z >= 1) & (distances > 0)
    return ADDED * float(np.median(distances[beyond] ** 2 / z[beyond])) if beyond.any() else 0.0


def _log_spreads(evidence: Evidence, distances: Array, noise: float) -> Array:
    """Log of the pooled squared distance within 1, 2, ... clusters."""
    return np.array([math.log(max(spread, 1e-300)) for spread in _spreads(evidence, distances, noise)])


def _spreads(evidence: Evidence, distances: Array, noise: float) -> Iterator[float]:
    squared = distances**2 + noise * (1 - np.eye(len(distances)))
    floor = 1e-12 * float(squared.sum()) / len(squared)
    for count in range(1, min(evidence.most, len(distances) - 1) + 1):
        labels = evidence.split(distances, count) if count > 1 else np.zeros(len(distances), dtype=int)
        own = (squared[np.ix_(part, part)] for part in (labels == label for label in np.unique(labels)))
        yield floor + sum(float(block.sum()) / (2 * len(block)) for block in own)


def by_eigengap(evidence: Evidence) -> Choice:
    """The number after which the eigenvalues of the normalised Laplacian step up most."""
    from scipy.sparse.linalg import eigsh

    near = affinity(evidence.distances, evidence.z)
    root = np.sqrt(near.sum(1))
    kernel, wanted = near / root[:, None] / root, evidence.most + 1
    if len(near) > TESTED:
        largest = eigsh(kernel, k=wanted, which="LA", v0=root, return_eigenvectors=False)
    else:
        largest = np.linalg.eigvalsh(kernel)
    steps = np.diff(np.sort(1 - largest)[:wanted])
    count = int(steps.argmax()) + 1
    scores = {k: float(step) for k, step in enumerate(steps, start=1)}
    reason = f"the largest step of the Laplacian's eigenvalues, {steps.max():.2f}, follows number {count}"
    return Choice(count, reason, scores)


def affinity(distances: Array, z: Array | None = None) -> Array:
    r"""Nearness of clients in a scale of their own, ``exp(-d_ij^2 / (s_i s_j))``, 1 on the diagonal.

    ``s_i`` is the distance to the ``log(clients)``-th neighbour, so that dense and thin clusters both hang together
    (Zelnik-Manor and Perona, Self-tuning spectral clustering, NIPS 2004), and at least a thousandth of the median. Where z
    says how far a pair lies beyond noise, it is at least ``exp(-z_ij / 3)`` near, however small the scales.
    """
    rank = max(1, round(math.log(len(distances))))
    scale = np.partition(distances, rank, axis=1)[:, rank]
    scale = np.maximum(scale, 1e-3 * float(np.median(distances[distances > 0])))
    apart = distances**2 / np.outer(scale, scale)
    nearness: Array = np.exp(-(apart if z is None else np.minimum(apart, z / BEYOND)))
    return nearness


def beyond_noise(distances: Array) -> Array | None:
    """What z may be, read off the distances alone; None where they show no noise, as copies and raw ones do not.

    Two clients that both lie at distance 0 of a third would lie at 0 of each other, but for noise. Such pairs have passed a
    gate of one deviation, and lie about two out.
    """
    zero = distances == 0
    np.fill_diagonal(zero, False)
    if not zero.any():
        return None
    shared = zero.astype(np.float32) @ zero.astype(np.float32) > 0
    by_noise = distances[shared & (distances > 0)]
    if not len(by_noise):
        return None
    z: Array = 2 * distances**2 / float(np.median(by_noise**2))
    return z


def coordinates(distances: Array) -> Array:
    """Classical scaling: points ``(clients, dimensions)`` with about these distances, along their principal axes."""
    squared = distances**2
    centred = squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    kept = values > 1e-9 * values[-1]
    place: Array = vectors[:, kept] * np.sqrt(values[kept])
    return place


def between(points: Array) -> Array:
    """Euclidean distances of all pairs."""
    from scipy.spatial.distance import pdist, squareform

    found: Array = squareform(pdist(points))
    return found


CRITERIA: dict[str, Callable[[Evidence], Choice]] = {
    "silhouette": by_silhouette,
    "gap": by_gap,
    "eigengap": by_eigengap,
}
