"""How strongly a personal model is pulled towards the population's: less, the further the client lies from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .distances import Distances
from .modulators import Modulator, finite, register_modulator, relative, require, sample_counts


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
        u = relative(distances, base)
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
        require(self, "ceiling", above=0, finite=self.eps == 0)

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The proximal column ``(clients, 1)``."""
        u = relative(distances, base)
        return base * finite(1 / (self.eps + u**2)).clamp_max(self.ceiling)


@register_modulator("prox_by_bayes")
@dataclass(frozen=True)
class BayesProx(Modulator):
    r"""Pull as strong as the posterior mode asks for: noise of the client's mean over the width of the prior.

    .. math:: \lambda_k = \frac{v}{n_k \kappa d_k^2}
              = \lambda_0 \min\Big(\frac{\operatorname{med}(n)}{n_k u_k^2},\; \text{ceiling}\Big)

    The client's parameters are drawn around the population's with variance ``kappa d^2``, and its mean loss over
    n samples knows them up to ``v / n``. ``v / kappa`` is unknown and is the base l0, in units of the median
    client: one with u = 1 and the median size keeps it.

    In [0, ceiling l0], decreasing in u and in n_k. ``u = 0`` gives the ceiling, for such a client the population
    is all there is to know; ``u -> inf`` and ``n_k -> inf`` free the client; ``ceiling -> 0`` frees all. The
    median is over the clients given: give the whole population.

    Args:
        ceiling: the most that the base may be multiplied by.
    """

    knob: ClassVar[str] = "prox"
    ceiling: float = field(default=10.0, metadata={"search": {"low": 1.0, "high": 100.0, "log": True}})

    def __post_init__(self) -> None:
        require(self, "ceiling", above=0, finite=True)

    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The proximal column ``(clients, 1)``."""
        told = relative(distances, base)
        # In half precision counts end at 65,504.
        u = told.to(torch.promote_types(told.dtype, torch.float32))
        n = sample_counts(distances, base.to(u))
        # Sizes first: their ratio is finite, so that a square beyond the float range gives 0 or the ceiling, never NaN.
        return (base * (finite(n.median() / n) / u**2).clamp_max(self.ceiling)).to(told)
