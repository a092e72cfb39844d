"""The specification: the plain module, client by client."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from ..embedding import joined, watch_head
from .base import Batch, Oracle, Penalty, evaluating, no_statistics


class LoopOracle(Oracle):
    """Run any module, BatchNorm in training mode included, one client after the other."""

    name = "loop"

    def grad(self, rows: Tensor, batch: Batch, penalty: Penalty | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Oracle.grad`."""
        pairs = [self._grad_one(client, row, batch, penalty) for client, row in enumerate(rows)]
        losses, grads = zip(*pairs, strict=True)
        return torch.stack(losses), no_statistics(self.layout, torch.stack(grads))

    def _grad_one(
        self, client: int, row: Tensor, batch: Batch, penalty: Penalty | None
    ) -> tuple[Tensor, Tensor]:
        # Statistics stay views of the row: the forward pass advances them there.
        tensors = self.layout.views(row)
        weights = {
            slot.name: tensors[slot.name].clone().requires_grad_()
            for slot in self.layout.slots
            if slot.trainable
        }
        call = ({**tensors, **weights}, (batch.x[client],))
        extra: Tensor | float = 0.0
        with torch.enable_grad():
            if penalty is None:
                prediction = functional_call(self.module, *call)
            else:
                with watch_head(self.module) as seen:
                    prediction = functional_call(self.module, *call)
                extra = penalty.strength[client, 0] * penalty.gap(joined(seen), penalty.target[client])
            loss = self.loss(prediction, batch.y[client]).mean()
            total = loss + extra
        grads = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
        flat = [
            torch.zeros_like(weight).reshape(-1) if grad is None else grad.reshape(-1)
            for grad, weight in zip(grads, weights.values(), strict=True)
        ]
        return loss.detach(), torch.cat(flat)

    def embed(self, rows: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Oracle.embed`; statistics are advanced in a copy."""
        parts = []
        for row, own in zip(rows, x, strict=True):
            with torch.no_grad(), watch_head(self.module) as seen:
                functional_call(self.module, self.layout.views(row.clone()), (own,))
            parts.append(joined(seen))
        return torch.stack(parts)

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
