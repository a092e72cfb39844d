"""Who is taken for whom: a confusion matrix per client, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .metrics import ratio


@dataclass(frozen=True)
class ClassSums:
    """Sums over a client's examples, float64.

    Attributes:
        confusion: ``(clients, classes, classes)``, examples of the row's class that were taken for the column's.
        surprise: of the negative log-likelihood of the true class, in nats, ``(clients,)``.
        loss: of the training loss, ``(clients,)``.
        windows: examples, ``(clients,)``.
    """

    confusion: Tensor
    surprise: Tensor
    loss: Tensor
    windows: Tensor

    @staticmethod
    def zero(population: int, classes: int) -> ClassSums:
        """Sums over nothing."""
        confusion = torch.zeros(population, classes, classes, dtype=torch.float64)
        return ClassSums(confusion, *torch.zeros(3, population, dtype=torch.float64))

    @staticmethod
    def of(scores: Tensor, target: Tensor, losses: Tensor, valid: Tensor) -> ClassSums:
        """Sum up predictions.

        Args:
            scores: logarithms of unnormalised probabilities, ``(clients, examples, classes)``.
            target: true classes, ``(clients, examples)`` int64.
            losses: training loss of each example, ``(clients, examples)``.
            valid: which examples count, ``(clients, examples)`` bool.
        """
        chances = scores.double().log_softmax(-1)
        surprise = -chances.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        return ClassSums(
            confusion=count_pairs(target, scores.argmax(-1), valid, scores.shape[-1]),
            surprise=torch.where(valid, surprise, 0).sum(1),
            loss=torch.where(valid, losses, 0).double().sum(1),
            windows=valid.sum(1).double(),
        )


def count_pairs(true: Tensor, predicted: Tensor, valid: Tensor, classes: int) -> Tensor:
    """Confusion matrices ``(clients, classes, classes)`` of classes ``(clients, examples)``; rows are the true ones."""
    clients = len(true)
    cell = (torch.arange(clients, device=true.device).unsqueeze(1) * classes + true) * classes + predicted
    counts = torch.bincount(cell[valid], minlength=clients * classes**2)
    return counts.double().view(clients, classes, classes)


def class_metrics(sums: ClassSums) -> dict[str, Tensor]:
    r"""Metrics of every client, each ``(clients,)`` float64; NaN for a client without examples.

    ``macro_f1`` is the mean of :math:`2 TP / (2 TP + FP + FN)` over the classes that occur among the client's true or
    predicted ones; ``cross_entropy`` is in nats, without label smoothing; ``error`` is one minus ``accuracy``.
    """
    right = sums.confusion.diagonal(dim1=1, dim2=2)
    either = sums.confusion.sum(1) + sums.confusion.sum(2)  # 2 TP + FP + FN
    accuracy = ratio(right.sum(1), sums.windows)
    return {
        "error": 1 - accuracy,
        "accuracy": accuracy,
        "macro_f1": ratio(2 * right, either).nanmean(1),
        "cross_entropy": ratio(sums.surprise, sums.windows),
        "loss": ratio(sums.loss, sums.windows),
    }
