"""Ways to split clients into a given number of clusters by their pairwise distances, found by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from .cluster_count import Array, affinity, beyond_noise
from .errors import check_fields, check_options, check_whole, unknown_name


class Clustering(ABC):
    """Splits clients into a given number of clusters; final classes are frozen dataclasses."""

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def split(self, distances: Array, count: int, seed: int) -> Array:
        """Labels ``(clients,)`` of so many clusters, from 2 to ``clients - 1``, a function of the arguments only.

        Args:
            distances: symmetric with a zero diagonal, ``(clients, clients)`` float64.
            count: of the clusters.
            seed: where the method draws at random.
        """


CLUSTERINGS: dict[str, type[Clustering]] = {}

C = TypeVar("C", bound=type[Clustering])


def register_clustering(name: str) -> Callable[[C], C]:
    """Class decorator that makes a clustering known to :func:`find_clusters` under ``name``.

    Raises:
        ValueError: another class has the name already.
    """

    def register(cls: C) -> C:
        known = CLUSTERINGS.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(
                f"The clustering name {name!r} belongs to {known.__qualname__}; choose another name."
            )
        CLUSTERINGS[name] = cls
        return cls

    return register


def build_clustering(name: str, **params: object) -> Clustering:
    """Build a registered clustering.

    Raises:
        ValueError: unknown name or parameter, with the nearest known one; or a parameter out of range.
    """
    if name not in CLUSTERINGS:
        raise unknown_name("clustering", name, CLUSTERINGS)
    check_options(CLUSTERINGS[name], f"parameter of clustering {name!r}", params)
    return CLUSTERINGS[name](**params)


def need_sklearn() -> None:
    """Say how to get scikit-learn where it is missing, before anything is computed: nothing else here needs it.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError("find_clusters needs scikit-learn: pip install scikit-learn") from error


@register_clustering("agglomerative")
@dataclass(frozen=True)
class Agglomerative(Clustering):
    """Merge the two nearest clusters until so many are left (scikit-learn's ``AgglomerativeClustering``).

    Args:
        linkage: distance of two clusters: the ``average`` over their pairs, or the largest (``complete``), which makes
            clusters of like extent.
    """

    linkage: str = field(default="average", metadata={"search": {"choices": ["average", "complete"]}})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.linkage not in ("average", "complete"):
            raise ValueError(f"Agglomerative: linkage={self.linkage!r}: 'average' or 'complete'.")
        need_sklearn()

    def split(self, distances: Array, count: int, seed: int) -> Array:
        """See :class:`Clustering`; nothing is drawn."""
        from sklearn.cluster import AgglomerativeClustering

        model = AgglomerativeClustering(count, metric="precomputed", linkage=self.linkage)
        labels: Array = model.fit_predict(distances)
        return labels


@register_clustering("spectral")
@dataclass(frozen=True)
class Spectral(Clustering):
    """Cut the graph of near clients where it is thinnest (scikit-learn's ``spectral_clustering`` with ``cluster_qr``).

    Finds clusters of any shape, as chains of near clients, where the others look for balls. The graph is
    :func:`personalization.cluster_count.affinity`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        need_sklearn()

    def split(self, distances: Array, count: int, seed: int) -> Array:
        """See :class:`Clustering`; the seed is that of the eigensolver's first vector."""
        from sklearn.cluster import spectral_clustering

        # A little affinity between all: of a graph in pieces, eigenvectors are arbitrary within the pieces.
        near = affinity(distances, beyond_noise(distances)) + 1e-8
        labels: Array = spectral_clustering(
            near, n_clusters=count, assign_labels="cluster_qr", random_state=seed % 2**32
        )
        return labels


@register_clustering("k_medoids")
@dataclass(frozen=True)
class KMedoids(Clustering):
    """So many clients as centres that the distances to the nearest one add up to least, found by swaps (PAM).

    scikit-learn has none. Starts greedily (BUILD), then makes the best exchange of a centre until none helps; an exchange
    is judged for all pairs at once in ``O(clients^2)``. Nothing is drawn.

    Args:
        max_swaps: at most so many exchanges; each lowers the sum, so the search ends by itself, usually after a few.

    References:
        Kaufman and Rousseeuw, Finding groups in data, 1990; Schubert and Rousseeuw, Fast and eager k-medoids clustering,
        Information Systems 101, 2021, equation 8.
    """

    max_swaps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("max_swaps", self.max_swaps, "the most exchanges of a centre", least=0)

    def split(self, distances: Array, count: int, seed: int) -> Array:
        """See :class:`Clustering`."""
        medoids = _first_medoids(distances, count)
        for _ in range(self.max_swaps):
            change = _swap_changes(distances, medoids)
            place, candidate = np.unravel_index(int(change.argmin()), change.shape)
            if change[place, candidate] >= -1e-12 * distances.max() * len(distances):
                break
            medoids[place] = candidate
        labels: Array = distances[:, medoids].argmin(1)
        labels[medoids] = np.arange(count)  # a centre that lies on another one keeps its own cluster
        return labels


def _first_medoids(distances: Array, count: int) -> Array:
    """Greedily the client that lowers the sum most, one after the other; the first of equals."""
    chosen, nearest = np.empty(count, dtype=np.int64), np.full(len(distances), np.inf)
    for place in range(count):
        total = np.minimum(distances, nearest[:, None]).sum(0)
        total[chosen[:place]] = np.inf
        chosen[place] = int(total.argmin())
        nearest = np.minimum(nearest, distances[:, chosen[place]])
    return chosen


def _swap_changes(distances: Array, medoids: Array) -> Array:
    """What the sum would change by if each client replaced each medoid, ``(medoids, clients)``."""
    to_medoids = distances[:, medoids]
    owner = to_medoids.argmin(1)
    first, second = np.sort(to_medoids, axis=1)[:, :2].T[..., None]
    gain = np.minimum(distances - first, 0.0)  # of a client that keeps its medoid
    loss = np.minimum(distances, second) - first  # of one whose medoid goes
    change = np.stack([gain.sum(0) + (loss - gain)[owner == place].sum(0) for place in range(len(medoids))])
    change[:, medoids] = np.inf
    return change
