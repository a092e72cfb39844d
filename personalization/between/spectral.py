"""Spectral distance: how differently two clients' windows spread their power over frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..kind import register_distance
from ..numeric import safe_root
from ..samples import SampleDistance, prepared
from .line import wasserstein_line


def power_spectrum(windows: Tensor, weights: Tensor) -> Tensor:
    """Mean normalised power spectrum of windows, a law on frequencies.

    Each window's mean is taken out and its power made to sum to one, so that level and size of a window do not count. A
    constant window has no power elsewhere, so all of its mass lies at frequency 0.

    Args:
        windows: shape ``(..., n, steps)``, at least 2 steps.
        weights: of the windows, summing to one, ``(..., n)``.

    Returns:
        Shape ``(..., steps // 2 + 1)``, sums to one; entry k is frequency ``k / steps`` in cycles per step.
    """
    centred = windows - windows.mean(-1, keepdim=True)
    power = torch.fft.rfft(centred).abs().square()
    total = power.sum(-1, keepdim=True)
    level = windows.detach().square().sum(-1, keepdim=True) * windows.shape[-1]
    varies = total > 1e-20 * level
    still = torch.zeros_like(power)
    still[..., 0] = 1.0
    share = torch.where(varies, power / torch.where(varies, total, 1.0), still)
    return (weights.unsqueeze(-1) * share).sum(-2)


@register_distance("spectral")
@dataclass(frozen=True)
class SpectralDistance(SampleDistance):
    r"""Wasserstein distance between the mean normalised power spectra of two sets of windows.

    .. math:: W_p^p = \int_0^1 |G_x^{-1}(q) - G_y^{-1}(q)|^p\, dq

    with G the cumulative spectra; in closed form. Every row of features is one window of a series. Blind to
    level, size and phase: what it sees is rhythm.

    Args:
        order: ``p >= 1``; 1 by default, as the reference has it for spectra.
        rate: steps per unit of time: the distance is in cycles per that unit.

    References:
        Cazelles, Robert and Tobar, The Wasserstein-Fourier distance for stationary time series, IEEE TSP 69, 2021.
    """

    order: float = field(default=1.0, metadata={"search": {"choices": [1.0, 2.0]}})
    rate: float = 1.0

    degree: ClassVar[float] = 0.0
    draws: ClassVar[int] = 512  # cheap, and their law is not the moments'

    def problems(self) -> list[str]:
        """An order below 1, a rate that is not positive."""
        found = [] if 1 <= self.order < math.inf else [f"order={self.order} must be at least 1 and finite"]
        return (
            super().problems()
            + found
            + ([] if 0 < self.rate < math.inf else [f"rate={self.rate} must be above 0 and finite"])
        )

    def between(
        self, x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The distance in cycles per unit of time; differentiable in samples and weights.

        Raises:
            ValueError: windows of fewer than two steps, which have no spectrum; or as every distance.
        """
        xs, ys, a, b = prepared(x, y, x_weights, y_weights)
        steps = xs.shape[-1]
        if steps < 2:
            raise ValueError(
                f"windows of {steps} step have no spectrum; give (..., windows, steps), at least 2 steps."
            )
        frequencies = torch.arange(steps // 2 + 1, dtype=xs.dtype, device=xs.device) * (self.rate / steps)
        cost = wasserstein_line(
            frequencies, frequencies, power_spectrum(xs, a), power_spectrum(ys, b), order=self.order
        )
        return safe_root(cost, self.order).to(x.dtype), torch.ones_like(cost, dtype=torch.bool)
