"""Errors per client from sums over its examples, and what they say of a population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

PER_CLIENT = ("nmae", "mae", "rmse", "mase")
SUMMARIES = ("mean", "median", "std", "worst_decile", "jain", "clients")
HIGHER = frozenset({"accuracy", "macro_f1", "r2"})
"""Metrics of which more is better; of all others, less."""

S = TypeVar("S")


def scatter(whole: S, clients: Sequence[Tensor], parts: Sequence[S]) -> S:
    """Add up the sums of parts of a population, in place and on the host.

    Args:
        whole: a dataclass of tensors ``(population, ...)``, all zero.
        clients: ``(c,)`` indices of each part's clients.
        parts: the same dataclass with tensors ``(c, ...)``.
    """
    for index, part in zip(clients, parts, strict=True):
        for item in fields(whole):  # type: ignore[arg-type]
            getattr(whole, item.name).index_add_(0, index, getattr(part, item.name).cpu())
    return whole


@dataclass(frozen=True)
class ErrorSums:
    """Sums over a client's forecast steps, from which every metric follows; each ``(clients,)`` float64.

    Attributes:
        absolute: of ``|error|``, in the load's unit.
        squared: of ``error^2``.
        load: of ``|load|``.
        loss: of the training loss, scaled units, one term per window.
        steps: forecast steps.
        windows: forecasts.
    """

    absolute: Tensor
    squared: Tensor
    load: Tensor
    loss: Tensor
    steps: Tensor
    windows: Tensor

    @staticmethod
    def of(prediction: Tensor, target: Tensor, losses: Tensor, valid: Tensor) -> ErrorSums:
        """Sum up forecasts.

        Args:
            prediction: ``(clients, windows, horizon)`` in the load's unit.
            target: likewise.
            losses: training loss of each window, ``(clients, windows)``.
            valid: which windows count, ``(clients, windows)`` bool.
        """
        mask = valid.unsqueeze(-1)
        error = ((prediction - target) * mask).double()
        load = (target * mask).double()
        windows = valid.sum(1).double()
        return ErrorSums(
            absolute=error.abs().sum((1, 2)),
            squared=error.square().sum((1, 2)),
            load=load.abs().sum((1, 2)),
            loss=(losses * valid).double().sum(1),
            steps=windows * target.shape[-1],
            windows=windows,
        )

    @staticmethod
    def zero(population: int) -> ErrorSums:
        """Sums over nothing."""
        return ErrorSums(*(torch.zeros(population, dtype=torch.float64) for _ in fields(ErrorSums)))

    @staticmethod
    def scatter(clients: Sequence[Tensor], parts: Sequence[ErrorSums], population: int) -> ErrorSums:
        """Put parts of a population together, each with its client indices; clients in none count zero."""
        return scatter(ErrorSums.zero(population), clients, parts)


def client_metrics(sums: ErrorSums, naive_error: Tensor) -> dict[str, Tensor]:
    r"""Metrics of every client, each ``(clients,)`` float64; NaN where one has no meaning.

    ``nmae`` is :math:`\sum|e| / \sum|y|`, MAE over the mean absolute load of the same hours, NaN for a client whose load
    is zero throughout. ``mase`` divides by the training MAE of the forecast "as a day ago", NaN if that is zero or
    unknown. ``mae`` and ``rmse`` are in the load's unit.

    Args:
        sums: over the span.
        naive_error: ``(clients,)`` training MAE of the seasonal-naive forecast, in the load's unit.

    References:
        Hyndman and Koehler, Another look at measures of forecast accuracy, IJF 22(4), 2006 (MASE).
    """
    mae = ratio(sums.absolute, sums.steps)
    return {
        "nmae": ratio(sums.absolute, sums.load),
        "mae": mae,
        "rmse": ratio(sums.squared, sums.steps).sqrt(),
        "mase": ratio(mae, naive_error.double()),
        "loss": ratio(sums.loss, sums.windows),
    }


def ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """Quotient of sums, NaN where the divisor is zero or NaN."""
    return torch.where(bottom > 0, top / bottom.clamp(min=1e-300), torch.nan)


def summarise(values: ArrayLike | Tensor, *, higher: bool = False) -> dict[str, float]:
    r"""What one number per client says of a population.

    Args:
        values: ``(clients,)`` errors; NaN marks a client for which the metric has no meaning, infinity one whose model is
            broken, which counts.
        higher: more is better, as of an accuracy: the worst tenth is then the lowest.

    Returns:
        ``mean``, ``median``, ``std`` (between clients), ``worst_decile`` (mean of the worst tenth, at least one client),
        ``jain`` (:math:`(\sum x)^2 / (n \sum x^2)`, 1 when all errors are equal) and ``clients``, how many counted. All
        but the last are NaN when none did.

    References:
        Jain, Chiu and Hawe, A quantitative measure of fairness, DEC-TR-301, 1984.
    """
    errors = np.asarray(values, dtype=np.float64)
    errors = np.sort(errors[~np.isnan(errors)])
    if errors.size == 0:
        return dict.fromkeys(SUMMARIES, float("nan")) | {"clients": 0.0}
    tenth = max(1, round(errors.size / 10))
    worst = errors[:tenth] if higher else errors[-tenth:]
    finite = bool(np.isfinite(errors).all())
    return {
        "mean": float(errors.mean()),
        "median": float(np.median(errors)),
        "std": float(errors.std()) if finite else float("inf"),
        "worst_decile": float(worst.mean()),
        "jain": _jain(errors) if finite else 0.0,
        "clients": float(errors.size),
    }


def _jain(errors: NDArray[np.float64]) -> float:
    square = float(np.square(errors).sum())
    return float(errors.sum() ** 2 / (errors.size * square)) if square > 0 else 1.0


def flat_summary(
    metrics: dict[str, Tensor], names: Sequence[str], unseen: Tensor | None = None
) -> dict[str, float]:
    """``nmae`` (mean over clients), ``nmae_median``, ``nmae_std``, ``nmae_worst_decile``, ``nmae_jain``, and so on.

    Args:
        metrics: name -> ``(clients,)``; ``loss`` among them.
        names: of the task's metrics.
        unseen: ``(clients,)`` bool; clients held out, whose means are apart, as ``unseen_nmae``.
    """
    flat: dict[str, float] = {}
    unseen = torch.zeros_like(metrics["loss"], dtype=torch.bool) if unseen is None else unseen
    for name in names:
        summary = summarise(metrics[name][~unseen], higher=name in HIGHER)
        flat[name] = summary.pop("mean")
        flat.update({f"{name}_{key}": value for key, value in summary.items()})
        if unseen.any():
            flat[f"unseen_{name}"] = summarise(metrics[name][unseen])["mean"]
    return {**flat, "loss": summarise(metrics["loss"][~unseen])["mean"]}


def share_worse(
    values: ArrayLike, reference: ArrayLike, tolerance: float = 0.0, *, higher: bool = False
) -> float:
    """Share of clients that are worse off than under the reference, both ``(clients,)`` in the same order.

    Args:
        values: errors under the method.
        reference: errors under local or global training.
        tolerance: relative excess that still counts as equal.
        higher: more is better, so worse is less.

    Returns:
        In [0, 1]; NaN if no client has both.
    """
    ours, theirs = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    both = ~(np.isnan(ours) | np.isnan(theirs))
    ours, theirs = ours[both], theirs[both]
    worse = ours < theirs - tolerance * np.abs(theirs) if higher else ours > theirs * (1 + tolerance)
    return float(worse.mean()) if both.any() else float("nan")
