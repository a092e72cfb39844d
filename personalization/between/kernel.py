"""Distances of kernel means: maximum mean discrepancy, and the energy distance. Both have no solver to fail."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from ..kind import register_distance
from ..numeric import safe_root, wide
from ..samples import SampleDistance, prepared
from .costs import ground_cost, squared_cost


@register_distance("mmd")
@dataclass(frozen=True)
class KernelDistance(SampleDistance):
    r"""Maximum mean discrepancy with the Gaussian kernel :math:`k(x, y) = e^{-\|x - y\|^2 / 2h^2}`.

    .. math:: \mathrm{MMD}^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)

    In [0, sqrt 2], without a unit.

    Args:
        bandwidth: h, in the units of the features; not given, the median distance between two distinct rows of the two
            samples together, or of the pool in a population. No gradient flows through it.
        unbiased: leave each row's kernel with itself out of the means. The square may then be negative, which counts as
            distance 0; calibration makes the biased form unbiased too, so this matters for raw values only. A
            sample of one row keeps the biased form: it has no other pair.

    References:
        Gretton et al., A kernel two-sample test, JMLR 13, 2012, eqs. 3 and 5.
    """

    bandwidth: float | None = field(
        default=None, metadata={"search": {"low": 0.1, "high": 10.0, "log": True}}
    )
    unbiased: bool = False

    degree: ClassVar[float] = 0.0

    def problems(self) -> list[str]:
        """A bandwidth that is not positive."""
        h = self.bandwidth
        wrong = h is not None and not (h > 0 and math.isfinite(h))
        return super().problems() + ([f"bandwidth={h} must be above 0 and finite"] if wrong else [])

    def fitted(self, pool: Tensor) -> Self:
        """With the pool's median distance as bandwidth, unless one was given."""
        if self.bandwidth is not None:
            return self
        weights = wide(pool).new_full((len(pool),), 1 / len(pool))
        return replace(self, bandwidth=float(median_distance(wide(pool), weights)))

    def between(
        self, x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The discrepancy; differentiable in samples and weights."""
        xs, ys, a, b = prepared(x, y, x_weights, y_weights)
        h = self._bandwidth(xs, ys, a, b)[..., None, None]
        kxy = torch.exp(-squared_cost(xs, ys) / (2 * h**2))
        within = [self._within(torch.exp(-squared_cost(z, z) / (2 * h**2)), w) for z, w in ((xs, a), (ys, b))]
        squared = within[0] + within[1] - 2 * _mean(kxy, a, b)
        # Three means of order one cancel: what is left below their rounding is none.
        squared = torch.where(squared > 1e-14, squared, 0.0)
        return safe_root(squared).to(x.dtype), torch.ones_like(squared, dtype=torch.bool)

    def noise_size(self, x: Tensor) -> Tensor:
        """Root mean square of the centred kernel between distinct rows: the null is a sum of its squares."""
        x = wide(x.detach())
        n = len(x)
        weights = x.new_full((n,), 1 / n)
        gram = torch.exp(-squared_cost(x, x) / (2 * self._bandwidth(x, x, weights, weights) ** 2))
        gram = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
        return (gram.fill_diagonal_(0).square().sum() / max(1, n * (n - 1))).sqrt()

    def _bandwidth(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        if self.bandwidth is not None:
            return x.new_full((), self.bandwidth)
        lead = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        both = torch.cat([z.detach().expand(*lead, *z.shape[-2:]) for z in (x, y)], -2)
        weights = torch.cat([w.detach().expand(*lead, w.shape[-1]) for w in (a, b)], -1)
        return median_distance(both, weights)

    def _within(self, gram: Tensor, weights: Tensor) -> Tensor:
        biased = _mean(gram, weights, weights)
        if not self.unbiased:
            return biased
        own = weights.square().sum(-1)
        several = own < 1 - 1e-12
        diagonal = (weights.square() * gram.diagonal(dim1=-2, dim2=-1)).sum(-1)
        return torch.where(several, (biased - diagonal) / torch.where(several, 1 - own, 1.0), biased)


@register_distance("energy")
@dataclass(frozen=True)
class EnergyDistance(SampleDistance):
    r"""Root of the energy distance, :math:`D^2 = 2 E\|x - y\| - E\|x - x'\| - E\|y - y'\|`.

    Zero for equal laws only, without a parameter; in the root of the features' unit. Along one feature it is
    :math:`2 \int (F_x - F_y)^2`.

    References:
        Szekely and Rizzo, Energy statistics: a class of statistics based on distances, JSPI 143(8), 2013.
    """

    degree: ClassVar[float] = 1.0

    def between(
        self, x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The distance; differentiable in samples and weights."""
        xs, ys, a, b = prepared(x, y, x_weights, y_weights)
        across = _mean(ground_cost(xs, ys, 1), a, b)
        within = [_mean(ground_cost(z, z, 1), w, w) for z, w in ((xs, a), (ys, b))]
        squared = 2 * across - within[0] - within[1]
        squared = torch.where(squared > 1e-13 * across.detach(), squared, 0.0)
        return safe_root(squared).to(x.dtype), torch.ones_like(squared, dtype=torch.bool)


def _mean(matrix: Tensor, a: Tensor, b: Tensor) -> Tensor:
    value: Tensor = (a.unsqueeze(-2) @ matrix @ b.unsqueeze(-1))[..., 0, 0]
    return value


def median_distance(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted median of the distances between distinct rows of ``x`` ``(..., n, F)``; 1 where all rows agree."""
    squared = squared_cost(x, x).flatten(-2)
    scale = squared.amax(-1, keepdim=True)
    mass = (weights.unsqueeze(-1) * weights.unsqueeze(-2)).flatten(-2)
    mass = torch.where(squared > 1e-14 * scale, mass, 0.0)
    ordered, order = squared.sort(-1)
    share = mass.gather(-1, order).cumsum(-1)
    index = torch.searchsorted(share, share[..., -1:] / 2).clamp(max=share.shape[-1] - 1)
    median = ordered.gather(-1, index)[..., 0].sqrt()
    return torch.where(median > 0, median, 1.0)
