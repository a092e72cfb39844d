"""Convolutions over images, of one model or of a stack.

A stack's images lie side by side in the channels: ``(batch, clients * channels, height, width)``, so that a cohort of
small networks is one wide network whose convolutions have a group for every client. torch's own kernels run that
at full speed when the channels are the innermost axis in memory, which :func:`fold` sees to.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .layers import uniform_parameter
from .norms import GroupNorm


def fold(x: Tensor) -> Tensor:
    """A stack's images ``(clients, batch, height, width)`` side by side, ``(batch, clients, height, width)``."""
    return x.transpose(0, 1).contiguous(memory_format=torch.channels_last)


def unfold(features: Tensor, clients: int) -> Tensor:
    """Give each client its own of features that lie side by side, ``(batch, clients * channels)``.

    Returns:
        ``(clients, batch, channels)``.
    """
    apart: Tensor = features.unflatten(1, (clients, -1)).transpose(0, 1)
    return apart


class Convolution(nn.Module):
    """Two-dimensional convolution without a bias, for a normalisation follows that has one.

    Half a kernel of zeros is put around the image: an odd kernel keeps its size, an even one adds a place, and none makes
    it empty.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: height and width.
        stride: likewise.
        groups: channels that do not see each other's; ``inputs`` makes a depthwise convolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        self.padding = (kernel[0] // 2, kernel[1] // 2)
        bound = 1 / math.sqrt(inputs // groups * kernel[0] * kernel[1])
        self.weight = uniform_parameter(outputs, inputs // groups, *kernel, bound=bound)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(batch, inputs, height, width)`` to ``(batch, outputs, ...)``; of a stack, side by side."""
        weight: Tensor = self.weight
        groups = self.groups
        if weight.dim() == 5:
            groups = groups * len(weight)
            weight = weight.flatten(0, 1)
        return nn.functional.conv2d(images, weight, stride=self.stride, padding=self.padding, groups=groups)


class Separable(nn.Module):
    """A 3 x 3 convolution of each channel by itself, then one of 1 x 1 that mixes them, each normalised and cut at zero."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.depthwise = Convolution(channels, channels, (3, 3), groups=channels)
        self.inner = GroupNorm(groups, channels)
        self.pointwise = Convolution(channels, channels, (1, 1))
        self.outer = GroupNorm(groups, channels)

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to the same shape."""
        return self.outer.rectified(self.pointwise(self.inner.rectified(self.depthwise(images))))
