"""Summaries and references: what crosses the wire so that each client can compare itself with all others.

    client   own = kind.statistics(samples)              stays
    client   summary = summarise(own, n)                 up: needed as a sum only, so secure aggregation hides it
    server   total = combine(summaries)                  down: one message, the same for all clients
    client   reference = total.without(summary).mean()   stays: the others without itself
    client   kind.squared(own, reference)                stays, or goes up as one number

Nothing else is sent: no sample, and no client's own statistics in the clear.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .errors import check_finite, unknown_name
from .kind import Statistics
from .numeric import wide

Weighting = Literal["samples", "uniform"]


@dataclass(frozen=True)
class Summary:
    """One client's weighted statistics, or a sum of such. All entries are plain sums, in float64.

    Attributes:
        weight: sum of the clients' weights, shape ``(...)``.
        noise: sum of ``weight^2 / n``, which over ``weight^2`` is the sampling variance of the mean in units
            of one sample's, shape ``(...)``.
        totals: weighted statistics by name, ``(..., *shape)``.

    Leading axes hold several clients at once; adding and leaving out broadcast over them.
    """

    weight: Tensor
    noise: Tensor
    totals: Statistics

    def __add__(self, other: Summary) -> Summary:
        if self.totals.keys() != other.totals.keys():
            raise ValueError(
                f"Summaries of {', '.join(self.totals)} and of {', '.join(other.totals)} do not add; make all by one kind."
            )
        one, two = ({name: x.shape[s.weight.ndim :] for name, x in s.totals.items()} for s in (self, other))
        if one != two:
            name = next(name for name in one if one[name] != two[name])
            raise ValueError(
                f"Summaries with {name} of shape {tuple(one[name])} and of {tuple(two[name])} do not add; all clients must "
                "describe their samples by the same features, and use one kind with the same options."
            )
        totals = {name: x + other.totals[name] for name, x in self.totals.items()}
        return Summary(self.weight + other.weight, self.noise + other.noise, totals)

    def without(self, part: Summary) -> Summary:
        """The sum with one contribution taken out again: the leave-one-out population."""
        totals = {name: x - part.totals[name] for name, x in self.totals.items()}
        return Summary(self.weight - part.weight, self.noise - part.noise, totals)

    def mean(self) -> Statistics:
        """The reference: weighted mean of the clients' statistics.

        Raises:
            ValueError: nobody's: a sum that its only client was taken out of.
        """
        if bool((self.weight == 0).any()):
            raise ValueError("The summary has no weight, for nobody is left in it; add one client at least.")
        return {name: x / _column(self.weight, x) for name, x in self.totals.items()}

    def effective_size(self) -> Tensor:
        """How many samples would give the reference the same sampling noise, ``weight^2 / noise``."""
        return self.weight**2 / self.noise

    def summed(self) -> Summary:
        """The sum over the first axis, the clients: what secure aggregation hands the server."""
        totals = {name: x.sum(0) for name, x in self.totals.items()}
        return Summary(self.weight.sum(0), self.noise.sum(0), totals)

    def wire_bytes(self) -> int:
        """Size of the message in bytes; that of all clients together if there is a leading axis."""
        return sum(x.numel() * x.element_size() for x in (self.weight, self.noise, *self.totals.values()))


def _column(weight: Tensor, x: Tensor) -> Tensor:
    return weight.reshape(weight.shape + (1,) * (x.ndim - weight.ndim))


def check_weighting(weighting: str) -> None:
    """Refuse a weighting that is none of ``samples`` and ``uniform``.

    Raises:
        ValueError: names the nearest.
    """
    if weighting not in ("samples", "uniform"):
        raise unknown_name("weighting", weighting, ("samples", "uniform"))


def client_weights(n: Tensor, weighting: str) -> Tensor:
    """Weight of each client in the population, ``n`` or 1.

    ``samples`` makes the population the average sample, has the least sampling noise (1 / sum of n) and keeps
    the blunted tails of small clients' empirical quantiles out of the barycentre; ``uniform`` makes it the
    average client.

    Raises:
        ValueError: another weighting than the two.
    """
    check_weighting(weighting)
    return n if weighting == "samples" else torch.ones_like(n)


def summarise(own: Statistics, n: Tensor | int, *, weighting: Weighting = "samples") -> Summary:
    """A client's contribution to the population's sum.

    Args:
        own: its statistics, from a :class:`personalization.DistanceKind`; with a leading axis, those of many
            clients.
        n: its number of samples, scalar or ``(clients,)``.
        weighting: see :func:`client_weights`.

    Returns:
        The message that goes up.

    Raises:
        ValueError: unknown weighting; no statistics, or NaN in them; sample counts that are not finite and above 0, or
            not one a client.
    """
    if not own:
        raise ValueError("own holds no statistics; give what a DistanceKind's statistics() returned.")
    check_finite(**own)
    first = wide(next(iter(own.values())))
    try:
        counts = torch.as_tensor(n, device=first.device).to(first.dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"n of type {type(n).__name__}; give the number of samples, above 0.") from error
    fits = all(x.shape[: counts.ndim] == counts.shape for x in own.values())
    if not fits or not bool(((counts > 0) & counts.isfinite()).all()):
        raise ValueError(f"n={counts.tolist()}; give the number of samples, above 0, one a client.")
    weight = client_weights(counts, weighting)
    totals = {name: wide(x) * _column(weight, x) for name, x in own.items()}
    return Summary(weight, weight**2 / counts, totals)


def combine(summaries: Iterable[Summary]) -> Summary:
    """The sum of the clients' messages, which is all the server needs.

    Raises:
        ValueError: there are none; names the first that is none or holds NaN, which would be everybody's.
    """
    if not isinstance(summaries, Iterable):
        raise ValueError(
            f"summaries is of type {type(summaries).__name__}; give what summarise() returned, in a list."
        )
    total: Summary | None = None
    for k, summary in enumerate(summaries):
        if not isinstance(summary, Summary):
            raise ValueError(
                f"Summary {k} is of type {type(summary).__name__}; give what summarise() returned."
            )
        parts = {"weight": summary.weight, "noise": summary.noise, **summary.totals}
        check_finite(**{f"Summary {k}: {name}": x for name, x in parts.items()})
        total = summary if total is None else total + summary
    if total is None:
        raise ValueError("No summaries to combine; a population needs at least one client.")
    return total
