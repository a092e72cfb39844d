"""Errors of numbers that belong to an example, per client and output."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .metrics import ratio


@dataclass(frozen=True)
class RegressionSums:
    """Sums over a client's examples; each ``(clients, outputs)`` float64, the last two ``(clients,)``.

    Attributes:
        absolute: of ``|error|``, in the output's unit.
        squared: of ``error^2``.
        size: of ``|target|``.
        total: of the target.
        total_squared: of its square.
        loss: of the training loss.
        windows: examples.
    """

    absolute: Tensor
    squared: Tensor
    size: Tensor
    total: Tensor
    total_squared: Tensor
    loss: Tensor
    windows: Tensor

    @staticmethod
    def zero(population: int, outputs: int) -> RegressionSums:
        """Sums over nothing."""
        columns = [torch.zeros(population, outputs, dtype=torch.float64) for _ in fields(RegressionSums)[:5]]
        return RegressionSums(*columns, *torch.zeros(2, population, dtype=torch.float64))

    @staticmethod
    def of(prediction: Tensor, target: Tensor, losses: Tensor, valid: Tensor) -> RegressionSums:
        """Sum up predictions.

        Args:
            prediction: ``(clients, examples, outputs)`` in the target's unit.
            target: likewise.
            losses: training loss of each example, ``(clients, examples)``.
            valid: which examples count, ``(clients, examples)`` bool.
        """
        mask = valid.unsqueeze(-1)
        error = torch.where(mask, prediction - target, 0).double()
        true = torch.where(mask, target, 0).double()
        return RegressionSums(
            absolute=error.abs().sum(1),
            squared=error.square().sum(1),
            size=true.abs().sum(1),
            total=true.sum(1),
            total_squared=true.square().sum(1),
            loss=torch.where(valid, losses, 0).double().sum(1),
            windows=valid.sum(1).double(),
        )


def regression_metrics(sums: RegressionSums) -> dict[str, Tensor]:
    r"""Metrics of every client, each ``(clients,)`` float64; NaN where one has no meaning.

    ``nmae`` is :math:`\sum|e| / \sum|y|`, ``r2`` is :math:`1 - \sum e^2 / \sum (y - \bar y)^2` with the client's own mean
    over the span, NaN where its targets are all equal. ``mae`` and ``rmse`` are in the target's unit. Each is
    computed per output and averaged over outputs, as scikit-learn does (``uniform_average``).
    """
    n = sums.windows.unsqueeze(1)
    spread = sums.total_squared - sums.total.square() / n.clamp(min=1)
    flat = spread <= 1e-12 * sums.total_squared  # what rounding leaves of equal targets
    per_output = {
        "nmae": ratio(sums.absolute, sums.size),
        "mae": ratio(sums.absolute, n),
        "rmse": ratio(sums.squared, n).sqrt(),
        "r2": torch.where(flat, torch.nan, 1 - sums.squared / spread.clamp(min=1e-300)),
    }
    metrics = {name: values.mean(1) for name, values in per_output.items()}
    return {**metrics, "loss": ratio(sums.loss, sums.windows)}
