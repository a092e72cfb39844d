"""How many of a model's layers are the client's own: more, the further it lies from the population."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .distances import Distances
from .modulators import Modulator, register_modulator, relative, require


@register_modulator("depth_by_distance")
@dataclass(frozen=True)
class QuantileDepth(Modulator):
    r"""A layer is shared where the distance is below a quantile, a deeper one below a higher quantile.

    .. math:: \text{depth}_k = \#\{l \le D_k : u_k > Q(q_l)\}, \qquad q_l = q + (1 - q) \frac{l - 1}{D_k}

    D, the base, is the most layers that may be personal; Q is the quantile function of the distances of the clients given:
    give the whole population.

    Whole numbers in [0, D], increasing in u. The nearest client shares everything, and so do all where all distances are
    equal; the farthest keeps D layers where no other lies as far, else only the layers whose quantile lies below it.
    ``quantile = 1`` shares everything, ``quantile = 0`` gives all but the nearest client at least the last layer; a base
    of 0 stays 0.

    Args:
        quantile: q, the share of clients that share even the last layer.
    """

    knob: ClassVar[str] = "depth"
    quantile: float = field(default=0.5, metadata={"search": {"low": 0.0, "high": 0.9}})

    def __post_init__(self) -> None:
        require(self, "quantile", least=0)
        if not self.quantile <= 1:
            raise ValueError(f"QuantileDepth: quantile={self.quantile} must be at most 1.")

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The column of depths ``(clients, 1)``, whole numbers in the dtype of ``base``."""
        u = relative(distances, base).squeeze(1)
        u = u if u.dtype == torch.float64 else u.float()  # torch takes no quantiles of half precision
        most = base.squeeze(1).to(u)
        depth = torch.zeros_like(u)
        for layer in range(1, int(most.max()) + 1 if len(most) else 1):
            level = self.quantile + (1 - self.quantile) * (layer - 1) / most.clamp_min(1)
            depth += (u > u.quantile(level.clamp_max(1))) & (layer <= most)
        return depth.unsqueeze(1).to(base)
