"""How much a client works: more steps on what is its own, fewer and smaller ones on what is shared."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .distances import Distances
from .modulators import Modulator, register_modulator, relative, require

_SLOPE = {"search": {"low": 0.05, "high": 5.0, "log": True}}
# Rounding must not turn 20 steps into 21 or 19. Of more than 100,000 it is a step and more, hence the bounds by the base.
_SLACK = 1e-5


@register_modulator("work_by_distance")
@dataclass(frozen=True)
class PersonalWork(Modulator):
    """More personal steps the further: ``min(ceil(E0 (1 + slope u)), ceil(max_factor E0))``, E0 being the base.

    Whole numbers in [E0, max_factor E0], increasing in u. ``u = 0`` or ``slope = 0`` keeps the base; a base
    of 0 stays 0.

    Args:
        slope: c, extra share of work per relative distance.
        max_factor: the most that the base may be multiplied by, so that no client holds up a round.
    """

    knob: ClassVar[str] = "personal_steps"
    slope: float = field(default=0.5, metadata=_SLOPE)
    max_factor: float = field(default=4.0, metadata={"search": {"low": 1.5, "high": 8.0, "log": True}})

    def __post_init__(self) -> None:
        require(self, "slope", least=0, finite=True)
        require(self, "max_factor", least=1)
        if not math.isfinite(self.max_factor):
            raise ValueError(
                f"PersonalWork: max_factor={self.max_factor} must be finite; steps need a bound."
            )

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The column of steps ``(clients, 1)``, whole numbers in the dtype of ``base``."""
        factor = (1 + self.slope * relative(distances, base)).clamp_max(self.max_factor)
        return torch.maximum((base * factor * (1 - _SLACK)).ceil().to(base), base.ceil())


@register_modulator("shared_work_by_distance")
@dataclass(frozen=True)
class SharedWork(Modulator):
    """Fewer shared steps the further: ``max(1, floor(E0 / (1 + slope u)))``, E0 being the base.

    Whole numbers in [1, E0], decreasing in u. ``u = 0`` or ``slope = 0`` keeps the base, ``u -> inf`` leaves
    1; a base of 0 stays 0.

    Args:
        slope: c, how fast work falls with the relative distance.
    """

    knob: ClassVar[str] = "local_steps"
    slope: float = field(default=0.5, metadata=_SLOPE)

    def __post_init__(self) -> None:
        require(self, "slope", least=0, finite=True)

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The column of steps ``(clients, 1)``, whole numbers in the dtype of ``base``."""
        divisor = 1 + self.slope * relative(distances, base)
        return torch.minimum((base / divisor * (1 + _SLACK)).floor().clamp_min(1).to(base), base.ceil())


@register_modulator("lr_by_distance")
@dataclass(frozen=True)
class DampedRate(Modulator):
    """Smaller steps the further: ``e0 / (1 + slope u)``, e0 being the base.

    In [0, e0], decreasing in u. ``u = 0`` or ``slope = 0`` keeps the base, ``u -> inf`` gives 0.

    Args:
        slope: c, how fast the rate falls with the relative distance.
    """

    knob: ClassVar[str] = "lr"
    slope: float = field(default=0.5, metadata=_SLOPE)

    def __post_init__(self) -> None:
        require(self, "slope", least=0, finite=True)

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The column of learning rates ``(clients, 1)``."""
        return base / (1 + self.slope * relative(distances, base))
