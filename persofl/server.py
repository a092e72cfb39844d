"""The server's side of a round: who takes part, what is done to updates, how they are averaged.

Each part is an interface with one method; privacy, attacks, compression and robust rules are further parts of the same
kinds.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .draw import generator
from .errors import PersoflError


@dataclass(frozen=True)
class Updates:
    """What a cohort sends up.

    Attributes:
        clients: ``(cohort,)`` indices into the population.
        deltas: ``anchor - local``, ``(cohort, parameters)``.
        weights: of the average, ``(cohort, 1)``, any positive scale.
        round: of the federation, from 0.
        seed: of the run, for transforms that draw noise.
        payload: summaries that a method sends beside the delta, by name.
    """

    clients: Tensor
    deltas: Tensor
    weights: Tensor
    round: int
    seed: int
    payload: dict[str, Tensor] = field(default_factory=dict)

    def with_deltas(self, deltas: Tensor) -> Updates:
        """The same updates with other deltas."""
        return dataclasses.replace(self, deltas=deltas)


class Sampler(ABC):
    """Chooses a round's cohort."""

    @abstractmethod
    def __call__(self, population: int, round_: int, seed: int) -> Tensor:
        """Indices of the cohort, ``(cohort,)`` int64, increasing; a function of the arguments only."""


class UpdateTransform(ABC):
    """Changes updates on their way up: clipping, noise, compression, attacks."""

    @abstractmethod
    def __call__(self, updates: Updates) -> Updates:
        """The updates as they arrive."""


class Aggregator(ABC):
    """Makes one row of many."""

    @abstractmethod
    def __call__(self, updates: Updates) -> Tensor:
        """The pseudo-gradient ``(1, parameters)``."""


class ServerTransform(ABC):
    """Changes the aggregate before the server optimiser sees it."""

    @abstractmethod
    def __call__(self, row: Tensor, updates: Updates) -> Tensor:
        """``(1, parameters)`` to the same shape."""


@dataclass(frozen=True)
class UniformSampler(Sampler):
    """A fixed share of the population, drawn without replacement each round.

    Attributes:
        fraction: in (0, 1]; at least one client takes part.
    """

    fraction: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise PersoflError(
                f"cohort={self.fraction}: give the share of clients in a round, above 0 and at most 1."
            )

    def __call__(self, population: int, round_: int, seed: int) -> Tensor:
        """See :class:`Sampler`."""
        size = max(1, round(self.fraction * population))
        if size == population:
            return torch.arange(population)
        chosen = torch.randperm(population, generator=generator(seed, round_, "cohort"))[:size]
        return chosen.sort().values


@dataclass(frozen=True)
class SeenOnly(Sampler):
    """Any sampler's cohort, of the clients that are not held out.

    Attributes:
        sampler: draws among them.
        clients: ``(seen,)`` their indices, increasing.
    """

    sampler: Sampler
    clients: Tensor

    def __call__(self, population: int, round_: int, seed: int) -> Tensor:
        """See :class:`Sampler`."""
        return self.clients[self.sampler(len(self.clients), round_, seed)]


@dataclass(frozen=True)
class Clip(UpdateTransform):
    r"""Bound every client's influence: ``delta * min(1, norm / |delta|_2)``.

    References:
        McMahan et al., Learning differentially private recurrent language models, ICLR 2018.
    """

    norm: float

    def __post_init__(self) -> None:
        if not self.norm > 0:
            raise PersoflError(f"clip={self.norm}: give the largest L2 norm of an update, above 0.")

    def __call__(self, updates: Updates) -> Updates:
        """See :class:`UpdateTransform`."""
        lengths = updates.deltas.norm(dim=1, keepdim=True)
        return updates.with_deltas(updates.deltas * (self.norm / lengths.clamp(min=1e-12)).clamp(max=1))


@dataclass(frozen=True)
class WeightedMean(Aggregator):
    r"""FedAvg's average, :math:`\sum_k p_k \delta_k / \sum_k p_k`; no change where no client of the cohort has a weight."""

    def __call__(self, updates: Updates) -> Tensor:
        """See :class:`Aggregator`."""
        total = updates.weights.sum()
        shares = updates.weights / torch.where(total > 0, total, 1.0)
        return shares.mT @ updates.deltas
