"""How a client weighs its models' predictions, by what they were worth on its validation span."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from .federation import Federation
from .judge import Judge, Sight
from .plan import Plan

GRID = torch.linspace(0, 1, 21)
"""Weights that are tried."""


def halves(ranks: Tensor, counts: Tensor) -> Tensor:
    """Which half of its client's span an example is in, 0 or 1: ranks ``(c, n)``, counts ``(c, 1)`` to ``(c, n)``."""
    return (ranks >= (counts + 1) // 2).long().expand(len(counts), -1)


def blend_weights(
    federation: Federation, experts: tuple[Tensor, Tensor], clients: Tensor, plan: Plan, span: str
) -> Tensor:
    r"""Weight of each client's second model, for either half of a span, ``(clients, 2)``.

    :math:`a = (1 - t)\,\mathrm{mix} + t\,a^*`, where :math:`a^*` minimises the error over the validation span. A half of
    the validation span itself takes the :math:`a^*` of the other half, so that what is measured there was not chosen there.

    Args:
        federation: its algorithm has ``trust``, t; a client without validation examples keeps its mix.
        experts: rows of the two models, each ``(clients, parameters)``.
        clients: ``(clients,)`` indices.
        plan: of the same clients, with their ``mix``.
        span: that is about to be predicted.
    """
    mix = plan.mix.to("cpu", torch.float64).expand(-1, 2)
    trust = float(getattr(federation.algorithm, "trust", 0.0))
    if trust == 0:
        return mix.to(torch.float32)
    errors, examples = _errors(federation, experts, clients)
    if span == "validation":
        errors, examples = errors.flip(1), examples.flip(1)
    else:
        errors, examples = (part.sum(1, keepdim=True).expand_as(part) for part in (errors, examples))
    best = GRID.double()[errors.argmin(-1)]
    return torch.where(examples > 0, torch.lerp(mix, best, trust), mix).to(torch.float32)


class Mixed(nn.Module):
    """Several models whose outputs are averaged.

    Args:
        models: at least one.
        weights: of each, ``(models,)``.
    """

    weights: Tensor

    def __init__(self, models: Sequence[nn.Module], weights: Tensor) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.register_buffer("weights", weights.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Inputs of each model to the average of their outputs."""
        outputs = torch.stack([model(x) for model in self.models])
        mean: Tensor = torch.tensordot(self.weights.to(outputs), outputs, 1)
        return mean


def _errors(federation: Federation, experts: tuple[Tensor, Tensor], clients: Tensor) -> tuple[Tensor, Tensor]:
    """Validation errors by half and weight, ``(clients, 2, weights)``, and examples ``(clients, 2)``."""

    def outputs(sight: Sight) -> Iterator[Tensor]:
        first, second = (federation.oracle.predict(rows[sight.places], sight.x) for rows in experts)
        return (torch.lerp(first, second, weight) for weight in GRID.tolist())

    return validation_errors(federation, clients, outputs, len(GRID))


def validation_errors(
    federation: Federation, clients: Tensor, outputs: Callable[[Sight], Iterator[Tensor]], options: int
) -> tuple[Tensor, Tensor]:
    """What each of several options of every client is worth on either half of its validation span.

    Args:
        federation: the population.
        clients: ``(clients,)`` indices.
        outputs: gives every option's outputs for a block of examples, one after the other.
        options: how many.

    Returns:
        Sums of absolute errors of the scaled point forecast, or of losses where targets are classes,
        ``(clients, 2, options)``; and examples ``(clients, 2)``.
    """
    loss, floats = federation.oracle.loss, federation.task.floats
    errors = torch.zeros(len(clients), 2, options, dtype=torch.float64)
    examples = torch.zeros(len(clients), 2, dtype=torch.float64)
    for sight in Judge(federation.data, federation.task, loss, "validation").sights(clients):
        half = halves(sight.ranks, sight.counts)
        place = sight.places.unsqueeze(1).expand_as(half)
        examples.index_put_((place, half), sight.valid.double(), accumulate=True)
        valid, found = sight.valid.to(sight.y.device), []
        for output in outputs(sight):
            error = (loss.point(output) - sight.y).abs().mean(-1) if floats else loss(output, sight.y)
            found.append((error * valid).double())
        errors.index_put_((place, half), torch.stack(found, -1).cpu(), accumulate=True)  # one copy a block
    return errors, examples
