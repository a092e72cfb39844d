"""Forecast errors per client, and what they say of a population."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

PER_CLIENT = ("nmae", "mae", "rmse", "mase")
SUMMARIES = ("mean", "median", "std", "worst_decile", "jain", "clients")


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
    def scatter(clients: list[Tensor], parts: list[ErrorSums], population: int) -> ErrorSums:
        """Put parts of a population together, each with its client indices; clients in none count zero."""
        whole = {}
        for item in fields(ErrorSums):
            column = torch.zeros(population, dtype=torch.float64)
            for index, part in zip(clients, parts, strict=True):
                column[index] += getattr(part, item.name)
            whole[item.name] = column
        return ErrorSums(**whole)


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
    mae = _ratio(sums.absolute, sums.steps)
    return {
        "nmae": _ratio(sums.absolute, sums.load),
        "mae": mae,
        "rmse": _ratio(sums.squared, sums.steps).sqrt(),
        "mase": _ratio(mae, naive_error.double()),
        "loss": _ratio(sums.loss, sums.windows),
    }


def _ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """Quotient, NaN where the divisor is zero or NaN."""
    return torch.where(bottom > 0, top / bottom.clamp(min=1e-300), torch.nan)


def summarise(values: ArrayLike | Tensor) -> dict[str, float]:
    r"""What one number per client says of a population of errors.

    Args:
        values: ``(clients,)`` errors, lower is better; NaN marks a client for which the metric has no meaning,
            infinity one whose model is broken, which counts.

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
    worst = errors[-max(1, round(errors.size / 10)) :]
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


def share_worse(values: ArrayLike, reference: ArrayLike, tolerance: float = 0.0) -> float:
    """Share of clients whose error exceeds the reference's, both ``(clients,)`` in the same order.

    Args:
        values: errors under the method.
        reference: errors under local or global training.
        tolerance: relative excess that still counts as equal.

    Returns:
        In [0, 1]; NaN if no client has both.
    """
    ours, theirs = np.asarray(values, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    both = ~(np.isnan(ours) | np.isnan(theirs))
    return float((ours[both] > theirs[both] * (1 + tolerance)).mean()) if both.any() else float("nan")
