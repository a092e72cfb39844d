"""Means and spreads of training values, of one client and of a population from its clients' sums."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_VALUES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Moments:
    """Count, mean and variance of some rows: what a client would send.

    Args:
        count: values per channel.
        mean: ``(channels,)`` float64.
        variance: ``(channels,)`` float64, divided by ``count``.
    """

    count: int
    mean: Tensor
    variance: Tensor


def moments_of(values: Tensor, rows: Tensor) -> Moments:
    """Return the moments of each channel over some rows ``(n,)`` of ``values`` ``(samples, steps, channels)``."""
    steps, channels = values.shape[1:]
    at_once = max(1, _VALUES_AT_ONCE // max(1, steps * channels))
    parts = []
    for chunk in rows.split(at_once):
        x = values.index_select(0, chunk).reshape(-1, channels).double()
        variance, mean = torch.var_mean(x, dim=0, correction=0)
        parts.append(Moments(len(x), mean, variance))
    return pooled(parts)


def pooled(parts: Sequence[Moments]) -> Moments:
    """Return the moments of all parts together (Chan, Golub, LeVeque 1983): sums over the parts only."""
    parts = [part for part in parts if part.count] or list(parts[:1])
    if len(parts) == 1:
        return parts[0]
    counts = torch.tensor([part.count for part in parts], dtype=torch.float64).unsqueeze(1)
    means = torch.stack([part.mean for part in parts])
    variances = torch.stack([part.variance for part in parts])
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    return Moments(int(total), mean, (counts * (variances + (means - mean) ** 2)).sum(0) / total)


def guarded(moments: Moments) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation ``(channels,)`` float64, the latter 1 where a channel is constant."""
    std = moments.variance.sqrt()
    # a spread below float32's resolution of the mean is a constant channel
    return moments.mean, torch.where(std > 1e-6 * moments.mean.abs() + 1e-12, std, 1.0)
