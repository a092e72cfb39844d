"""Recurrent cells over stacked weights, with the backward pass by hand.

Autograd over 168 time steps keeps a dozen small tensors a step and calls as many kernels again on the way back. Written
as one function each, the cells keep the gates and the states in one block and need two batched products a step.

Shapes: ``x (clients, batch, time, inputs)``, ``weight_ih (clients, inputs, gates * hidden)``,
``weight_hh (clients, hidden, gates * hidden)``, biases ``(clients, gates * hidden)``; the result is the last hidden
state ``(clients, batch, hidden)``. Gates are ordered as in ``torch.nn``: reset, update, new; input, forget, cell, output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def gru_sequence(x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
    """Last state of a stack of GRUs, see the module."""
    last: Tensor = _GRUSequence.apply(x, weight_ih, weight_hh, bias_ih, bias_hh)  # type: ignore[no-untyped-call]
    return last


def lstm_sequence(
    x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> Tensor:
    """Last state of a stack of LSTMs, see the module."""
    last: Tensor = _LSTMSequence.apply(x, weight_ih, weight_hh, bias_ih, bias_hh)  # type: ignore[no-untyped-call]
    return last


def _project(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The inputs' share of all gates, time first: ``(time, clients, batch, gates * hidden)``."""
    clients, batch, time, inputs = x.shape
    out = x.new_empty(time, clients, batch, weight.shape[-1])
    bias = bias.unsqueeze(1)
    if inputs == 1:
        # An outer product: bmm with an inner size of one is several times slower.
        return torch.mul(x.permute(2, 0, 1, 3), weight.unsqueeze(0), out=out).add_(bias)
    for step, frame in enumerate(x.unbind(2)):
        torch.baddbmm(bias, frame, weight, out=out[step])
    return out


