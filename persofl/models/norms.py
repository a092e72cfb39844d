"""Normalisation layers that run one model or a stack of them, told apart by the rank of their weights."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

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
        return nn.functional.group_norm(images, self._groups_of(gain), gain, shift, self.eps)

    def rectified(self, images: Tensor) -> Tensor:
        """``relu(forward(images))``; of a stack on a processor a fifth faster than by torch's kernels."""
        wide = images.dtype in (torch.float32, torch.float64)
        if self.gain.dim() == 1 or images.device.type != "cpu" or not wide:
            return torch.relu_(self(images))
        own = _same_group(self.groups, self.channels, images.dtype)
        result: Tensor = _Rectified.apply(images, own, self.gain.flatten(), self.shift.flatten(), self.eps)  # type: ignore[no-untyped-call]
        return result

    def _groups_of(self, gain: Tensor) -> int:
        return self.groups * (gain.numel() // self.channels)


class _Rectified(Function):
    """Group normalisation and ReLU, channels innermost: ``(batch, places, channels)``, where sums over places are fast.

    With c the values less their group's mean, ``y = relu(c rstd gain + shift)``.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, own: Tensor, gain: Tensor, shift: Tensor, eps: float) -> Tensor:
        x = _places(images)
        share = own / (x.shape[1] * own[0].sum())  # of each value in its group's mean
        c = x - _pooled(x.sum(1), share)
        rstd = (_pooled((c * c).sum(1), share) + eps).rsqrt_()
        y = torch.addcmul(shift, c, rstd * gain).relu_()
        ctx.save_for_backward(c, rstd, gain, y, share)
        return _image(y, images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        c, rstd, gain, y, share = ctx.saved_tensors
        below = torch.ops.aten.threshold_backward(_places(grad), y, 0)
        plain, along = below.sum(1), (below * c).sum(1)
        level, slope = (_pooled(part * gain, -share) for part in (plain, along))
        down = torch.addcmul(level * rstd, below, rstd * gain).addcmul_(c, slope * rstd**3)
        return _image(down, grad), None, (along * rstd.squeeze(1)).sum(0), plain.sum(0), None


def _places(images: Tensor) -> Tensor:
    """``(batch, channels, height, width)`` as ``(batch, places, channels)``; no copy where channels are innermost."""
    return images.permute(0, 2, 3, 1).contiguous().flatten(1, 2)


def _image(x: Tensor, like: Tensor) -> Tensor:
    images: Tensor = x.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)
    return images


def _pooled(of_channels: Tensor, share: Tensor) -> Tensor:
    """What a group's channels have together, for each of them: ``(batch, clients * channels)`` to ``(batch, 1, ...)``."""
    together: Tensor = of_channels.unflatten(1, (-1, len(share))) @ share
    return together.flatten(1).unsqueeze(1)


@lru_cache(maxsize=16)
def _same_group(groups: int, channels: int, dtype: torch.dtype) -> Tensor:
    """Ones where two of a client's channels are of one group: one small product beats sums and copies."""
    with torch.inference_mode(False), torch.no_grad():  # what is kept must serve training too
        return torch.eye(groups, dtype=dtype).repeat_interleave(channels // groups, 0) @ (
            torch.eye(groups, dtype=dtype).repeat_interleave(channels // groups, 1)
        )


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
