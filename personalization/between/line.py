"""Wasserstein distance on the line, in closed form, for weighted samples of unequal size."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check_batches, check_finite, check_order


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
        ``W_p^p``, shape ``(...)``, inf where the dtype does not hold it; differentiable in positions and weights, once in
        the latter. Where the cumulated weights of both meet, as all do in samples of one size, the cost has a kink in
        the weights; its gradient there is the mean of both sides.

    Raises:
        ValueError: ``order`` is below 1; weights below 0, that do not sum to one, or not one per position;
            batches that do not fit.
    """
    check_order(order)
    check_finite(x=x, y=y, x_weights=x_weights, y_weights=y_weights)
    for name, z, weights in (("x", x, x_weights), ("y", y, y_weights)):
        if not z.ndim or not weights.ndim or z.shape[-1] != weights.shape[-1] or not z.shape[-1]:
            raise ValueError(
                f"{name} has shape {tuple(z.shape)}, its weights {tuple(weights.shape)}; give one weight per position."
            )
        _check_weights(f"{name}_weights", weights.detach())
    check_batches(x=(x, 1), y=(y, 1), x_weights=(x_weights, 1), y_weights=(y_weights, 1))
    lead = torch.broadcast_shapes(*(z.shape[:-1] for z in (x, y, x_weights, y_weights)))
    xs, a, ys, b = (z.expand(*lead, z.shape[-1]) for z in (x, x_weights, y, y_weights))
    (xs, first), (ys, second) = xs.sort(-1), ys.sort(-1)
    up, down = a.gather(-1, first).cumsum(-1), b.gather(-1, second).cumsum(-1)
    levels = torch.cat([up, down], -1).detach().sort(-1).values
    widths = torch.diff(levels, dim=-1, prepend=torch.zeros_like(levels[..., :1])).clamp_min(0)
    # Both step functions are constant between two levels; the middle tells which step, free of rounding at the ends.
    middle = levels - widths / 2
    gap = (_step(xs, up, middle) - _step(ys, down, middle)).abs()
    gap = torch.where(widths > 0, gap, 0.0)  # else an infinite power of none is NaN
    cost: Tensor = (widths * gap**order).sum(-1)
    if x_weights.requires_grad or y_weights.requires_grad:
        with torch.no_grad():
            slopes = [_slope(*of, order) for of in ((xs, up, ys, down), (ys, down, xs, up))]
        for level, slope in zip((up, down), slopes, strict=True):
            cost = cost + ((level - level.detach()) * slope).sum(-1)  # adds nothing but its gradient
    return cost


def _slope(x: Tensor, up: Tensor, y: Tensor, down: Tensor, order: float) -> Tensor:
    """What the cost gains as a level of x rises: ``|x_i - y|^p - |x_(i+1) - y|^p``, mean for y just below and above.

    At the last level, which both have, half of what lies there: it moves when all weights of x do.
    """
    near = torch.finfo(up.dtype).eps ** (2 / 3)  # beyond what rounding parts, below the weight of any sample
    sides = [_step(y, down, up + way * near) for way in (-1, 1)]
    own, after = ([(z - side).abs() ** order for side in sides] for z in (x, x.roll(-1, -1)))
    slope = (own[0] + own[1] - after[0] - after[1]) / 2
    slope[..., -1] = (own[0] + own[1])[..., -1] / 4
    return slope


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
