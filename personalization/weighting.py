"""How much a client counts in the shared model: less, the further it lies from the population."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .distances import Distances
from .modulators import Modulator, register_modulator, relative, require


@register_modulator("weight_by_distance")
@dataclass(frozen=True)
class RectifiedWeight(Modulator):
    r"""Aggregation weight lowered by distance, cut at zero and normalised to the base's sum.

    .. math:: w_k \propto \max(0,\; p_k - (a u_k - b) / K), \qquad p_k = \text{base}_k / \textstyle\sum_j \text{base}_j

    K is the number of clients: ``p`` is about ``1 / K``, so the same a and b suit any population. Weights are
    non-negative and never all zero: if every client is cut off, the base is kept. Decreasing in u before the
    normalisation. ``a = 0 = b`` keeps the base; ``b -> inf`` gives equal weights. The sums are over the clients
    given: give the cohort or the population whose weights are to be shared out.

    Args:
        slope: a, share of the mean weight lost per relative distance.
        offset: b, share of the mean weight that every client gets on top.

    References:
        Ye et al., FedDisco: federated learning with discrepancy-aware collaboration, ICML 2023 (there d is
        the distance of label marginals).
    """

    knob: ClassVar[str] = "weight"
    slope: float = field(default=0.5, metadata={"search": {"low": 0.01, "high": 2.0, "log": True}})
    offset: float = field(default=0.1, metadata={"search": {"low": 0.0, "high": 2.0}})

    def __post_init__(self) -> None:
        require(self, "slope", least=0, finite=True)
        require(self, "offset", least=0)
        if not math.isfinite(self.offset):
            raise ValueError(
                f"RectifiedWeight: offset={self.offset} must be finite; give base=1 for equal weights."
            )

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The column of weights ``(clients, 1)``, with the sum of ``base``."""
        u = relative(distances, base)
        total = base.sum()
        kept = (base / total - (self.slope * u - self.offset) / len(u)).clamp_min(0)
        share = kept / torch.where(kept.sum() > 0, kept.sum(), 1.0)
        return torch.where(kept.sum() > 0, share * total, base)
