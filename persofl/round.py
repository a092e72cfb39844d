"""One round of federated training, written once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .algorithms import Rows
from .data import Stream
from .errors import PersoflError
from .federation import Federation
from .plan import Plan
from .server import Updates
from .training import train_phase


@dataclass(frozen=True)
class RoundReport:
    """What a round tells its observers.

    Attributes:
        round: from 0.
        cohort: ``(cohort,)`` indices of the clients that took part.
        losses: their mean training loss, ``(cohort,)``.
        plan: what steered them; with several ranks, those that live with this one.
        updates: as they arrived at the aggregator; None where nothing goes up. With several ranks, this one's clients'.
    """

    round: int
    cohort: Tensor
    losses: Tensor
    plan: Plan
    updates: Updates | None

    @property
    def loss(self) -> float:
        """Mean training loss over the cohort."""
        return float(self.losses.nanmean())


def run_round(
    federation: Federation, server: Tensor, round_: int, apply: Callable[[Tensor], None]
) -> RoundReport:
    """Run one round.

    Args:
        federation: the population and its method; its store is updated when the round succeeded.
        server: the server's rows ``(R, parameters)``, R of ``federation.routes``; changed by ``apply`` only.
        round_: from 0; with the seed it determines the cohort and every batch.
        apply: the server optimiser's step on the pseudo-gradient ``(R, parameters)``.

    Raises:
        DivergedError: a client's loss is not finite; server and store are as before the round.
        PersoflError: another number of server rows than the method keeps.
    """
    if len(server) != federation.routes.count:
        raise PersoflError(
            f"The server has {len(server)} row(s), and {federation.method.name!r} keeps {federation.routes.count}; start "
            "from federation.initial_rows()."
        )
    parts = federation.parts
    cohort = federation.sampler(len(federation.data), round_, federation.config.seed)
    if federation.method.distance.refresh:
        federation.personaliser.refresh(round_, server)
    ranks, own = federation.ranks, federation.ranks.mine(cohort)
    plan = federation.personaliser.plan(own)
    rows = broadcast(federation, server, own, plan)
    losses = ranks.together(lambda: train_locally(federation, own, rows, plan, round_))
    updates, kept = collect(federation, own, rows, plan, round_), federation.algorithm.keep(rows)
    if updates is None:
        apply(torch.zeros_like(server))
    else:
        for transform in parts.update_transforms:
            updates = transform(updates)
        aggregate = ranks.aggregate(parts.aggregator, updates)
        for server_transform in parts.server_transforms:
            aggregate = server_transform(aggregate, ranks.gathered(updates))
        offset = federation.offset(server, rows["anchor"], cohort)
        apply(aggregate if offset is None else offset.add_(aggregate))
    federation.store.write(own, kept)
    federation.store.seen[cohort] = True
    return RoundReport(round_, cohort, ranks.spread(cohort, own, losses), plan, updates)


def broadcast(federation: Federation, server: Tensor, cohort: Tensor, plan: Plan) -> Rows:
    """The rows that clients start from: the anchor, and copies to work on."""
    algorithm = federation.algorithm
    routes = federation.routes  # one row for all is copied: it changes before the round is over
    server = server.clone() if routes.count == 1 else server
    anchor = routes.anchors(server, cohort, federation.store.seen)
    state = federation.store.read(cohort, algorithm.new_client(anchor, plan))
    return {**algorithm.begin(anchor, state, plan), "anchor": anchor}


def train_locally(federation: Federation, cohort: Tensor, rows: Rows, plan: Plan, round_: int) -> Tensor:
    """Run the algorithm's phases in place; returns each client's loss in the last of them.

    Raises:
        DivergedError: see :func:`persofl.training.train_phase`.
    """
    losses = torch.zeros(0)
    for phase in federation.algorithm.phases() if len(cohort) else ():
        stream = Stream(federation.config.seed, round_, phase.name)
        losses = train_phase(federation.bench, phase, cohort, rows, plan, stream)
    return losses


def collect(federation: Federation, cohort: Tensor, rows: Rows, plan: Plan, round_: int) -> Updates | None:
    """What goes up to the server, if the method sends anything."""
    delta = federation.algorithm.delta(rows)
    if delta is None:
        return None
    shares = federation.routes.shares(cohort)
    shares = None if shares is None else shares.to(delta.device)
    return Updates(cohort, delta, plan.weight, round_, federation.config.seed, shares=shares)
