"""The max-sliced Wasserstein distance: along the one direction in which two samples differ most."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..kind import register_distance
from ..numeric import safe_root
from ..samples import SampleDistance, broadcast_batch, gap_unit, prepared
from ..sketch import unit_projections
from .line import wasserstein_line


@register_distance("max_sliced")
@dataclass(frozen=True)
class MaxSlicedDistance(SampleDistance):
    r"""Wasserstein distance along the worst direction, :math:`\max_{\|\theta\| = 1} W_p(\theta^T x, \theta^T y)`.

    The best of fixed random directions, the difference of means and the axes in which the covariances differ most is
    refined by gradient ascent on the sphere, with steps that never lower the distance. It finds one changed feature
    among many, which an average over directions dilutes. The maximum found is local: a lower bound.

    Args:
        order: ``p >= 1``.
        projections: random directions to start from.
        iterations: steps of the ascent, at most.
        tolerance: relative gain per step below which the ascent has converged.
        seed: of the directions.

    References:
        Deshpande et al., Max-sliced Wasserstein distance and its use for GANs, CVPR 2019.
    """

    order: float = field(default=2.0, metadata={"search": {"choices": [1.0, 2.0]}})
    projections: int = field(default=64, metadata={"search": {"low": 8, "high": 256, "log": True}})
    iterations: int = 100
    tolerance: float = 1e-5
    seed: int = 0

    def problems(self) -> list[str]:
        """An order below 1, no directions or steps."""
        found = [] if 1 <= self.order < math.inf else [f"order={self.order} must be at least 1 and finite"]
        counts = ("projections", "iterations")
        found += [
            f"{name}={getattr(self, name)} must be at least 1" for name in counts if getattr(self, name) < 1
        ]
        if not self.tolerance >= 0:
            found.append(f"tolerance={self.tolerance} must not be negative")
        return super().problems() + found

    def between(
        self, x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The distance, in the units of the features; its gradient is that along the direction found, held fixed."""
        xs, ys, a, b = prepared(x, y, x_weights, y_weights)
        unit = gap_unit(xs, ys, self.order)
        xs, ys = xs / unit, ys / unit
        batch, (xs, ys, a, b) = broadcast_batch(xs, ys, a.unsqueeze(-1), b.unsqueeze(-1), keep=2)
        a, b = a[..., 0], b[..., 0]
        with torch.no_grad():
            start = self._start(xs, ys, a, b)
        theta, converged = self._ascend(xs, ys, a, b, start)
        cost = self._along(theta, xs, ys, a, b)
        value = safe_root(cost, self.order).reshape(batch) * unit[..., 0, 0]
        return value.to(x.dtype), converged.reshape(batch)

    def _along(self, theta: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Cost along directions ``(B, F)``."""
        lines = [(z @ theta.unsqueeze(-1)).squeeze(-1) for z in (x, y)]
        return wasserstein_line(lines[0], lines[1], a, b, order=self.order)

    def _start(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The best of the directions to start from, ``(B, F)``."""
        (mx, cx), (my, cy) = (_weighted_moments(z, w) for z, w in ((x, a), (y, b)))
        fixed = unit_projections(x.shape[-1], self.projections, seed=self.seed, like=x).expand(len(x), -1, -1)
        axes = torch.linalg.eigh(cx - cy).eigenvectors.mT
        gap = torch.nn.functional.normalize(mx - my, dim=-1).unsqueeze(1)
        directions = torch.cat([fixed, axes[:, :1], axes[:, -1:], gap], 1)
        lines = [directions @ z.mT for z in (x, y)]
        costs = wasserstein_line(lines[0], lines[1], a.unsqueeze(1), b.unsqueeze(1), order=self.order)
        best = costs.argmax(1)
        return directions[torch.arange(len(x), device=x.device), best]

    def _ascend(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        x, y, a, b = (z.detach() for z in (x, y, a, b))
        step = x.new_full((len(x), 1), 1.0)
        done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        cost, slope = self._slope(theta, x, y, a, b)
        for _ in range(self.iterations):
            trial = torch.nn.functional.normalize(theta + step * slope, dim=-1)
            reached, there = self._slope(trial, x, y, a, b)
            better = (reached > cost).unsqueeze(1)
            # Converged: a step that gains next to nothing, or no step that gains at all.
            small = (reached - cost <= self.tolerance * cost.abs()) & better[:, 0]
            done = done | small | (step[:, 0] < 1e-6) | (slope.norm(dim=1) <= 1e-12)
            theta, slope = torch.where(better, trial, theta), torch.where(better, there, slope)
            cost = torch.where(better[:, 0], reached, cost)
            step = torch.where(better, step * 1.5, step / 3)
            if bool(done.all()):
                break
        return theta, done

    def _slope(self, theta: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Cost, and its gradient along the sphere in units of the cost."""
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            cost = self._along(theta, x, y, a, b)
            (gradient,) = torch.autograd.grad(cost.sum(), theta)
        theta, cost = theta.detach(), cost.detach()
        gradient = gradient - (gradient * theta).sum(-1, keepdim=True) * theta
        return cost, gradient / cost.clamp_min(1e-300).unsqueeze(1)


def _weighted_moments(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weights.unsqueeze(-1) * x).sum(-2)
    centred = x - mean.unsqueeze(-2)
    return mean, (weights.unsqueeze(-1) * centred).mT @ centred
