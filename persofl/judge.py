"""Examples of many clients in blocks, and what predictions of them are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .data import ClientData, facts_of
from .losses import Loss
from .placed import HOST, device_of
from .tasks import Judged, Task

WINDOWS_AT_ONCE = 20_000
"""Examples evaluated together, padding included; bounds the memory of an evaluation."""
NUMBERS_AT_ONCE = 2**20
"""Numbers in the inputs of such a block, about what the processor's cache holds; larger ones are slower."""
DEVICE_ROOM = 16
"""How many times larger the blocks of a device are, which is slow at small ones."""


def buckets(counts: Tensor, most: int) -> list[Tensor]:
    """Group clients of like size so that little of a padded block is padding.

    Args:
        counts: windows of each client, ``(clients,)``.
        most: windows in a block, padding included; a client with more has a block of its own.

    Returns:
        Indices of the clients that have any window, largest first.
    """
    order = [int(i) for i in torch.argsort(counts, descending=True, stable=True) if counts[i] > 0]
    groups: list[list[int]] = []
    for client in order:
        if groups and (len(groups[-1]) + 1) * int(counts[groups[-1][0]]) <= most:
            groups[-1].append(client)
        else:
            groups.append([client])
    return [torch.tensor(group) for group in groups]


@dataclass(frozen=True)
class Sight:
    """A block of examples of some clients, padded to the longest.

    Attributes:
        places: of the clients among those asked for, ``(c,)``.
        ranks: of the examples within their client's span, ``(1, n)``.
        counts: examples each client has, ``(c, 1)``.
        x: inputs ``(c, n, lookback, channels)``.
        y: targets ``(c, n, horizon)``.
    """

    places: Tensor
    ranks: Tensor
    counts: Tensor
    x: Tensor
    y: Tensor

    @property
    def valid(self) -> Tensor:
        """Which examples are not padding, ``(c, n)`` bool."""
        return self.ranks < self.counts


class Judge:
    """Sums up any predictor's errors over a span.

    Args:
        data: the population.
        task: says what is summed up.
        loss: finds the point forecast, and is summed up too.
        span: ``"validation"`` or ``"test"``.
    """

    def __init__(self, data: ClientData, task: Task, loss: Loss, span: str) -> None:
        self.data, self.task, self.loss, self.span = data, task, loss, span
        self._room = 1 if device_of(data) == HOST else DEVICE_ROOM

    def __call__(self, clients: Tensor, predict: Callable[[Tensor, Tensor], Tensor]) -> Any:
        """Sums of the task, one row a client.

        Args:
            clients: ``(clients,)`` indices.
            predict: of places in ``clients`` ``(c,)`` and their inputs ``(c, examples, lookback, channels)``, gives
                outputs ``(c, examples, horizon[, outputs])``.
        """
        return self.of_sights(clients, lambda sight: predict(sight.places, sight.x))

    def of_sights(self, clients: Tensor, predict: Callable[[Sight], Tensor]) -> Any:
        """The same with a predictor that sees which examples it predicts."""
        parts = [(sight.places, self._sums(clients, sight, predict(sight))) for sight in self.sights(clients)]
        places, sums = zip(*parts, strict=True) if parts else ((), ())
        return self.task.together(places, sums, len(clients))

    def sights(self, clients: Tensor) -> Iterator[Sight]:
        """The clients' examples in blocks, each client's in time order."""
        data, counts = self.data, self.data.count(self.span)[clients]
        lookback, _, channels = facts_of(data).shape
        most = self._room * max(1, min(WINDOWS_AT_ONCE, NUMBERS_AT_ONCE // (lookback * channels)))
        for places, ranks in _blocks(counts, most):
            own, ranks = counts[places].unsqueeze(1), ranks.unsqueeze(0)
            x, y = data.gather(data.positions(self.span, clients[places], torch.minimum(ranks, own - 1)))
            yield Sight(places, ranks, own, x, y)

    def _sums(self, clients: Tensor, sight: Sight, output: Tensor) -> Any:
        point, true, chosen = self.loss.point(output), sight.y, clients[sight.places]
        if self.task.floats:
            unscale = getattr(self.data, "unscale", lambda _, values: values)
            point, true = unscale(chosen, point), unscale(chosen, true)
        return self.task.sums(
            Judged(output, point, true, self.loss(output, sight.y), sight.valid.to(output.device))
        )


def _blocks(counts: Tensor, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of places and ranks ``(places, width)``; large clients are cut into several blocks."""
    for places in buckets(counts, most):
        width = max(1, most // len(places))
        for ranks in torch.arange(int(counts[places].max())).split(width):
            yield places, ranks
