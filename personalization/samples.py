"""Distances that compare two samples directly: more than means of statistics can say, at the price of the samples.

Where :class:`personalization.DistanceKind` needs only sums to cross the wire, these need both samples in one place:
they serve analyses in one process, simulations, and the comparison of what is public.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from .errors import check_batches, check_fields, largest_of, value_limit
from .numeric import power_unit, wide
from .spread import covariance_size


@dataclass(frozen=True, kw_only=True)
class SampleDistance(ABC):
    """A distance between two samples. Final classes are frozen dataclasses whose fields are their options.

    Args:
        reference_size: rows of the other clients that stand for the population, at most.
        max_samples: rows of a client that are compared, at most; more are thinned by a seeded draw.
    """

    reference_size: int = 512
    max_samples: int = 512

    labels: ClassVar[int] = 0
    """Trailing columns that hold class numbers; standardising leaves them alone."""
    draws: ClassVar[int] = 64
    """Draws of the null per size, where the caller asks for no other number."""
    degree: ClassVar[float] = 2.0
    """Power of the features' unit that the squared distance has."""

    def __post_init__(self) -> None:
        check_fields(self)
        problems = self.problems()
        if problems:
            raise ValueError(f"{type(self).__name__}: {'; '.join(problems)}.")

    def problems(self) -> list[str]:
        """What is wrong with the options, all of it; extended by the final classes."""
        sizes = ("reference_size", "max_samples")
        return [f"{x}={getattr(self, x)} must be at least 2" for x in sizes if not getattr(self, x) >= 2]

    @abstractmethod
    def between(
        self, x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compare two samples, or two batches of samples.

        Args:
            x: shape ``(..., n, F)``, finite.
            y: shape ``(..., m, F)``; leading axes broadcast against those of ``x``.
            x_weights: of the rows, non-negative, shape ``(..., n)``; normalised to sum to one. Equal where not
                given; a row of weight 0 (padding) counts for nothing.
            y_weights: likewise, ``(..., m)``.

        Returns:
            The distance ``(...)`` in the dtype of ``x``, never NaN, and whether the solver converged, bool ``(...)``.

        Raises:
            ValueError: samples or weights that cannot be compared, see :func:`check_samples`.
        """

    def fitted(self, pool: Tensor) -> Self:
        """The distance with every constant it takes from data (a bandwidth) taken from these rows ``(N, F)``.

        Distances to a population and between all pairs share the constants of the pool; else they would not compare.
        """
        del pool
        return self

    def linear_variance(self, x: Tensor, y: Tensor) -> Tensor:
        """Variance ``(...)`` of the squared distance to first order in the samples x: that of its influence function.

        The influence is the derivative by the rows' weights: dual potentials for transport, witness functions for
        kernels. inf where :meth:`between` has no gradient to the weights.
        """
        with torch.enable_grad():
            weights = _even_weights(x)
            value, _ = self.between(x.detach(), y.detach(), weights)
            return _first_order(value, weights)

    def noise_size(self, x: Tensor) -> Tensor:
        """How much ``n d^2`` deviates without a difference for the law of samples x ``(n, F)``, in any unit; a scalar.

        By it the floor of a pair's error is that of the two clients' own noise. Here by their covariance; 1 where the
        distance has no unit that tells how it scales.
        """
        x = wide(x.detach())[:, : x.shape[1] - self.labels]
        if not self.degree:
            return x.new_ones(())
        centred = x - x.mean(0)
        cov = centred.T @ centred / max(1, len(x) - 1)
        return covariance_size(cov, torch.tensor(len(x))) ** (self.degree / 2)

    def pair_variance(self, x: Tensor, y: Tensor) -> Tensor:
        """Variance ``(...)`` of the squared distance to first order in both samples: the sum of theirs."""
        if type(self).linear_variance is not SampleDistance.linear_variance:
            return self.linear_variance(x, y) + self.linear_variance(y, x)
        with torch.enable_grad():
            weights = [_even_weights(z) for z in (x, y)]
            value, _ = self.between(x.detach(), y.detach(), *weights)
            return _first_order(value, *weights)


def _even_weights(x: Tensor) -> Tensor:
    even = torch.full(x.shape[:-1], 1 / x.shape[-2], dtype=torch.float64, device=x.device)
    return even.requires_grad_()


def _first_order(value: Tensor, *weights: Tensor) -> Tensor:
    """Variance ``(...)`` of the squared distance by its gradients to weights, inf without one."""
    squared = wide(value).square().sum()
    slopes = torch.autograd.grad(squared, weights, allow_unused=True) if squared.requires_grad else ()
    known = [slope.var(-1, correction=0) / slope.shape[-1] for slope in slopes if slope is not None]
    if len(known) < len(weights):
        return torch.full_like(wide(value.detach()), torch.inf)
    return known[0] if len(known) == 1 else known[0] + known[1]


def check_samples(x: Tensor, y: Tensor) -> None:
    """Refuse anything but two finite floating batches ``(..., rows, F)`` with one F and at least one row each.

    Raises:
        ValueError: names the sample at fault, the value received, and what to do; values whose squares would be infinite.
    """
    for name, z in (("x", x), ("y", y)):
        if not isinstance(z, Tensor) or not z.is_floating_point():
            found = z.dtype if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(f"{name} is of type {found}; convert it to a floating-point tensor.")
        if z.ndim < 2 or 0 in z.shape:
            raise ValueError(
                f"{name} has shape {tuple(z.shape)}; give (..., samples, features), no axis of them empty."
            )
        most, limit = largest_of(z), value_limit(wide(z.new_zeros(())).dtype)
        if not math.isfinite(most):
            bad = int((~torch.isfinite(z)).sum())
            raise ValueError(f"{name} has {bad} NaN or infinite value(s); drop or fill such rows beforehand.")
        if most > limit:
            raise ValueError(f"{name} has values up to {most:.3g}; scale them to below {limit:.0e}.")
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"x has {x.shape[-1]} features, y {y.shape[-1]}; both must describe their samples by the same features."
        )
    check_batches(x=(x, 2), y=(y, 2))


def unit_weights(x: Tensor, weights: Tensor | None, name: str = "x") -> Tensor:
    """Weights of the rows of ``x``, summing to one over the last axis, float64, shape ``(..., n)``.

    Args:
        x: shape ``(..., n, F)``.
        weights: non-negative and finite, broadcasting to ``(..., n)``; equal weights otherwise.
        name: of the sample, for messages.

    Raises:
        ValueError: weights of another shape, complex, negative, not finite, or all zero.
    """
    shape = x.shape[:-1]
    if weights is None:
        return wide(x.new_zeros(())).new_full(shape, 1 / shape[-1])
    if not isinstance(weights, Tensor):
        raise ValueError(f"{name}_weights is of type {type(weights).__name__}; convert it to a tensor.")
    if weights.is_complex():
        raise ValueError(f"{name}_weights is of type {weights.dtype}; give real numbers, at least 0.")
    fits = weights.ndim and weights.ndim <= len(shape) and weights.shape[-1] == shape[-1]
    if not fits or any(w not in (1, n) for w, n in zip(weights.shape[::-1], shape[::-1], strict=False)):
        raise ValueError(
            f"{name}_weights has shape {tuple(weights.shape)}; give one per row, {tuple(shape)}."
        )
    full = wide(weights).expand(shape)
    if not bool(torch.isfinite(full).all()) or bool((full < 0).any()):
        raise ValueError(
            f"{name}_weights has negative, NaN or infinite entries; give finite ones, at least 0."
        )
    full = full / power_unit(full, 1, -1)  # whose sum may be infinite
    total = full.sum(-1, keepdim=True)
    if not bool((total > 0).all()):
        raise ValueError(f"{name}_weights are all zero; at least one row of every sample must count.")
    return full / total


def prepared(
    x: Tensor, y: Tensor, x_weights: Tensor | None, y_weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Checked samples and unit weights in float64: ``x, y, x_weights, y_weights``.

    Raises:
        ValueError: see :func:`check_samples` and :func:`unit_weights`.
    """
    check_samples(x, y)
    return wide(x), wide(y), unit_weights(x, x_weights, "x"), unit_weights(y, y_weights, "y")


def gap_unit(x: Tensor, y: Tensor, order: float) -> Tensor:
    """Unit ``(..., 1, 1)`` of two samples in which powers of their gaps neither overflow nor vanish, 1 mostly."""
    centre = y.detach().mean(-2, keepdim=True)
    reach = [(z.detach() - centre).abs().amax((-2, -1), keepdim=True) for z in (x, y)]
    return power_unit(torch.maximum(*reach), order, (-2, -1))


def broadcast_batch(*tensors: Tensor, keep: int) -> tuple[torch.Size, list[Tensor]]:
    """Give tensors common leading axes and flatten these to one; the last ``keep`` axes stay as they are."""
    batch = torch.broadcast_shapes(*(x.shape[: x.ndim - keep] for x in tensors))
    return batch, [
        x.expand(*batch, *x.shape[x.ndim - keep :]).reshape(-1, *x.shape[x.ndim - keep :]) for x in tensors
    ]
