"""A small convolutional network for spectrograms.

References:
    Zhang, Suda, Lai and Chandra, Hello Edge: keyword spotting on microcontrollers, 2017 (DS-CNN). Ours has GroupNorm
    where theirs has BatchNorm, whose running statistics do not survive averaging over unlike clients.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .forecast import Shape
from .images import Convolution, Separable, fold, unfold
from .layers import Linear
from .norms import GroupNorm
from .registry import register_model


@register_model("dscnn")
class DSCNN(nn.Module):
    """DS-CNN: one convolution over time and channels, depthwise-separable blocks, the mean over all places.

    The input is one image: steps by channels, such as the frames by the bands of a log-mel spectrogram.

    Args:
        shape: sizes from the data and the loss.
        channels: of every layer; the paper's small network has 64.
        blocks: depthwise-separable ones; the paper has 4.
        kernel: of the first convolution, steps by channels.
        stride: likewise.
        groups: of the normalisation; must divide ``channels``.
    """

    batched = True
    clients_at_once = 4  # a step moves more memory than it computes: more leave the cache

    def __init__(
        self,
        shape: Shape,
        channels: int = 24,
        blocks: int = 3,
        kernel: Sequence[int] = (10, 4),
        stride: Sequence[int] = (2, 2),
        groups: int = 4,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.stem = Convolution(1, channels, (kernel[0], kernel[1]), (stride[0], stride[1]))
        self.norm = GroupNorm(groups, channels)
        self.body = nn.ModuleList(Separable(channels, groups) for _ in range(blocks))
        self.head = Linear(channels, shape.targets)

    def forward(self, x: Tensor) -> Tensor:
        """See :mod:`persofl.models.forecast`."""
        stacked = self.stem.weight.dim() == 5
        images = self.norm.rectified(self.stem(fold(x) if stacked else x.unsqueeze(1)))
        for block in self.body:
            images = block(images)
        features = images.mean((2, 3))
        return self.shape.split(self.head(unfold(features, len(x)) if stacked else features))
