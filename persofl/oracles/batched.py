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
        self._uses_weights_once: bool | None = None

    def grad(self, rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`Oracle.grad`."""
        grads = torch.empty_like(rows)
        sinks = {name: Sink(view) for name, view in self.layout.views(grads).items()}
        losses, parts = self._backward(rows, batch, sinks)
        for sink, part in zip(sinks.values(), parts, strict=True):
            if part is not None:
                sink.view.add_(part) if sink.filled else sink.view.copy_(part)
            elif not sink.filled:
                sink.view.zero_()
        return losses, grads

    def descend(self, rows: Tensor, batch: Batch, lr: Tensor) -> Tensor:
        """See :meth:`Oracle.descend`; weights are updated by the matrix product that makes their gradient."""
        if self._uses_weights_once is None:
            self._uses_weights_once = self._each_weight_once(rows, batch)
        if not self._uses_weights_once:  # one used twice must not change in between
            return super().descend(rows, batch, lr)
        sinks = {name: Sink(view.data, lr) for name, view in self.layout.views(rows).items()}
        losses, parts = self._backward(rows, batch, sinks)
        for sink, part in zip(sinks.values(), parts, strict=True):
            if part is not None:
                sink.view.addcmul_(part, lr.view(-1, *[1] * (part.dim() - 1)), value=-1)
        return losses

    def _each_weight_once(self, rows: Tensor, batch: Batch) -> bool:
        """Whether a layer that fills sinks is the only one to use its weight, and does so once."""
        scratch = rows[:1].clone()
        sinks = {name: Sink(view) for name, view in self.layout.views(scratch).items()}
        _, parts = self._backward(rows[:1], Batch(batch.x[:1], batch.y[:1]), sinks)
        return all(
            sink.uses <= 1 and (part is None or not sink.filled)
            for sink, part in zip(sinks.values(), parts, strict=True)
        )

    def _backward(
        self, rows: Tensor, batch: Batch, sinks: dict[str, Sink]
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Losses, and the gradients that did not go into a sink."""
        # `.data`: every leaf counts its own changes, so one weight may change while another is still needed.
        leaves = {name: view.data.requires_grad_() for name, view in self.layout.views(rows).items()}
        for name, leaf in leaves.items():
            give_sink(leaf, sinks[name])
        with torch.enable_grad():
            losses = self.loss(self._training(leaves, batch.x), batch.y).mean(-1)
            total = losses.sum()  # clients share no parameter, so its gradient holds every client's own
        return losses.detach(), torch.autograd.grad(total, list(leaves.values()), allow_unused=True)

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
        laid_out = {slot.name for slot in layout.slots}
        self._frozen = {name: p.detach() for name, p in module.named_parameters() if name not in laid_out}
        for full in self._frozen:
            path, _, name = full.rpartition(".")
            self._places.append((self._module.get_submodule(path)._parameters, name, full))

    def __call__(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        tensors = tensors | {name: p.expand(len(x), *p.shape) for name, p in self._frozen.items()}
        for parameters, name, key in self._places:
            parameters[name] = tensors[key]  # type: ignore[assignment]
        prediction: Tensor = self._module(x)
        return prediction
