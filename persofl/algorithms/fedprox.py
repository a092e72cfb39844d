"""FedProx.

References:
    Li et al., Federated optimization in heterogeneous networks, MLSys 2020, algorithm 2. The local solver is SGD with a
    proximal step, see :func:`persofl.algorithms.base.pull`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..oracles import Batch, Oracle
from ..plan import Plan
from .base import Algorithm, Phase, Rows, log_range, pull, register_algorithm, shared_step


@register_algorithm("fedprox")
@dataclass(frozen=True, kw_only=True)
class FedProx(Algorithm):
    """FedAvg whose local objective adds ``prox / 2 * |w - anchor|^2``; ``prox = 0`` is FedAvg."""

    prox: float = field(default=0.1, metadata=log_range(1e-3, 10.0))

    knobs: ClassVar[frozenset[str]] = frozenset({"lr", "local_steps", "prox", "weight"})

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [("prox", self.prox, self.prox >= 0, "must not be negative")]

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (Phase("shared", "local_steps", _proximal_step, "shared"),)


def _proximal_step(rows: Rows, batch: Batch, oracle: Oracle, plan: Plan) -> Tensor:
    losses = shared_step(rows, batch, oracle, plan)
    pull("shared", rows, plan, oracle)
    return losses
