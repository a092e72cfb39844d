"""Exact transport between equally weighted samples, and the measures on the way from one to the other."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ..numeric import wide


def transport_plan(points: Tensor, others: Tensor) -> tuple[Tensor, float]:
    """Optimal plan for the squared Euclidean cost, and W2.

    Args:
        points: shape ``(S, F)``, equally weighted.
        others: shape ``(n, F)``, equally weighted.

    Returns:
        Plan ``(S, n)``, float64 on the CPU, with rows summing to ``1 / S``; and W2 in the units of the features.

    Raises:
        RuntimeError: POT's network simplex did not converge.
    """
    import ot

    cost = torch.cdist(wide(points), wide(others)).square().cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said by the error below
        plan, log = ot.emd([], [], cost, numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(
            f"The transport between {len(points)} and {len(others)} samples did not converge: {log['warning']}. "
            "Thin the samples, or rescale the features."
        )
    return torch.from_numpy(plan), float(max(0.0, (plan * cost).sum())) ** 0.5


def interpolant(points: Tensor, others: Tensor, t: float) -> Tensor:
    r"""Points at share t of the way to a sample, each heading for its barycentric projection.

    .. math:: (1 - t)\, \xi_j + t\, S \sum_i P_{ji}\, x_i

    With ``S = n`` the plan is a matching and this is McCann's geodesic itself; otherwise it is FedWaD's equation for
    interpolants with a fixed number of points.

    Returns:
        Shape ``(S, F)`` in the dtype of ``points``, in the order of ``points``.
    """
    plan, _ = transport_plan(points, others)
    heading = len(points) * plan.to(others.device) @ wide(others)
    moved: Tensor = ((1 - t) * wide(points) + t * heading).to(points.dtype)
    return moved


def wasserstein(points: Tensor, others: Tensor) -> float:
    """W2 between equally weighted samples ``(S, F)`` and ``(n, F)``."""
    return transport_plan(points, others)[1]


def gaussian_points(count: int, features: int, seed: int, like: Tensor) -> Tensor:
    """A standard normal sample ``(count, F)``: a function of the seed, whatever the device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, features, generator=generator, dtype=torch.float64).to(like)
