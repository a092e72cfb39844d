"""FedAvg.

References:
    McMahan et al., Communication-efficient learning of deep networks from decentralized data, AISTATS 2017,
    algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from .base import Algorithm, Phase, register_algorithm, shared_step


@register_algorithm("fedavg")
@dataclass(frozen=True, kw_only=True)
class FedAvg(Algorithm):
    """One global model: local SGD from the anchor, averaged by the server."""

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (Phase("shared", "local_steps", shared_step, "shared"),)
