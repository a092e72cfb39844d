r"""Whose evidence counts: each client chooses among options by its own errors and by those of the clients like it.

A client with few validation examples chooses badly by itself, and a choice for all is wrong for the unusual one. So each
client's error curve over the options is averaged with that of the others, weighed by how like they are:

.. math:: p_k(o) = \Big(e_k(o) + c \sum_j W_{kj}\, \bar e_j(o)\Big) / (n_k + c)

where :math:`e_k(o)` sums the errors over client k's :math:`n_k` examples and :math:`\bar e_j = e_j / n_j`, both in units of
the client's own mean error over the options, and W is a graph (:mod:`personalization.graph`). The strength c counts in
examples: the others together weigh as c examples of one's own do. ``c = 0`` is each client's own evidence, ``c -> inf``
with equal weights one curve for all.

Some options are *safe*: what a client would have had anyway, such as the population's model and its own. It takes the first
safe one unless another safe one is better by a share d, the *caution*, and the best option of all only where that is better
by the same share than the safe one:

.. math:: o_k = \arg\min_o p_k(o) \text{ if } \min_o p_k(o) < (1 - d)\, p_k(s_k), \text{ else } s_k

Strength, graph and caution are not tuned by hand: of those offered the three are taken whose choices on one half of
everybody's examples do best on the other half, by the mean relative error plus ``harm`` times the share of clients that are
harmed, which is those that fare worse than with the safe option that is best for them.

References:
    Efron and Morris, Data analysis using Stein's estimator and its generalizations, JASA 70(350), 1975: shrinking each
    towards the others, with the amount learnt from all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from .errors import check_number, check_tensors, check_whole

STRENGTHS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 1e6)
"""Examples that the others' evidence may stand for."""
CAUTIONS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
"""Shares by which an option must be better than a safe one."""


@dataclass(frozen=True)
class Pooled:
    """What the clients chose.

    Attributes:
        options: chosen on all examples, ``(clients,)`` int64.
        crossed: for either half of the examples the option chosen on the other half, ``(clients, 2)`` int64.
        strength: c, in examples.
        graph: number of the graph that was taken.
        caution: d.
    """

    options: Tensor
    crossed: Tensor
    strength: float
    graph: int
    caution: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """Relative errors of every option on either half of the clients' examples, and how to judge a choice.

    Attributes:
        curves: sums in units of the client's mean error, ``(clients, 2, options)`` float64.
        counts: examples, ``(clients, 2)`` float64.
        safe: numbers of the safe options, the safest first.
        harm: what a harmed client counts beside its relative error.
        judges: whose examples strength, graph and caution are learnt from, ``(clients,)`` bool.
    """

    curves: Tensor
    counts: Tensor
    safe: Sequence[int]
    harm: float
    judges: Tensor

    def under(self, graph: Tensor) -> tuple[Tensor, ...]:
        """What the others' evidence says by a graph: on either half and on all, each ``(clients, options)``."""
        parts = [(self.curves[:, half], self.counts[:, half]) for half in (0, 1)]
        return tuple(others(*part, graph) for part in [*parts, (self.curves.sum(1), self.counts.sum(1))])

    def crossed(self, said: tuple[Tensor, ...], strength: float, caution: float) -> Tensor:
        """For either half the choice on the other, ``(clients, 2)``."""
        halves = [
            choose(pool(self.curves[:, h], self.counts[:, h], said[h], strength), self.safe, caution)
            for h in (1, 0)
        ]
        return torch.stack(halves, 1)

    def whole(self, said: tuple[Tensor, ...], strength: float, caution: float) -> Tensor:
        """The choice on all examples, ``(clients,)``."""
        return choose(pool(self.curves.sum(1), self.counts.sum(1), said[2], strength), self.safe, caution)

    def score(self, said: tuple[Tensor, ...], strength: float, caution: float) -> float:
        """Mean relative error of each half under the choice of the other, plus the weighted share that is harmed."""
        known = (self.counts > 0) & self.judges.unsqueeze(1)
        if not known.any():
            return 0.0
        chosen = self.curves.gather(2, self.crossed(said, strength, caution).unsqueeze(2)).squeeze(2)
        best = self.curves[:, :, list(self.safe)].amin(2)
        error = chosen[known] / self.counts[known]
        harmed = (chosen[known] > best[known] * (1 + 1e-12)).double()
        return float(error.mean() + self.harm * harmed.mean())


