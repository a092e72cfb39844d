"""A model for every client, averaged over the clients whose data lie close.

References:
    The average over a graph of clients is that of Vanhaesebrouck, Bellet and Tommasi, Decentralized collaborative
    learning of personalized models over networks, AISTATS 2017, and of Huang et al., Personalized cross-silo federated
    learning on non-IID data, AAAI 2021 (FedAMP). They weigh by given similarities and by distances of models; we by
    distances of data, see :mod:`personalization.graph`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from personalization.graph import GRAPHS, build_graph

from ..routes import Relations, Routes, RowPerClient
from .base import Algorithm, Phase, log_range, register_algorithm, shared_step


@register_algorithm("neighbours")
@dataclass(frozen=True, kw_only=True)
class Neighbours(Algorithm):
    """Every client starts from, and predicts with, the weighted average of what its neighbours sent last.

    The server keeps what each client sent last, a row a client. ``scale -> inf`` is FedAvg (where all take part in every
    round; else FedAvg that remembers the absent), ``scale -> 0`` local training. Clients that have sent nothing yet count
    for nobody, themselves included; those that are held out take from the others and give nothing.

    Attributes:
        graph: the weights: ``"kernel"``, ``"inverse"`` or ``"row_qp"``, see :mod:`personalization.graph`.
        scale: how far neighbours reach, in median distances between two clients.
    """

    graph: str = field(default="kernel", metadata={"search": {"choices": ["kernel", "inverse", "row_qp"]}})
    scale: float = field(default=1.0, metadata=log_range(0.1, 10.0))

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [
            ("graph", self.graph, self.graph in GRAPHS, f"choose of {', '.join(sorted(GRAPHS))}"),
            ("scale", self.scale, self.scale > 0, "must be positive"),
        ]

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (Phase("shared", "local_steps", shared_step, "shared"),)

    def compares(self) -> bool:
        """See :class:`Algorithm`."""
        return True

    def routes(self, relations: Relations) -> Routes:
        """A row a client; distances are measured in the first round."""

        def weigh() -> Tensor:
            sizes = relations.weight().where(~relations.unseen, 0.0)
            return build_graph(self.graph, scale=self.scale)(relations.pairwise().calibrated, sizes)

        return RowPerClient(len(relations.unseen), weigh)
