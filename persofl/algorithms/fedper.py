"""FedPer: the last layers are the client's own.

References:
    Arivazhagan et al., Federated learning with personalization layers, 2019, algorithms 1 and 2. Ours may give every client
    a number of layers of its own (the knob ``depth``).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..plan import Plan
from .base import register_algorithm
from .split import Split


@register_algorithm("fedper")
@dataclass(frozen=True, kw_only=True)
class FedPer(Split):
    """FedAvg of all but the last ``depth`` layers, which stay with the client; ``depth = 1`` keeps the head.

    Attributes:
        depth: how many layers, counted from the last, are personal.
    """

    def own(self, plan: Plan) -> Tensor:
        """See :class:`Split`."""
        return plan.last_layers()
