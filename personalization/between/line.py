"""Wasserstein distance on the line, in closed form, for weighted samples of unequal size."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check_finite, check_order


def wasserstein_line(
    x: Tensor, y: Tensor, x_weights: Tensor, y_weights: Tensor, *, order: float = 2
) -> Tensor:
    r"""Transport cost on the line, :math:`W_p^p = \int_0^1 |F^{-1}_x(q) - F^{-1}_y(q)|^p\, dq`.

    Args:
        x: positions, shape ``(..., n)``.
        y: shape ``(..., m)``; leading axes broadcast.
        x_weights: summing to one, broadcasting to ``x``.
        y_weights: likewise, to ``y``.
        order: ``p >= 1``.

    Returns:
        ``W_p^p``, shape ``(...)``; differentiable in positions and weights.

    Raises:
        ValueError: ``order`` is below 1; weights below 0, that do not sum to one, or not one per position.
    """
    check_order(order)
    check_finite(x=x, y=y, x_weights=x_weights, y_weights=y_weights)
    for name, z, weights in (("x", x, x_weights), ("y", y, y_weights)):
        if not z.ndim or not weights.ndim or z.shape[-1] != weights.shape[-1] or not z.shape[-1]:
            raise ValueError(
                f"{name} has shape {tuple(z.shape)}, its weights {tuple(weights.shape)}; give one weight per position."
            )
        _check_weights(f"{name}_weights", weights.detach())
    lead = torch.broadcast_shapes(*(z.shape[:-1] for z in (x, y, x_weights, y_weights)))
    xs, a, ys, b = (z.expand(*lead, z.shape[-1]) for z in (x, x_weights, y, y_weights))
    (xs, first), (ys, second) = xs.sort(-1), ys.sort(-1)
    up, down = a.gather(-1, first).cumsum(-1), b.gather(-1, second).cumsum(-1)
    levels = torch.cat([up, down], -1).sort(-1).values
    widths = torch.diff(levels, dim=-1, prepend=torch.zeros_like(levels[..., :1])).clamp_min(0)
    # Both step functions are constant between two levels; the middle tells which step, free of rounding at the ends.
    middle = (levels - widths / 2).detach()
    gap = (_step(xs, up, middle) - _step(ys, down, middle)).abs()
    cost: Tensor = (widths * gap**order).sum(-1)
    return cost


def _check_weights(name: str, weights: Tensor) -> None:
    sums = weights.sum(-1).reshape(-1)
    worst = sums[(sums - 1).abs().argmax()]
    if bool((weights < 0).any()) or not bool((worst - 1).abs() < 1e-2):
        raise ValueError(
            f"{name} sum to {float(worst):g}, the smallest is {float(weights.min()):g}; give weights of at least 0 that "
            "sum to one: weights / weights.sum(-1, keepdim=True)."
        )


def _step(positions: Tensor, cumulative: Tensor, levels: Tensor) -> Tensor:
    index = torch.searchsorted(cumulative.detach().contiguous(), levels.contiguous())
    return positions.gather(-1, index.clamp(max=positions.shape[-1] - 1))
