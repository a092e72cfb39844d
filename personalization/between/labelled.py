"""Distances for pairs of input and target: label-aware (OTDD), joint (JDOT), and of class shares alone.

A sample is one matrix whose trailing columns are the targets, see :func:`labelled`; so pooling, thinning and padding
treat a pair as the one row it is, and a client is one tensor here as everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..errors import check_finite
from ..gaussian import bures_squared
from ..kind import register_distance
from ..numeric import safe_root
from ..samples import SampleDistance, prepared
from .costs import squared_cost, transport_cost
from .line import wasserstein_line


def labelled(inputs: Tensor, targets: Tensor) -> Tensor:
    """Inputs and targets as one matrix, the targets last.

    Args:
        inputs: shape ``(..., n, F)``, floating.
        targets: class numbers or values, ``(..., n)`` or ``(..., n, T)``.

    Returns:
        Shape ``(..., n, F + T)``, dtype of ``inputs``.

    Raises:
        ValueError: not one target a row; NaN; inputs that are no floating-point numbers, or whose dtype does not hold the
            classes, or targets of this size.
    """
    check_finite(inputs=inputs, targets=targets)
    columns = targets.unsqueeze(-1) if targets.ndim == inputs.ndim - 1 else targets
    if inputs.ndim < 2 or columns.shape[:-1] != inputs.shape[:-1]:
        raise ValueError(
            f"targets of shape {tuple(targets.shape)} for inputs of shape {tuple(inputs.shape)}; give one row of "
            "targets per row of inputs."
        )
    if not inputs.is_floating_point():
        raise ValueError(
            f"inputs are {inputs.dtype}, which would cut off targets; convert them to floating point."
        )
    cast = columns.to(inputs.dtype)
    lost = columns[cast.to(columns.dtype) != columns]
    # What is rounded is a value; whole numbers alone are classes, which rounding would merge.
    classes = not columns.is_floating_point() or (len(lost) and bool((columns == columns.round()).all()))
    if (classes and len(lost)) or not bool(torch.isfinite(cast).all()):
        raise ValueError(
            f"{inputs.dtype} does not hold class {float(lost[0]):.17g}; convert the inputs to a wider dtype."
        )
    return torch.cat([inputs, cast], -1)


@register_distance("label_aware")
@dataclass(frozen=True)
class LabelAwareDistance(SampleDistance):
    r"""Transport between labelled samples that also pays for unlike classes (OTDD, with Gaussian classes).

    .. math:: d^2 = \min_P \sum_{ij} P_{ij} \bigl(\|z_i - z'_j\|^2 + \lambda W_2^2(N_{y_i}, N'_{y'_j})\bigr)

    ``N_c`` is the Gaussian with the moments of class c's inputs in that sample. The last column is the class number.
    A class is what its inputs look like, so renaming classes in one sample changes nothing. A class that a sample
    lacks takes no part; one with a single row is a point.

    Args:
        label_weight: lambda; 0 leaves the exact distance of the inputs.
        diagonal: compare the classes' variances only, for many features.
        iterations: of the network simplex, at most.

    References:
        Alvarez-Melis and Fusi, Geometric dataset distances via optimal transport, NeurIPS 2020, eqs. 5 and 7.
    """

    label_weight: float = field(default=1.0, metadata={"search": {"low": 0.1, "high": 10.0, "log": True}})
    diagonal: bool = False
    iterations: int = 1_000_000

    labels: ClassVar[int] = 1

    def problems(self) -> list[str]:
        """A negative label weight, no iterations."""
        found = (
            []
            if _not_negative(self.label_weight)
            else [f"label_weight={self.label_weight} must be at least 0"]
        )
        if not self.iterations >= 1:
            found.append(f"iterations={self.iterations} must be at least 1")
        return super().problems() + found

    def between(
        self, x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The distance, in the units of the inputs; differentiable in inputs and weights.

        Raises:
            ValueError: no inputs beside the class; a class that is no whole number; or as every distance.
        """
        xs, ys, a, b = prepared(x, y, x_weights, y_weights)
        _need_inputs(xs, 1)
        numbers = torch.cat([_classes(xs).flatten(), _classes(ys).flatten()]).unique()
        (hot, mean, cov), (other, centre, spread) = (
            _class_moments(z[..., :-1], _one_hot(_classes(z), numbers), w) for z, w in ((xs, a), (ys, b))
        )
        first = (mean.unsqueeze(-2), cov.unsqueeze(-3))
        second = (centre.unsqueeze(-3), spread.unsqueeze(-4))
        classes = _diagonal_bures(*first, *second) if self.diagonal else bures_squared(*first, *second)
        cost = squared_cost(xs[..., :-1], ys[..., :-1]) + self.label_weight * hot @ classes @ other.mT
        value, converged = transport_cost(cost, a, b, iterations=self.iterations)
        return safe_root(value).to(x.dtype), converged


@register_distance("joint")
@dataclass(frozen=True)
class JointDistance(SampleDistance):
    r"""Exact transport of inputs and targets together, the regression form of the label-aware distance.

    .. math:: d^2 = \min_P \sum_{ij} P_{ij} \bigl(\|z_i - z'_j\|^2 + \beta \|y_i - y'_j\|^2\bigr)

    Args:
        beta: how much the targets count beside the inputs.
        targets: how many trailing columns are targets.
        iterations: of the network simplex, at most.

    References:
        Courty et al., Joint distribution optimal transportation for domain adaptation, NeurIPS 2017, eq. 3.
    """

    beta: float = field(default=1.0, metadata={"search": {"low": 0.01, "high": 100.0, "log": True}})
    targets: int = 1
    iterations: int = 1_000_000

    def problems(self) -> list[str]:
        """A negative beta, no targets, no iterations."""
        found = [] if _not_negative(self.beta) else [f"beta={self.beta} must be at least 0 and finite"]
        counts = ("targets", "iterations")
        found += [
            f"{name}={getattr(self, name)} must be at least 1" for name in counts if getattr(self, name) < 1
        ]
        return super().problems() + found

    def between(
        self, x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The distance; differentiable in inputs, targets and weights."""
        xs, ys, a, b = prepared(x, y, x_weights, y_weights)
        _need_inputs(xs, self.targets)
        scale = torch.ones(xs.shape[-1], dtype=xs.dtype, device=xs.device)
        scale[-self.targets :] = self.beta**0.5
        value, converged = transport_cost(
            squared_cost(xs * scale, ys * scale), a, b, iterations=self.iterations
        )
        return safe_root(value).to(x.dtype), converged


@register_distance("label_marginal")
@dataclass(frozen=True)
class LabelMarginalDistance(SampleDistance):
    r"""Distance of class shares alone: the control that label-aware distances must beat.

    Args:
        metric: ``"tv"``, total variation :math:`\frac12 \sum_c |p_c - p'_c|` in [0, 1]; or ``"w1"``, for ordered classes,
            :math:`\sum_c |F_c - F'_c|` in class numbers.
    """

    metric: Literal["tv", "w1"] = field(default="tv", metadata={"search": {"choices": ["tv", "w1"]}})

    labels: ClassVar[int] = 1
    degree: ClassVar[float] = 0.0
    draws: ClassVar[int] = 512  # cheap, and their law jumps from count to count

    def problems(self) -> list[str]:
        """Another metric than the two."""
        known = self.metric in ("tv", "w1")
        return super().problems() + ([] if known else [f"metric={self.metric!r} must be 'tv' or 'w1'"])

    def between(
        self, x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The distance of the last columns; differentiable in weights only."""
        xs, ys, a, b = prepared(x, y, x_weights, y_weights)
        mine, theirs = _classes(xs), _classes(ys)
        if self.metric == "w1":
            value = wasserstein_line(mine, theirs, a, b, order=1)
        else:
            numbers = torch.cat([mine.flatten(), theirs.flatten()]).unique()
            p, q = (
                (_one_hot(z, numbers).mT @ w.unsqueeze(-1)).squeeze(-1) for z, w in ((mine, a), (theirs, b))
            )
            value = (p - q).abs().sum(-1) / 2
        value = torch.where(value > 1e-14, value, 0.0)
        return value.to(x.dtype), torch.ones_like(value, dtype=torch.bool)


def _not_negative(x: float) -> bool:
    return x >= 0 and math.isfinite(x)


def _need_inputs(x: Tensor, targets: int) -> None:
    if x.shape[-1] <= targets:
        raise ValueError(
            f"samples with {x.shape[-1]} column(s) hold no input beside {targets} target(s); give "
            "labelled(inputs, targets)."
        )


def _classes(x: Tensor) -> Tensor:
    classes = x[..., -1].detach()
    if bool((classes != classes.round()).any()) or bool((classes < 0).any()):
        wrong = classes[(classes != classes.round()) | (classes < 0)][0]
        raise ValueError(f"class {float(wrong):g} in the last column is no class number; give 0, 1, 2, ...")
    return classes


def _one_hot(classes: Tensor, numbers: Tensor) -> Tensor:
    return (classes.unsqueeze(-1) == numbers).to(classes.dtype)


def _class_moments(z: Tensor, hot: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One-hot classes, means ``(..., C, F)`` and covariances ``(..., C, F, F)``; zeros for a class of no weight."""
    held = weights.unsqueeze(-1) * hot
    mass = held.sum(-2)
    each = held / torch.where(mass > 0, mass, 1.0).unsqueeze(-2)
    mean = each.mT @ z
    gap = z.unsqueeze(-3) - mean.unsqueeze(-2)
    return hot, mean, (each.mT.unsqueeze(-1) * gap).mT @ gap


def _diagonal_bures(mean: Tensor, cov: Tensor, other: Tensor, spread: Tensor) -> Tensor:
    roots = [safe_root(C.diagonal(dim1=-2, dim2=-1)) for C in (cov, spread)]
    return (mean - other).square().sum(-1) + (roots[0] - roots[1]).square().sum(-1)
