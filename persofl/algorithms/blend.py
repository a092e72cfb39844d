"""Blend: the forecasts of the global and of the client's own model, averaged.

References:
    Mansour, Mohri, Ro and Suresh, Three approaches for personalization with applications to federated learning, 2020,
    section 5 (model interpolation). Theirs chooses the weight on a client's own data; ours shrinks that choice towards a
    weight that the client's distance from the population may set, which is what few validation windows need.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..oracles import Batch, Oracle
from ..plan import Plan
from .base import Algorithm, Phase, Rows, descend, log_range, register_algorithm, shared_step, unit_range


@register_algorithm("blend")
@dataclass(frozen=True, kw_only=True)
class Blend(Algorithm):
    r"""FedAvg and local training side by side; a client predicts with both.

    .. math:: \hat y = (1 - a_k) f_w(x) + a_k f_{v_k}(x), \quad a_k = (1 - t)\, \mathrm{mix}_k + t\, a_k^*

    where :math:`a_k^*` is best on the client's validation span (:mod:`persofl.blending`). ``mix = 0, trust = 0`` is
    FedAvg, ``mix = 1, trust = 0`` local training, ``trust = 1`` the client's own choice.

    Attributes:
        mix: weight of the client's own model before its validation span is looked at.
        trust: in the validation span's choice, t.
        personal_lr: learning rate of the client's own model.
        personal_steps: steps on it a round.
    """

    mix: float = field(default=0.3, metadata=unit_range())
    trust: float = field(default=0.5, metadata=unit_range())
    personal_lr: float = field(default=0.1, metadata=log_range(1e-2, 1.0))
    personal_steps: int = 20

    knobs: ClassVar[frozenset[str]] = frozenset({"lr", "local_steps", "personal_steps", "mix", "weight"})

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [
            ("mix", self.mix, 0 <= self.mix <= 1, "lies between 0 and 1"),
            ("trust", self.trust, 0 <= self.trust <= 1, "lies between 0 and 1"),
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

    def predictor(self, anchor: Tensor, state: Rows, plan: Plan) -> Tensor:
        """The client's own model, which is half of what it predicts with; see :meth:`experts`."""
        return state["personal"]

    def experts(self, anchor: Tensor, state: Rows, plan: Plan) -> tuple[Tensor, ...]:
        """The global model and the client's own."""
        return anchor, state["personal"]
