"""Recurrent cells over stacked weights, with the backward pass by hand.

Autograd over 168 time steps keeps a dozen small tensors a step and calls as many kernels again on the way back. Written
as one function each, the cells keep one block of gates and one of states, and sum the weights' gradients as they go.

Inside, the batch is the last axis: the gates of a client are then contiguous blocks, over which element-wise kernels run
at full speed. The inputs and a row of ones lie below the state, so that one product of all weights stacked adds what state,
inputs and biases contribute, and one on the way back gives the gradients of all. tanh is taken by the sigmoid, whose kernel
is several times faster on CPUs: ``tanh(x) = 2 sigmoid(2x) - 1``, the first factor within the weights.

Shapes outside: ``x (clients, batch, time, inputs)``, ``weight_ih (clients, inputs, gates * hidden)``,
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


def _sigmoid_backward(grad: Tensor, output: Tensor, out: Tensor) -> None:
    torch.ops.aten.sigmoid_backward.grad_input(grad, output, grad_input=out)


def _tanh_backward(grad: Tensor, output: Tensor, out: Tensor) -> None:
    torch.ops.aten.tanh_backward.grad_input(grad, output, grad_input=out)


def _from_sigmoid_(s: Tensor, minus_one: Tensor) -> Tensor:
    """``2 s - 1`` in place and in one pass: tanh of x from the sigmoid of 2x."""
    return torch.add(minus_one, s, alpha=2, out=s)


def _states(x: Tensor, hidden: int) -> Tensor:
    """Zero states with the inputs and a one below each, ``(time + 1, clients, hidden + inputs + 1, batch)``."""
    clients, batch, time, inputs = x.shape
    states = x.new_empty(time + 1, clients, hidden + inputs + 1, batch)
    states[0, :, :hidden] = 0
    states[:-1, :, hidden:-1] = x.permute(2, 0, 3, 1)
    states[:, :, -1] = 1
    return states


def _by_step(*blocks: Tensor) -> list[tuple[Tensor, ...]]:
    """Views of every step of blocks ``(time, ...)``: made in one call, where an index each would cost as a product does."""
    return [block.unbind(0) for block in blocks]


def _parts(gates: Tensor, hidden: int) -> list[tuple[Tensor, ...]]:
    """Views of every step of each gate."""
    return _by_step(*gates.split(hidden, 2))


class _GRUSequence(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
    ) -> Tensor:
        clients, batch, time, _ = x.shape
        hidden = weight_hh.shape[1]
        states, minus_one = _states(x, hidden), x.new_tensor(-1.0)
        # Reset and update see all at once; of "new" the state's share comes first, for the reset gate multiplies it.
        two = slice(0, 2 * hidden)
        both, bias = torch.cat([weight_hh, weight_ih], 1), bias_ih + bias_hh
        zero_state, zero_input = (
            torch.zeros_like(weight_hh[..., :hidden]),
            torch.zeros_like(weight_ih[..., :hidden]),
        )
        rows = [
            torch.cat([both[..., two], bias[:, None, two]], 1),
            torch.cat([weight_hh[..., 2 * hidden :], zero_input, bias_hh[:, None, 2 * hidden :]], 1),
            torch.cat([zero_state, weight_ih[..., 2 * hidden :], bias_ih[:, None, 2 * hidden :]], 1),
        ]
        weight = torch.cat(rows, 2).mT.contiguous()
        gates = x.new_empty(time, clients, 4 * hidden, batch)
        steps = zip(*_by_step(states[:-1], gates, gates[:, :, two]), *_parts(gates, hidden), strict=True)
        before, *after = states[:, :, :hidden].unbind(0)
        for (seen, gate, sigmoids, reset, update, inner, new), state in zip(steps, after, strict=True):
            torch.bmm(weight, seen, out=gate)
            sigmoids.sigmoid_()
            _from_sigmoid_(new.addcmul_(reset, inner).mul_(2).sigmoid_(), minus_one)
            before = torch.lerp(new, before, update, out=state)
        ctx.save_for_backward(x, weight_ih, weight_hh, gates, states)
        return states[-1, :, :hidden].mT.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, gates, states = ctx.saved_tensors
        hidden = weight_hh.shape[1]
        grad = grad.mT.contiguous()
        pre = torch.empty_like(gates[0])  # gradients before the activations
        pre_reset, pre_update, pre_inner, pre_new = pre.split(hidden, 1)
        scratch = torch.empty_like(grad)
        sums = weight_hh.new_zeros(len(states[0]), states.shape[2], 4 * hidden)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        steps = list(
            zip(*_by_step(states[:-1], states[:-1, :, :hidden]), *_parts(gates, hidden), strict=True)
        )
        pre_turned, pre_of_state = pre.mT, pre[:, : 3 * hidden]
        for step in range(len(steps) - 1, -1, -1):
            seen, before, reset, update, inner, new = steps[step]
            _sigmoid_backward(torch.sub(before, new, out=scratch).mul_(grad), update, pre_update)
            _tanh_backward(torch.addcmul(grad, grad, update, value=-1, out=scratch), new, pre_new)
            _sigmoid_backward(torch.mul(pre_new, inner, out=scratch), reset, pre_reset)
            torch.mul(pre_new, reset, out=pre_inner)
            sums.baddbmm_(seen, pre_turned)
            grad.mul_(update).baddbmm_(weight_hh, pre_of_state)
            if grad_x is not None:
                direct = torch.cat([pre[:, : 2 * hidden], pre_new], 1)
                grad_x[:, :, step] = torch.bmm(weight_ih, direct).mT
        of_state, of_new = sums[..., : 3 * hidden], sums[..., 3 * hidden :]
        of_input = torch.cat([sums[..., : 2 * hidden], of_new], 2)
        return (
            grad_x,
            of_input[:, hidden:-1].contiguous(),
            of_state[:, :hidden].contiguous(),
            of_input[:, -1].contiguous(),
            of_state[:, -1].contiguous(),
        )


class _LSTMSequence(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
    ) -> Tensor:
        clients, batch, time, _ = x.shape
        hidden = weight_hh.shape[1]
        states, minus_one = _states(x, hidden), x.new_tensor(-1.0)
        cells = x.new_zeros(time + 1, clients, hidden, batch)
        squashed = x.new_empty(time, clients, hidden, batch)
        gates = x.new_empty(time, clients, 4 * hidden, batch)
        weight = torch.cat([weight_hh, weight_ih, (bias_ih + bias_hh).unsqueeze(1)], 1)
        weight[..., 2 * hidden : 3 * hidden] *= 2  # of the cell, whose tanh is taken by the sigmoid
        weight = weight.mT.contiguous()
        made = _by_step(cells[1:], squashed, states[1:, :, :hidden])
        steps = zip(*_by_step(states[:-1], gates), *_parts(gates, hidden), *made, strict=True)
        before = cells[0]
        for seen, gate, enter, forget, cell, leave, after, squash, state in steps:
            torch.bmm(weight, seen, out=gate).sigmoid_()
            _from_sigmoid_(cell, minus_one)
            before = torch.mul(forget, before, out=after).addcmul_(enter, cell)
            torch.mul(after, 2, out=squash).sigmoid_()
            torch.mul(leave, _from_sigmoid_(squash, minus_one), out=state)
        ctx.save_for_backward(x, weight_ih, weight_hh, gates, states, cells, squashed)
        return states[-1, :, :hidden].mT.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, gates, states, cells, squashed = ctx.saved_tensors
        hidden = weight_hh.shape[1]
        grad = grad.mT.contiguous()
        pre = torch.empty_like(gates[0])  # gradients before the activations
        pre_enter, pre_forget, pre_cell, pre_leave = pre.split(hidden, 1)
        scratch, grad_cell = torch.empty_like(grad), torch.zeros_like(grad)
        sums = weight_hh.new_zeros(len(states[0]), states.shape[2], 4 * hidden)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        steps = list(zip(*_by_step(states[:-1], cells[:-1], squashed), *_parts(gates, hidden), strict=True))
        pre_turned = pre.mT
        for step in range(len(steps) - 1, -1, -1):
            seen, before, squash, enter, forget, cell, leave = steps[step]
            _sigmoid_backward(torch.mul(grad, squash, out=scratch), leave, pre_leave)
            _tanh_backward(grad.mul_(leave), squash, scratch)
            grad_cell.add_(scratch)
            _sigmoid_backward(torch.mul(grad_cell, cell, out=scratch), enter, pre_enter)
            _sigmoid_backward(torch.mul(grad_cell, before, out=scratch), forget, pre_forget)
            _tanh_backward(torch.mul(grad_cell, enter, out=scratch), cell, pre_cell)
            grad_cell.mul_(forget)
            sums.baddbmm_(seen, pre_turned)
            torch.bmm(weight_hh, pre, out=grad)
            if grad_x is not None:
                grad_x[:, :, step] = torch.bmm(weight_ih, pre).mT
        bias = sums[:, -1].contiguous()
        return grad_x, sums[:, hidden:-1].contiguous(), sums[:, :hidden].contiguous(), bias, bias.clone()
