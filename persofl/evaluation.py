"""Errors of every client's own model, many clients at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .algorithms import Rows
from .data import Stream
from .federation import Federation
from .metrics import ErrorSums, client_metrics
from .training import train_phase

WINDOWS_AT_ONCE = 20_000
"""Windows forecast together, padding included; bounds the memory of an evaluation."""


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


def evaluate_clients(federation: Federation, rows: Tensor, clients: Tensor, span: str) -> ErrorSums:
    """Sum up the errors of some clients' models over a span.

    Args:
        federation: the population; not changed.
        rows: the clients' models, ``(clients, parameters)``.
        clients: ``(clients,)`` indices.
        span: ``"validation"`` or ``"test"``.
    """
    counts = federation.data.count(span)[clients]
    parts = [_evaluate_block(federation, rows, clients, block, span) for block in _blocks(counts)]
    places, sums = zip(*parts, strict=True) if parts else ((), ())
    return ErrorSums.scatter(list(places), list(sums), len(clients))


def _blocks(counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of places and ranks ``(places, width)``; large clients are cut into several blocks."""
    for places in buckets(counts, WINDOWS_AT_ONCE):
        width = max(1, WINDOWS_AT_ONCE // len(places))
        for ranks in torch.arange(int(counts[places].max())).split(width):
            yield places, ranks


def _evaluate_block(
    federation: Federation, rows: Tensor, clients: Tensor, block: tuple[Tensor, Tensor], span: str
) -> tuple[Tensor, ErrorSums]:
    places, ranks = block
    data, loss = federation.data, federation.oracle.loss
    chosen = clients[places]
    counts = data.count(span)[chosen].unsqueeze(1)
    valid = ranks.unsqueeze(0) < counts
    x, y = data.gather(data.positions(span, chosen, torch.minimum(ranks.unsqueeze(0), counts - 1)))
    prediction = federation.oracle.predict(rows[places], x)
    unscale = getattr(data, "unscale", lambda _, values: values)
    sums = ErrorSums.of(
        unscale(chosen, loss.point(prediction)), unscale(chosen, y), loss(prediction, y), valid
    )
    return places, sums


def evaluate(federation: Federation, server: Tensor, span: str, round_: int = 0) -> dict[str, Tensor]:
    """Metrics of every client's model over a span, each ``(clients,)``, see :func:`persofl.metrics.client_metrics`."""
    clients = torch.arange(len(federation.data))
    rows = client_rows(federation, server, clients, round_)
    return population_metrics(federation, evaluate_clients(federation, rows, clients, span))


def population_metrics(federation: Federation, sums: ErrorSums) -> dict[str, Tensor]:
    """Metrics of the whole population from its sums, with the number of windows."""
    unknown = torch.full((len(federation.data),), torch.nan)
    metrics = client_metrics(sums, getattr(federation.data, "naive_error", unknown))
    return {**metrics, "windows": sums.windows}
