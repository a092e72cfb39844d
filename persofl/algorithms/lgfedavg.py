"""LG-FedAvg: the first layers are the client's own, the last are averaged.

References:
    Liang et al., Think locally, act globally: federated learning with local and global representations, 2020, algorithm 1,
    without its auxiliary losses. Ours counts the local layers, theirs are all but the top ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..plan import Plan
from .base import register_algorithm
from .split import Split


@register_algorithm("lgfedavg")
@dataclass(frozen=True, kw_only=True)
class LGFedAvg(Split):
    """FedAvg of all but the first ``depth`` layers, which stay with the client: a representation of one's own.

    Attributes:
        depth: how many layers, counted from the first, are personal.
    """

    def own(self, plan: Plan) -> Tensor:
        """See :class:`Split`."""
        return plan.first_layers()
