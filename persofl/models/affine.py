"""The affine map of many models at once, writing weight gradients where they belong.

Autograd would return every weight's gradient in memory of its own, to be gathered into the client-by-parameter matrix by
another pass over it. A weight that carries a *sink* (a view of that matrix) has its gradient written there by the matrix
product itself; autograd then gets nothing for it.
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
    """Where a weight's gradient goes: a view of the gradient matrix, and whether it has arrived there."""

    view: Tensor
    taken: bool = False
    written: bool = False


def give_sink(leaf: Tensor, view: Tensor) -> Sink:
    """Let the gradient of ``leaf`` be written into ``view`` (same shape) by a layer that can."""
    leaf._gradient_sink = Sink(view)  # type: ignore[attr-defined]
    return leaf._gradient_sink  # type: ignore[attr-defined, no-any-return]


def _take_sink(weight: Tensor) -> Sink | None:
    """The sink of a weight at its first use in a forward pass; later uses leave their share to autograd."""
    sink: Sink | None = getattr(weight, "_gradient_sink", None)
    if sink is None or sink.taken:
        return None
    sink.taken = True
    return sink


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
            torch.bmm(x.mT, grad, out=ctx.sink.view)
            ctx.sink.written = True
        elif need_weight:
            grad_weight = torch.bmm(x.mT, grad)
        return grad_x, grad_weight, grad.sum(1) if need_bias else None, None
