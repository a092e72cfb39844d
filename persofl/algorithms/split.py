"""Models in two parts: some layers stay with the client, the others are averaged. What FedPer and LG-FedAvg share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..plan import Plan
from .base import Algorithm, Phase, Rows, shared_step


@dataclass(frozen=True, kw_only=True)
class Split(Algorithm):
    """FedAvg of a part of the layers; both parts train together, in one phase.

    How many layers are a client's own is its ``depth``: 0 is FedAvg, as many as the model has is local training. What a
    client keeps it sends as unchanged, so that a layer which some keep moves by the shares of the others' weights.

    Attributes:
        depth: how many layers are personal.
    """

    depth: int = field(default=1, metadata={"search": {"low": 1, "high": 3}})

    knobs: ClassVar[frozenset[str]] = frozenset({"lr", "local_steps", "weight", "depth"})

    @abstractmethod
    def own(self, plan: Plan) -> Tensor:
        """Which columns of a row are personal, ``(clients, parameters)`` bool."""

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [("depth", self.depth, self.depth >= 0, "must not be negative")]

    def new_client(self, anchor: Tensor, plan: Plan) -> Rows:
        """The personal layers start at the anchor's."""
        return {"personal": anchor.clone()}

    def begin(self, anchor: Tensor, state: Rows, plan: Plan) -> Rows:
        """The personal layers, with the anchor's others."""
        own = self.own(plan)
        return {"shared": torch.where(own, state["personal"], anchor), "own": own}

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (Phase("shared", "local_steps", shared_step, "shared"),)

    def delta(self, rows: Rows) -> Tensor | None:
        """See :class:`Algorithm`; nothing of the personal layers."""
        return (rows["anchor"] - rows["shared"]).masked_fill_(rows["own"], 0)

    def keep(self, rows: Rows) -> Rows:
        """See :class:`Algorithm`."""
        return {"personal": rows["shared"]}

    def predictor(self, anchor: Tensor, state: Rows, plan: Plan) -> Tensor:
        """See :class:`Algorithm`."""
        return torch.where(self.own(plan), state["personal"], anchor)
