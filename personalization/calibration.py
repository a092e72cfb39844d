r"""Null calibration: what distance a client of n samples would show if its law were the population's.

Empirical distances are biased upwards, the more the fewer the samples: ``E0[d^2 | n]`` falls about as
``c / n``. The reference is resampled on a grid of sizes; between them ``n E0`` and ``n std`` are interpolated over
``log n``, and beyond them taken as constant. The population's own sampling noise enters by the effective size
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


def size_grid(low: float, high: float, *, points: int = 8, cap: int = 1024) -> list[int]:
    """Whole sample sizes spaced evenly in log from ``low`` to ``high``, at least 2, none above ``cap``."""
    start, stop = max(2, min(cap, int(low))), max(2, min(cap, round(high)))
    steps = [start * (max(stop, start) / start) ** (i / (points - 1)) for i in range(points)]
    return sorted({round(step) for step in steps})


def fit_null(
    kind: DistanceKind, reference: Statistics, sizes: list[int], *, draws: int = 256, seed: int = 0
) -> Null:
    """Resample the reference at each size and measure the distance back to it.

    Args:
        kind: the distance.
        reference: the population's mean statistics, without leading axes.
        sizes: the grid, increasing, see :func:`size_grid`.
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
    squared = torch.stack([n * _null_draws(kind, reference, n, draws, generator) for n in sizes])
    grid = torch.tensor(sizes, dtype=squared.dtype, device=squared.device)
    return Null(grid, squared.mean(1), squared.std(1))


def _null_draws(
    kind: DistanceKind, reference: Statistics, n: int, draws: int, generator: torch.Generator
) -> Tensor:
    # In parts of about half a million rows, so that memory does not grow with draws x n.
    step = max(1, min(draws, 500_000 // n))
    parts = []
    for start in range(0, draws, step):
        own = kind.draw(reference, n, min(step, draws - start), generator)
        parts.append(wide(kind.squared(own, reference)))
    return torch.cat(parts)


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


def relative_scale(calibrated: Tensor, null_std: Tensor) -> Tensor:
    """Distances in units of the population's median: the typical client has 1.

    Where the median is zero (half of the clients cannot be told from the population) the unit is the
    resolution, the median of ``sqrt(null_std)``; where that is zero too (the null does not vary), the mean of
    the positive distances; and where none is positive, all are 0.
    """
    positive = calibrated > 0
    mean = calibrated.sum() / positive.sum().clamp_min(1)
    unit = calibrated.quantile(0.5)
    for substitute in (null_std.clamp_min(0).sqrt().quantile(0.5), mean):
        unit = torch.where(unit > 0, unit, substitute)
    return torch.where(positive, calibrated / torch.where(unit > 0, unit, 1.0), 0.0)


def calibrate(
    squared: Tensor, size: Tensor, n: Tensor, null: Null, *, gate: float = 1.0, dtype: torch.dtype
) -> Distances:
    """Judge squared distances by their null.

    Args:
        squared: distances squared, ``(clients,)``, float64.
        size: effective sample sizes, the reference's noise included, ``(clients,)``.
        n: the clients' own sample counts, int64.
        null: from :func:`fit_null`.
        gate: the z-score below which a distance counts as none. Without it (``gate=0``) nearly half of the
            clients of one law keep a positive rest, the larger the fewer their samples.
        dtype: of the result.
    """
    mean, std = null.at(size)
    z = z_score(squared, mean, std)
    calibrated = torch.where(z >= gate, safe_root(squared - mean), 0.0)
    columns = {
        "value": safe_root(squared),
        "null_mean": mean,
        "null_std": std,
        "z": z,
        "p_value": p_value(squared, mean, std),
        "calibrated": calibrated,
        "relative": relative_scale(calibrated, std),
    }
    limit = torch.finfo(dtype).max
    return Distances(n=n, **{name: x.clamp(-limit, limit).to(dtype) for name, x in columns.items()})
