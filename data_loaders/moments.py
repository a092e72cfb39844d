"""Means and spreads of training values, client by client, and a population's from its clients' sums."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_VALUES_AT_ONCE = 500_000


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and variance of each client's values: what clients would send.

    Args:
        count: ``(clients, channels)`` float64, observed values.
        mean: ``(clients, channels)`` float64, 0 where nothing was observed.
        variance: ``(clients, channels)`` float64, divided by ``count``.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor


def moments_of(values: Tensor, rows: Sequence[Tensor]) -> Moments:
    """Return the moments of each channel over each client's rows; missing values (NaN) do not count.

    Args:
        values: ``(all rows, ..., channels)``.
        rows: one ``(n,)`` int64 a client.
    """
    channels = values.shape[-1]
    at_once = max(1, _VALUES_AT_ONCE // max(1, values[:1].numel()))
    # written into one table: small results kept between large passing buffers would tear holes into the heap
    table = [torch.zeros(len(rows), channels, dtype=torch.float64) for _ in range(3)]
    for client, own in enumerate(rows):
        for chunk in own.split(at_once):
            _add(
                values.index_select(0, chunk).reshape(-1, channels).double(),
                *(part[client] for part in table),
            )
    return Moments(*table)


def _add(x: Tensor, count: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Take rows ``x`` ``(n, channels)`` into running moments ``(channels,)`` (Chan, Golub, LeVeque 1983)."""
    if not len(x):
        return
    own_variance, own_mean = torch.var_mean(x, dim=0, correction=0)
    own = torch.full_like(count, len(x))
    if bool(own_mean.isnan().any()):
        seen = ~x.isnan()
        own, x = seen.sum(0).double(), x.nan_to_num(nan=0.0)
        own_mean = x.sum(0) / own.clamp_min(1)
        own_variance = ((x - own_mean) * seen).square().sum(0) / own.clamp_min(1)
    total, gap = (count + own).clamp_min(1), own_mean - mean
    variance.copy_((count * variance + own * own_variance + gap**2 * count * own / total) / total)
    mean += gap * own / total
    count += own


def pooled(parts: Moments) -> Moments:
    """Return the moments of all clients together, ``(1, channels)``: sums over clients only."""
    count = parts.count.sum(0, keepdim=True)
    mean = (parts.count * parts.mean).sum(0, keepdim=True) / count.clamp_min(1)
    spread = (parts.count * (parts.variance + (parts.mean - mean) ** 2)).sum(0, keepdim=True)
    return Moments(count, mean, spread / count.clamp_min(1))


def guarded(moments: Moments) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation ``(clients, channels)``, the latter 1 where a channel is constant."""
    std = moments.variance.sqrt()
    # a spread below float32's resolution of the mean is a constant channel
    return moments.mean, torch.where(std > 1e-6 * moments.mean.abs() + 1e-12, std, 1.0)
