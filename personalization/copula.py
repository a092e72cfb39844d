"""Draws from the law that a population's mean statistics describe: correlated, heavy-tailed, with given quantiles.

The null of every distance is drawn here. Real loads are neither Gaussian nor is the size of a day independent of its
shape: one scale common to all features of a sample, with the kurtosis that the clients report, gives the spread of
distances that Gaussian draws miss (measured in ``docs/personalization.md``).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_MAX_TAIL = 20.0


def tail_index(samples: Tensor) -> Tensor:
    r"""How much heavier than Gaussian the samples' squared norms spread: the excess kurtosis of an elliptical law.

    .. math:: \kappa = \frac{E\|x - m\|^4 - t^2 - 2s}{t^2 + 2s}, \qquad t = \operatorname{tr} C, \quad
              s = \operatorname{tr} C^2

    Args:
        samples: shape ``(..., n, F)``.

    Returns:
        Shape ``(...)``; 0 for a Gaussian, clipped to [0, 20]; 0 for constant samples.
    """
    n = samples.shape[-2]
    centred = samples - samples.mean(-2, keepdim=True)
    norms = centred.square().sum(-1)
    trace = norms.mean(-1)
    gram = centred.mT @ centred / n
    gaussian = trace**2 + 2 * gram.square().sum((-2, -1))
    safe = torch.where(gaussian > 0, gaussian, 1.0)
    return ((norms.square().mean(-1) - gaussian) / safe).clamp(0, _MAX_TAIL)


def feature_tails(samples: Tensor) -> Tensor:
    """Variance of the scale that would give each feature its kurtosis, unbiased for a Gaussian; ``(..., F)``.

    Not clipped, so that the clients' noise averages out; 0 for a constant feature.
    """
    n = samples.shape[-2]
    squares = (samples - samples.mean(-2, keepdim=True)).square()
    second = squares.mean(-2)
    kurtosis = squares.square().mean(-2) / torch.where(second > 0, second, 1.0).square()
    return torch.where(second > 0, (kurtosis - 3 * (n - 1) / (n + 1)) / 3, 0.0)


def feature_scales(
    tails: Tensor, common: Tensor, shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Scales of each feature's own on top of :func:`common_scales`, so that kurtosis is the feature's; ``(*shape, F)``.

    Args:
        tails: from :func:`feature_tails`, ``(F,)``.
        common: the tail of the scale they share.
        shape: of the draws.
        generator: on the CPU.
    """
    own = ((1 + tails.clamp(0, _MAX_TAIL)) / (1 + common) - 1).clamp_min(0).cpu().float()
    spread = torch.log1p(own).sqrt()
    return torch.exp((spread * torch.randn(*shape, len(own), generator=generator) - spread**2 / 2) / 2)


def common_scales(tail: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Square roots of log-normal scales with mean 1 and variance ``tail``; drawn on the CPU in float32."""
    spread = float(torch.log1p(tail)) ** 0.5
    return torch.exp((spread * torch.randn(shape, generator=generator) - spread**2 / 2) / 2)


def normal_scores(values: Tensor, tail: Tensor) -> Tensor:
    """Standard normal scores of ``scale * normal``, with the scales of :func:`common_scales`; any shape."""
    spread = float(torch.log1p(tail)) ** 0.5
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    scales = torch.exp((spread * torch.from_numpy(nodes) - spread**2 / 2) / 2)
    half = torch.sinh(torch.linspace(-6, 0, 400, dtype=torch.float64))
    below = (torch.special.ndtr(half[:, None] / scales) * torch.from_numpy(weights / weights.sum())).sum(1)
    scores = torch.special.ndtri(below.clamp(1e-300, 0.5))
    keep = scores > -8
    knots, table = half[keep], scores[keep]
    knots = torch.cat([knots[:-1], torch.zeros(1, dtype=torch.float64), -knots[:-1].flip(0)])
    table = torch.cat([table[:-1], torch.zeros(1, dtype=torch.float64), -table[:-1].flip(0)])
    return interpolate(values, knots.to(values), table.to(values))


def interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear through ``(knots, values)``, continued beyond the ends by the last slope.

    Args:
        x: shape ``(..., m)`` or, for values of several functions, ``(..., L, m)``.
        knots: increasing, shape ``(K,)``.
        values: shape ``(K,)`` or ``(L, K)``.

    Returns:
        Shape of ``x``, dtype of ``values``.
    """
    if len(knots) == 1:
        return values.expand(x.shape)
    left = (torch.searchsorted(knots, x.contiguous()) - 1).clamp(0, len(knots) - 2)
    share = (x - knots[left]) / (knots[left + 1] - knots[left])
    if values.ndim == 1:
        return torch.lerp(values[left], values[left + 1], share.to(values.dtype))
    rows = values.expand(*x.shape[:-2], *values.shape)
    return torch.lerp(rows.gather(-1, left), rows.gather(-1, left + 1), share.to(values.dtype))
