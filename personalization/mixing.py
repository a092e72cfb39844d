"""How much of a client's model is its own: ``a = 0`` is the population's, ``a = 1`` the client's alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .distances import Distances
from .modulators import Modulator, finite, register_modulator, relative, require, sample_counts


@register_modulator("mix_by_distance")
@dataclass(frozen=True)
class ExponentialMixing(Modulator):
    r"""Mixing that saturates: ``a = 1 - exp(-(u / tau)^power)``.

    In [0, 1], increasing in u. ``u = 0`` gives 0 and ``u -> inf`` gives 1; ``tau -> inf`` is the population's
    model for all, ``tau -> 0`` the own model for all that differ at all. The base sets dtype and device only.

    Args:
        tau: the relative distance at which ``a = 1 - 1/e``; 1 is the typical client.
        power: how sharply it turns there; large powers make it a switch.
    """

    knob: ClassVar[str] = "mix"
    replaces_base: ClassVar[bool] = True
    tau: float = field(default=1.0, metadata={"search": {"low": 0.1, "high": 10.0, "log": True}})
    power: float = field(default=1.0, metadata={"search": {"low": 0.5, "high": 4.0, "log": True}})

    def __post_init__(self) -> None:
        require(self, "tau", above=0)
        require(self, "power", above=0)

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The mixing column ``(clients, 1)``."""
        u = relative(distances, base)
        return -torch.expm1(-((u / self.tau) ** self.power))


@register_modulator("mix_by_trend")
@dataclass(frozen=True)
class TrendMixing(Modulator):
    r"""Mixing on a line around the base: ``a = clip(base + slope (l - mean l), 0, 1)`` with ``l = log(1 + u)``.

    ``slope = 0`` leaves the base, so a constant knob is the special case that a distance must beat. The mean is over the
    clients given: give the whole population. Before it is clipped, the average of ``a`` stays the base's.

    Args:
        slope: what one unit of ``log(1 + u)`` adds; the typical client has ``l = log 2``.
    """

    knob: ClassVar[str] = "mix"
    slope: float = field(default=0.3, metadata={"search": {"low": 0.0, "high": 1.0, "log": False}})

    def __post_init__(self) -> None:
        require(self, "slope", least=0, finite=True)

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The mixing column ``(clients, 1)``."""
        scale = torch.log1p(relative(distances, base))
        return (base + self.slope * (scale - scale.mean())).clamp(0, 1)


@register_modulator("mix_by_shrinkage")
@dataclass(frozen=True)
class ShrinkageMixing(Modulator):
    r"""The mixing that minimises the mean squared error of a mean, bias of the population against own noise.

    .. math:: a_k = \frac{\kappa d_k^2 + v/N}{\kappa d_k^2 + v/N + v/n_k}, \qquad N = \sum_j n_j

    ``kappa`` (how far optimal parameters lie apart per distance) and ``v`` (noise of one sample) enter only
    as a ratio; in units of the median client's distance and size, ``kappa d^2 / v = ratio u^2 / median(n)``.
    A client with u = 1 and the median size then has ``a`` of about ``ratio / (1 + ratio)``.

    In [n_k / (n_k + N), 1), increasing in u and in n_k. ``ratio = 0`` or ``u = 0`` leaves ``n_k / (n_k +
    N)``, next to nothing; ``u -> inf`` gives 1. N and the median are over the clients given: give the whole
    population.

    Args:
        ratio: heterogeneity over sampling noise, for the typical client.
    """

    knob: ClassVar[str] = "mix"
    replaces_base: ClassVar[bool] = True
    ratio: float = field(default=1.0, metadata={"search": {"low": 0.01, "high": 100.0, "log": True}})

    def __post_init__(self) -> None:
        require(self, "ratio", least=0, finite=True)

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The mixing column ``(clients, 1)``."""
        told = relative(distances, base)
        # In half precision counts end at 65,504.
        u = told.to(torch.promote_types(told.dtype, torch.float32))
        n = sample_counts(distances, base.to(u))
        signal = self.ratio * finite(u**2) / n.median() + 1 / n.sum()
        # Divided by the noise first, and finite, so that a squared distance beyond the float range still gives 1, a
        # client without samples 0, and neither NaN.
        return (1 - 1 / (1 + finite(signal) * n)).to(told)
