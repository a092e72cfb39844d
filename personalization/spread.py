"""How wide a client's own noise is beside the population's: by that the floor of its standard errors is scaled."""

from __future__ import annotations

import torch
from torch import Tensor


def covariance_size(cov: Tensor, n: Tensor | None = None) -> Tensor:
    r"""Frobenius norm of covariances: without a difference ``n d^2`` deviates by ``sqrt(2 tr C^2)``, to first order.

    Args:
        cov: empirical, ``(..., F, F)``.
        n: of how many samples each is, ``(...)``. Their noise adds about ``(tr C)^2 / n`` to the square, which is taken off
            (Srivastava 2005, unbiased for normal laws), down to ``(tr C)^2 / F``, the least there is. None: without noise.

    Returns:
        Shape ``(...)``.
    """
    squared = cov.square().sum((-2, -1))
    if n is not None:
        least = cov.diagonal(dim1=-2, dim2=-1).sum(-1).square()
        n = n.to(squared)
        unbiased = (n - 1).square() / ((n - 2).clamp_min(1) * (n + 1)) * (squared - least / (n - 1))
        squared = torch.maximum(unbiased, least / cov.shape[-1])
    return squared.sqrt()


def ratio(own: Tensor, population: Tensor) -> Tensor:
    """``own / population``; 1 where the population does not vary."""
    return torch.where(population > 0, own / torch.where(population > 0, population, 1.0), 1.0)


def forms_of_gaps(points: Tensor, forms: Tensor, some: slice = slice(None)) -> Tensor:
    """``(x_i - x_j)' C_i (x_i - x_j)`` of points ``(K, F)`` and symmetric forms ``(K, F, F)``, of some i, ``(some, K)``.

    One product over the ``F (F + 1) / 2`` entries of a form. It cancels, the less the nearer the origin the points lie.
    """
    rows, columns = torch.triu_indices(points.shape[1], points.shape[1])
    twice = torch.where(rows == columns, 1, 2).to(forms)
    slopes = (forms[some] @ points[some].unsqueeze(-1)).squeeze(-1)
    found = (forms[some, rows, columns] * twice) @ (points[:, rows] * points[:, columns]).T
    return (
        found.addmm_(slopes, points.T, alpha=-2)
        .add_((slopes * points[some]).sum(-1, keepdim=True))
        .clamp_min_(0)
    )
