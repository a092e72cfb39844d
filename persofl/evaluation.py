"""Errors of every client's own model, many clients at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .algorithms import Rows
from .blending import blend_weights, halves
from .choosing import choices, chosen_rows
from .data import Stream
from .federation import Federation
from .gating import Curves, Gate, fit_gate, mixed, validation_curves
from .judge import Judge, Sight, buckets
from .tasks import unknown_naive_error
from .training import train_phase

__all__ = [
    "Judge",
    "buckets",
    "client_experts",
    "client_rows",
    "evaluate",
    "evaluate_clients",
    "group_curves",
    "population_gate",
    "population_metrics",
    "weighed",
]


def client_rows(federation: Federation, server: Tensor, clients: Tensor, round_: int = 0) -> Tensor:
    """The rows that clients predict with, ``(clients, parameters)``, chosen on validation spans where the method says so.

    Of several whose predictions are mixed the last, which is the most their own; see :func:`client_experts`.
    """
    experts = client_experts(federation, server, clients, round_)
    return (weighed(federation, experts, clients, "test")[0] if federation.algorithm.chooses else experts)[-1]


def client_experts(
    federation: Federation, server: Tensor, clients: Tensor, round_: int = 0
) -> tuple[Tensor, ...]:
    """The models that each client blends or chooses from, adapted where the method says so; for most methods one.

    Args:
        federation: the population and its method; not changed.
        server: the server's rows ``(R, parameters)``, on any device.
        clients: ``(clients,)`` indices.
        round_: names the batches of an adaptation.

    Returns:
        Rows ``(clients, parameters)``, the population's model first, the client's own last.

    Raises:
        DivergedError: a client's adaptation is not finite; it would otherwise drop out of the means unseen.
    """
    algorithm, server = federation.algorithm, server.to(federation.device)
    plan = federation.personaliser.plan(clients)
    anchor = federation.routes.anchors(server, clients, federation.store.seen)
    state: Rows = federation.store.read(clients, algorithm.new_client(anchor, plan))
    phase = algorithm.adaptation()
    if phase is not None:
        rows = {"anchor": anchor, "personal": anchor.clone()}
        train_phase(
            federation.bench, phase, clients, rows, plan, Stream(federation.config.seed, round_, phase.name)
        )
        state = {**state, "personal": rows["personal"]}
    return algorithm.experts(anchor, state, plan)


def group_curves(federation: Federation, server: Tensor, clients: Tensor, round_: int = 0) -> Curves:
    """What mixtures of their models are worth to some clients, see :func:`persofl.gating.validation_curves`."""
    return validation_curves(federation, client_experts(federation, server, clients, round_), clients)


def population_gate(
    federation: Federation, server: Tensor, groups: Iterable[Tensor], round_: int = 0
) -> Gate | None:
    """How all clients mix their models, where the method has a gate; else None.

    Args:
        federation: the population and its method; not changed.
        server: the server's rows ``(R, parameters)``.
        groups: all clients in order, as many at once as are to be in memory; with several ranks those that live here.
        round_: names the batches of an adaptation.
    """
    if not federation.algorithm.gates():
        return None
    own = [clients for clients in groups if len(clients)]
    parts = [group_curves(federation, server, clients, round_) for clients in own]
    curves = Curves.joined(parts)
    everyone, ranks, here = torch.arange(len(federation.data)), federation.ranks, torch.cat(own)
    errors, examples = (ranks.spread(everyone, here, part) for part in (curves.errors, curves.examples))
    return fit_gate(federation, Curves(curves.weights, errors, examples))


def evaluate_clients(
    federation: Federation,
    experts: tuple[Tensor, ...] | Tensor,
    clients: Tensor,
    span: str,
    gate: Gate | None = None,
) -> Any:
    """Sum up the errors of some clients' models over a span, in the sums of the federation's task.

    Args:
        federation: the population; not changed.
        experts: the clients' models, ``(clients, parameters)``, or those whose predictions they mix or choose from.
        clients: ``(clients,)`` indices.
        span: ``"validation"`` or ``"test"``.
        gate: how they mix them, where the method has one; see :func:`population_gate`.
    """
    oracle = federation.oracle
    judge = Judge(federation.data, federation.task, oracle.loss, span)
    rows = (experts,) if isinstance(experts, Tensor) else experts
    rows, weights = weighed(federation, rows, clients, span, gate)
    if len(rows) == 1:
        return judge(clients, lambda places, x: oracle.predict(rows[0][places], x))

    def predict(sight: Sight) -> Tensor:
        outputs = [oracle.predict(expert[sight.places], sight.x) for expert in rows]
        half = halves(sight.ranks, sight.counts)
        return mixed(outputs, weights[sight.places.unsqueeze(1), half])

    return judge.of_sights(clients, predict)


def weighed(
    federation: Federation, rows: tuple[Tensor, ...], clients: Tensor, span: str, gate: Gate | None = None
) -> tuple[tuple[Tensor, ...], Tensor]:
    """What each client predicts a span with: one model, or several and the weights of each.

    Args:
        federation: the population; not changed.
        rows: of the models that it mixes or chooses from, see :func:`client_experts`.
        clients: ``(clients,)`` indices.
        span: that is about to be predicted.
        gate: how they mix them, where the method has one.

    Returns:
        Rows ``(clients, parameters)`` of the models, and their weights in either half of the span,
        ``(clients, 2, models)``.
    """
    if len(rows) == 1:
        return rows, torch.ones(len(clients), 2, 1)
    if gate is not None:
        return rows, gate.of(clients, span)
    if not federation.algorithm.chooses:
        plan = federation.personaliser.plan(clients)
        second = blend_weights(federation, (rows[0], rows[1]), clients, plan, span)
        return rows, torch.stack([1 - second, second], -1)
    choice = choices(federation, rows, clients, span)
    first, later = (chosen_rows(rows, choice[:, half]) for half in (0, 1))
    own = torch.eye(2).expand(len(clients), 2, 2)
    return ((first,), own[..., :1]) if torch.equal(first, later) else ((first, later), own)


def evaluate(federation: Federation, server: Tensor, span: str, round_: int = 0) -> dict[str, Tensor]:
    """Metrics of every client's model over a span, each ``(clients,)``, see :class:`persofl.tasks.Task`."""
    clients = torch.arange(len(federation.data))
    gate = population_gate(federation, server, [clients], round_)
    experts = client_experts(federation, server, clients, round_)
    return population_metrics(federation, evaluate_clients(federation, experts, clients, span, gate))


def population_metrics(federation: Federation, sums: Any) -> dict[str, Tensor]:
    """Metrics of the whole population from its sums, with the number of windows or examples."""
    task = federation.task
    metrics = task.metrics_of(sums, unknown_naive_error(federation.data))
    return {**metrics, task.counted: sums.windows}
