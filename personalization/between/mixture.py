"""MW2: the Wasserstein distance between Gaussian mixtures fitted to two samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..gaussian import bures_squared
from ..kind import register_distance
from ..numeric import safe_root
from ..samples import SampleDistance, prepared
from .costs import transport_cost


@register_distance("mixture")
@dataclass(frozen=True)
class MixtureDistance(SampleDistance):
    r"""Distance between Gaussian mixtures when transport stays among mixtures.

    .. math:: MW_2^2 = \min_{P \in U(w, w')} \sum_{kl} P_{kl}\, W_2^2(N_k, N'_l)

    Sees several kinds of day where one Gaussian sees their blur. An upper bound of W2 between the two mixtures.
    Not differentiable: the mixtures are fitted. Fitting starts from equal slices along the first principal axis, so it
    depends neither on a seed nor on the order of samples.

    Args:
        components: of each mixture; a component that nobody belongs to has weight 0.
        diagonal: fit variances only; full covariances need many samples per component.
        ridge: added to every variance, in units of the sample's mean variance per feature.
        iterations: of expectation maximisation, at most.
        tolerance: gain of the mean log-likelihood per iteration below which it has converged.

    References:
        Delon and Desolneux, A Wasserstein-type distance in the space of Gaussian mixture models, SIIMS 13(2), 2020.
    """

    components: int = field(default=3, metadata={"search": {"low": 2, "high": 8}})
    diagonal: bool = True
    ridge: float = 1e-2
    iterations: int = 300
    tolerance: float = 1e-4

    def problems(self) -> list[str]:
        """No components or iterations, a ridge that is not positive."""
        counts = ("components", "iterations")
        found = [
            f"{name}={getattr(self, name)} must be at least 1" for name in counts if getattr(self, name) < 1
        ]
        if not 0 < self.ridge < math.inf:  # a wall of infinite ridges is NaN apart
            found.append(f"ridge={self.ridge} must be above 0 and finite")
        if not self.tolerance >= 0:
            found.append(f"tolerance={self.tolerance} must not be negative")
        return super().problems() + found

    def between(
        self, x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The distance, in the units of the features; converged if both fits and the transport did."""
        xs, ys, a, b = prepared(x, y, x_weights, y_weights)
        with torch.no_grad():
            (*one, first), (*other, second) = (fit_mixture(z, p, self) for z, p in ((xs, a), (ys, b)))
            value, solved = self._squared(one, other)
        return safe_root(value).to(x.dtype), solved & first & second

    def linear_variance(self, x: Tensor, y: Tensor) -> Tensor:
        """Through the moments of the components; to whom a row belongs is held: errors a fifth too small, by repetition."""
        return self._variances(x, y)[0]

    def pair_variance(self, x: Tensor, y: Tensor) -> Tensor:
        """Likewise, in both samples."""
        own, others = self._variances(x, y)
        return own + others

    def _variances(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        samples = prepared(x.detach(), y.detach(), None, None)
        laws, weights = [], []
        for z, p in zip(samples[:2], samples[2:], strict=True):
            with torch.no_grad():
                mass, mean, spread, _ = fit_mixture(z, p, self)
                share = _shares(z, mass, mean, spread, self.diagonal)[0]
                ridge = _ridge(z, p, self.ridge)
            with torch.enable_grad():
                weights.append(p.clone().requires_grad_())
                laws.append(_maximise(z, weights[-1], share, ridge, self.diagonal))
        with torch.enable_grad():
            value, _ = self._squared(laws[0], laws[1])
            influences = torch.autograd.grad(value.sum(), weights)
        first, second = (x.var(-1, correction=0) / x.shape[-1] for x in influences)
        return first, second

    def _squared(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Between two mixtures ``(weights, means, spreads)``, and whether the transport was solved."""
        (w, mean, spread), (v, centre, width) = one, other
        if self.diagonal:
            roots = spread.sqrt().unsqueeze(-2) - width.sqrt().unsqueeze(-3)
            cost = (mean.unsqueeze(-2) - centre.unsqueeze(-3)).square().sum(-1) + roots.square().sum(-1)
        else:
            cost = bures_squared(
                mean.unsqueeze(-2), spread.unsqueeze(-3), centre.unsqueeze(-3), width.unsqueeze(-4)
            )
        return transport_cost(cost, w, v)


def fit_mixture(
    x: Tensor, weights: Tensor, options: MixtureDistance
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fit a Gaussian mixture to each sample of a batch by expectation maximisation.

    Args:
        x: shape ``(..., n, F)``, float64.
        weights: of the rows, summing to one, ``(..., n)``.
        options: components, covariances, ridge, iterations, tolerance.

    Returns:
        Weights ``(..., K)``, means ``(..., K, F)``, variances ``(..., K, F)`` or covariances ``(..., K, F, F)``, and
        whether the likelihood settled, bool ``(...)``.
    """
    centre = (weights.unsqueeze(-1) * x).sum(-2, keepdim=True)
    x = x - centre
    share = _slices(x, weights, (weights.unsqueeze(-1) * x).mT @ x, options.components)
    ridge = _ridge(x, weights, options.ridge)
    before = x.new_full(x.shape[:-2], -torch.inf)
    settled = torch.zeros_like(before, dtype=torch.bool)
    mass, mean, spread = _maximise(x, weights, share, ridge, options.diagonal)
    for _ in range(options.iterations):
        now_share, evidence = _shares(x, mass, mean, spread, options.diagonal)
        now = (weights * evidence).sum(-1)
        settled = settled | (now - before <= options.tolerance)
        before = now
        if bool(settled.all()):
            break
        # What has settled stays as it is, so that a fit does not depend on its batch.
        share = torch.where(settled[..., None, None], share, now_share)
        mass, mean, spread = _maximise(x, weights, share, ridge, options.diagonal)
    return mass, mean + centre, spread, settled


def _ridge(x: Tensor, weights: Tensor, ridge: float) -> Tensor:
    """In squared units of the samples, ``(...)``."""
    p = weights.unsqueeze(-1)
    variance = (p * (x - (p * x).sum(-2, keepdim=True)).square()).sum(-2).mean(-1)
    # Constant samples have no variance to count the ridge in; any floor leaves their distance what it is.
    return torch.where(variance > 0, ridge * variance, 1e-12)


def _shares(x: Tensor, mass: Tensor, mean: Tensor, spread: Tensor, diagonal: bool) -> tuple[Tensor, Tensor]:
    """Chance of each component given a row ``(..., n, K)``, and the row's log-likelihood ``(..., n)``."""
    joint = mass.clamp_min(1e-300).log().unsqueeze(-2) + _log_density(x, mean, spread, diagonal)
    evidence = torch.logsumexp(joint, -1)
    return torch.exp(joint - evidence.unsqueeze(-1)), evidence


def _slices(x: Tensor, weights: Tensor, cov: Tensor, components: int) -> Tensor:
    """Each row's slice along the first principal axis, one-hot ``(..., n, K)``; slices of equal weight."""
    axis = torch.linalg.eigh(cov).eigenvectors[..., -1:]
    line = (x @ axis).squeeze(-1)
    ordered, order = line.sort(-1)
    mass = torch.nn.functional.pad(weights.gather(-1, order).cumsum(-1), (1, 0))
    # Rows that agree share the middle of their mass, so that doubling every row changes nothing.
    ends = [torch.searchsorted(ordered, line.contiguous(), right=right) for right in (False, True)]
    middle = (mass.gather(-1, ends[0]) + mass.gather(-1, ends[1])) / 2
    slices = (middle * components).long().clamp(0, components - 1)
    return torch.nn.functional.one_hot(slices, components).to(x.dtype)


def _maximise(
    x: Tensor, weights: Tensor, share: Tensor, ridge: Tensor, diagonal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    held = weights.unsqueeze(-1) * share
    mass = held.sum(-2)
    each = held / mass.clamp_min(1e-300).unsqueeze(-2)
    mean = each.mT @ x
    if diagonal:
        spread = (each.mT @ x.square() - mean.square()).clamp_min(0) + ridge[..., None, None]
        return mass, mean, spread
    gap = x.unsqueeze(-3) - mean.unsqueeze(-2)
    cov = (each.mT.unsqueeze(-1) * gap).mT @ gap
    return (
        mass,
        mean,
        cov + ridge[..., None, None, None] * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device),
    )


def _log_density(x: Tensor, mean: Tensor, spread: Tensor, diagonal: bool) -> Tensor:
    """``(..., n, K)``."""
    gap = x.unsqueeze(-3) - mean.unsqueeze(-2)
    constant = x.shape[-1] * math.log(2 * math.pi)
    if diagonal:
        quadratic = (gap.square() / spread.unsqueeze(-2)).sum(-1)
        log_det = spread.log().sum(-1)
    else:
        factor = torch.linalg.cholesky(spread)
        white = torch.linalg.solve_triangular(factor, gap.mT, upper=False)
        quadratic = white.square().sum(-2)
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -(quadratic + (log_det + constant).unsqueeze(-1)).mT / 2
