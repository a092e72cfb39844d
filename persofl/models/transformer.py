"""A small transformer encoder over patches of time.

References:
    Vaswani et al., Attention is all you need, NeurIPS 2017, with the normalisation first as in Xiong et al., On layer
    normalization in the transformer architecture, ICML 2020. Patches of time as tokens: Nie et al., A time series is
    worth 64 words, ICLR 2023; ours hold all channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import PersoflError
from .forecast import Shape
from .layers import Linear
from .norms import LayerNorm
from .registry import register_model

TOKENS = 32
"""Patches that a window is cut into where the length of one is not given; attention grows with their square."""


@register_model("transformer")
class Transformer(nn.Module):
    """A transformer encoder over patches of time, and an affine map of the mean over them.

    Args:
        shape: sizes from the data and the loss.
        width: of a token; ``heads`` divides it.
        layers: of attention and a feed-forward part each.
        heads: of the attention.
        feedforward: width of the hidden layer between two affine maps.
        patch: steps in a token; None takes as many as make 32 tokens.
    """

    batched = True
    clients_at_once = 7

    def __init__(
        self,
        shape: Shape,
        width: int = 32,
        layers: int = 2,
        heads: int = 4,
        feedforward: int = 64,
        patch: int | None = None,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise PersoflError(f"heads={heads}: must divide width={width}.")
        self.shape = shape
        self.patch = -(-shape.lookback // TOKENS) if patch is None else patch
        if self.patch < 1:
            raise PersoflError(f"patch={patch}: give the steps in a token, at least 1.")
        tokens = -(-shape.lookback // self.patch)
        self.missing = tokens * self.patch - shape.lookback
        self.embed = Linear(self.patch * shape.channels, width)
        self.positions: Tensor
        self.register_buffer("positions", sinusoids(tokens, width), persistent=False)
        self.body = nn.ModuleList(EncoderLayer(width, heads, feedforward) for _ in range(layers))
        self.norm = LayerNorm(width)
        self.head = Linear(width, shape.targets)

    def forward(self, x: Tensor) -> Tensor:
        """See :mod:`persofl.models.forecast`."""
        padded = nn.functional.pad(x, (0, 0, self.missing, 0))  # zeros before the first step: the mean
        x = self.embed(padded.unflatten(-2, (-1, self.patch)).flatten(-2)) + self.positions
        for layer in self.body:
            x = layer(x)
        return self.shape.split(self.head(self.norm(x).mean(-2)))


class EncoderLayer(nn.Module):
    """``x + attention(norm(x))``, then ``x + feedforward(norm(x))``, tokens ``(..., tokens, width)``.

    The same as ``nn.TransformerEncoderLayer(norm_first=True, dropout=0, activation="gelu")``.
    """

    def __init__(self, width: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = LayerNorm(width), LayerNorm(width)
        self.queries_keys_values = Linear(width, 3 * width)
        self.mix = Linear(width, width)
        self.widen, self.narrow = Linear(width, feedforward), Linear(feedforward, width)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        parts = self.queries_keys_values(self.before(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = (part.transpose(-2, -3) for part in parts.unbind(-3))  # (..., heads, tokens, width / heads)
        x = x + self.mix(attend(q, k, v).transpose(-2, -3).flatten(-2))
        widened: Tensor = nn.functional.gelu(self.widen(self.between(x)))
        narrowed: Tensor = self.narrow(widened)
        return x + narrowed


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token's mean of the values, weighted by the softmax of its query with their keys, ``(..., tokens, width)``."""
    return ((q / math.sqrt(q.shape[-1])) @ k.mT).softmax(-1) @ v


def sinusoids(tokens: int, width: int) -> Tensor:
    """Positions as sines and cosines of wavelengths from 2 pi to 10,000 times that, ``(tokens, width)``."""
    place = torch.arange(tokens).unsqueeze(1)
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([torch.sin(place * rate), torch.cos(place * rate)], -1).flatten(1)[:, :width]
