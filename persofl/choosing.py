"""Which of several models a client predicts with: the one that did best on its validation span."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .blending import validation_errors
from .federation import Federation
from .judge import Sight


def choices(federation: Federation, candidates: tuple[Tensor, ...], clients: Tensor, span: str) -> Tensor:
    """Number of each client's best candidate, for either half of a span, ``(clients, 2)`` int64.

    Best is the least mean absolute error of the point forecast over the validation span, or the least loss where targets
    are classes. A half of the validation span itself takes the choice of the other half, so that what is measured there was
    not chosen there. A client without validation examples takes the first candidate.

    Args:
        federation: the population; not changed.
        candidates: rows of the models, each ``(clients, parameters)``.
        clients: ``(clients,)`` indices.
        span: that is about to be predicted.
    """

    def outputs(sight: Sight) -> Iterator[Tensor]:
        return (federation.oracle.predict(rows[sight.places], sight.x) for rows in candidates)

    errors, _ = validation_errors(federation, clients, outputs, len(candidates))
    errors = errors.flip(1) if span == "validation" else errors.sum(1, keepdim=True).expand_as(errors)
    return errors.nan_to_num(nan=torch.inf).argmin(-1)


def chosen_rows(candidates: tuple[Tensor, ...], choice: Tensor) -> Tensor:
    """Rows of each client's choice ``(clients,)``, ``(clients, parameters)``."""
    rows = candidates[0].clone()
    for number, candidate in enumerate(candidates[1:], 1):
        picked = choice == number
        rows[picked] = candidate[picked]
    return rows
