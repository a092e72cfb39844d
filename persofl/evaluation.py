"""Errors of every client's own model, many clients at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .algorithms import Rows
from .data import ClientData, Stream, facts_of
from .federation import Federation
from .losses import Loss
from .tasks import Judged, Task, unknown_naive_error
from .training import train_phase

WINDOWS_AT_ONCE = 20_000
"""Examples evaluated together, padding included; bounds the memory of an evaluation."""
NUMBERS_AT_ONCE = 2**23
"""Numbers in the inputs of such a block, where examples are so long that this makes fewer."""


def client_rows(federation: Federation, server: Tensor, clients: Tensor, round_: int = 0) -> Tensor:
    """The rows that clients predict with, ``(clients, parameters)``, adapted where the method says so.

    Args:
        federation: the population and its method; not changed.
        server: the server's row ``(1, parameters)``.
        clients: ``(clients,)`` indices.
        round_: names the batches of an adaptation.

    Raises:
        DivergedError: a client's adaptation is not finite; it would otherwise drop out of the means unseen.
    """
    algorithm = federation.algorithm
    plan = federation.personaliser.plan(clients)
    anchor = server.expand(len(clients), -1)
    state: Rows = federation.store.read(clients, algorithm.new_client(anchor, plan))
    phase = algorithm.adaptation()
    if phase is not None:
        rows = {"anchor": anchor, "personal": anchor.clone()}
        train_phase(
            federation.bench, phase, clients, rows, plan, Stream(federation.config.seed, round_, phase.name)
        )
        state = {**state, "personal": rows["personal"]}
    return algorithm.predictor(anchor, state, plan)


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


def evaluate_clients(federation: Federation, rows: Tensor, clients: Tensor, span: str) -> Any:
    """Sum up the errors of some clients' models over a span, in the sums of the federation's task.

    Args:
        federation: the population; not changed.
        rows: the clients' models, ``(clients, parameters)``.
        clients: ``(clients,)`` indices.
        span: ``"validation"`` or ``"test"``.
    """
    oracle = federation.oracle
    judge = Judge(federation.data, federation.task, oracle.loss, span)
    return judge(clients, lambda places, x: oracle.predict(rows[places], x))


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

    def __call__(self, clients: Tensor, predict: Callable[[Tensor, Tensor], Tensor]) -> Any:
        """Sums of the task, one row a client.

        Args:
            clients: ``(clients,)`` indices.
            predict: of places in ``clients`` ``(c,)`` and their inputs ``(c, examples, lookback, channels)``, gives
                outputs ``(c, examples, horizon[, outputs])``.
        """
        counts = self.data.count(self.span)[clients]
        lookback, _, channels = facts_of(self.data).shape
        most = max(1, min(WINDOWS_AT_ONCE, NUMBERS_AT_ONCE // (lookback * channels)))
        blocks = _blocks(counts, most)
        parts = [self._block(clients, counts, places, ranks, predict) for places, ranks in blocks]
        places, sums = zip(*parts, strict=True) if parts else ((), ())
        return self.task.together(places, sums, len(clients))

    def _block(
        self,
        clients: Tensor,
        counts: Tensor,
        places: Tensor,
        ranks: Tensor,
        predict: Callable[[Tensor, Tensor], Tensor],
    ) -> tuple[Tensor, Any]:
        data, chosen, own = self.data, clients[places], counts[places].unsqueeze(1)
        valid = ranks.unsqueeze(0) < own
        x, y = data.gather(data.positions(self.span, chosen, torch.minimum(ranks.unsqueeze(0), own - 1)))
        output = predict(places, x)
        point, true = self.loss.point(output), y
        if self.task.floats:
            unscale = getattr(data, "unscale", lambda _, values: values)
            point, true = unscale(chosen, point), unscale(chosen, y)
        return places, self.task.sums(Judged(output, point, true, self.loss(output, y), valid))


def _blocks(counts: Tensor, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of places and ranks ``(places, width)``; large clients are cut into several blocks."""
    for places in buckets(counts, most):
        width = max(1, most // len(places))
        for ranks in torch.arange(int(counts[places].max())).split(width):
            yield places, ranks


def evaluate(federation: Federation, server: Tensor, span: str, round_: int = 0) -> dict[str, Tensor]:
    """Metrics of every client's model over a span, each ``(clients,)``, see :class:`persofl.tasks.Task`."""
    clients = torch.arange(len(federation.data))
    rows = client_rows(federation, server, clients, round_)
    return population_metrics(federation, evaluate_clients(federation, rows, clients, span))


def population_metrics(federation: Federation, sums: Any) -> dict[str, Tensor]:
    """Metrics of the whole population from its sums, with the number of windows or examples."""
    task = federation.task
    metrics = task.metrics_of(sums, unknown_naive_error(federation.data))
    return {**metrics, task.counted: sums.windows}
