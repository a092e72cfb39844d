"""APFL: adaptive personalised federated learning.

References:
    Deng, Kamani and Mahdavi, Adaptive personalized federated learning, 2020, algorithm 1. The mixing weight follows its
    gradient at every local step, as in the paper's equation 10, clipped to [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..oracles import Batch, Oracle
from ..plan import Plan
from .base import Algorithm, Phase, Rows, descend, register_algorithm, unit_range


@register_algorithm("apfl")
@dataclass(frozen=True, kw_only=True)
class APFL(Algorithm):
    """A client predicts with ``mix * personal + (1 - mix) * global``, and trains both.

    ``mix = 0`` is FedAvg, ``mix = 1`` local training. A modulator on ``mix`` replaces its adaptation.

    Attributes:
        mix: share of the personal model, the paper's alpha; the start when it adapts.
        adaptive: whether it follows its gradient.
    """

    mix: float = field(default=0.5, metadata=unit_range())
    adaptive: bool = True

    knobs: ClassVar[frozenset[str]] = frozenset({"lr", "local_steps", "mix", "weight"})
    matrices: ClassVar[int] = 2  # shared, personal and their mixture, of which a step reads two at a time

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [("mix", self.mix, 0 <= self.mix <= 1, "lies between 0 and 1")]

    def new_client(self, anchor: Tensor, plan: Plan) -> Rows:
        """The personal model starts at the anchor, the weight at the plan's."""
        return {"personal": anchor.clone(), "mix": plan.mix.clone()}

    def begin(self, anchor: Tensor, state: Rows, plan: Plan) -> Rows:
        """See :class:`Algorithm`."""
        mix = plan.mix if "mix" in plan.steered else state["mix"]
        return {"shared": anchor.clone(), "personal": state["personal"].clone(), "mix": mix.clone()}

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (Phase("shared", "local_steps", self._step),)

    def _step(self, rows: Rows, batch: Batch, oracle: Oracle, plan: Plan) -> Tensor:
        shared, personal, mix = rows["shared"], rows["personal"], rows["mix"]
        gap = personal - shared
        mixture = torch.addcmul(shared, gap, mix)
        losses, grads = oracle.grad(mixture, batch)
        oracle.carry_statistics(mixture, personal)
        slope = torch.bmm(gap.unsqueeze(1), grads.unsqueeze(2)).squeeze(2)
        descend("shared", rows, batch, oracle, plan.lr)
        personal.addcmul_(
            grads, plan.lr * mix, value=-1
        )  # the chain rule's factor: d mixture / d personal = mix
        if self.adaptive and "mix" not in plan.steered:
            mix.addcmul_(plan.lr, slope, value=-1).clamp_(0, 1)
        return losses

    def keep(self, rows: Rows) -> Rows:
        """See :class:`Algorithm`."""
        return {"personal": rows["personal"], "mix": rows["mix"]}

    def predictor(self, anchor: Tensor, state: Rows, plan: Plan) -> Tensor:
        """See :class:`Algorithm`."""
        mix = plan.mix if "mix" in plan.steered else state["mix"]
        return torch.lerp(anchor, state["personal"], mix)
