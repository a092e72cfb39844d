r"""The null of distances of sums, corrected by what clients see between halves of their own samples.

:func:`personalization.fit_null` draws from a law that sums describe. On clusters and heavy tails the real one is
another, and p-values fail. Here every client also measures how far random halves of its own samples lie apart, which no
difference from the others can change, and says where in the law's null such distances fall. Only counts of that go up, and
only their sum over clients is needed: it tells by how much mean, deviation and shape of the null are off. What
is within the noise of the counts corrects nothing.

Halves of n/2 samples say ``(n/2) d^2 / 2``, whose mean is that of ``n d^2`` to a reference without noise. What is carried
over from halves to the whole is not the moments but their ratios to the law's, which vary slowly with n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .kind import DistanceKind, Statistics
from .null import Null, null_of, p_value, size_grid, z_score
from .numeric import seeded, size_groups, wide

SPLITS = 8
"""Random halvings of a client's samples: more tell little that is new."""

KNOTS = ("sizes", "mean", "std", "skew")
"""What of a null is sent."""
BINS = 128
_LOW, _HIGH = -3.0, 8.0
"""Of asinh z, evenly: z from -10 to 1,490, what lies beyond in the outermost."""
_PARTS = 4
_SCORES = 512
_DRAWS = 256
_ENOUGH = 64
_WORTH = 4
"""Halvings of one client that tell as much as one of another."""
_BATCH_VALUES = 4_000_000


