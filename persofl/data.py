"""What the engine needs of a data set, and batches drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .draw import keys, ranks
from .oracles import Batch


class ClientData(Protocol):
    """A population's examples; :class:`data_loaders.ForecastWindows` is one.

    ``span`` is ``"train"``, ``"validation"`` or ``"test"``.
    """

    def __len__(self) -> int:
        """Clients."""
        ...

    def count(self, span: Any) -> Tensor:
        """Examples of each client, ``(clients,)`` int64."""
        ...

    def positions(self, span: Any, clients: Tensor, ranks: Tensor) -> Tensor:
        """Where examples lie: clients ``(c,)``, ranks ``(c, n)`` to ``(c, n)`` int64."""
        ...

    def gather(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of positions ``(...)``, model-ready."""
        ...


@dataclass(frozen=True)
class Stream:
    """A source of training batches that is a function of ``(seed, round, client, purpose)``."""

    seed: int
    round: int
    purpose: str

    def positions(self, data: ClientData, clients: Tensor, draws: int) -> Tensor:
        """Positions of ``draws`` training examples of each client, ``(clients, draws)``."""
        words = keys(self.seed, self.round, clients, self.purpose)
        return data.positions("train", clients, ranks(words, data.count("train")[clients], draws))


def batch_at(data: ClientData, positions: Tensor) -> Batch:
    """The examples at positions ``(clients, batch)``."""
    x, y = data.gather(positions)
    return Batch(x, y)


def example_of(data: ClientData) -> tuple[Tensor, Tensor]:
    """Two training examples of the client that has most, to check a model with."""
    client = data.count("train").argmax().unsqueeze(0)
    last = int(data.count("train")[client]) - 1
    x, y = data.gather(data.positions("train", client, torch.tensor([[0, min(1, last)]]))[0])
    return x.contiguous(), y.contiguous()
