"""How clients mix several models' predictions, by what the mixtures were worth to themselves and to clients like them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from personalization.graph import build_graph
from personalization.pooling import STRENGTHS, Pooled, pooled_choices

from .blending import validation_errors
from .federation import Federation
from .judge import Sight

PARTS = 10
"""Weights that are tried are multiples of one part in so many."""
REACHES = (1.0, 0.5, 0.25)
"""How far neighbours reach, in median distances between two clients; each is tried."""

Experts = tuple[Tensor, ...]


def mixtures(experts: int, parts: int = PARTS) -> Tensor:
    """All weights of so many models in tenths (of ``parts``), ``(mixtures, experts)``; the first model alone is first."""
    rows = [row for row in product(range(parts, -1, -1), repeat=experts) if sum(row) == parts]
    return torch.tensor(rows, dtype=torch.float32) / parts


@dataclass(frozen=True)
class Curves:
    """What every mixture is worth to each client on either half of its validation span.

    Attributes:
        weights: of the models in each mixture, ``(mixtures, experts)``.
        errors: sums of errors ``(clients, 2, mixtures)``, see :func:`persofl.blending.validation_errors`.
        examples: how many, ``(clients, 2)``.
    """

    weights: Tensor
    errors: Tensor
    examples: Tensor

    @staticmethod
    def joined(parts: Sequence[Curves]) -> Curves:
        """Curves of several groups of clients as one."""
        errors, examples = ([getattr(part, name) for part in parts] for name in ("errors", "examples"))
        return Curves(parts[0].weights, torch.cat(errors), torch.cat(examples))


def validation_curves(federation: Federation, experts: Experts, clients: Tensor) -> Curves:
    """Try every mixture on the clients' validation spans.

    Args:
        federation: the population; not changed.
        experts: rows of the models, each ``(clients, parameters)``.
        clients: ``(clients,)`` indices.
    """
    weights = mixtures(len(experts))

    def outputs(sight: Sight) -> Iterator[Tensor]:
        own = [federation.oracle.predict(rows[sight.places], sight.x) for rows in experts]
        return (mixed(own, row) for row in weights)

    return Curves(weights, *validation_errors(federation, clients, outputs, len(weights)))


def mixed(outputs: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Average outputs ``(c, n, ...)`` of several models by weights ``(experts,)`` or ``(c, n, experts)``."""
    total = torch.zeros_like(outputs[0])
    for number, output in enumerate(outputs):
        weight = weights[..., number].to(output.device)
        total += weight.reshape(*weight.shape, *[1] * (output.dim() - weight.dim())) * output
    return total


@dataclass(frozen=True)
class Gate:
    """The weights that every client gives to its models.

    Attributes:
        weights: of the models in each mixture, ``(mixtures, experts)``.
        chosen: mixtures of all clients, with the strength and the graph behind them.
    """

    weights: Tensor
    chosen: Pooled

    def of(self, clients: Tensor, span: str) -> Tensor:
        """Weights of some clients' models on either half of a span, ``(clients, 2, experts)``.

        A half of the validation span takes what was chosen on the other half.
        """
        if span == "validation":
            return self.weights[self.chosen.crossed[clients]]
        return self.weights[self.chosen.options[clients]].unsqueeze(1).expand(-1, 2, -1)


def fit_gate(federation: Federation, curves: Curves) -> Gate:
    """The gate of a population from the curves of all its clients, by the evidence that its algorithm says.

    Safe are the first model alone and the last alone, the population's and the client's own.
    """
    pool, last = federation.algorithm.gates(), curves.weights[:, -1].argmax()
    chosen = pooled_choices(
        curves.errors,
        curves.examples,
        _graphs(federation, pool),
        (0.0,) if pool == "nobody" else STRENGTHS,
        safe=(0, int(last)),
        harm=float(getattr(federation.algorithm, "harm", 0.0)),
        judges=~federation.unseen,
    )
    return Gate(curves.weights, chosen)


def _graphs(federation: Federation, pool: str) -> list[Tensor]:
    """Everyone alike, and with neighbours the kernels of the distances; clients that are held out give nothing."""
    counts = (~federation.unseen).to(torch.float64)
    alike = (counts / counts.sum()).expand(len(counts), -1)
    if pool != "neighbours":
        return [alike]
    distances = federation.personaliser.pairwise.calibrated
    return [alike, *(build_graph("kernel", scale=reach)(distances, counts) for reach in REACHES)]
