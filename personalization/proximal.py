"""How strongly a personal model is pulled towards the population's: less, the further the client lies from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .distances import Distances
from .modulators import Modulator, column, register_modulator, require


@register_modulator("prox_by_distance")
@dataclass(frozen=True)
class ExponentialProx(Modulator):
    """Pull that fades: ``l0 exp(-u / tau)``, l0 being the base.

    In [0, l0], decreasing in u. ``u = 0`` keeps the base, ``u -> inf`` frees the client; ``tau -> inf`` is
    the constant knob.

    Args:
        tau: the relative distance at which a client keeps ``1/e`` of the pull; 1 is the typical client.
    """

    knob: ClassVar[str] = "prox"
    tau: float = field(default=1.0, metadata={"search": {"low": 0.1, "high": 10.0, "log": True}})

    def __post_init__(self) -> None:
        require(self, "tau", above=0)

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The proximal column ``(clients, 1)``."""
        u = column(distances.relative, base)
        return base * torch.exp(-u / self.tau)


@register_modulator("prox_by_inverse_distance")
@dataclass(frozen=True)
class InverseProx(Modulator):
    """Pull as the precision of a prior of that width: ``l0 min(1 / (eps + u^2), ceiling)``, l0 being the base.

    In [0, ceiling l0], decreasing in u. With ``eps = 0`` the typical client (u = 1) keeps the base, a client
    at u = 0 gets the ceiling, and ``u -> inf`` frees the client.

    Args:
        eps: squared relative distance that all clients have at least.
        ceiling: the most that the base may be multiplied by.
    """

    knob: ClassVar[str] = "prox"
    eps: float = field(default=0.1, metadata={"search": {"low": 0.01, "high": 10.0, "log": True}})
    ceiling: float = field(default=10.0, metadata={"search": {"low": 1.0, "high": 100.0, "log": True}})

    def __post_init__(self) -> None:
        require(self, "eps", least=0)
        require(self, "ceiling", above=0)

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The proximal column ``(clients, 1)``."""
        u = column(distances.relative, base)
        return base * (1 / (self.eps + u**2)).clamp_max(self.ceiling)
