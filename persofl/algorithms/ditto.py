"""Ditto.

References:
    Li et al., Ditto: fair and robust federated learning through personalization, ICML 2021, algorithm 1. The personal
    solver takes proximal steps, see :func:`persofl.algorithms.base.pull`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..oracles import Batch, Oracle
from ..plan import Plan
from .base import Algorithm, Phase, Rows, log_range, personal_step, pull, register_algorithm, shared_step


@register_algorithm("ditto")
@dataclass(frozen=True, kw_only=True)
class Ditto(Algorithm):
    """FedAvg for the shared model, and beside it a personal one that is pulled towards the anchor.

    The server sees the shared model only. ``prox = 0`` trains the personal model alone, a large ``prox`` ties it to the
    global model.

    Attributes:
        prox: strength of the pull, the paper's lambda.
        personal_steps: steps on the personal model a round.
    """

    prox: float = field(default=0.1, metadata=log_range(1e-3, 10.0))
    personal_steps: int = 20

    knobs: ClassVar[frozenset[str]] = frozenset({"lr", "local_steps", "personal_steps", "prox", "weight"})

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [
            ("prox", self.prox, self.prox >= 0, "must not be negative"),
            ("personal_steps", self.personal_steps, self.personal_steps >= 1, "give at least 1"),
        ]

    def new_client(self, anchor: Tensor, plan: Plan) -> Rows:
        """The personal model starts at the anchor."""
        return {"personal": anchor.clone()}

    def begin(self, anchor: Tensor, state: Rows, plan: Plan) -> Rows:
        """See :class:`Algorithm`."""
        return {"shared": anchor.clone(), "personal": state["personal"].clone()}

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (
            Phase("shared", "local_steps", shared_step, "shared"),
            Phase("personal", "personal_steps", _proximal_personal_step, "personal"),
        )

    def keep(self, rows: Rows) -> Rows:
        """See :class:`Algorithm`."""
        return {"personal": rows["personal"]}

    def predictor(self, anchor: Tensor, state: Rows, plan: Plan) -> Tensor:
        """See :class:`Algorithm`."""
        return state["personal"]


def _proximal_personal_step(rows: Rows, batch: Batch, oracle: Oracle, plan: Plan) -> Tensor:
    losses = personal_step(rows, batch, oracle, plan)
    pull("personal", rows, plan, oracle)
    return losses
