"""Which of the server's rows a client starts from, and which rows learn from it.

The server holds a matrix ``(R, parameters)``. FedAvg has one row that all clients start from and send to; clusters have a
row each; in a graph every client has a row of its own, what it sent last, and starts from an average of its neighbours'.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .pairwise import Between


@dataclass(frozen=True)
class Relations:
    """What an algorithm may ask of the population before it says which rows there are.

    Attributes:
        unseen: clients that never train, ``(clients,)`` bool; they get a row or an average of others all the same.
        pairwise: measures the distances between all clients.
        weight: says how much each client counts in an average, ``(clients,)``: its samples, or what the plan says.
    """

    unseen: Tensor
    pairwise: Callable[[], Between]
    weight: Callable[[], Tensor]


class Routes(ABC):
    """A population's rows on the server. The defaults are those of clients that start from the row they send to.

    Attributes:
        count: R, the server's rows.
    """

    count: int

    @abstractmethod
    def rows_of(self, clients: Tensor) -> Tensor:
        """The row that each client's update goes to, ``(clients,)`` int64."""

    def shares(self, cohort: Tensor) -> Tensor | None:
        """How much each client's update counts in each row, ``(R, cohort)``, times its weight; None where R is 1."""
        rows = torch.arange(self.count).unsqueeze(1)
        return (self.rows_of(cohort) == rows).to(torch.get_default_dtype())

    def anchors(self, server: Tensor, clients: Tensor, sent: Tensor) -> Tensor:
        """What clients start from, ``(clients, parameters)``; not to be written to.

        Args:
            server: ``(R, parameters)``.
            clients: ``(clients,)`` indices.
            sent: who of the population took part in a round before, ``(population,)`` bool.
        """
        return server[self.rows_of(clients)]

    def offset(self, server: Tensor, anchors: Tensor, cohort: Tensor) -> Tensor | None:
        """From the anchors that deltas are taken from to the rows that they go to, ``(R, parameters)``; None if nothing."""
        return None


@dataclass(frozen=True)
class OneRow(Routes):
    """All clients share the server's only row."""

    count: int = 1

    def rows_of(self, clients: Tensor) -> Tensor:
        """See :class:`Routes`."""
        return torch.zeros_like(clients)

    def shares(self, cohort: Tensor) -> Tensor | None:
        """See :class:`Routes`."""
        return None

    def anchors(self, server: Tensor, clients: Tensor, sent: Tensor) -> Tensor:
        """The row for all, one row in memory."""
        return server.expand(len(clients), -1)


@dataclass(frozen=True, eq=False)
class RowPerCluster(Routes):
    """A row for every cluster.

    Attributes:
        labels: the cluster of each client, ``(population,)`` int64 from 0.
        count: of the clusters.
    """

    labels: Tensor
    count: int

    def rows_of(self, clients: Tensor) -> Tensor:
        """See :class:`Routes`."""
        return self.labels[clients]


@dataclass(frozen=True, eq=False)
class RowPerClient(Routes):
    """A row for every client, what it sent last; clients start from averages of rows.

    Of the weights, those of clients that sent nothing yet are left out and the others raised in proportion; a client of
    whose neighbours none has sent anything starts from its own row, the initial model.

    Attributes:
        count: of the population.
        weigh: makes the weights when first asked for, ``(population, population)``, rows not negative and summing to 1.
    """

    count: int
    weigh: Callable[[], Tensor]

    @cached_property
    def weights(self) -> Tensor:
        """How much each client (rows) takes of each (columns)."""
        return self.weigh()

    def rows_of(self, clients: Tensor) -> Tensor:
        """See :class:`Routes`."""
        return clients

    def anchors(self, server: Tensor, clients: Tensor, sent: Tensor) -> Tensor:
        """See :class:`Routes`."""
        known = self.weights[clients] * sent
        total = known.sum(1, keepdim=True)
        mean = (known / torch.where(total > 0, total, 1.0)).to(server) @ server
        return torch.where((total > 0).to(server.device), mean, server[clients])

    def offset(self, server: Tensor, anchors: Tensor, cohort: Tensor) -> Tensor:
        """See :class:`Routes`; with it the client's row becomes ``anchor - delta``, what it sent."""
        offset = torch.zeros_like(server)
        offset[cohort] = server[cohort] - anchors
        return offset
