"""Quantile sketches: a distribution as its quantiles along fixed random directions.

In one dimension the Wasserstein distance is the distance between quantile functions, so on sketches the
sliced distance, barycentres and all pairwise distances are plain Euclidean geometry on tensors
``(projections, quantiles)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import check_features, check_finite, check_floating, check_whole
from .numeric import generator_of, size_groups, sort_last


def unit_projections(
    features: int, projections: int = 64, *, seed: int = 0, like: Tensor | None = None
) -> Tensor:
    """Directions drawn uniformly on the unit sphere; every party that knows the seed has the same.

    Args:
        features: F, the dimension of the samples.
        projections: L, how many directions.
        seed: of the generator. Drawn in float64 on the CPU, hence the same on every device.
        like: a tensor whose dtype and device the result takes; float32 on the CPU otherwise.

    Returns:
        Shape ``(L, F)``, rows of length 1.

    Raises:
        ValueError: ``features`` or ``projections`` is no whole number, or below 1; ``seed`` is none.
    """
    check_whole("features", features, "the dimension of the samples")
    check_whole("projections", projections, "the more, the finer")
    normal = torch.randn(projections, features, generator=generator_of(seed), dtype=torch.float64)
    unit: Tensor = normal / normal.norm(dim=1, keepdim=True)
    return unit.float() if like is None else unit.to(like.dtype).to(like.device)


def midpoint_levels(quantiles: int = 128) -> Tensor:
    """Levels ``(q - 1/2) / Q``, float64: the mid-points of Q equal slices of probability.

    Raises:
        ValueError: ``quantiles`` is no whole number, or below 1.
    """
    check_whole("quantiles", quantiles, "the more, the finer")
    return (torch.arange(quantiles, dtype=torch.float64) + 0.5) / quantiles


def quantile_ranks(n: int, levels: Tensor) -> Tensor:
    """Which order statistic is the quantile: the ``ceil(n q)``-th of n, counted from 0.

    This is the empirical inverse distribution function itself, not an interpolation, so that sketch distances
    tend to the exact ones as the levels get finer, and equal them where both sample sizes divide Q.
    """
    # A level that is a multiple of 1/n must not fall one rank too high by rounding.
    slack = max(1e-9, float(torch.finfo(levels.dtype).eps)) * n
    return ((n * levels.detach().cpu().double() - slack).ceil().long() - 1).clamp(0, n - 1)


def quantile_sketch(samples: Tensor, projections: Tensor, levels: Tensor) -> Tensor:
    r"""Quantiles of the samples along each direction.

    .. math:: S_{l,q} = F^{-1}_{\langle\theta_l, x\rangle}(q) = \langle\theta_l, x\rangle_{(\lceil nq \rceil)}

    Args:
        samples: shape ``(..., n, F)``; leading axes are clients of equal size. Differentiable.
        projections: unit directions, shape ``(L, F)``, see :func:`unit_projections`.
        levels: in (0, 1), shape ``(Q,)``, see :func:`midpoint_levels`.

    Returns:
        Shape ``(..., L, Q)``, in the units of the features.

    Raises:
        ValueError: another feature count or dtype than the projections', no sample, NaN, or levels outside of [0, 1].
    """
    check_floating(samples=samples, projections=projections, levels=levels)
    if samples.ndim < 2 or samples.shape[-1] != projections.shape[-1] or samples.shape[-2] == 0:
        raise ValueError(
            f"samples of shape {tuple(samples.shape)} do not match projections {tuple(projections.shape)}; "
            "give (..., samples, features) with as many features as the projections and at least one sample."
        )
    if samples.dtype != projections.dtype or samples.device != projections.device:
        raise ValueError(
            f"samples in {samples.dtype} on {samples.device}, projections in {projections.dtype} on "
            f"{projections.device}; make these by unit_projections(..., like=samples)."
        )
    check_finite(samples=samples, projections=projections, levels=levels)
    if not bool(((levels >= 0) & (levels <= 1)).all()):
        raise ValueError(
            f"levels go from {float(levels.min()):g} to {float(levels.max()):g}; they are shares, 0 to 1."
        )
    ordered = sort_last(projections @ samples.mT)
    sketch: Tensor = ordered[..., quantile_ranks(samples.shape[-2], levels).to(ordered.device)]
    return sketch


def quantile_sketches(
    features: Sequence[Tensor], projections: Tensor, levels: Tensor, *, limit: int = 4_000_000
) -> Tensor:
    """Sketches of clients of unequal size; those of equal size share a batch, none is padded.

    Args:
        features: one tensor ``(n_k, F)`` per client.
        projections: shape ``(L, F)``.
        levels: shape ``(Q,)``.
        limit: most feature values in one batch, which bounds the memory.

    Returns:
        Shape ``(clients, L, Q)``.

    Raises:
        ValueError: see :func:`personalization.errors.check_features`.
    """
    samples = check_features(features)
    parts = [(who, quantile_sketch(x, projections, levels)) for who, x in size_groups(samples, limit)]
    order = torch.tensor([k for who, _ in parts for k in who], device=parts[0][1].device)
    return torch.cat([sketch for _, sketch in parts])[order.argsort()]
