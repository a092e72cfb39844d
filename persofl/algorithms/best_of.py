"""Best of: the global model or the client's own, whichever did better on its validation span.

References:
    Mansour, Mohri, Ro and Suresh, Three approaches for personalization with applications to federated learning, 2020,
    section 5, with the mixture's weight either 0 or 1. A learned competitor of what a distance chooses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..oracles import Batch, Oracle
from ..plan import Plan
from .base import Algorithm, Phase, Rows, descend, log_range, register_algorithm, shared_step


@register_algorithm("best_of")
@dataclass(frozen=True, kw_only=True)
class BestOf(Algorithm):
    r"""FedAvg and local training side by side; a client predicts with one of them.

    .. math:: v^*_k = \arg\min_{v \in \{w, v_k\}} F_k^{\mathrm{validation}}(v)

    On the validation span itself each half is predicted with the choice of the other (:mod:`persofl.choosing`), so that a
    study which tunes on it is not told more than it will get. A round costs what FedAvg and local training cost together.

    Attributes:
        personal_lr: learning rate of the client's own model.
        personal_steps: steps on it a round.
    """

    personal_lr: float = field(default=0.1, metadata=log_range(1e-2, 1.0))
    personal_steps: int = 20

    knobs: ClassVar[frozenset[str]] = frozenset({"lr", "local_steps", "personal_steps", "weight"})
    chooses: ClassVar[bool] = True

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [
            ("personal_lr", self.personal_lr, self.personal_lr > 0, "must be positive"),
            ("personal_steps", self.personal_steps, self.personal_steps >= 1, "give at least 1"),
        ]

    def new_client(self, anchor: Tensor, plan: Plan) -> Rows:
        """The client's own model starts at the anchor of its first round."""
        return {"personal": anchor.clone()}

    def begin(self, anchor: Tensor, state: Rows, plan: Plan) -> Rows:
        """See :class:`Algorithm`."""
        return {"shared": anchor.clone(), "personal": state["personal"].clone()}

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (
            Phase("shared", "local_steps", shared_step, "shared"),
            Phase("personal", "personal_steps", self._personal_step, "personal"),
        )

    def _personal_step(self, rows: Rows, batch: Batch, oracle: Oracle, plan: Plan) -> Tensor:
        # A modulator of lr scales the client's own training by the same factor as the shared steps.
        return descend("personal", rows, batch, oracle, plan.lr * (self.personal_lr / self.lr))

    def keep(self, rows: Rows) -> Rows:
        """See :class:`Algorithm`."""
        return {"personal": rows["personal"]}

    def experts(self, anchor: Tensor, state: Rows, plan: Plan) -> tuple[Tensor, ...]:
        """The global model, which a client without validation examples keeps, and its own."""
        return anchor, state["personal"]
