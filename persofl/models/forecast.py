"""Models for multi-horizon forecasting: ``(..., lookback, channels)`` to ``(..., horizon[, outputs])``.

Channel 0 is the target. With ``outputs > 1`` (quantiles) a last axis holds them. Every model runs one client or, with
stacked parameters, a whole cohort (see :mod:`persofl.models.layers`); the last layer is called ``head``.
``clients_at_once`` is how many train together at full speed: many small products, or as many as the cache holds states of.
A model that is ``reversible`` also has ``vjp``, its forward pass over a stack with the reverse pass written out: it spares
a small model autograd's cost per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from .affine import Pullback, vjp
from .layers import GRU, LSTM, CausalConv, Linear
from .registry import register_model


@dataclass(frozen=True)
class Shape:
    """What data and loss fix: steps seen, steps forecast, channels per step, numbers per forecast step."""

    lookback: int
    horizon: int
    channels: int = 1
    outputs: int = 1

    @property
    def inputs(self) -> int:
        """Numbers in one window."""
        return self.lookback * self.channels

    @property
    def targets(self) -> int:
        """Numbers in one forecast."""
        return self.horizon * self.outputs

    def split(self, flat: Tensor) -> Tensor:
        """Reshape ``(..., targets)`` to ``(..., horizon[, outputs])``."""
        return flat if self.outputs == 1 else flat.unflatten(-1, (self.horizon, self.outputs))

    def join(self, grad: Tensor) -> Tensor:
        """Undo :meth:`split`."""
        return grad if self.outputs == 1 else grad.flatten(-2)


@register_model("linear")
class LinearForecaster(nn.Module):
    """One affine map from the window to the horizon."""

    batched = True
    reversible = True
    clients_at_once = 50

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.head = Linear(shape.inputs, shape.targets)

    def forward(self, x: Tensor) -> Tensor:
        """See the module."""
        return self.shape.split(self.head(x.flatten(-2)))

    def vjp(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """See the module."""
        flat, head = vjp(self.head, x.flatten(-2))
        return self.shape.split(flat), lambda grad, _: head(self.shape.join(grad), False)


@register_model("dlinear")
class DLinear(nn.Module):
    """Separate affine maps of the trend (a moving average of ``kernel`` steps) and of the remainder.

    References:
        Zeng et al., Are transformers effective for time series forecasting?, AAAI 2023.
    """

    batched = True
    reversible = True
    clients_at_once = 50

    def __init__(self, shape: Shape, kernel: int = 25) -> None:
        super().__init__()
        self.shape, self.kernel = shape, kernel
        self.head = nn.ModuleDict({part: Linear(shape.inputs, shape.targets) for part in ("rest", "trend")})

    def forward(self, x: Tensor) -> Tensor:
        """See the module."""
        trend = moving_average(x, self.kernel)
        return self.shape.split(
            self.head["rest"]((x - trend).flatten(-2)) + self.head["trend"](trend.flatten(-2))
        )

    def vjp(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """See the module."""
        trend = moving_average(x, self.kernel)
        of_rest, rest = vjp(self.head["rest"], (x - trend).flatten(-2))
        of_trend, trended = vjp(self.head["trend"], trend.flatten(-2))

        def pullback(grad: Tensor, _: bool) -> None:
            flat = self.shape.join(grad)
            rest(flat, False)
            trended(flat, False)

        return self.shape.split(of_rest.add_(of_trend)), pullback


_STEPS_AT_ONCE = {"cpu": 32}
"""Steps of a moving average that one product gives, by device; elsewhere 512, where a call costs more than arithmetic."""


def moving_average(x: Tensor, kernel: int) -> Tensor:
    """Centred moving average over time of ``(..., time, channels)``, the ends padded with their own value.

    Products with fixed matrices, a block of steps each: several times as fast as pooling, and without the rounding that
    running sums gather.
    """
    blocks = _averaging(x.shape[-2], kernel, x.dtype, x.device)
    series = x.squeeze(-1) if x.shape[-1] == 1 else x.mT  # of one channel, one product for the whole batch
    trend = torch.cat([series[..., seen] @ matrix for seen, matrix in blocks], -1)
    return trend.unsqueeze(-1) if x.shape[-1] == 1 else trend.mT


@lru_cache(maxsize=16)
def _averaging(
    time: int, kernel: int, dtype: torch.dtype, device: torch.device
) -> tuple[tuple[slice, Tensor], ...]:
    """Of every block of steps what it is the average of, and the matrix ``(seen, steps)`` that takes it."""
    left = (kernel - 1) // 2
    step, blocks = max(_STEPS_AT_ONCE.get(device.type, 512), kernel), []
    with torch.inference_mode(False), torch.no_grad():  # what is kept must serve training too
        for start in range(0, time, step):
            end = min(start + step, time)
            seen = slice(max(0, start - left), min(time, end + kernel - 1 - left))
            unit = torch.eye(seen.stop - seen.start, dtype=dtype, device=device)
            matrix = _pooled(unit, kernel)[start - seen.start : end - seen.start].mT.contiguous()
            blocks.append((seen, matrix))
    return tuple(blocks)


def _pooled(x: Tensor, kernel: int) -> Tensor:
    left = (kernel - 1) // 2
    series = x.mT.flatten(0, -2).unsqueeze(1)
    padded = nn.functional.pad(series, (left, kernel - 1 - left), mode="replicate")
    return nn.functional.avg_pool1d(padded, kernel, stride=1).view(x.mT.shape).mT


@register_model("mlp")
class MLP(nn.Module):
    """Fully connected layers with ReLU between them; ``hidden`` gives their widths."""

    batched = True
    reversible = True
    clients_at_once = 50

    def __init__(self, shape: Shape, hidden: Sequence[int] = (64,)) -> None:
        super().__init__()
        self.shape = shape
        widths = [shape.inputs, *hidden]
        self.body = nn.ModuleList(Linear(*pair) for pair in pairwise(widths))
        self.head = Linear(widths[-1], shape.targets)

    def forward(self, x: Tensor) -> Tensor:
        """See the module."""
        x = x.flatten(-2)
        for layer in self.body:
            x = torch.relu(layer(x))
        return self.shape.split(self.head(x))

    def vjp(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """See the module."""
        x, steps = x.flatten(-2), []
        for layer in self.body:
            x, pullback = vjp(layer, x)
            steps.append((x.relu_(), pullback))
        flat, head = vjp(self.head, x)

        def pull(grad: Tensor, _: bool) -> None:
            down = head(self.shape.join(grad), bool(steps))
            for place in reversed(range(len(steps))):
                hidden, back = steps[place]
                down = back(torch.ops.aten.threshold_backward(down, hidden, 0), place > 0)

        return self.shape.split(flat), pull


@register_model("gru")
class GRUForecaster(nn.Module):
    """A GRU over the window, and an affine map of its last state."""

    batched = True
    clients_at_once = 10

    def __init__(self, shape: Shape, hidden: int = 32) -> None:
        super().__init__()
        self.shape = shape
        self.body = GRU(shape.channels, hidden)
        self.head = Linear(hidden, shape.targets)

    def forward(self, x: Tensor) -> Tensor:
        """See the module."""
        return self.shape.split(self.head(self.body(x)))


@register_model("lstm")
class LSTMForecaster(nn.Module):
    """An LSTM over the window, and an affine map of its last state."""

    batched = True
    clients_at_once = 10

    def __init__(self, shape: Shape, hidden: int = 32) -> None:
        super().__init__()
        self.shape = shape
        self.body = LSTM(shape.channels, hidden)
        self.head = Linear(hidden, shape.targets)

    def forward(self, x: Tensor) -> Tensor:
        """See the module."""
        return self.shape.split(self.head(self.body(x)))


@register_model("tcn")
class TCN(nn.Module):
    """Residual blocks of dilated causal convolutions, and an affine map of the last step.

    Block ``i`` is ``x + relu(conv(x))`` with dilation ``kernel**i``, so ``layers`` blocks see ``kernel**layers`` steps.
    Only what the last step hangs on is computed: every ``kernel``-th place of a block before the next, whose taps are then
    neighbours in memory. Of 168 steps, three blocks of kernel 5 take 31 places instead of 504.

    References:
        Bai, Kolter and Koltun, An empirical evaluation of generic convolutional and recurrent networks, 2018. Ours has
        one convolution a block and neither weight normalisation nor dropout.
    """

    batched = True
    clients_at_once = 10

    def __init__(self, shape: Shape, hidden: int = 16, layers: int = 3, kernel: int = 5) -> None:
        super().__init__()
        self.shape, self.kernel = shape, kernel
        self.embed = Linear(shape.channels, hidden)
        self.body = nn.ModuleList(CausalConv(hidden, hidden, kernel, kernel**i) for i in range(layers))
        self.head = Linear(hidden, shape.targets)

    def forward(self, x: Tensor) -> Tensor:
        """See the module."""
        steps, stride, places = x.shape[-2], 1, self.kernel ** len(self.body)
        x = self.embed(x[..., -places:, :])
        for conv in self.body:
            assert isinstance(conv, CausalConv)
            # what lies before the first step counts as zero in every block
            taps = nn.functional.pad(x, (0, 0, places - x.shape[-2], 0)).unflatten(-2, (-1, self.kernel))
            stride, places = stride * self.kernel, places // self.kernel
            seen = min(places, (steps - 1) // stride + 1)
            taps = taps[..., -seen:, :, :]
            x = taps[..., -1, :] + torch.relu(conv.of_taps(taps.flatten(-2)))
        return self.shape.split(self.head(x[..., -1, :]))