def half_null(kind: DistanceKind, reference: Statistics, n: Tensor, *, draws: int, seed: int) -> Null:
    """The law's null of halves, on the server: moments of ``m d^2 / 2`` between two samples of m.

    Args:
        kind: the distance.
        reference: the population's mean statistics, without leading axes.
        n: samples of the clients, ``(clients,)``.
        draws: pairs per size; at least 256 are taken, for one heavy draw in few would be taken for the law's.
        seed: of the generator.
    """
    generator, scaled, draws = seeded(seed, "halves"), [], max(draws, _DRAWS)
    sizes = half_sizes(n)
    for m in sizes:
        step, found = max(1, min(draws, 500_000 // m)), []
        for start in range(0, draws, step):
            one, other = (kind.draw(reference, m, min(step, draws - start), generator) for _ in range(2))
            found.append(wide(kind.squared(one, other)) * m / 2)
        scaled.append(torch.cat(found))
    drawn = torch.stack(scaled)
    grid = torch.tensor(sizes, dtype=drawn.dtype, device=drawn.device)
    return null_of(grid, drawn, lambda m: kind.ripple(reference, m))


def half_counts(
    kind: DistanceKind, samples: Sequence[Tensor], law: Null, *, seed: int, splits: int = SPLITS
) -> Tensor:
    """What clients count: where in the law's null the distances between their halves fall.

    Args:
        kind: the distance.
        samples: of each client, ``(n_k, F)``; those with fewer than four count nothing.
        law: from :func:`half_null`.
        seed: of the halvings.
        splits: halvings of each client.

    Returns:
        Counts ``(clients, sizes, bins)``, float64: of a client all in the row of the size nearest to its halves.
    """
    counts = torch.zeros(len(samples), len(law.sizes), BINS, dtype=torch.float64, device=samples[0].device)
    generator = seeded(seed, "halvings")
    for who, x in size_groups(samples, _BATCH_VALUES // splits):
        half = x.shape[1] // 2
        if half < 2:
            continue
        squared = _apart(kind, x, splits, generator)
        mean, std, _ = law.at(torch.full_like(squared, half))
        z = z_score(squared, mean, std).asinh().clamp(_LOW, _HIGH)
        place = ((z - _LOW) / (_HIGH - _LOW) * BINS).long().clamp(max=BINS - 1)
        size = int((law.sizes.log() - torch.tensor(half).log()).abs().argmin())
        client = torch.tensor(who, device=x.device).expand_as(place)
        counts[:, size].index_put_((client, place), torch.ones_like(squared), accumulate=True)
    return counts


def _apart(kind: DistanceKind, x: Tensor, splits: int, generator: torch.Generator) -> Tensor:
    """``d^2 / 2`` between random halves of each client's samples ``(clients, n, F)``, ``(splits, clients)``."""
    half, found = x.shape[1] // 2, []
    at_once = max(1, min(splits, _BATCH_VALUES // x.numel()))  # large clients split by split, to spare memory
    for start in range(0, splits, at_once):
        order = torch.rand(min(at_once, splits - start), *x.shape[:2], generator=generator).argsort(-1)
        one, other = (
            kind.statistics(torch.take_along_dim(x[None], part[..., None].to(x.device), 2))
            for part in (order[..., :half], order[..., half : 2 * half])
        )
        found.append(wide(kind.squared(one, other)) / 2)
    return torch.cat(found)


def corrected(null: Null, law: Null, counts: Tensor) -> Null:
    """The null with mean, deviation, skewness and shape as the clients' halves have them.

    Args:
        null: of the clients, drawn from the law, see :func:`personalization.fit_null`.
        law: of halves, from :func:`half_null`.
        counts: the sum over clients of :func:`half_counts`, ``(sizes, bins)``.

    Returns:
        The null as it is where fewer than 64 halves were counted, which tell less than the law.
    """
    told = bool((law.mean > 0).all() & (law.std > 0).all()) and float(counts.sum()) >= _ENOUGH
    if not told:
        return null
    seen = _Seen.of(law, counts)
    half = (null.sizes / 2).log()
    mean, std, skew = (line.at(half) for line in (seen.mean, seen.std, seen.skew))
    moments = replace(null, mean=null.mean * mean.exp(), std=null.std * std.exp(), skew=null.skew + skew)
    scores = torch.stack([seen.scores(size) for size in half])
    return replace(moments, scores=scores) if _another_shape(scores, seen, half) else moments


def _another_shape(scores: Tensor, seen: _Seen, half: Tensor) -> bool:
    """Whether halves have another law than their moments say, by more than their noise (Kolmogorov's test at 1 %)."""
    skew = seen.of_law(seen.law.skew, half) + seen.skew.at(half)
    zero = torch.zeros_like(scores)
    by_moments = p_value(scores, zero, zero + 1, skew[:, None].expand_as(scores))
    drawn = 1 - (torch.arange(_SCORES).to(scores) + 0.5) / _SCORES
    gap = (by_moments - drawn).abs().amax(1)
    heard = float(seen.counts.sum()) / _WORTH
    return bool(gap.max() > 1.63 / heard**0.5)


def knots(law: Null) -> dict[str, Tensor]:
    """What the clients need to know of the law's null, each ``(sizes,)``."""
    return {name: getattr(law, name) for name in KNOTS}


def of_knots(kind: DistanceKind, reference: Statistics, given: Mapping[str, Tensor]) -> Null:
    """The null again, by who knows the reference."""
    return Null(**given, ripple=lambda m: kind.ripple(reference, m))


def half_sizes(n: Tensor) -> list[int]:
    """Sizes of halves at which the law's null is drawn."""
    return size_grid(float(n.min()) / 2, float(n.max()) / 2)


@dataclass(frozen=True)
class _Line:
    """A constant, or a line over log n where a constant does not do; constant beyond the sizes that it was found at."""

    start: Tensor
    slope: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def through(cls, x: Tensor, y: Tensor, noise: Tensor) -> _Line:
        weight = noise**-2
        centre = (weight * x).sum() / weight.sum()
        level = (weight * y).sum() / weight.sum()
        slope = torch.zeros_like(level)
        if len(x) > 2 and float((weight * (y - level) ** 2).sum()) > 2 * (len(x) - 1):
            slope = (weight * (x - centre) * y).sum() / (weight * (x - centre) ** 2).sum()
        else:  # what is within its noise corrects nothing
            level = level * (1 - 1 / (weight.sum() * level**2).clamp_min(1e-300)).clamp_min(0)
        return cls(level - slope * centre, slope, x.min(), x.max())

    def at(self, x: Tensor) -> Tensor:
        return self.start + self.slope * x.clamp(self.low, self.high)


@dataclass(frozen=True)
class _Seen:
    """What counts say: ratios of mean and deviation to the law's, in logarithms, and what skewness has more."""

    law: Null
    counts: Tensor
    mean: _Line
    std: _Line
    skew: _Line

    @classmethod
    def of(cls, law: Null, counts: Tensor) -> _Seen:
        z, total = _points(counts).flatten(), counts.sum(1)
        share = (counts / total.clamp_min(1)[:, None]).repeat_interleave(_PARTS, 1) / _PARTS
        mean = share @ z
        gap = z - mean[:, None]
        std = (share * gap**2).sum(1).sqrt()
        known = (total >= 16) & (std > 0)
        known = known if bool(known.any()) else total == total.max()
        skew = (share * gap**3).sum(1) / std.clamp_min(1e-12) ** 3
        heard = (total / _WORTH).clamp_min(1)
        unit = law.std / law.mean
        ratio = (1 + unit * mean).clamp_min(0.05)
        columns = (
            (ratio.log(), unit * std.clamp_min(0.05) / ratio / heard.sqrt()),
            (std.clamp_min(0.05).log(), ((skew**2 / 4 + 0.5) / heard).sqrt()),
            (skew - law.skew, (6 / heard).sqrt() * (1 + skew.abs())),
        )
        x = law.sizes.log()
        return cls(law, counts, *(_Line.through(x[known], y[known], e[known]) for y, e in columns))

    def of_law(self, column: Tensor, half: Tensor) -> Tensor:
        """A column of the law's null at the sizes nearest to these."""
        near = (self.law.sizes.log() - half[:, None]).abs().argmin(1)
        return column[near]

    def scores(self, half: Tensor) -> Tensor:
        """Quantiles of the halves' z-scores around a size, by the corrected moments, ``(512,)``."""
        x = self.law.sizes.log()
        order = (x - half).abs().argsort()
        before = self.counts.sum(1)[order].cumsum(0) - self.counts.sum(1)[order]
        rows = order[before < _SCORES]
        level = (self.mean.at(x[rows]).exp() - 1) * self.law.mean[rows] / self.law.std[rows]
        scale = self.std.at(x[rows]).exp()
        z = (_points(self.counts).flatten() - level[:, None]) / scale[:, None]
        weight = self.counts[rows].repeat_interleave(_PARTS, 1).flatten()
        z, place = z.flatten().sort()
        reached = weight[place].cumsum(0) / weight.sum()
        wanted = (torch.arange(_SCORES).to(reached) + 0.5) / _SCORES
        return z[torch.searchsorted(reached, wanted).clamp(max=len(z) - 1)]


def _points(like: Tensor) -> Tensor:
    """Z-scores that stand for a bin each, evenly over it, ``(bins, parts)``."""
    steps = (torch.arange(BINS * _PARTS).to(like) + 0.5) / (BINS * _PARTS)
    return (_LOW + (_HIGH - _LOW) * steps).sinh().view(BINS, _PARTS)
