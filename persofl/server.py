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
        shares: how much of its weight each client has in each of the server's rows, ``(R, cohort)``; None where there is
            one row, for all.
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
    shares: Tensor | None = None

    def to(self, device: torch.device) -> Updates:
        """The same updates with all that is computed with on a device; the clients' indices stay on the host."""
        return dataclasses.replace(
            self,
            deltas=self.deltas.to(device),
            weights=self.weights.to(device),
            payload={name: value.to(device) for name, value in self.payload.items()},
            shares=None if self.shares is None else self.shares.to(device),
        )

    def with_deltas(self, deltas: Tensor) -> Updates:
        """The same updates with other deltas."""
        return dataclasses.replace(self, deltas=deltas)

    def to_row(self, row: int) -> Updates:
        """The updates of the clients that have a share in a row, as if it were the only one."""
        if self.shares is None:
            return self
        share = self.shares[row]
        own = share > 0
        return dataclasses.replace(
            self,
            clients=self.clients[own.cpu()],
            deltas=self.deltas[own],
            weights=self.weights[own] * share[own].unsqueeze(1),
            payload={name: value[own] for name, value in self.payload.items()},
            shares=None,
        )


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
        """The pseudo-gradient ``(1, parameters)`` of clients that all have the same row."""

    def rows(self, updates: Updates) -> Tensor:
        """The pseudo-gradient of each of the server's rows, ``(R, parameters)``; zero where no client has a share.

        Row by row what :meth:`__call__` makes of the clients that have a share; a subclass may do all at once.
        """
        if updates.shares is None:
            return self(updates)
        aggregate = updates.deltas.new_zeros(len(updates.shares), updates.deltas.shape[1])
        for row in (updates.shares > 0).any(1).nonzero().flatten().tolist():
            aggregate[row] = self(updates.to_row(row))[0]
        return aggregate


class ServerTransform(ABC):
    """Changes the aggregate before the server optimiser sees it."""

    @abstractmethod
    def __call__(self, rows: Tensor, updates: Updates) -> Tensor:
        """``(R, parameters)`` to the same shape; for most methods R is 1."""


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

    def rows(self, updates: Updates) -> Tensor:
        """All rows at once; of rows with clients of their own, in time and memory of one pass over the deltas."""
        if updates.shares is None:
            return self(updates)
        weights = updates.shares * updates.weights.mT
        total = weights.sum(1, keepdim=True)
        weights = weights / torch.where(total > 0, total, 1.0)
        if bool(((weights > 0).sum(0) > 1).any()):
            return weights @ updates.deltas
        aggregate = updates.deltas.new_zeros(len(weights), updates.deltas.shape[1])
        heaviest, row = weights.max(0)
        return aggregate.index_add_(0, row, updates.deltas * heaviest.unsqueeze(1))
