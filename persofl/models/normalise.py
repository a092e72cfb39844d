"""Reversible instance normalisation around any forecaster."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InstanceNormalised(nn.Module):
    r"""Normalise each window by its own moments, forecast, and undo it.

    .. math:: \hat y = (f(\gamma (x - \mu_x) / \sigma_x + \beta) - \beta_0) / \gamma_0 \cdot \sigma_{x,0} + \mu_{x,0}

    Args:
        model: the forecaster f, ``(..., lookback, channels)`` to ``(..., horizon[, outputs])``.
        channels: of the input; the target is channel 0.
        eps: added to the variance, and the least size of gamma's divisor.

    References:
        Kim et al., Reversible instance normalization for accurate time-series forecasting against distribution shift,
        ICLR 2022.
    """

    normalises = True

    def __init__(self, model: nn.Module, channels: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        self.model, self.eps = model, eps
        self.gain = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    @property
    def clients_at_once(self) -> int:
        """As many as the wrapped model's."""
        return int(getattr(self.model, "clients_at_once", 25))

    @property
    def batched(self) -> bool:
        """Whether the wrapped model runs with stacked parameters."""
        return bool(getattr(self.model, "batched", False))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        mean = x.mean(-2, keepdim=True)
        std = (x.var(-2, keepdim=True, unbiased=False) + self.eps).sqrt()
        gain: Tensor = self.gain
        shift: Tensor = self.shift
        if gain.dim() == 2:  # stacked: (clients, channels) against (clients, batch, lookback, channels)
            gain, shift = gain[:, None, None], shift[:, None, None]
        prediction: Tensor = self.model((x - mean) / std * gain + shift)
        extra = prediction.dim() - (x.dim() - 1)  # 1 when the last axis holds quantiles
        mean, std, gain, shift = (_target(part, extra) for part in (mean, std, gain, shift))
        return (prediction - shift) / (gain + self.eps) * std + mean


def _target(part: Tensor, extra: int) -> Tensor:
    """The target channel of ``(..., 1, channels)`` or ``(channels,)``, ready to broadcast over forecasts."""
    part = part[..., 0]
    return part.unsqueeze(-1) if extra and part.dim() else part
