"""FedAvg in clusters of clients whose data lie close.

References:
    Briggs, Fan and Andras, Federated learning with hierarchical clustering of local updates to improve training on non-IID
    data, IJCNN 2020, algorithm 1, which clusters by the updates of one round. We cluster by distances of the data, before
    the first round, into as many clusters as these show (:mod:`personalization.cluster_count`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from personalization.cluster_count import CRITERIA
from personalization.clustering import CLUSTERINGS
from personalization.clusters import Clusters, find_clusters, nearest_cluster

from ..routes import OneRow, Relations, Routes, RowPerCluster
from .base import Algorithm, Phase, register_algorithm, shared_step


@register_algorithm("cluster_fedavg")
@dataclass(frozen=True, kw_only=True)
class ClusterFedAvg(Algorithm):
    """One model a cluster: FedAvg among the clients whose data lie close; one cluster is FedAvg.

    A client that is held out has the model of the cluster whose members lie nearest on average.

    Attributes:
        method: how clients are grouped: ``"agglomerative"``, ``"spectral"`` or ``"k_medoids"``.
        choose: how many clusters: by ``"eigengap"``, ``"silhouette"`` or ``"gap"``.
        max_clusters: at most so many.
    """

    method: str = "agglomerative"
    choose: str = "eigengap"
    max_clusters: int = 10

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [
            (
                "method",
                self.method,
                self.method in CLUSTERINGS,
                f"choose of {', '.join(sorted(CLUSTERINGS))}",
            ),
            ("choose", self.choose, self.choose in CRITERIA, f"choose of {', '.join(sorted(CRITERIA))}"),
            ("max_clusters", self.max_clusters, self.max_clusters >= 1, "give at least 1"),
        ]

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (Phase("shared", "local_steps", shared_step, "shared"),)

    def compares(self) -> bool:
        """See :class:`Algorithm`."""
        return True

    def routes(self, relations: Relations) -> Routes:
        """A row a cluster."""
        pairwise, seen = relations.pairwise(), (~relations.unseen).nonzero().flatten()
        key = (self.method, self.choose, self.max_clusters, tuple(seen.tolist()))
        if key not in pairwise.known:  # found once for all runs of a process
            pairwise.known[key] = self._find(pairwise.calibrated, pairwise.z, seen)
        found: Clusters = pairwise.known[key]
        if found.count == 1:
            return OneRow()
        labels = nearest_cluster(pairwise.calibrated[:, seen], found.labels)
        labels[seen] = found.labels
        return RowPerCluster(labels, found.count)

    def _find(self, distances: Tensor, z: Tensor | None, seen: Tensor) -> Clusters:
        own = torch.meshgrid(seen, seen, indexing="ij")
        return find_clusters(
            distances[own],
            self.method,
            choose=self.choose,
            max_clusters=self.max_clusters,
            z=None if z is None else z[own],
        )
