"""The specification: the plain module, client by client."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from .base import Batch, Oracle, evaluating, no_statistics


class LoopOracle(Oracle):
    """Run any module, BatchNorm in training mode included, one client after the other."""

    name = "loop"

    def grad(self, rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`Oracle.grad`."""
        pairs = [self._grad_one(row, x, y) for row, x, y in zip(rows, batch.x, batch.y, strict=True)]
        losses, grads = zip(*pairs, strict=True)
        return torch.stack(losses), no_statistics(self.layout, torch.stack(grads))

    def _grad_one(self, row: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # Statistics stay views of the row: the forward pass advances them there.
        tensors = self.layout.views(row)
        weights = {
            slot.name: tensors[slot.name].clone().requires_grad_()
            for slot in self.layout.slots
            if slot.trainable
        }
        with torch.enable_grad():
            prediction = functional_call(self.module, {**tensors, **weights}, (x,))
            loss = self.loss(prediction, y).mean()
        grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        flat = [
            torch.zeros_like(weight).reshape(-1) if grad is None else grad.reshape(-1)
            for grad, weight in zip(grads, weights.values(), strict=True)
        ]
        return loss.detach(), torch.cat(flat)

    def predict(self, rows: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Oracle.predict`."""
        module = evaluating(self.module)
        with torch.no_grad():
            return torch.stack(
                [
                    functional_call(module, self.layout.views(row), (own,))
                    for row, own in zip(rows, x, strict=True)
                ]
            )
