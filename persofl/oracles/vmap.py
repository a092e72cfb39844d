"""Any module without in-place state, vectorised over clients by ``torch.func``."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vjp, vmap

from ..embedding import joined, watch_head
from ..layout import Layout
from ..losses import Loss
from .base import Batch, Oracle, Penalty, evaluating


class VmapOracle(Oracle):
    """Vectorise ``grad(functional_call)`` over the rows of the matrix."""

    name = "vmap"

    def __init__(self, module: nn.Module, layout: Layout, loss: Loss) -> None:
        super().__init__(module, layout, loss)
        recurrent = any(isinstance(part, nn.RNNBase) or hasattr(part, "gates") for part in module.modules())
        # cuDNN's recurrent kernels want weights that have an address, which vectorised ones have not.
        self._kernels = partial(torch.backends.cudnn.flags, enabled=False) if recurrent else nullcontext

    def grad(self, rows: Tensor, batch: Batch, penalty: Penalty | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Oracle.grad`."""
        if penalty is not None:
            return self._penalised(rows, batch, penalty)
        vectorised = vmap(grad_and_value(self._loss_of_one), randomness="different")
        with self._kernels():
            grads, losses = vectorised(rows, batch.x, batch.y)
        return losses.detach(), grads.detach()

    def _loss_of_one(self, row: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(functional_call(self.module, self.layout.views(row), (x,)), y).mean()

    def _penalised(self, rows: Tensor, batch: Batch, penalty: Penalty) -> tuple[Tensor, Tensor]:
        def both(
            row: Tensor, x: Tensor, y: Tensor, target: Tensor, strength: Tensor
        ) -> tuple[Tensor, Tensor]:
            with watch_head(self.module) as seen:
                loss = self._loss_of_one(row, x, y)
            return loss + strength * penalty.gap(joined(seen), target), loss

        vectorised = vmap(grad_and_value(both, has_aux=True), randomness="different")
        strength = penalty.strength.squeeze(1)
        with self._kernels():
            grads, (_, losses) = vectorised(rows, batch.x, batch.y, penalty.target, strength)
        return losses.detach(), grads.detach()

    def embed(self, rows: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Oracle.embed`."""

        def one(row: Tensor, own: Tensor) -> Tensor:
            def read(weights: Tensor) -> Tensor:
                with watch_head(self.module) as seen:
                    functional_call(self.module, self.layout.views(weights), (own,))
                return joined(seen)

            embedding: Tensor = vjp(read, row)[0]  # for recurrent layers, as in predict
            return embedding

        with self._kernels():
            return vmap(one, randomness="different")(rows, x).detach()

    def predict(self, rows: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Oracle.predict`."""
        module = evaluating(self.module)

        def one(row: Tensor, own: Tensor) -> Tensor:
            # Recurrent layers have no batching rule of their own; under a derivative torch splits them into parts
            # that do.
            prediction: Tensor = vjp(lambda r: functional_call(module, self.layout.views(r), (own,)), row)[0]
            return prediction

        with self._kernels():
            return vmap(one)(rows, x).detach()
