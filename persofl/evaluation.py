"""Errors of every client's own model, many clients at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .algorithms import Rows
from .blending import blend_weights, blended
from .choosing import choices, chosen_rows
from .data import Stream
from .federation import Federation
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
    "population_metrics",
    "weighed",
]


def client_rows(federation: Federation, server: Tensor, clients: Tensor, round_: int = 0) -> Tensor:
    """The rows that clients predict with, ``(clients, parameters)``, chosen on validation spans where the method says so.

    Of several whose predictions are blended the last, which is the most their own; see :func:`client_experts`.
    """
    experts = client_experts(federation, server, clients, round_)
    return (weighed(federation, experts, clients, "test")[0] if federation.algorithm.chooses else experts)[-1]


def client_experts(
    federation: Federation, server: Tensor, clients: Tensor, round_: int = 0
) -> tuple[Tensor, ...]:
    """The models that each client blends or chooses from, adapted where the method says so; for most methods one.

    Args:
        federation: the population and its method; not changed.
        server: the server's rows ``(R, parameters)``.
        clients: ``(clients,)`` indices.
        round_: names the batches of an adaptation.

    Returns:
        Rows ``(clients, parameters)``, the population's model first, the client's own last.

    Raises:
        DivergedError: a client's adaptation is not finite; it would otherwise drop out of the means unseen.
    """
    algorithm = federation.algorithm
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


def evaluate_clients(
    federation: Federation, experts: tuple[Tensor, ...] | Tensor, clients: Tensor, span: str
) -> Any:
    """Sum up the errors of some clients' models over a span, in the sums of the federation's task.

    Args:
        federation: the population; not changed.
        experts: the clients' models, ``(clients, parameters)``, or those whose predictions they blend or choose from.
        clients: ``(clients,)`` indices.
        span: ``"validation"`` or ``"test"``.
    """
    oracle = federation.oracle
    judge = Judge(federation.data, federation.task, oracle.loss, span)
    rows = (experts,) if isinstance(experts, Tensor) else experts
    rows, weights = weighed(federation, rows, clients, span)
    if len(rows) == 1:
        return judge(clients, lambda places, x: oracle.predict(rows[0][places], x))

    def predict(sight: Sight) -> Tensor:
        outputs = [oracle.predict(expert[sight.places], sight.x) for expert in rows]
        return blended(outputs[0], outputs[1], weights, sight)

    return judge.of_sights(clients, predict)


def weighed(
    federation: Federation, rows: tuple[Tensor, ...], clients: Tensor, span: str
) -> tuple[tuple[Tensor, ...], Tensor]:
    """What each client predicts a span with: one model, or two and the weight of the second.

    Args:
        federation: the population; not changed.
        rows: of the models that it blends or chooses from, see :func:`client_experts`.
        clients: ``(clients,)`` indices.
        span: that is about to be predicted.

    Returns:
        Rows ``(clients, parameters)`` of one model or two, and the weight in either half of the span, ``(clients, 2)``.
    """
    if len(rows) == 1:
        return rows, torch.zeros(len(clients), 2)
    if not federation.algorithm.chooses:
        plan = federation.personaliser.plan(clients)
        return rows, blend_weights(federation, (rows[0], rows[1]), clients, plan, span)
    choice = choices(federation, rows, clients, span)
    first, second = (chosen_rows(rows, choice[:, half]) for half in (0, 1))
    own = torch.tensor([0.0, 1.0]).expand(len(clients), 2)
    return ((first,) if torch.equal(first, second) else (first, second)), own


def evaluate(federation: Federation, server: Tensor, span: str, round_: int = 0) -> dict[str, Tensor]:
    """Metrics of every client's model over a span, each ``(clients,)``, see :class:`persofl.tasks.Task`."""
    clients = torch.arange(len(federation.data))
    experts = client_experts(federation, server, clients, round_)
    return population_metrics(federation, evaluate_clients(federation, experts, clients, span))


def population_metrics(federation: Federation, sums: Any) -> dict[str, Tensor]:
    """Metrics of the whole population from its sums, with the number of windows or examples."""
    task = federation.task
    metrics = task.metrics_of(sums, unknown_naive_error(federation.data))
    return {**metrics, task.counted: sums.windows}
