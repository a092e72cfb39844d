r"""Whose evidence counts: each client chooses among options by its own errors and by those of the clients like it.

A client with few validation examples chooses badly by itself, and a choice for all is wrong for the unusual one. So each
client's error curve over the options is added to the average curve of the others, weighed by how like they are:

.. math:: o_k = \arg\min_o\; e_k(o) + c \sum_j W_{kj}\, \bar e_j(o)

where :math:`e_k(o)` sums the errors over client k's :math:`n_k` examples and :math:`\bar e_j = e_j / n_j`, both in units of
the client's own mean error over the options, and W is a graph (:mod:`personalization.graph`). The strength c counts in
examples: the others together weigh as c examples of one's own do. ``c = 0`` is each client's own choice, ``c -> inf``
with equal weights one choice for all. Strength and graph are not tuned by hand: of those offered the pair is taken whose
choices on one half of everybody's examples do best on the other half.

References:
    Efron and Morris, Data analysis using Stein's estimator and its generalizations, JASA 70(350), 1975: shrinking each
    towards the others, with the amount learnt from all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

STRENGTHS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 1e6)
"""Examples that the others' evidence may stand for."""


@dataclass(frozen=True)
class Pooled:
    """What the clients chose.

    Attributes:
        options: chosen on all examples, ``(clients,)`` int64.
        crossed: for either half of the examples the option chosen on the other half, ``(clients, 2)`` int64.
        strength: c, in examples.
        graph: number of the graph that was taken.
    """

    options: Tensor
    crossed: Tensor
    strength: float
    graph: int


def pooled_choices(
    errors: Tensor, examples: Tensor, graphs: Sequence[Tensor], strengths: Sequence[float] = STRENGTHS
) -> Pooled:
    """Choose one of several options for every client.

    Args:
        errors: sums over either half of a client's examples, ``(clients, 2, options)``, not negative. One that is not
            finite marks an option that failed. Of options that are level the first is taken.
        examples: how many they sum up, ``(clients, 2)``; a client without any takes what the others' evidence says.
        graphs: weights between clients, each ``(clients, clients)`` with rows that sum to 1; of those that are level the
            first is taken, so that the plainest belongs first.
        strengths: to try.

    Raises:
        ValueError: shapes that do not fit, nothing to choose from.
    """
    _check(errors, examples, graphs, strengths)
    curves = _relative(errors.to(torch.float64), examples)
    counts = examples.to(torch.float64)
    trials = [
        (_cross_error(curves, counts, graph.to(curves), strength), number, strength)
        for number, graph in enumerate(graphs)
        for strength in strengths
    ]
    _, number, strength = min(trials, key=lambda trial: trial[0])
    graph = graphs[number].to(curves)
    whole = _choose(curves.sum(1), counts.sum(1), graph, strength)
    return Pooled(whole, _crossed(curves, counts, graph, strength), strength, number)


def _relative(errors: Tensor, examples: Tensor) -> Tensor:
    """Error sums in units of the client's mean error of one example over the options, ``(clients, 2, options)``."""
    finite = errors.isfinite()
    total, number = errors.where(finite, 0.0).sum((1, 2)), (finite * examples.unsqueeze(2)).sum((1, 2))
    unit = (total / number.clamp(min=1)).where(total > 0, 1.0).view(-1, 1, 1)
    failed = 1e6 * examples.to(errors.dtype).unsqueeze(2).expand_as(errors)
    return (errors / unit).where(finite, failed)


def _choose(curves: Tensor, counts: Tensor, graph: Tensor, strength: float) -> Tensor:
    """Options by curves ``(clients, options)`` of so many examples ``(clients,)``."""
    means = curves / counts.clamp(min=1).unsqueeze(1)
    known = graph * (counts > 0)
    share = known / known.sum(1, keepdim=True).clamp(min=1e-300)
    # A client without examples has nothing else to go by, at any strength.
    weight = torch.where(counts > 0, strength, max(strength, 1.0)).unsqueeze(1)
    return (curves + weight * (share @ means)).argmin(1)


def _crossed(curves: Tensor, counts: Tensor, graph: Tensor, strength: float) -> Tensor:
    halves = [_choose(curves[:, 1 - half], counts[:, 1 - half], graph, strength) for half in (0, 1)]
    return torch.stack(halves, 1)


def _cross_error(curves: Tensor, counts: Tensor, graph: Tensor, strength: float) -> float:
    """Mean relative error, over clients, of each half under the choice of the other."""
    chosen = curves.gather(2, _crossed(curves, counts, graph, strength).unsqueeze(2)).squeeze(2)
    known = counts.sum(1) > 0
    return float((chosen.sum(1)[known] / counts.sum(1)[known]).mean()) if known.any() else 0.0


def _check(errors: Tensor, examples: Tensor, graphs: Sequence[Tensor], strengths: Sequence[float]) -> None:
    clients = len(errors)
    if errors.dim() != 3 or errors.shape[1] != 2 or 0 in errors.shape:
        raise ValueError(
            f"errors has shape {tuple(errors.shape)}; give (clients, 2, options), at least one of each."
        )
    if examples.shape != (clients, 2) or bool((examples < 0).any()):
        raise ValueError(
            f"examples has shape {tuple(examples.shape)} and least value {float(examples.min())}; give the number of "
            f"examples in either half, ({clients}, 2), none negative."
        )
    if not graphs or not strengths:
        raise ValueError(
            f"{len(graphs)} graphs and {len(strengths)} strengths to choose from; give one of each."
        )
    for number, graph in enumerate(graphs):
        if graph.shape != (clients, clients):
            raise ValueError(
                f"Graph {number} has shape {tuple(graph.shape)}; give ({clients}, {clients}) for {clients} clients."
            )
    if min(strengths) < 0:
        raise ValueError(f"strength {min(strengths)} is negative; give the examples that it stands for.")
