r"""Null calibration: what distance a client of n samples would show if its law were the population's.

Empirical distances are biased upwards, the more the fewer the samples: ``E0[d^2 | n]`` falls about as ``c / n``. The
reference is resampled on a grid of sizes; between them ``n E0`` and ``n std`` are interpolated over ``log n``,
and beyond them taken as constant. The population's own sampling noise enters by the effective size
``1 / (1/n + 1/M)``, M being the reference's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .distances import Distances
from .kind import DistanceKind, Statistics
from .numeric import safe_root, wide


@dataclass(frozen=True)
class Null:
    """Mean and standard deviation of ``n d^2`` under the null on a grid of sizes; float64, shape ``(grid,)``."""

    sizes: Tensor
    mean: Tensor
    std: Tensor

    def at(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of ``d^2`` at sizes n (any shape, not only whole numbers)."""
        right = torch.searchsorted(self.sizes, n).clamp(1, max(1, len(self.sizes) - 1))
        left, right = right - 1, right.clamp_max(len(self.sizes) - 1)
        width = (self.sizes[right].log() - self.sizes[left].log()).clamp_min(1e-12)
        share = ((n.log() - self.sizes[left].log()) / width).clamp(0, 1)
        mean, std = (torch.lerp(x[left], x[right], share) / n for x in (self.mean, self.std))
        return mean, std


def size_grid(low: float, high: float, *, points: int = 10, cap: int = 2048) -> list[int]:
    """Whole sample sizes spaced evenly in log from ``low`` to ``high``, at least 2, none above ``cap``."""
    start, stop = max(2, int(low)), max(2, min(cap, round(high)))
    grid = torch.logspace(0, 1, points, base=max(stop, start) / min(stop, start), dtype=torch.float64)
    return sorted({round(min(stop, start) * float(step)) for step in grid})


def fit_null(
    kind: DistanceKind,
    reference: Statistics,
    sizes: Tensor,
    shares: Tensor,
    *,
    draws: int = 256,
    seed: int = 0,
) -> Null:
    """Resample the reference at each size and measure the distance to the reference such samples would make.

    That is the mean of the draws' own statistics, mixed over the sizes as the population is: empirical quantiles of
    few samples have blunt tails, which bias both sides of the comparison.

    Args:
        kind: the distance.
        reference: the population's mean statistics, without leading axes.
        sizes: the grid, increasing, see :func:`size_grid`.
        shares: of the population's weight at each size, ``(grid,)``, see :func:`size_shares`.
        draws: samples per size; the mean's relative error is about ``.5 / sqrt(draws)``.
        seed: of the generator.

    Returns:
        The null on the grid.

    Raises:
        ValueError: fewer than two draws.
    """
    if draws < 2:
        raise ValueError(f"draws={draws}: a null needs at least two draws, some hundred to be of use.")
    generator = torch.Generator().manual_seed(seed)
    samples = [_draw(kind, reference, n, draws, generator) for n in sizes.int().tolist()]
    means = {name: torch.stack([wide(own[name]).mean(0) for own in samples]) for name in samples[0]}
    centre = {name: torch.tensordot(shares, x, 1) for name, x in means.items()}
    squared = torch.stack([wide(kind.squared(own, centre)) for own in samples]) * sizes[:, None]
    return Null(sizes, squared.mean(1), squared.std(1))


def size_shares(n: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    """Share of the population's weight at each size of the grid, a size between two split by its logarithm.

    A sum over clients again: each adds its weight at its own place.

    Args:
        n: sample counts, ``(clients,)``.
        weight: the clients' weights, ``(clients,)``.
        sizes: the grid, ``(grid,)``.
    """
    inside = n.clamp(sizes[0], sizes[-1])
    right = torch.searchsorted(sizes, inside).clamp(min(1, len(sizes) - 1))
    left = (right - 1).clamp_min(0)
    part = ((inside / sizes[left]).log() / (sizes[right] / sizes[left]).log().clamp_min(1e-12)).clamp(0, 1)
    shares = (
        torch.zeros_like(sizes).index_add_(0, left, weight * (1 - part)).index_add_(0, right, weight * part)
    )
    return shares / weight.sum()


def _draw(
    kind: DistanceKind, reference: Statistics, n: int, draws: int, generator: torch.Generator
) -> Statistics:
    # In parts of about half a million rows, so that memory does not grow with draws x n.
    step = max(1, min(draws, 500_000 // n))
    parts = [kind.draw(reference, n, min(step, draws - start), generator) for start in range(0, draws, step)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def z_score(squared: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(d^2 - mean) / std``; where the null does not vary, 0 for a distance within it and the largest float beyond."""
    excess = squared - mean
    beyond = (excess > 0).to(squared.dtype) * torch.finfo(squared.dtype).max
    return torch.where(std > 0, excess / torch.where(std > 0, std, 1.0), beyond)


def p_value(squared: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Chance of a distance at least this large under the null, by the gamma law with the null's two moments.

    ``n d^2`` tends to a weighted sum of chi-squares, which a gamma law with its mean and variance fits well
    (Satterthwaite 1946); unlike the share of draws beyond, it neither stops at ``1 / draws`` nor jumps.

    Returns:
        In [0, 1]; where the null does not vary, 1 within it and 0 beyond.
    """
    safe = torch.where(std > 0, std, 1.0)
    shape = torch.where(std > 0, (mean / safe) ** 2, 1.0)
    scale = torch.where(std > 0, safe**2 / mean.clamp_min(torch.finfo(mean.dtype).tiny), 1.0)
    gamma = torch.special.gammaincc(shape, squared.clamp_min(0) / scale)
    return torch.where(std > 0, gamma, (squared <= mean).to(gamma.dtype))


def relative_scale(calibrated: Tensor) -> Tensor:
    """Distances in units of the population's median: the typical client has 1.

    Where the median is zero (more than half of the clients cannot be told from the population) the unit is the mean
    of the positive ones; where none is positive, all are 0.
    """
    positive = calibrated > 0
    median = calibrated.quantile(0.5)
    fallback = calibrated.sum() / positive.sum().clamp_min(1)
    unit = torch.where(median > 0, median, fallback)
    return torch.where(positive, calibrated / torch.where(unit > 0, unit, 1.0), 0.0)


def calibrate(squared: Tensor, size: Tensor, n: Tensor, null: Null, *, dtype: torch.dtype) -> Distances:
    """Judge squared distances by their null.

    Args:
        squared: distances squared, ``(clients,)``.
        size: effective sample sizes, the reference's noise included, ``(clients,)``.
        n: the clients' own sample counts, int64.
        null: from :func:`personalization.calibration.fit_null`.
        dtype: of the result.
    """
    mean, std = null.at(size)
    calibrated = safe_root(squared - mean)
    columns = {
        "value": safe_root(squared),
        "null_mean": mean,
        "null_std": std,
        "z": z_score(squared, mean, std),
        "p_value": p_value(squared, mean, std),
        "calibrated": calibrated,
        "relative": relative_scale(calibrated),
    }
    limit = torch.finfo(dtype).max
    return Distances(n=n, **{name: x.clamp(-limit, limit).to(dtype) for name, x in columns.items()})
