"""How strongly a personal model's embedding is tied to the population's: less, the further the client lies from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .distances import Distances
from .modulators import Modulator, register_modulator, relative, require


@register_modulator("align_by_distance")
@dataclass(frozen=True)
class ExponentialAlignment(Modulator):
    """Alignment that fades: ``l0 exp(-u / tau)``, l0 being the base.

    In [0, l0], decreasing in u. ``u = 0`` keeps the base, ``u -> inf`` frees the client's embedding; ``tau -> inf``
    is the constant knob.

    Args:
        tau: the relative distance at which a client keeps ``1/e`` of the pull; 1 is the typical client.
    """

    knob: ClassVar[str] = "align"
    tau: float = field(default=1.0, metadata={"search": {"low": 0.1, "high": 10.0, "log": True}})

    def __post_init__(self) -> None:
        require(self, "tau", above=0)

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The column of strengths ``(clients, 1)``."""
        u = relative(distances, base)
        return base * torch.exp(-u / self.tau)
