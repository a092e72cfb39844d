"""Local training, the reference that no client should fall below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..plan import Plan
from .base import Algorithm, Phase, Rows, personal_step, register_algorithm


@register_algorithm("local")
@dataclass(frozen=True, kw_only=True)
class Local(Algorithm):
    """Every client trains alone, from the same initial model; nothing goes up."""

    knobs: ClassVar[frozenset[str]] = frozenset({"lr", "local_steps"})
    federated: ClassVar[bool] = False

    def new_client(self, anchor: Tensor, plan: Plan) -> Rows:
        """Start from the initial model, which the server never changes."""
        return {"personal": anchor.clone()}

    def begin(self, anchor: Tensor, state: Rows, plan: Plan) -> Rows:
        """See :class:`Algorithm`."""
        return {"personal": state["personal"].clone()}

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (Phase("shared", "local_steps", personal_step, "personal"),)

    def delta(self, rows: Rows) -> Tensor | None:
        """Nothing."""
        return None

    def keep(self, rows: Rows) -> Rows:
        """See :class:`Algorithm`."""
        return {"personal": rows["personal"]}

    def predictor(self, anchor: Tensor, state: Rows, plan: Plan) -> Tensor:
        """See :class:`Algorithm`."""
        return state["personal"]
