"""Ground costs, and the exact transport of one by POT's network simplex with a gradient to costs and weights."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from ..samples import broadcast_batch


def squared_cost(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances ``(..., n, m)``, differentiable also where rows agree.

    Both are centred first, so that the products cancel little; what rounding leaves below zero is zero.
    """
    centre = y.detach().mean(-2, keepdim=True)
    x, y = x - centre, y - centre
    norms = x.square().sum(-1).unsqueeze(-1) + y.square().sum(-1).unsqueeze(-2)
    return (norms - 2 * x @ y.mT).clamp_min(0)


def ground_cost(x: Tensor, y: Tensor, order: float) -> Tensor:
    r"""Costs ``|x_i - y_j|^order`` with Euclidean norms, shape ``(..., n, m)``; subgradient 0 where rows agree."""
    squared = squared_cost(x, y)
    if order == 2:
        return squared
    # Below rounding two rows agree; a root there would turn rounding into distance.
    scale = squared.detach().amax((-2, -1), keepdim=True)
    apart = squared > 1e-15 * scale
    return torch.where(apart, torch.where(apart, squared, 1.0) ** (order / 2), 0.0)


def transport_cost(
    cost: Tensor, a: Tensor, b: Tensor, *, iterations: int = 1_000_000
) -> tuple[Tensor, Tensor]:
    r"""Least cost of transport, :math:`\min_P \sum_{ij} P_{ij} C_{ij}` with margins a and b; exact, one by one.

    Args:
        cost: shape ``(..., n, m)``, float64.
        a: margins that sum to one, ``(..., n)``.
        b: likewise, ``(..., m)``.
        iterations: of the network simplex, at most.

    Returns:
        The cost ``(...)``, and whether the simplex reached the optimum, bool. Where it did not, the cost is that of
        the plan it had, an upper bound; where it had none that meets the margins, that of the independent plan. The
        gradient to the cost is the plan (envelope theorem), to the margins the dual potentials.
    """
    batch, (costs, rows, columns) = broadcast_batch(cost, a.unsqueeze(-1), b.unsqueeze(-1), keep=2)
    found = [_solve(*parts, iterations) for parts in zip(costs, rows[..., 0], columns[..., 0], strict=True)]
    plan, u, v = (torch.stack(list(parts)).to(cost) for parts in zip(*(f[:3] for f in found), strict=True))
    rows, columns = rows[..., 0], columns[..., 0]
    value = (plan * costs).sum((-2, -1))
    # Zero in value, the potentials in gradient.
    value = value + (u * (rows - rows.detach())).sum(-1) + (v * (columns - columns.detach())).sum(-1)
    done = torch.tensor([f[3] for f in found], device=cost.device)
    return value.reshape(batch), done.reshape(batch)


def _solve(cost: Tensor, a: Tensor, b: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor, bool]:
    import ot

    C, p, q = (x.detach().cpu().double().numpy() for x in (cost, a, b))
    scale = float(C.max())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # non-convergence is reported in the result, for every client
        plan, log = ot.emd(p, q, np.ascontiguousarray(C / (scale or 1.0)), numItermax=iterations, log=True)
    done = log["result_code"] == 1
    meets = (
        np.isfinite(plan).all()
        and np.abs(plan.sum(1) - p).max() < 1e-6
        and np.abs(plan.sum(0) - q).max() < 1e-6
    )
    plan = plan if meets else np.outer(p, q)
    u, v = (np.nan_to_num(np.asarray(log[name]), posinf=0, neginf=0) * (scale or 1.0) for name in ("u", "v"))
    return torch.from_numpy(plan), torch.from_numpy(u), torch.from_numpy(v), bool(done and meets)
