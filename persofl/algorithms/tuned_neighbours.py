"""The average of the clients whose data lie close, adapted on the client before it predicts.

References:
    See :mod:`persofl.algorithms.neighbours` for the average. Fine-tuning it, as Yu, Bagdasaryan and Shmatikov (Salvaging
    federated learning by local adaptation, 2020) fine-tune a global model, is what ``docs/results/distance.md`` suggested.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..oracles import Batch, Oracle
from ..plan import Plan
from .base import Phase, Rows, descend, log_range, register_algorithm
from .neighbours import Neighbours


@register_algorithm("tuned_neighbours")
@dataclass(frozen=True, kw_only=True)
class TunedNeighbours(Neighbours):
    """Every client predicts with the average of its neighbours' models, fine-tuned on its own data.

    ``scale -> inf`` is FedAvg with fine-tuning, ``personal_steps = 0`` is :class:`Neighbours`.

    Attributes:
        personal_steps: SGD steps of fine-tuning.
        personal_lr: their learning rate.
    """

    personal_steps: int = field(default=20, metadata={"search": {"low": 1, "high": 100, "log": True}})
    personal_lr: float = field(default=0.02, metadata=log_range(1e-3, 0.5))

    knobs: ClassVar[frozenset[str]] = Neighbours.knobs | {"personal_steps"}

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [
            *super().checks(),
            ("personal_steps", self.personal_steps, self.personal_steps >= 0, "must not be negative"),
            ("personal_lr", self.personal_lr, self.personal_lr > 0, "must be positive"),
        ]

    def adaptation(self) -> Phase:
        """See :class:`Algorithm`."""
        return Phase("finetune", "personal_steps", self._finetune_step, "personal")

    def _finetune_step(self, rows: Rows, batch: Batch, oracle: Oracle, plan: Plan) -> Tensor:
        # A modulator of lr scales fine-tuning by the same factor as the shared steps.
        return descend("personal", rows, batch, oracle, plan.lr * (self.personal_lr / self.lr))

    def predictor(self, anchor: Tensor, state: Rows, plan: Plan) -> Tensor:
        """See :class:`Algorithm`."""
        return state["personal"]
