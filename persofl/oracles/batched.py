"""Modules built of our layers: one forward and one backward pass for all clients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from .base import Batch, Oracle, evaluating


class BatchedOracle(Oracle):
    """Run a module marked ``batched`` with stacked parameters, views of the matrix."""

    name = "batched"

    def grad(self, rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`Oracle.grad`."""
        leaves = {name: view.detach().requires_grad_() for name, view in self.layout.views(rows).items()}
        with torch.enable_grad():
            losses = self.loss(functional_call(self.module, leaves, (batch.x,)), batch.y).mean(-1)
            total = losses.sum()  # clients share no parameter, so its gradient holds every client's own
        parts = torch.autograd.grad(total, list(leaves.values()))
        return losses.detach(), torch.cat([part.flatten(1) for part in parts], 1)

    def predict(self, rows: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Oracle.predict`."""
        with torch.no_grad():
            prediction: Tensor = functional_call(evaluating(self.module), self.layout.views(rows), (x,))
        return prediction