def pooled_choices(
    errors: Tensor,
    examples: Tensor,
    graphs: Sequence[Tensor],
    strengths: Sequence[float] = STRENGTHS,
    *,
    safe: Sequence[int] = (0,),
    cautions: Sequence[float] = CAUTIONS,
    harm: float = 0.0,
    judges: Tensor | None = None,
) -> Pooled:
    """Choose one of several options for every client.

    Args:
        errors: sums over either half of a client's examples, ``(clients, 2, options)``, not negative. One that is not
            finite marks an option that failed. Of options that are level the first is taken.
        examples: how many they sum up, ``(clients, 2)``; a client without any takes what the others' evidence says.
        graphs: weights between clients, each ``(clients, clients)`` with rows that sum to 1; of those that are level the
            first is taken, so that the plainest belongs first.
        strengths: to try, in examples.
        safe: numbers of the options that a client would have had anyway, the safest first.
        cautions: to try.
        harm: what a harmed client counts beside its relative error; with 0, cautions but the least seldom pay.
        judges: whose examples strength, graph and caution are learnt from, ``(clients,)`` bool; all by default. Clients
            that are held out choose like the others, and teach nobody.

    Raises:
        ValueError: shapes that do not fit, a graph whose rows are no shares, nothing to choose from.
    """
    _check(errors, examples, graphs, (strengths, cautions, safe), harm)
    counts = examples.to(torch.float64)
    everyone = torch.ones(len(errors), dtype=torch.bool) if judges is None else judges
    if not isinstance(everyone, Tensor) or everyone.dtype != torch.bool or everyone.shape != (len(errors),):
        raise ValueError(f"judges of type {type(judges).__name__}; give a mask, ({len(errors)},) bool.")
    evidence = Evidence(_relative(errors.to(torch.float64), examples), counts, safe, harm, everyone)
    said = [evidence.under(graph.to(counts)) for graph in graphs]
    trials = list(product(range(len(said)), strengths, cautions))
    scores = [evidence.score(said[number], strength, caution) for number, strength, caution in trials]
    number, strength, caution = trials[min(range(len(trials)), key=scores.__getitem__)]
    whole = evidence.whole(said[number], strength, caution)
    return Pooled(whole, evidence.crossed(said[number], strength, caution), strength, number, caution)


def others(curves: Tensor, counts: Tensor, graph: Tensor) -> Tensor:
    """Mean errors of the clients that have examples, weighed by a graph, ``(clients, options)``."""
    known = graph * (counts > 0)
    share = known / known.sum(1, keepdim=True).clamp(min=1e-300)
    return share @ (curves / counts.clamp(min=1).unsqueeze(1))


def pool(curves: Tensor, counts: Tensor, said: Tensor, strength: float) -> Tensor:
    """Mean errors ``(clients, options)`` by own evidence and that of others.

    Args:
        curves: sums of errors ``(clients, options)``.
        counts: of so many examples, ``(clients,)``.
        said: mean errors of the others, see :func:`others`.
        strength: examples that the others stand for.
    """
    # A client without examples has nothing else to go by, at any strength.
    weight = torch.where(counts > 0, strength, max(strength, 1.0)).unsqueeze(1)
    return (curves + weight * said) / (counts.unsqueeze(1) + weight)


def choose(pooled: Tensor, safe: Sequence[int], caution: float) -> Tensor:
    """The best option, or a safe one that it does not beat by the share ``caution``, ``(clients,)`` int64."""
    clients = torch.arange(len(pooled))
    fallback = torch.full_like(clients, safe[0])
    for option in safe[1:]:
        better = pooled[:, option] < (1 - caution) * pooled[clients, fallback]
        fallback = torch.where(better, option, fallback)
    best = pooled.argmin(1)
    return torch.where(pooled[clients, best] < (1 - caution) * pooled[clients, fallback], best, fallback)


