"""The plan of a round: every knob that a method gives a client is one column."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import PersoflError

KNOBS = ("lr", "local_steps", "personal_steps", "prox", "mix", "weight", "depth", "align")
COUNTED = frozenset({"local_steps", "personal_steps"})
"""Columns that the host counts by; they stay there, wherever the others are."""


@dataclass(frozen=True)
class Plan:
    """Columns ``(clients, 1)``, one value a client.

    Attributes:
        lr: learning rate of the local steps.
        local_steps: optimiser steps on the shared model.
        personal_steps: optimiser steps on the personal model.
        prox: strength of the pull towards the anchor.
        mix: share of the personal model in what the client uses, in [0, 1].
        weight: of the client's update in the average; any positive scale.
        depth: how many layers are personal.
        align: strength of the pull of the embedding towards the anchor's.
        layers: which layer a column of the model's rows belongs to, ``(parameters,)``, as
            :attr:`persofl.layout.Layout.layers` says; None where nothing was laid out.
        steered: knobs that a modulator set; an algorithm leaves these as they are.
    """

    lr: Tensor
    local_steps: Tensor
    personal_steps: Tensor
    prox: Tensor
    mix: Tensor
    weight: Tensor
    depth: Tensor
    align: Tensor
    layers: Tensor | None = None
    steered: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return self.lr.shape[0]

    def take(self, index: Tensor | slice) -> Plan:
        """The plan of some clients, in the order of ``index``, which lies on the host."""
        there = index.to(self.lr.device, non_blocking=True) if isinstance(index, Tensor) else index
        columns = {name: getattr(self, name)[index if name in COUNTED else there] for name in KNOBS}
        return dataclasses.replace(self, **columns)

    def to(self, device: torch.device) -> Plan:
        """The plan where the rows are; only the numbers of steps stay on the host, which runs them."""
        if device == self.lr.device:
            return self
        moved = {name: getattr(self, name).to(device) for name in KNOBS if name not in COUNTED}
        layers = None if self.layers is None else self.layers.to(device)
        return dataclasses.replace(self, layers=layers, **moved)

    def last_layers(self) -> Tensor:
        """Columns of the last ``depth`` layers of each client, ``(clients, parameters)`` bool."""
        return self._layers() < self.depth

    def first_layers(self) -> Tensor:
        """Columns of the first ``depth`` layers of each client, ``(clients, parameters)`` bool."""
        layers = self._layers()
        return layers.max() - layers < self.depth

    def _layers(self) -> Tensor:
        if self.layers is None:
            raise PersoflError(
                "This plan does not know the model's layers; take one from a federation's personaliser, or give layers."
            )
        return self.layers

    def steer(self, knob: str, column: Tensor) -> Plan:
        """The plan with one column replaced by a modulator's."""
        return dataclasses.replace(self, **{knob: column}, steered=self.steered | {knob})


def constant_plan(counts: Tensor, **values: float) -> Plan:
    """A plan with the same value for everyone, weighted by the number of examples.

    Args:
        counts: training examples of each client, ``(clients,)``.
        values: of the knobs; those left out are neutral (one step, no pull, all of a mixture and no layer personal).
    """
    neutral = {
        "lr": 0.1,
        "local_steps": 1,
        "personal_steps": 1,
        "prox": 0.0,
        "mix": 1.0,
        "depth": 0,
        "align": 0.0,
    }
    columns: dict[str, Any] = {
        name: torch.full((len(counts), 1), float(value)) for name, value in (neutral | values).items()
    }
    columns.setdefault("weight", counts.to(torch.float32).unsqueeze(1))
    return Plan(**columns)
