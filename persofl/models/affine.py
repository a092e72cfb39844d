"""The affine map of many models at once, putting weight gradients where they belong.

Autograd would return every weight's gradient in memory of its own, to be gathered into the client-by-parameter matrix by
another pass over it. A weight that carries a *sink* has its gradient delivered by the matrix product itself: written into
a view of the gradient matrix, or subtracted from the weight at once. Autograd then gets nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Pullback = Callable[[Tensor, bool], Tensor | None]
"""The reverse pass of a layer: takes its output's gradient and whether the input's is wanted, and gives that."""


@dataclass
class Sink:
    """Where a weight's gradient goes.

    Attributes:
        view: of a client-by-parameter matrix, shaped like the weight.
        subtract: the view is the weight itself, and loses the gradient; else it takes it.
        uses: of the weight in the forward pass.
        filled: whether a gradient has arrived.
    """

    view: Tensor
    subtract: bool = False
    uses: int = 0
    filled: bool = False

    def fill(self, x: Tensor, grad: Tensor) -> None:
        """Deliver ``x^T grad``: x ``(clients, batch, inputs)``, grad ``(clients, batch, outputs)``."""
        if self.subtract:
            self.view.baddbmm_(x.mT, grad, alpha=-1)
        elif self.filled:
            self.view.baddbmm_(x.mT, grad)
        else:
            torch.bmm(x.mT, grad, out=self.view)
        self.filled = True

    def fill_with(self, grad: Tensor) -> None:
        """Deliver a gradient as it is, shaped like the view."""
        if self.subtract:
            self.view.sub_(grad)
        elif self.filled:
            self.view.add_(grad)
        else:
            self.view.copy_(grad)
        self.filled = True


def give_sink(leaf: Tensor, sink: Sink) -> Sink:
    """Let the gradient of ``leaf`` go into a sink, if a layer can; returns the sink."""
    leaf._gradient_sink = sink  # type: ignore[attr-defined]
    return sink


def vjp(module: nn.Module, x: Tensor) -> tuple[Tensor, Pullback]:
    """What a ``reversible`` module makes of x, with its reverse pass."""
    result: tuple[Tensor, Pullback] = module.vjp(x)  # type: ignore[operator]
    return result


def affine_vjp(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Pullback]:
    """:func:`stacked_affine` with its reverse pass, without autograd; gradients go into the sinks of the parameters."""
    sinks = [_count(weight), _count(bias)]

    def pullback(grad: Tensor, need_input: bool) -> Tensor | None:
        down = torch.bmm(grad, weight.mT) if need_input else None  # before the sink changes the weight
        if sinks[0] is not None:
            sinks[0].fill(x, grad)
        if sinks[1] is not None:
            sinks[1].fill_with(grad.sum(1))
        return down

    return torch.baddbmm(bias.unsqueeze(1), x, weight), pullback


def _count(parameter: Tensor) -> Sink | None:
    """The sink of a parameter, if it has one, with this use of it counted."""
    sink: Sink | None = getattr(parameter, "_gradient_sink", None)
    if sink is not None:
        sink.uses += 1
    return sink


def _take_sink(weight: Tensor) -> Sink | None:
    """The sink of a weight at its first use in a forward pass; later uses leave their share to autograd."""
    sink = _count(weight)
    return sink if sink is not None and sink.uses == 1 else None


def stacked_affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight + bias`` for every client.

    Args:
        x: ``(clients, batch, inputs)``.
        weight: ``(clients, inputs, outputs)``.
        bias: ``(clients, outputs)``.
    """
    if not torch.is_grad_enabled():
        return torch.baddbmm(bias.unsqueeze(1), x, weight)
    result: Tensor = _StackedAffine.apply(x, weight, bias, _take_sink(weight))  # type: ignore[no-untyped-call]
    return result


class _StackedAffine(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, sink: Sink | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sink = sink
        return torch.baddbmm(bias.unsqueeze(1), x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        grad_x = torch.bmm(grad, weight.mT) if need_x else None
        grad_weight = None
        if ctx.sink is not None:
            ctx.sink.fill(x, grad)  # after grad_x: the sink may change the weight
        elif need_weight:
            grad_weight = torch.bmm(x.mT, grad)
        return grad_x, grad_weight, grad.sum(1) if need_bias else None, None
