"""Modules built of our layers: one forward and one backward pass for all clients."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..embedding import joined, watch_head
from ..layout import Layout
from ..losses import Loss
from ..models.affine import Pullback, Sink, give_sink, vjp
from .base import Batch, Oracle, Penalty, evaluating


class BatchedOracle(Oracle):
    """Run a module marked ``batched`` with stacked parameters, views of the matrix.

    A ``reversible`` module brings its own reverse pass; the others go through autograd. Either way, the gradient of a
    layer's weight goes where its sink says (:mod:`persofl.models.affine`).
    """

    name = "batched"

    def __init__(self, module: nn.Module, layout: Layout, loss: Loss) -> None:
        super().__init__(module, layout, loss)
        self._training = _Stacked(self.module, layout)
        self._evaluation = _Stacked(evaluating(self.module), layout)
        self._reversible = bool(getattr(module, "reversible", False))
        self._uses_weights_once: bool | None = None
        self._bound: tuple[Callable[[], Tensor | None], list[Sink]] = (lambda: None, [])
        self._promised: Tensor | None = None
        self._held: dict[str, Tensor] = {}

    @contextmanager
    def holding(self, rows: Tensor) -> Iterator[None]:
        """See :meth:`Oracle.holding`; every parameter's copies lie together, which a product can change in one call.

        In the rows other parameters lie between one client's weight and the next one's, and torch goes client by client.
        """
        self._promised = rows
        try:
            yield
        finally:
            for name, view in self.layout.views(rows).items():
                if name in self._held:
                    view.copy_(self._held[name])
            self._promised, self._held, self._bound = None, {}, (lambda: None, [])

    def pull(self, rows: Tensor, anchor: Tensor, share: Tensor) -> None:
        """See :meth:`Oracle.pull`."""
        if not self._held or not self._holds(rows):
            super().pull(rows, anchor, share)
            return
        own, towards = self._views(rows), self.layout.views(anchor)
        for slot in self.layout.slots:
            if slot.trainable:
                part = own[slot.name]
                part.lerp_(towards[slot.name], share.view(-1, *[1] * (part.dim() - 1)))

    def _holds(self, rows: Tensor) -> bool:
        """Whether these are leading rows of those promised; one row is as well where it is."""
        promised = self._promised
        return promised is not None and len(promised) > 1 and rows.data_ptr() == promised.data_ptr()

    def _views(self, rows: Tensor) -> dict[str, Tensor]:
        """The parameters of rows, where they are kept."""
        if not self._holds(rows) or self._promised is None:
            return self.layout.views(rows)
        if not self._held:
            self._held = {name: view.contiguous() for name, view in self.layout.views(self._promised).items()}
        return {name: part[: len(rows)] for name, part in self._held.items()}

    def grad(self, rows: Tensor, batch: Batch, penalty: Penalty | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Oracle.grad`."""
        grads = torch.empty_like(rows)
        sinks = {name: Sink(view) for name, view in self.layout.views(grads).items()}
        losses, parts = self._backward(self.layout.views(rows), batch, sinks, penalty=penalty)
        for sink, part in zip(sinks.values(), parts, strict=True):
            if part is not None:
                sink.fill_with(part)
            elif not sink.filled:
                sink.view.zero_()
        return losses, grads

    def descend(self, rows: Tensor, batch: Batch, lr: Tensor) -> Tensor:
        """See :meth:`Oracle.descend`; weights are updated by the matrix product that makes their gradient."""
        if self._uses_weights_once is None:
            self._uses_weights_once = self._each_weight_once(rows, batch)
        if not self._uses_weights_once:  # one used twice must not change in between
            return super().descend(rows, batch, lr)
        if self._reversible:
            self._bind_in_place(rows)
            return self._reverse(batch, lr)
        views = self._views(rows)
        sinks = {name: Sink(view.data, subtract=True) for name, view in views.items()}
        losses, parts = self._backward(views, batch, sinks, lr)
        for sink, part in zip(sinks.values(), parts, strict=True):
            if part is not None:
                sink.fill_with(part)
        return losses

    def _each_weight_once(self, rows: Tensor, batch: Batch) -> bool:
        """Whether a layer that fills sinks is the only one to use its weight, and does so once."""
        scratch = rows[:1].clone()
        sinks = {name: Sink(view) for name, view in self.layout.views(scratch).items()}
        _, parts = self._backward(self.layout.views(rows[:1]), Batch(batch.x[:1], batch.y[:1]), sinks)
        return all(
            sink.uses <= 1 and (part is None or not sink.filled)
            for sink, part in zip(sinks.values(), parts, strict=True)
        )

    def _backward(
        self,
        views: dict[str, Tensor],
        batch: Batch,
        sinks: dict[str, Sink],
        lr: Tensor | None = None,
        penalty: Penalty | None = None,
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Losses, and the gradients that did not go into a sink; with ``lr``, its multiple of them."""
        self._bound = (lambda: None, [])
        if self._reversible and penalty is None:
            self._training.bind(views, len(batch.x), sinks)
            return self._reverse(batch, lr), [None] * len(sinks)
        # `.data`: every leaf counts its own changes, so one weight may change while another is still needed.
        leaves = {name: view.data.requires_grad_() for name, view in views.items()}
        self._training.bind(leaves, len(batch.x), sinks)
        with torch.enable_grad():
            embedding, prediction = (
                self._training.embed(batch.x) if penalty else (None, self._training(batch.x))
            )
            losses = self.loss(prediction, batch.y).mean(-1)
            # clients share no parameter, so the gradient of a sum holds every client's own
            total = losses.sum() if lr is None else torch.dot(losses, lr.squeeze(1))
            if penalty and embedding is not None:
                total = total + torch.dot(penalty.gap(embedding, penalty.target), penalty.strength.squeeze(1))
        return losses.detach(), list(torch.autograd.grad(total, list(leaves.values()), allow_unused=True))

    def _bind_in_place(self, rows: Tensor) -> None:
        """Tie the module to rows whose sinks are the rows themselves; the steps of a phase share one tie."""
        if self._bound[0]() is rows:
            return
        views = self._views(rows)
        sinks = {name: Sink(view, subtract=True) for name, view in views.items()}
        self._training.bind(views, len(rows), sinks)
        self._bound = (weakref.ref(rows), list(sinks.values()))

    def _reverse(self, batch: Batch, lr: Tensor | None) -> Tensor:
        """Forward and reverse pass of a reversible module; all gradients go into sinks."""
        with torch.no_grad():
            prediction, pullback = self._training.vjp(batch.x)
            losses, grad = self.loss.vjp(prediction, batch.y)
            if lr is not None:
                grad.mul_(lr.view(-1, *[1] * (grad.dim() - 1)))
            pullback(grad, False)
        return losses

    def embed(self, rows: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Oracle.embed`."""
        self._bound = (lambda: None, [])
        with torch.no_grad():
            self._training.bind(self.layout.views(rows), len(rows))
            return self._training.embed(x)[0]

    def predict(self, rows: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Oracle.predict`."""
        with torch.no_grad():
            self._evaluation.bind(self.layout.views(rows), len(rows))
            return self._evaluation(x)


class _Stacked:
    """A private copy of a module whose parameters are exchanged for stacked tensors.

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

    def bind(self, tensors: dict[str, Tensor], clients: int, sinks: dict[str, Sink] | None = None) -> None:
        """Put stacked tensors in the parameters' places, with the sinks of their gradients."""
        for name, sink in (sinks or {}).items():
            give_sink(tensors[name], sink)
        tensors = tensors | {name: p.expand(clients, *p.shape) for name, p in self._frozen.items()}
        for parameters, name, key in self._places:
            parameters[name] = tensors[key]  # type: ignore[assignment]

    def __call__(self, x: Tensor) -> Tensor:
        prediction: Tensor = self._module(x)
        return prediction

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What reaches the head ``(clients, batch, width)``, and the prediction."""
        with watch_head(self._module) as seen:
            prediction: Tensor = self._module(x)
        return joined(seen, 2), prediction

    def vjp(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """The forward pass with its reverse pass."""
        return vjp(self._module, x)
