"""Any module without in-place state, vectorised over clients by ``torch.func``."""

from __future__ import annotations

from torch import Tensor
from torch.func import functional_call, grad_and_value, vjp, vmap

from .base import Batch, Oracle, evaluating


class VmapOracle(Oracle):
    """Vectorise ``grad(functional_call)`` over the rows of the matrix."""

    name = "vmap"

    def grad(self, rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`Oracle.grad`."""
        vectorised = vmap(grad_and_value(self._loss_of_one), randomness="different")
        grads, losses = vectorised(rows, batch.x, batch.y)
        return losses.detach(), grads.detach()

    def _loss_of_one(self, row: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(functional_call(self.module, self.layout.views(row), (x,)), y).mean()

    def predict(self, rows: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Oracle.predict`."""
        module = evaluating(self.module)

        def one(row: Tensor, own: Tensor) -> Tensor:
            # Recurrent layers have no batching rule of their own; under a derivative torch splits them into parts
            # that do.
            prediction: Tensor = vjp(lambda r: functional_call(module, self.layout.views(r), (own,)), row)[0]
            return prediction

        return vmap(one)(rows, x).detach()