def _relative(errors: Tensor, examples: Tensor) -> Tensor:
    """Error sums in units of the client's mean error of one example over the options, ``(clients, 2, options)``."""
    finite = errors.isfinite()
    total, number = errors.where(finite, 0.0).sum((1, 2)), (finite * examples.unsqueeze(2)).sum((1, 2))
    unit = (total / number.clamp(min=1)).where(total > 0, 1.0).view(-1, 1, 1)
    failed = 1e6 * examples.to(errors.dtype).unsqueeze(2).expand_as(errors)
    return (errors / unit).where(finite, failed)


def _check(
    errors: Tensor,
    examples: Tensor,
    graphs: Sequence[Tensor],
    tried: tuple[Sequence[float], Sequence[float], Sequence[int]],
    harm: float,
) -> None:
    strengths, cautions, safe = tried
    _check_tried(strengths, cautions, safe, harm)
    check_tensors(errors=errors, examples=examples)
    if not isinstance(graphs, list | tuple):
        raise ValueError(f"graphs is of type {type(graphs).__name__}; give a list of tensors.")
    check_tensors(**{f"graphs[{number}]": graph for number, graph in enumerate(graphs)})
    clients = len(errors)
    if errors.dim() != 3 or errors.shape[1] != 2 or 0 in errors.shape:
        raise ValueError(
            f"errors has shape {tuple(errors.shape)}; give (clients, 2, options), at least one of each."
        )
    if bool((errors < 0).any()):
        raise ValueError(f"errors go down to {float(errors.min()):g}; a sum of errors is not negative.")
    if examples.shape != (clients, 2) or not bool((examples >= 0).all()):
        raise ValueError(
            f"examples has shape {tuple(examples.shape)} and least value {float(examples.min())}; give the number of "
            f"examples in either half, ({clients}, 2), none negative."
        )
    if not (graphs and strengths and cautions and safe):
        raise ValueError(
            f"{len(graphs)} graphs, {len(strengths)} strengths, {len(cautions)} cautions and {len(safe)} safe options to "
            "choose from; give one of each."
        )
    for number, graph in enumerate(graphs):
        if graph.shape != (clients, clients):
            raise ValueError(
                f"Graph {number} has shape {tuple(graph.shape)}; give ({clients}, {clients}) for {clients} clients."
            )
        if not bool((graph >= 0).all()):
            raise ValueError(f"Graph {number} holds a negative weight or NaN; weights are shares.")
        sums = graph.sum(1, dtype=torch.float64)
        worst = int((sums - 1).abs().argmax())
        if not abs(float(sums[worst]) - 1) < 1e-2:
            raise ValueError(
                f"Row {worst} of graph {number} sums to {float(sums[worst]):g}; weights are shares: graph / "
                "graph.sum(1, keepdim=True)."
            )
    finite = all(0 <= c < math.inf for c in (*strengths, harm))
    if not (finite and all(0 <= d < 1 for d in cautions)):
        raise ValueError(
            f"strengths={tuple(strengths)}, cautions={tuple(cautions)}, harm={harm}: strengths and harm are finite and are "
            "not negative, a caution is a share from 0 to below 1."
        )
    if not all(0 <= option < errors.shape[2] for option in safe):
        raise ValueError(f"safe={tuple(safe)}: options are numbered from 0 to {errors.shape[2] - 1}.")


def _check_tried(strengths: object, cautions: object, safe: object, harm: float) -> None:
    """Refuse single numbers where several are tried, and what is no number."""
    for name, several in (("strengths", strengths), ("cautions", cautions), ("safe", safe)):
        if not isinstance(several, list | tuple | range):
            raise ValueError(f"{name}={several!r:.80}; give a list, if of one number.")
        for x in several:
            if name == "safe":
                check_whole("an option in safe", x, "the number of an option", least=0)
            else:
                check_number(f"a number in {name}", x, "one of at least 0")
    check_number("harm", harm, "one of at least 0")
