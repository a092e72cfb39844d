"""The affine map of many models at once, putting weight gradients where they belong.

Autograd would return every weight's gradient in memory of its own, to be gathered into the client-by-parameter matrix by
another pass over it. A weight that carries a *sink* has its gradient delivered by the matrix product itself: written into
a view of the gradient matrix or, with a learning rate, subtracted from the weight at once. Autograd then gets nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


@dataclass
class Sink:
    """Where a weight's gradient goes.

    Attributes:
        view: of a client-by-parameter matrix, shaped like the weight.
        rate: None writes the gradient into the view; ``(clients, 1)`` subtracts that much of it.
        uses: of the weight in the forward pass.
        filled: whether the gradient has arrived.
    """

    view: Tensor
    rate: Tensor | None = None
    uses: int = 0
    filled: bool = False

    def fill(self, x: Tensor, grad: Tensor) -> None:
        """Deliver ``x^T grad``: x ``(clients, batch, inputs)``, grad ``(clients, batch, outputs)``."""
        if self.rate is None:
            torch.bmm(x.mT, grad, out=self.view)
        else:
            self.view.baddbmm_(x.mT, grad * self.rate.unsqueeze(2), alpha=-1)
        self.filled = True


def give_sink(leaf: Tensor, sink: Sink) -> Sink:
    """Let the gradient of ``leaf`` go into a sink, if a layer can; returns the sink."""
    leaf._gradient_sink = sink  # type: ignore[attr-defined]
    return sink


def _take_sink(weight: Tensor) -> Sink | None:
    """The sink of a weight at its first use in a forward pass; later uses leave their share to autograd."""
    sink: Sink | None = getattr(weight, "_gradient_sink", None)
    if sink is None:
        return None
    sink.uses += 1
    return sink if sink.uses == 1 else None


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
            ctx.sink.fill(x, grad)  # after grad_x: a sink with a rate changes the weight
        elif need_weight:
            grad_weight = torch.bmm(x.mT, grad)
        return grad_x, grad_weight, grad.sum(1) if need_bias else None, None
