"""Modules built of our layers: one forward and one backward pass for all clients."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..layout import Layout
from ..losses import Loss
from ..models.affine import Sink, give_sink
from .base import Batch, Oracle, evaluating


class BatchedOracle(Oracle):
    """Run a module marked ``batched`` with stacked parameters, views of the matrix."""

    name = "batched"

    def __init__(self, module: nn.Module, layout: Layout, loss: Loss) -> None:
        super().__init__(module, layout, loss)
        self._training = _Stacked(self.module, layout)
        self._evaluation = _Stacked(evaluating(self.module), layout)

    def grad(self, rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`Oracle.grad`."""
        grads = torch.empty_like(rows)
        slots = self.layout.views(grads)
        leaves = {name: view.detach().requires_grad_() for name, view in self.layout.views(rows).items()}
        sinks = [give_sink(leaf, slots[name]) for name, leaf in leaves.items()]
        with torch.enable_grad():
            losses = self.loss(self._training(leaves, batch.x), batch.y).mean(-1)
            total = losses.sum()  # clients share no parameter, so its gradient holds every client's own
        parts = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        for sink, part in zip(sinks, parts, strict=True):
            _complete(sink, part)
        return losses.detach(), grads

    def predict(self, rows: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Oracle.predict`."""
        with torch.no_grad():
            return self._evaluation(self.layout.views(rows), x)


class _Stacked:
    """A private copy of a module whose parameters are exchanged for stacked tensors before every call.

    ``functional_call`` does the same with checks that cost as much as the arithmetic of a small model.
    """

    def __init__(self, module: nn.Module, layout: Layout) -> None:
        self._module = copy.deepcopy(module)
        self._places = []
        for slot in layout.slots:
            path, _, name = slot.name.rpartition(".")
            self._places.append((self._module.get_submodule(path)._parameters, name, slot.name))

    def __call__(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        for parameters, name, key in self._places:
            parameters[name] = tensors[key]  # type: ignore[assignment]
        prediction: Tensor = self._module(x)
        return prediction


def _complete(sink: Sink, part: Tensor | None) -> None:
    """Add to a weight's slot what autograd returned beside what a layer wrote there."""
    if part is None and not sink.written:
        sink.view.zero_()
    elif part is not None and sink.written:
        sink.view.add_(part)
    elif part is not None:
        sink.view.copy_(part)
