"""Layers that run one model or a stack of models, told apart by the rank of their weights.

With its own parameters a layer is an ordinary module. Under ``functional_call`` with stacked parameters, one slice per
client, the same forward runs all clients at once through batched matrix products. Weights are stored input-major,
``(inputs, outputs)``, which is what ``baddbmm`` reads without a transpose.

Shapes: inputs of one model are ``(batch, ...)``, of a stack ``(clients, batch, ...)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .affine import Pullback, affine_vjp, stacked_affine
from .recurrence import gru_sequence, lstm_sequence


def uniform_parameter(*shape: int, bound: float) -> nn.Parameter:
    """Parameter drawn from ``U(-bound, bound)`` with torch's generator."""
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


class Linear(nn.Module):
    """Affine map of the last axis, ``x @ weight + bias``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = uniform_parameter(inputs, outputs, bound=bound)
        self.bias = uniform_parameter(outputs, bound=bound)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs)``."""
        if self.weight.dim() == 2:
            return nn.functional.linear(x, self.weight.t(), self.bias)
        flat = x.flatten(1, -2)
        return stacked_affine(flat, self.weight, self.bias).view(*x.shape[:-1], -1)

    def vjp(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """The forward pass of a stack on ``(clients, batch, inputs)``, with its reverse pass."""
        return affine_vjp(x, self.weight, self.bias)


class CausalConv(nn.Module):
    """Dilated convolution over time that sees the present and the past only.

    Input ``(..., time, inputs)``, output ``(..., time, outputs)``; the past before the first step counts as zero.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.kernel, self.dilation = kernel, dilation
        bound = 1 / math.sqrt(kernel * inputs)
        self.weight = uniform_parameter(kernel * inputs, outputs, bound=bound)
        self.bias = uniform_parameter(outputs, bound=bound)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        padded = nn.functional.pad(x, (0, 0, (self.kernel - 1) * self.dilation, 0))
        if self.weight.dim() == 2:
            kernels = self.weight.unflatten(0, (self.kernel, -1)).permute(2, 1, 0)
            return nn.functional.conv1d(padded.mT, kernels, self.bias, dilation=self.dilation).mT
        time = x.shape[-2]
        taps = [
            padded[..., tap * self.dilation : tap * self.dilation + time, :] for tap in range(self.kernel)
        ]
        return self.of_taps(torch.cat(taps, -1))

    def of_taps(self, taps: Tensor) -> Tensor:
        """Convolve where the taps lie side by side, the oldest first: ``(..., kernel * inputs)`` to ``(..., outputs)``."""
        if self.weight.dim() == 2:
            return nn.functional.linear(taps, self.weight.t(), self.bias)
        return stacked_affine(taps.flatten(1, -2), self.weight, self.bias).view(*taps.shape[:-1], -1)


class _Recurrent(nn.Module):
    """What GRU and LSTM share: ``gates`` gates, two biases as in ``torch.nn``, the last hidden state as output."""

    gates: int

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        bound = 1 / math.sqrt(hidden)
        self.weight_ih = uniform_parameter(inputs, self.gates * hidden, bound=bound)
        self.weight_hh = uniform_parameter(hidden, self.gates * hidden, bound=bound)
        self.bias_ih = uniform_parameter(self.gates * hidden, bound=bound)
        self.bias_hh = uniform_parameter(self.gates * hidden, bound=bound)

    def flat_weights(self) -> list[Tensor]:
        """The parameters in the order and orientation of ``torch.nn``'s fused kernels."""
        return [self.weight_ih.mT.contiguous(), self.weight_hh.mT.contiguous(), self.bias_ih, self.bias_hh]


class GRU(_Recurrent):
    """Gated recurrent unit: ``(..., time, inputs)`` to the last state ``(..., hidden)``.

    References:
        Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014, in the form of ``nn.GRU``.
    """

    gates = 3

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.weight_ih.dim() == 2:
            start = x.new_zeros(1, x.shape[0], self.hidden)
            return torch._VF.gru(x, start, self.flat_weights(), True, 1, 0.0, self.training, False, True)[1][
                0
            ]
        return gru_sequence(x, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)


class LSTM(_Recurrent):
    """Long short-term memory: ``(..., time, inputs)`` to the last hidden state ``(..., hidden)``.

    References:
        Hochreiter and Schmidhuber, Neural Computation 9(8), 1997, in the form of ``nn.LSTM``.
    """

    gates = 4

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.weight_ih.dim() == 2:
            start = (x.new_zeros(1, x.shape[0], self.hidden),) * 2
            return torch._VF.lstm(x, start, self.flat_weights(), True, 1, 0.0, self.training, False, True)[1][
                0
            ]
        return lstm_sequence(x, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