def _input_gradients(
    x: Tensor, weight: Tensor, gates: Tensor, need_x: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of :func:`_project` from those of its result ``gates`` (time, clients, batch, gates * hidden)."""
    clients, batch, time, inputs = x.shape
    flat = gates.permute(1, 0, 2, 3).reshape(clients, time * batch, -1)
    frames = x.transpose(1, 2).reshape(clients, time * batch, inputs)
    grad_weight = torch.bmm(frames.mT, flat)
    grad_x = torch.bmm(flat, weight.mT).view(clients, time, batch, inputs).transpose(1, 2) if need_x else None
    return grad_x, grad_weight, flat.sum(1)


def _sum_outer(states: Tensor, gates: Tensor) -> Tensor:
    """Sum over time of ``states^T gates``, both ``(time, clients, batch, ...)``."""
    time, clients, batch, hidden = states.shape
    left = states.permute(1, 3, 0, 2).reshape(clients, hidden, time * batch)
    return torch.bmm(left, gates.permute(1, 0, 2, 3).reshape(clients, time * batch, -1))


class _GRUSequence(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
    ) -> Tensor:
        hidden = weight_hh.shape[1]
        gates = _project(x, weight_ih, bias_ih)
        time, clients, batch, _ = gates.shape
        states = x.new_zeros(time + 1, clients, batch, hidden)
        inner = x.new_empty(
            time, clients, batch, hidden
        )  # the state's share of the new gate, before the reset gate
        bias = bias_hh.unsqueeze(1)
        recurrent = x.new_empty(clients, batch, 3 * hidden)
        for step in range(time):
            torch.baddbmm(bias, states[step], weight_hh, out=recurrent)
            reset_update, new = gates[step].split([2 * hidden, hidden], -1)
            reset_update.add_(recurrent[..., : 2 * hidden]).sigmoid_()
            inner[step].copy_(recurrent[..., 2 * hidden :])
            new.addcmul_(reset_update[..., :hidden], inner[step]).tanh_()
            torch.lerp(new, states[step], reset_update[..., hidden:], out=states[step + 1])
        ctx.save_for_backward(x, weight_ih, weight_hh, gates, states, inner)
        return states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, gates, states, inner = ctx.saved_tensors
        hidden = weight_hh.shape[1]
        reset, update, new = gates.split(hidden, -1)
        pre = torch.empty_like(gates)  # gradients before the activations, as the inputs see them
        pre_reset, pre_update, pre_new = pre.split(hidden, -1)
        hidden_side = torch.empty_like(pre[0])  # the same, as the state sees them
        sides = torch.empty_like(gates)
        back = weight_hh.mT
        # The factors that do not depend on the gradient, for all steps at once.
        new_factor = (1 - update) * (1 - new.square())
        update_factor = (states[:-1] - new) * update * (1 - update)
        reset_factor = inner * reset * (1 - reset)
        grad = grad.clone()
        for step in range(gates.shape[0] - 1, -1, -1):
            torch.mul(grad, new_factor[step], out=pre_new[step])
            torch.mul(grad, update_factor[step], out=pre_update[step])
            torch.mul(pre_new[step], reset_factor[step], out=pre_reset[step])
            hidden_side[..., : 2 * hidden] = pre[step][..., : 2 * hidden]
            torch.mul(pre_new[step], reset[step], out=hidden_side[..., 2 * hidden :])
            sides[step] = hidden_side
            grad = torch.baddbmm(grad.mul_(update[step]), hidden_side, back)
        grad_x, grad_weight_ih, grad_bias_ih = _input_gradients(x, weight_ih, pre, ctx.needs_input_grad[0])
        return grad_x, grad_weight_ih, _sum_outer(states[:-1], sides), grad_bias_ih, sides.sum((0, 2))


class _LSTMSequence(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
    ) -> Tensor:
        hidden = weight_hh.shape[1]
        gates = _project(x, weight_ih, bias_ih + bias_hh)
        time, clients, batch, _ = gates.shape
        states = x.new_zeros(time + 1, clients, batch, hidden)
        cells = torch.zeros_like(states)
        squashed = x.new_empty(time, clients, batch, hidden)
        for step in range(time):
            gate = gates[step].baddbmm_(states[step], weight_hh)
            gate[..., : 2 * hidden].sigmoid_()
            gate[..., 2 * hidden : 3 * hidden].tanh_()
            gate[..., 3 * hidden :].sigmoid_()
            enter, forget, cell, leave = gate.split(hidden, -1)
            torch.mul(forget, cells[step], out=cells[step + 1]).addcmul_(enter, cell)
            torch.tanh(cells[step + 1], out=squashed[step])
            torch.mul(leave, squashed[step], out=states[step + 1])
        ctx.save_for_backward(x, weight_ih, weight_hh, gates, states, cells, squashed)
        return states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, gates, states, cells, squashed = ctx.saved_tensors
        hidden = weight_hh.shape[1]
        enter, forget, cell, leave = gates.split(hidden, -1)
        pre = torch.empty_like(gates)
        pre_enter, pre_forget, pre_cell, pre_leave = pre.split(hidden, -1)
        back = weight_hh.mT
        to_cell = leave * (1 - squashed.square())
        enter_factor = cell * enter * (1 - enter)
        forget_factor = cells[:-1] * forget * (1 - forget)
        cell_factor = enter * (1 - cell.square())
        leave_factor = squashed * leave * (1 - leave)
        grad_cell = torch.zeros_like(grad)
        for step in range(gates.shape[0] - 1, -1, -1):
            torch.mul(grad, leave_factor[step], out=pre_leave[step])
            grad_cell.addcmul_(grad, to_cell[step])
            torch.mul(grad_cell, enter_factor[step], out=pre_enter[step])
            torch.mul(grad_cell, forget_factor[step], out=pre_forget[step])
            torch.mul(grad_cell, cell_factor[step], out=pre_cell[step])
            grad_cell.mul_(forget[step])
            grad = torch.bmm(pre[step], back)
        grad_x, grad_weight_ih, grad_bias = _input_gradients(x, weight_ih, pre, ctx.needs_input_grad[0])
        return grad_x, grad_weight_ih, _sum_outer(states[:-1], pre), grad_bias, grad_bias.clone()
