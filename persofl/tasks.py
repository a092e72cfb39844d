"""What a model is judged by: forecasts, regressions and classes each have their sums, metrics and objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .classification import ClassSums, class_metrics
from .data import ClientData, facts_of
from .errors import unknown_name
from .metrics import HIGHER, PER_CLIENT, ErrorSums, client_metrics, scatter
from .regression import RegressionSums, regression_metrics


@dataclass(frozen=True)
class Judged:
    """Predictions of a block of clients, and what came true.

    Attributes:
        output: of the models, scaled, ``(clients, examples, horizon[, outputs])``.
        point: the point forecast in the target's unit, or the likeliest class, ``(clients, examples, horizon)``.
        target: likewise.
        losses: training loss of each example, ``(clients, examples)``.
        valid: which examples count, ``(clients, examples)`` bool.
    """

    output: Tensor
    point: Tensor
    target: Tensor
    losses: Tensor
    valid: Tensor


class Task(ABC):
    """A kind of target, with all that judges its predictions.

    Attributes:
        name: as data call it.
        metrics: per client; those in ``persofl.metrics.HIGHER`` are better when higher.
        objective: the metric that a study minimises where its file names none.
        loss: trained on where nothing else is asked for.
        counted: what an example is called.
        floats: whether targets have a unit to go back to.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    objective: ClassVar[str]
    loss: ClassVar[str] = "mse"
    counted: ClassVar[str] = "examples"
    floats: ClassVar[bool] = True

    @abstractmethod
    def zero(self, population: int) -> Any:
        """Sums over nothing, a dataclass of tensors ``(population, ...)`` with a field ``windows``, how many counted."""

    @abstractmethod
    def sums(self, judged: Judged) -> Any:
        """Sums over a block of clients, from which all metrics follow."""

    @abstractmethod
    def metrics_of(self, sums: Any, naive_error: Tensor) -> dict[str, Tensor]:
        """Every metric and ``loss``, each ``(clients,)`` float64; NaN where one has no meaning.

        Args:
            sums: over a span.
            naive_error: ``(clients,)`` training MAE of a naive forecast in the target's unit, NaN where unknown.
        """

    def together(self, clients: Sequence[Tensor], parts: Sequence[Any], population: int) -> Any:
        """Put sums of parts of a population together, each with its client indices; clients in none count zero."""
        return scatter(self.zero(population), clients, parts)


@dataclass(frozen=True)
class Forecast(Task):
    """The next steps of a series."""

    name: ClassVar[str] = "forecast"
    metrics: ClassVar[tuple[str, ...]] = PER_CLIENT
    objective: ClassVar[str] = "nmae"
    counted: ClassVar[str] = "windows"

    def zero(self, population: int) -> ErrorSums:
        """See :class:`Task`."""
        return ErrorSums.zero(population)

    def sums(self, judged: Judged) -> ErrorSums:
        """See :class:`Task`."""
        return ErrorSums.of(judged.point, judged.target, judged.losses, judged.valid)

    def metrics_of(self, sums: ErrorSums, naive_error: Tensor) -> dict[str, Tensor]:
        """See :func:`persofl.metrics.client_metrics`."""
        return client_metrics(sums, naive_error)


@dataclass(frozen=True)
class Regress(Task):
    """Numbers that belong to an example, such as a charging session's energy.

    Attributes:
        outputs: how many.
    """

    outputs: int = 1
    name: ClassVar[str] = "regress"
    metrics: ClassVar[tuple[str, ...]] = ("nmae", "mae", "rmse", "r2")
    objective: ClassVar[str] = "nmae"

    def zero(self, population: int) -> RegressionSums:
        """See :class:`Task`."""
        return RegressionSums.zero(population, self.outputs)

    def sums(self, judged: Judged) -> RegressionSums:
        """See :class:`Task`."""
        return RegressionSums.of(judged.point, judged.target, judged.losses, judged.valid)

    def metrics_of(self, sums: RegressionSums, naive_error: Tensor) -> dict[str, Tensor]:
        """See :func:`persofl.regression.regression_metrics`."""
        return regression_metrics(sums)


@dataclass(frozen=True)
class Classify(Task):
    """One class of several.

    Attributes:
        classes: how many.
    """

    classes: int = 2
    name: ClassVar[str] = "classify"
    metrics: ClassVar[tuple[str, ...]] = ("error", "accuracy", "macro_f1", "cross_entropy")
    objective: ClassVar[str] = "error"
    loss: ClassVar[str] = "cross_entropy"
    floats: ClassVar[bool] = False

    def zero(self, population: int) -> ClassSums:
        """See :class:`Task`."""
        return ClassSums.zero(population, self.classes)

    def sums(self, judged: Judged) -> ClassSums:
        """See :class:`Task`."""
        target = judged.target[..., 0]
        return ClassSums.of(judged.output[..., 0, :], target, judged.losses, judged.valid)

    def metrics_of(self, sums: ClassSums, naive_error: Tensor) -> dict[str, Tensor]:
        """See :func:`persofl.classification.class_metrics`."""
        return class_metrics(sums)


TASKS: dict[str, type[Task]] = {task.name: task for task in (Forecast, Classify, Regress)}
METRICS = tuple(dict.fromkeys(metric for task in TASKS.values() for metric in task.metrics))
"""All metrics of all tasks; a name means the same direction in each."""


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better."""
    return metric in HIGHER


def task_of(data: ClientData) -> Task:
    """The task of a data set.

    Raises:
        PersoflError: it names one that there is not.
    """
    facts = facts_of(data)
    if facts.task not in TASKS:
        raise unknown_name("task", facts.task, TASKS)
    if facts.task == Classify.name:
        return Classify(len(facts.classes))
    return Regress(facts.shape[1]) if facts.task == Regress.name else Forecast()


def unknown_naive_error(data: ClientData) -> Tensor:
    """The data's ``naive_error``, or NaN for all, ``(clients,)``."""
    return getattr(data, "naive_error", torch.full((len(data),), torch.nan))
