"""Normalisation layers that run one model or a stack of them, told apart by the rank of their weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import PersoflError


class GroupNorm(nn.Module):
    """Normalise every example over groups of channels, then scale and shift each channel.

    Images are ``(batch, channels, height, width)``; those of a stack lie side by side in the channels, see
    :mod:`persofl.models.images`.

    References:
        Wu and He, Group normalization, ECCV 2018. It has no running statistics, which clients with few and unlike
        examples would spoil for each other.
    """

    normalises = True

    def __init__(self, groups: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        if groups < 1 or channels % groups:
            raise PersoflError(f"groups={groups}: must divide the {channels} channels.")
        self.groups, self.channels, self.eps = groups, channels, eps
        self.gain = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        gain, shift = self.gain.flatten(), self.shift.flatten()
        groups = self.groups * (gain.numel() // self.channels)
        return nn.functional.group_norm(images, groups, gain, shift, self.eps)


class LayerNorm(nn.Module):
    """Normalise the last axis, then scale and shift it: ``(..., tokens, width)`` to the same shape.

    References:
        Ba, Kiros and Hinton, Layer normalization, 2016.
    """

    normalises = True

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.gain = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.gain.dim() == 1:
            return nn.functional.layer_norm(x, (self.width,), self.gain, self.shift, self.eps)
        plain = nn.functional.layer_norm(x, (self.width,), eps=self.eps)
        return torch.addcmul(self.shift[:, None, None], plain, self.gain[:, None, None])
