"""Gaussian distances: first and second moments, and the Bures-Wasserstein distance between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .copula import common_scales, feature_scales, feature_tails, tail_index
from .errors import check_batches, check_finite, check_floating
from .kind import DistanceKind, Statistics, register_distance
from .numeric import centred, pairwise_squared, safe_root, wide


def moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance.

    Args:
        samples: shape ``(..., n, F)``, n at least 2.

    Returns:
        Mean ``(..., F)`` and covariance ``(..., F, F)``, in the units of the features and their squares.

    Raises:
        ValueError: fewer than two rows, no floating-point numbers, or NaN or infinity in one.
    """
    check_floating(samples=samples)
    n = samples.shape[-2] if samples.ndim >= 2 else 0
    if n < 2:
        raise ValueError(f"samples of shape {tuple(samples.shape)}: a covariance needs at least two rows.")
    check_finite(samples=samples)
    mean = samples.mean(-2)
    centred = samples - mean.unsqueeze(-2)
    return mean, centred.mT @ centred / (n - 1)


class _SquareRoot(torch.autograd.Function):
    """Root of a symmetric positive semi-definite matrix; its gradient bears equal and zero eigenvalues.

    From ``S S = C`` follows ``S dS + dS S = dC``, in the eigenbasis a division by ``s_i + s_j``; autograd
    through ``eigh`` would divide by ``c_i - c_j``. Where both are zero the derivative is infinite, and taken
    as zero.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        roots = values.clamp_min(0).sqrt()
        ctx.save_for_backward(roots, vectors)
        root: Tensor = (vectors * roots.unsqueeze(-2)) @ vectors.mT
        return root

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> Tensor:
        roots, vectors = ctx.saved_tensors  # type: ignore[attr-defined]
        total = roots.unsqueeze(-1) + roots.unsqueeze(-2)
        floor = 1e-7 * roots.amax(-1).clamp_min(1e-30)[..., None, None]
        inner = vectors.mT @ (grads[0] + grads[0].mT) / 2 @ vectors
        inner = torch.where(total > floor, inner / total.clamp_min(floor), 0.0)
        gradient: Tensor = vectors @ inner @ vectors.mT
        return gradient


def matrix_root(matrix: Tensor) -> Tensor:
    """Principal root of symmetric positive semi-definite matrices ``(..., F, F)``, singular ones included.

    Eigenvalues that rounding has made negative count as zero. Differentiable, also at equal eigenvalues.

    Raises:
        ValueError: no square matrices, or NaN in one.
    """
    check_floating(matrix=matrix)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"matrix has shape {tuple(matrix.shape)}; give symmetric ones, (..., F, F).")
    check_finite(matrix=matrix)
    return _SquareRoot.apply(matrix)  # type: ignore[no-any-return,no-untyped-call]


def bures_squared(mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> Tensor:
    """The square of :func:`bures_wasserstein`, in the dtype of ``mean``; computed in float64.

    Float64 because the traces cancel: in float32 a law would lie 1e-3 standard deviations from itself.

    Raises:
        ValueError: shapes that do not fit, no floating-point numbers, NaN; eigenvalues are not looked at.
    """
    check_floating(mean=mean, cov=cov, other_mean=other_mean, other_cov=other_cov)
    for name, x, matrix in (
        ("mean", mean, False),
        ("cov", cov, True),
        ("other_mean", other_mean, False),
        ("other_cov", other_cov, True),
    ):
        if x.shape[-1 - matrix :] != mean.shape[-1:] * (1 + matrix) or not x.ndim:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)} beside a mean of {tuple(mean.shape)}; give means (..., F) and "
                "covariances (..., F, F)."
            )
    check_batches(mean=(mean, 1), cov=(cov, 2), other_mean=(other_mean, 1), other_cov=(other_cov, 2))
    check_finite(mean=mean, other_mean=other_mean)
    a, C, b, D = (wide(x) for x in (mean, cov, other_mean, other_cov))
    # The singular values of the product of roots are the roots of the eigenvalues of C^1/2 D C^1/2, without the loss of
    # half of the digits that squaring and rooting would cost where a covariance is nearly singular.
    cross = torch.linalg.svdvals(matrix_root(C) @ matrix_root(D)).sum(-1)
    traces = (C.diagonal(dim1=-2, dim2=-1) + D.diagonal(dim1=-2, dim2=-1)).sum(-1)
    squared: Tensor = ((a - b) ** 2).sum(-1) + (traces - 2 * cross).clamp_min(0)
    return squared.to(mean.dtype)


def bures_wasserstein(mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> Tensor:
    r"""2-Wasserstein distance between Gaussians, or between the Gaussians that share two laws' moments.

    .. math:: d^2 = \|m - m'\|^2 + \operatorname{tr}\bigl(C + C' - 2 (C^{1/2} C' C^{1/2})^{1/2}\bigr)

    Args:
        mean: shape ``(..., F)``.
        cov: symmetric positive semi-definite, may be singular, shape ``(..., F, F)``.
        other_mean: broadcasts against ``mean``.
        other_cov: broadcasts against ``cov``.

    Returns:
        Shape ``(...)``, in the units of the features. For any two laws with these moments it is a lower bound
        of W2 (Gelbrich 1990). Its gradient is zero, not NaN, where the distance is.

    Raises:
        ValueError: NaN, shapes that do not fit, or a matrix that is no covariance: not symmetric, or with an eigenvalue
            further below zero than rounding takes it.

    References:
        Dowson and Landau, The Frechet distance between multivariate normal distributions, JMVA 12(3), 1982.
    """
    check_finite(mean=mean, cov=cov, other_mean=other_mean, other_cov=other_cov)
    squared = bures_squared(mean, cov, other_mean, other_cov)
    for name, spread in (("cov", cov), ("other_cov", other_cov)):
        _check_covariance(name, spread)
    return safe_root(squared)


def _check_covariance(name: str, cov: Tensor) -> None:
    full = wide(cov.detach())
    slack = 1e-3 * full.abs().amax((-2, -1))
    uneven, least = (full - full.mT).abs().amax((-2, -1)), torch.linalg.eigvalsh(full)[..., 0]
    if not bool(((uneven <= slack) & (least >= -slack)).all()):
        raise ValueError(
            f"{name} is no covariance: it differs from its transpose by {float(uneven.max()):g}, its least eigenvalue "
            f"is {float(least.min()):g}. Give (c + c.mT) / 2, with eigenvalues of at least 0."
        )


@register_distance("gaussian")
@dataclass(frozen=True)
class GaussianDistance(DistanceKind):
    """Bures-Wasserstein distance from a client's moments to the average client's moments.

    The population is ``N(mean of the means, mean of the covariances)``: what spreads the clients apart does
    not widen it, so a client like the average one lies at zero. The mean of covariances stands in for the
    Wasserstein barycentre's, which no sum gives; they agree where the clients' covariances do.

    Args:
        diagonal: compare means and standard deviations feature by feature, blind to correlations:
            ``|m - m'|^2 + |s - s'|^2``. Takes no eigenvalues, so all pairs cost one matrix product.
    """

    diagonal: bool = False

    def statistics(self, samples: Tensor) -> Statistics:
        """Mean ``(..., F)``, covariance ``(..., F, F)`` and tail ``(...)`` of samples; ``tails (..., F)`` if diagonal."""
        own = law_statistics(samples)
        return {**own, "tails": feature_tails(wide(samples))} if self.diagonal else own

    def squared(self, own: Statistics, reference: Statistics) -> Tensor:
        """Squared distance ``(...)``, in squared units of the features."""
        if self.diagonal:
            gaps = own["mean"] - reference["mean"], deviations(own["cov"]) - deviations(reference["cov"])
            return gaps[0].square().sum(-1) + gaps[1].square().sum(-1)
        return bures_squared(own["mean"], own["cov"], reference["mean"], reference["cov"])

    def linear_variance(self, samples: Tensor, own: Statistics, reference: Statistics) -> Tensor:
        """Variance of the squared distance to first order, from its gradient to the moments: ``1 - T`` with T linear."""
        centred = wide(samples) - own["mean"].unsqueeze(-2)
        gap = 2 * (own["mean"] - reference["mean"]).unsqueeze(-2)
        if self.diagonal:
            mine, others = deviations(own["cov"]), deviations(reference["cov"])
            slope = 1 - others / torch.where(mine > 0, mine, 1.0)
            curve = centred.square() * slope.unsqueeze(-2)
        else:
            slope = torch.eye(centred.shape[-1]).to(centred) - _transport_map(
                own["cov"], matrix_root(reference["cov"])
            )
            curve = (centred @ slope) * centred
        return (gap * centred + curve).sum(-1).var(-1, correction=0) / samples.shape[-2]

    def pairwise(self, own: Statistics) -> Tensor:
        """Squared distances between all clients, ``(clients, clients)``."""
        if not self.diagonal:
            return super().pairwise(own)
        points = torch.cat([own["mean"], deviations(own["cov"])], -1)
        return pairwise_squared(centred(points))

    def pair_variance(self, own: Statistics, reference: Statistics, generator: torch.Generator) -> Tensor:
        r"""In closed form, each client's law taken for elliptical with its own moments and kurtosis.

        With c a centred sample, C its covariance, S symmetric and :math:`\kappa` its excess kurtosis,

        .. math:: \operatorname{var}(g' c + c' S c) = g' C g + 2 (1 + \kappa) \operatorname{tr} S C S C
                  + \kappa (\operatorname{tr} S C)^2
        """
        del reference, generator
        roots = own["cov"] if self.diagonal else matrix_root(own["cov"])
        rows = [self._elliptical(k, own, roots) for k in range(len(own["mean"]))]
        return torch.stack(rows)

    def _elliptical(self, k: int, own: Statistics, roots: Tensor) -> Tensor:
        cov = own["cov"][k]
        gap = 2 * (own["mean"][k] - own["mean"])
        plain = ((gap @ cov) * gap).sum(-1)
        if self.diagonal:
            mine = deviations(cov)
            slope = torch.where(mine > 0, 1 - deviations(own["cov"]) / torch.where(mine > 0, mine, 1.0), 0.0)
            twice, trace = ((slope @ cov.square()) * slope).sum(-1), (slope * cov.diagonal()).sum(-1)
        else:
            spread = (torch.eye(len(cov)).to(cov) - _transport_map(cov, roots)) @ cov
            twice, trace = (spread * spread.mT).sum((-2, -1)), spread.diagonal(dim1=-2, dim2=-1).sum(-1)
        kurtosis = own["tail"][k]
        variance: Tensor = plain + 2 * (1 + kurtosis) * twice + kurtosis * trace.square()
        return variance

    def draw(self, reference: Statistics, n: int, draws: int, generator: torch.Generator) -> Statistics:
        """Moments of ``draws`` samples of n from an elliptical law with the reference's moments and tail."""
        mean, tail = reference["mean"], reference["tail"]
        normal = torch.randn(draws, n, len(mean), generator=generator)
        scaled = wide((normal * common_scales(tail, (draws, n, 1), generator)).to(mean.device))
        samples = scaled @ matrix_root(reference["cov"])
        if self.diagonal:  # whose null hangs on every feature's kurtosis, not on the norm's
            samples = samples * feature_scales(reference["tails"], tail, (draws, n), generator).to(samples)
        drawn, cov = moments(samples + mean)
        return {"mean": drawn, "cov": cov}


def deviations(cov: Tensor) -> Tensor:
    """Standard deviations ``(..., F)`` of covariances ``(..., F, F)``."""
    return safe_root(cov.diagonal(dim1=-2, dim2=-1))


def _transport_map(cov: Tensor, root: Tensor) -> Tensor:
    """Matrix of the optimal map from ``N(., cov)`` to ``N(., root @ root)``; zero where ``cov`` has no mass to move."""
    values, vectors = torch.linalg.eigh(root @ cov @ root)
    seen = values > 1e-10 * values[..., -1:]
    inverse = torch.where(seen, torch.where(seen, values, 1.0).rsqrt(), 0.0)
    half = root @ vectors
    transport: Tensor = (half * inverse.unsqueeze(-2)) @ half.mT
    return transport


def law_statistics(samples: Tensor) -> Statistics:
    """What the null of every distance is drawn from: ``mean``, ``cov`` and ``tail``, in float64."""
    samples = wide(samples)
    mean, cov = moments(samples)
    return {"mean": mean, "cov": cov, "tail": tail_index(samples)}
