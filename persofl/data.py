"""What the engine needs of a data set, and batches drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor

from .draw import keys, ranks
from .oracles import Batch


class ClientData(Protocol):
    """A population's examples; :class:`data_loaders.ForecastWindows` and ``ClientExamples`` are two.

    ``span`` is ``"train"``, ``"validation"`` or ``"test"``.
    """

    @property
    def clients(self) -> tuple[str, ...]:
        """Names of the clients."""
        ...

    @property
    def task(self) -> str:
        """``"forecast"``, ``"classify"`` or ``"regress"``."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; none where targets are floats."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(lookback, horizon, channels)`` of inputs ``(lookback, channels)``, targets ``(horizon,)``; 1 for a class."""
        ...

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

    def unscale(self, clients: Tensor, y: Tensor) -> Tensor:
        """Float targets or forecasts ``(c, ...)`` of ``clients`` ``(c,)`` in the original unit."""
        ...

    def features(self, client: int) -> Tensor:
        """What a client's distance from the others is measured on, from its training span, ``(n, features)``."""
        ...


@dataclass(frozen=True)
class Facts:
    """What data say of themselves; what they leave out is a forecast's."""

    clients: tuple[str, ...]
    task: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]


def facts_of(data: ClientData) -> Facts:
    """Names, task, classes and shape of data; a data set of one's own need not state them to be forecast."""
    series = getattr(data, "series", None)
    names = getattr(data, "clients", None) or getattr(series, "clients", None) or map(str, range(len(data)))
    shape = getattr(data, "shape", None)
    if shape is None:
        x, y = example_of(data)
        shape = (int(x.shape[-2]), int(y.shape[-1]), int(x.shape[-1]))
    task, classes = getattr(data, "task", "forecast"), getattr(data, "classes", ())
    return Facts(tuple(names), str(task), tuple(classes), (int(shape[0]), int(shape[1]), int(shape[2])))


def attributes_of(data: ClientData) -> pd.DataFrame | None:
    """What is known of each client, one row a client, where the data say it."""
    population = getattr(data, "series", None) or getattr(data, "samples", None)
    known: pd.DataFrame | None = getattr(population, "attributes", None)
    return known


def unseen_of(data: ClientData) -> Tensor:
    """Which clients are held out of training, ``(clients,)`` bool: those whose attribute ``unseen`` is true."""
    known = attributes_of(data)
    if known is None or "unseen" not in known.columns:
        return torch.zeros(len(data), dtype=torch.bool)
    return torch.tensor(known["unseen"].fillna(False).astype(bool).to_numpy())


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
