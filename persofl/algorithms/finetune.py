"""FedAvg with fine-tuning: a global model, adapted on the client before it predicts.

References:
    Yu, Bagdasaryan and Shmatikov, Salvaging federated learning by local adaptation, 2020. The interpolation back
    towards the global model is Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..oracles import Batch, Oracle
from ..plan import Plan
from .base import Algorithm, Phase, Rows, descend, log_range, register_algorithm, shared_step


@register_algorithm("finetune")
@dataclass(frozen=True, kw_only=True)
class FineTune(Algorithm):
    """FedAvg; each client predicts with ``w + mix * (fine-tuned w - w)``.

    Attributes:
        personal_steps: SGD steps of fine-tuning.
        personal_lr: their learning rate.
        mix: 0 is the global model, 1 the fine-tuned one.
    """

    personal_steps: int = field(default=20, metadata={"search": {"low": 1, "high": 100, "log": True}})
    personal_lr: float = field(default=0.02, metadata=log_range(1e-3, 0.5))
    mix: float = 1.0

    knobs: ClassVar[frozenset[str]] = frozenset({"lr", "local_steps", "personal_steps", "mix", "weight"})

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [
            ("personal_steps", self.personal_steps, self.personal_steps >= 0, "must not be negative"),
            ("personal_lr", self.personal_lr, self.personal_lr > 0, "must be positive"),
            ("mix", self.mix, 0 <= self.mix <= 1, "lies between 0 and 1"),
        ]

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (Phase("shared", "local_steps", shared_step, "shared"),)

    def adaptation(self) -> Phase:
        """See :class:`Algorithm`."""
        return Phase("finetune", "personal_steps", self._finetune_step, "personal")

    def _finetune_step(self, rows: Rows, batch: Batch, oracle: Oracle, plan: Plan) -> Tensor:
        # A modulator of lr scales fine-tuning by the same factor as the shared steps.
        return descend("personal", rows, batch, oracle, plan.lr * (self.personal_lr / self.lr))

    def predictor(self, anchor: Tensor, state: Rows, plan: Plan) -> Tensor:
        """See :class:`Algorithm`."""
        return torch.lerp(anchor, state["personal"], plan.mix)
