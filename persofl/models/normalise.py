"""Reversible instance normalisation around any forecaster."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .affine import Pullback, vjp


class InstanceNormalised(nn.Module):
    r"""Normalise each window by its own moments, forecast, and undo it.

    .. math:: \hat y = (f(\gamma (x - \mu_x) / \sigma_x + \beta) - \beta_0) / \gamma_0 \cdot \sigma_{x,0} + \mu_{x,0}

    Args:
        model: the forecaster f, ``(..., lookback, channels)`` to ``(..., horizon[, outputs])``.
        channels: of the input; the target is channel 0.
        eps: added to the variance, and to gamma where it divides.
        affine: learn gamma and beta per channel; without them they are 1 and 0, and a round takes half the time.

    References:
        Kim et al., Reversible instance normalization for accurate time-series forecasting against distribution shift,
        ICLR 2022.
    """

    normalises = True

    def __init__(self, model: nn.Module, channels: int = 1, eps: float = 1e-5, affine: bool = False) -> None:
        super().__init__()
        self.model, self.eps = model, eps
        self.gain = nn.Parameter(torch.ones(channels)) if affine else None
        self.shift = nn.Parameter(torch.zeros(channels)) if affine else None

    @property
    def clients_at_once(self) -> int:
        """As many as the wrapped model's."""
        return int(getattr(self.model, "clients_at_once", 25))

    @property
    def batched(self) -> bool:
        """Whether the wrapped model runs with stacked parameters."""
        return bool(getattr(self.model, "batched", False))

    @property
    def reversible(self) -> bool:
        """Whether the reverse pass is written out: not with an affine map, which would want the input's gradient."""
        return self.gain is None and bool(getattr(self.model, "reversible", False))

    def vjp(self, x: Tensor) -> tuple[Tensor, Pullback]:
        """See the class."""
        x, std, mean = self._normalised(x)
        prediction, inner = vjp(self.model, x)
        extra = prediction.dim() - (std.dim() - 1)
        return self._restore(prediction, std, mean), lambda grad, _: inner(grad * _target(std, extra), False)

    def _normalised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Windows of mean 0 and variance 1, with what they were divided by and what was taken off."""
        mean = x.mean(-2, keepdim=True)
        x = x - mean
        std = (x.square().mean(-2, keepdim=True) + self.eps).sqrt()
        return x * (1 / std), std, mean

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x, std, mean = self._normalised(x)
        if self.gain is None or self.shift is None:
            return self._restore(self.model(x), std, mean)
        gain: Tensor = self.gain
        shift: Tensor = self.shift
        if gain.dim() == 2:  # stacked: (clients, channels) against (clients, batch, lookback, channels)
            gain, shift = gain[:, None, None], shift[:, None, None]
        prediction: Tensor = self.model(x * gain + shift)
        # Undo gain and shift: (p - shift) / gain, as a scale and an offset.
        scale = 1 / (gain + self.eps)
        return self._restore(self._restore(prediction, scale, -shift * scale), std, mean)

    def _restore(self, prediction: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """``prediction * scale + offset`` with the target channel's values, whatever the prediction's last axes."""
        extra = (
            prediction.dim() - (scale.dim() - 1) if scale.dim() > 1 else 0
        )  # 1 when the last axis holds quantiles
        return prediction * _target(scale, extra) + _target(offset, extra)


def _target(part: Tensor, extra: int) -> Tensor:
    """The target channel of ``(..., 1, channels)`` or ``(channels,)``, ready to broadcast over forecasts."""
    part = part[..., 0]
    return part.unsqueeze(-1) if extra and part.dim() else part
