"""The gradient oracle: the one door between algorithms, which see matrices, and modules, which see tensors by name."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layout import Layout
from ..losses import Loss


@dataclass(frozen=True)
class Batch:
    """Examples of several clients: ``x (clients, batch, lookback, channels)``, ``y (clients, batch, horizon)``."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Penalty:
    """What is added to every client's loss: ``strength * gap(embedding, target)``.

    Attributes:
        gap: of embeddings ``(..., batch, width)`` and targets ``(..., *)``, gives ``(...)``; differentiable in the first.
        target: of each client, ``(clients, *)``.
        strength: ``(clients, 1)``.
    """

    gap: Callable[[Tensor, Tensor], Tensor]
    target: Tensor
    strength: Tensor


class Oracle(ABC):
    """Losses and gradients of many models at once.

    Args:
        module: the architecture; its own weights are never read or written after construction.
        layout: how a row holds the module's tensors.
        loss: per example; a client's loss is its mean over the batch.
    """

    name: str = ""

    def __init__(self, module: nn.Module, layout: Layout, loss: Loss) -> None:
        self.module = copy.deepcopy(module).train()
        self.layout, self.loss = layout, loss

    def to(self, device: torch.device) -> Oracle:
        """The same oracle with the module's constants on another device; as long as a subclass is built like this one."""
        return type(self)(copy.deepcopy(self.module).to(device), self.layout, self.loss)

    @abstractmethod
    def grad(self, rows: Tensor, batch: Batch, penalty: Penalty | None = None) -> tuple[Tensor, Tensor]:
        """Loss and gradient of every client's own model on its own batch.

        Args:
            rows: ``(clients, parameters)``; columns of statistics (BatchNorm) are advanced in place.
            batch: of the same clients in the same order.
            penalty: on the embeddings; it is in the gradients, and not in the losses.

        Returns:
            Losses ``(clients,)`` and gradients ``(clients, parameters)``, zero in the columns of statistics.

        Raises:
            PersoflError: a penalty, and a model without a head.
        """

    def descend(self, rows: Tensor, batch: Batch, lr: Tensor) -> Tensor:
        """One step of gradient descent in place, ``rows <- rows - lr * grad``; some oracles fuse the two.

        Args:
            rows: ``(clients, parameters)``, changed.
            batch: of the same clients in the same order.
            lr: ``(clients, 1)``.

        Returns:
            Losses before the step, ``(clients,)``.
        """
        losses, grads = self.grad(rows, batch)
        rows.addcmul_(grads, lr, value=-1)
        return losses

    def pull(self, rows: Tensor, anchor: Tensor, share: Tensor) -> None:
        """Move the parameters of rows a share ``(clients, 1)`` of the way to the anchor's, in place."""
        weights = self.layout.trainable
        rows[:, :weights].lerp_(anchor[:, :weights], share)

    @contextmanager
    def holding(self, rows: Tensor) -> Iterator[None]:
        """Promise that until the end only :meth:`descend` and :meth:`pull`, on its leading rows, read or write ``rows``.

        An oracle may keep them elsewhere meanwhile; at the end, or an error, they are what the steps made of them.
        """
        yield

    @abstractmethod
    def embed(self, rows: Tensor, x: Tensor) -> Tensor:
        """What reaches every client's head in training mode, without gradients; see :mod:`persofl.embedding`.

        Args:
            rows: ``(clients, parameters)``, left as they are.
            x: ``(clients, examples, lookback, channels)``.

        Returns:
            ``(clients, examples, width)``.

        Raises:
            PersoflError: the model has no head.
        """

    @abstractmethod
    def predict(self, rows: Tensor, x: Tensor) -> Tensor:
        """Forecasts in evaluation mode.

        Args:
            rows: ``(clients, parameters)``.
            x: ``(clients, examples, lookback, channels)``.

        Returns:
            ``(clients, examples, horizon[, outputs])``, without gradients.
        """

    def carry_statistics(self, source: Tensor, target: Tensor) -> None:
        """Copy the columns of statistics between rows in place, where an algorithm took a gradient at a mixture."""
        if self.layout.trainable < self.layout.size:
            target[:, self.layout.trainable :] = source[:, self.layout.trainable :]


def evaluating(module: nn.Module) -> nn.Module:
    """A copy of a module in evaluation mode."""
    return copy.deepcopy(module).eval()


def no_statistics(layout: Layout, grads: Tensor) -> Tensor:
    """Append zero columns for the statistics to gradients of the parameters."""
    return torch.nn.functional.pad(grads, (0, layout.size - layout.trainable))
