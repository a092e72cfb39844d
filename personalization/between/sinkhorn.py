"""The debiased Sinkhorn divergence, batched, in the log domain."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from ..kind import register_distance
from ..numeric import safe_root, wide
from ..samples import SampleDistance, broadcast_batch, prepared
from .costs import squared_cost

_INNER = 20


@register_distance("sinkhorn")
@dataclass(frozen=True)
class SinkhornDistance(SampleDistance):
    r"""Root of the Sinkhorn divergence with squared Euclidean costs.

    .. math:: S_\varepsilon = OT_\varepsilon(x, y) - \tfrac12 OT_\varepsilon(x, x) - \tfrac12 OT_\varepsilon(y, y)

    Between the exact distance (epsilon to 0) and the distance of means (epsilon to infinity); zero for equal laws at
    every epsilon. Entropy smooths the sampling noise, which is why it tells laws of many features apart where the exact
    distance cannot.

    Args:
        epsilon: strength of the entropy, in units of ``scale``.
        scale: what epsilon is counted in, in squared units of the features; not given, the mean of the two samples' own
            mean squared distance between rows, or the pool's in a population. No gradient flows through it.
        iterations: at most; ``converged`` says whether margins then met.
        tolerance: summed absolute error of the margins that counts as converged.

    References:
        Feydy et al., Interpolating between optimal transport and MMD using Sinkhorn divergences, AISTATS 2019, eq. 3.
        Thibault et al., Overrelaxed Sinkhorn-Knopp algorithm for regularized optimal transport, Algorithms 14(5), 2021.
        Schmitzer, Stabilized sparse scaling algorithms for entropy regularized transport problems, SISC 41(3), 2019.
    """

    epsilon: float = field(default=0.05, metadata={"search": {"low": 0.005, "high": 1.0, "log": True}})
    scale: float | None = None
    iterations: int = 2000
    tolerance: float = 1e-4

    def problems(self) -> list[str]:
        """An epsilon, scale or tolerance that is not positive, no iterations."""
        positive = {"epsilon": self.epsilon, "scale": self.scale, "tolerance": self.tolerance}
        found = [
            f"{k}={v} must be above 0 and finite"
            for k, v in positive.items()
            if v is not None and not _usable(v)
        ]
        if not self.iterations >= 1:
            found.append(f"iterations={self.iterations} must be at least 1")
        return super().problems() + found

    def fitted(self, pool: Tensor) -> Self:
        """With the pool's mean squared distance between rows as ``scale``, unless one was given."""
        spread = float(2 * wide(pool).var(0, correction=0).sum())
        return self if self.scale is not None or not _usable(spread) else replace(self, scale=spread)

    def between(
        self, x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The root of the divergence, in the units of the features; differentiable in samples and weights."""
        xs, ys, a, b = prepared(x, y, x_weights, y_weights)
        if self.scale is None:  # epsilon is then each pair's own, in the parts of one sample too
            lead = torch.broadcast_shapes(xs.shape[:-2], ys.shape[:-2], a.shape[:-1], b.shape[:-1])
            xs, ys = (z.expand(*lead, *z.shape[-2:]) for z in (xs, ys))
            a, b = (w.expand(*lead, w.shape[-1]) for w in (a, b))
        epsilon = self.epsilon * self._unit(xs, ys, a, b)
        parts = [
            self._entropic(squared_cost(u, v), p, q, epsilon, u is v)
            for u, v, p, q in ((xs, ys, a, b), (xs, xs, a, a), (ys, ys, b, b))
        ]
        divergence = parts[0][0] - (parts[1][0] + parts[2][0]) / 2
        return safe_root(divergence).to(x.dtype), parts[0][1] & parts[1][1] & parts[2][1]

    def _unit(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        if self.scale is not None:
            return x.new_full((), self.scale)
        with torch.no_grad():
            (mx, sx), (my, sy) = (_spread(z, w) for z, w in ((x, a), (y, b)))
            own, apart = sx + sy, (mx - my).square().sum(-1)
            own = torch.where(
                own > 1e-12 * apart, own, apart
            )  # two constant samples: any epsilon gives their gap
            return torch.where(own > 0, own, 1.0)

    def _entropic(
        self, cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, symmetric: bool
    ) -> tuple[Tensor, Tensor]:
        batch, (costs, rows, columns) = broadcast_batch(cost, a.unsqueeze(-1), b.unsqueeze(-1), keep=2)
        eps = epsilon.expand(batch).reshape(-1, 1, 1)
        p, q = rows[..., 0], columns[..., 0]
        with torch.no_grad():
            f, g, error = sinkhorn_potentials(
                costs, p, q, eps, symmetric=symmetric, iterations=self.iterations, tolerance=self.tolerance
            )
            plan = p.unsqueeze(-1) * q.unsqueeze(-2) * _kernel(costs, f, g, eps)
        # The dual's value; the plan is its gradient to the costs, the potentials those to the weights.
        value = (p * f).sum(-1) + (q * g).sum(-1) + (plan * (costs - costs.detach())).sum((-2, -1))
        return value.reshape(batch), (error <= self.tolerance).reshape(batch)


def _usable(x: float) -> bool:
    return x > 0 and math.isfinite(x)


def _spread(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weights.unsqueeze(-1) * x).sum(-2)
    return mean, (weights * (x - mean.unsqueeze(-2)).square().sum(-1)).sum(-1)


def _kernel(cost: Tensor, f: Tensor, g: Tensor, epsilon: Tensor) -> Tensor:
    return torch.exp(((f.unsqueeze(-1) + g.unsqueeze(-2) - cost) / epsilon).clamp_max(80))


def sinkhorn_potentials(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: Tensor,
    *,
    symmetric: bool = False,
    iterations: int = 2000,
    tolerance: float = 1e-4,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Dual potentials of entropic transport, :math:`P_{ij} = a_i b_j e^{(f_i + g_j - C_{ij}) / \varepsilon}`.

    Epsilon is annealed from the largest cost by quarters. Each round sets one potential in the log domain, where nothing
    overflows, then takes up to twenty cheap steps on the kernel scaled by both, over-relaxed by the rate they show.

    Args:
        cost: shape ``(B, n, m)``.
        a: margins, ``(B, n)``; rows of weight 0 get a potential but no mass.
        b: ``(B, m)``.
        epsilon: in units of the cost, broadcasting to ``(B, 1, 1)``.
        symmetric: cost and margins are those of a sample with itself: one potential for both, found in a tenth of
            the steps.
        iterations: of both margins together, at most.
        tolerance: of the margins' error.

    Returns:
        f ``(B, n)``, g ``(B, m)``, and the error: absolute deviation of the plan's margins, summed, ``(B,)``.
    """
    log_b = b.log()  # -inf for padding: its mass is exactly none
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    eps = torch.maximum(cost.amax((-2, -1), keepdim=True), epsilon)
    error, omega = a.new_full(a.shape[:1], torch.inf), a.new_ones(a.shape[0], 1)
    done, last = 0, False
    while done < iterations:
        eps, before, omega = torch.maximum(eps / 4, epsilon), error, omega if last else torch.ones_like(omega)
        last = bool((eps <= epsilon).all())
        steps = _INNER if last else 2
        f = -eps[..., 0] * torch.logsumexp(log_b.unsqueeze(-2) + (g.unsqueeze(-2) - cost) / eps, -1)
        if symmetric:
            g = f = (f + g) / 2
        u, v, error = _scale(_kernel(cost, f, g, eps), a, b, steps, None if symmetric else omega)
        f, g = f + eps[..., 0] * u.log(), g + eps[..., 0] * v.log()
        done += 1 + steps
        if last and bool((error <= tolerance).all()):
            break
        omega = _relaxation(omega, error, before, steps)
    return f, g, torch.where(error.isfinite() & (eps <= epsilon)[..., 0, 0], error, torch.inf)


def _relaxation(omega: Tensor, error: Tensor, before: Tensor, steps: int) -> Tensor:
    """Over-relaxation ``(B, 1)`` that is best for the rate just seen (Young 1954); plain steps after one that was worse."""
    rate = (error / before.clamp_min(1e-300)).clamp(0, 1) ** (1 / steps)
    best = 2 / (1 + (1 - rate).clamp_min(1e-4).sqrt())
    usable = torch.isfinite(before) & (error < 0.1) & (error < before)
    return torch.where(usable.unsqueeze(-1), torch.maximum(omega, best.unsqueeze(-1).clamp_max(1.9)), 1.0)


def _scale(
    kernel: Tensor, a: Tensor, b: Tensor, steps: int, omega: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scalings of both margins after some steps, and the error they leave; no ``omega`` for a sample with itself."""
    u, v = torch.ones_like(a), torch.ones_like(b)
    for _ in range(steps):
        if omega is None:  # the geometric mean of where one is and where one would go: it does not swing
            u = v = (u / _margin(kernel, a * u)).sqrt()
        else:
            v = v ** (1 - omega) * _margin(kernel.mT, a * u) ** -omega
            u = u ** (1 - omega) * _margin(kernel, b * v) ** -omega
    if omega is None:
        return u, v, (a * (u * _margin(kernel, a * u) - 1).abs()).sum(-1)
    errors = [
        (a * (u * _margin(kernel, b * v) - 1).abs()).sum(-1),
        (b * (v * _margin(kernel.mT, a * u) - 1).abs()).sum(-1),
    ]
    return u, v, errors[0] + errors[1]


def _margin(kernel: Tensor, mass: Tensor) -> Tensor:
    return (kernel @ mass.unsqueeze(-1)).squeeze(-1).clamp_min(1e-100)
