"""Working with a noisy reference: make it a law again, and let the null know of the noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..kind import DistanceKind, Statistics
from ..numeric import sort_last, wide
from .noise import GaussianNoise


def tidy(reference: Statistics) -> Statistics:
    """A law from noisy statistics: quantiles in order, a covariance without negative directions, a Gaussian tail.

    Ordering brings noisy quantiles nearer to the true ones, never further (Chernozhukov et al. 2009). The tail index
    is not sent under noise, whose bound would be far above it.
    """
    law = dict(reference)
    if "sketch" in law:
        law["sketch"] = sort_last(law["sketch"])
    law["cov"] = nearest_covariance(law["cov"])
    law["tail"] = torch.zeros_like(law["mean"][..., 0])
    return law


def nearest_covariance(matrix: Tensor) -> Tensor:
    """The nearest symmetric positive semi-definite matrix, ``(..., F, F)``."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    positive: Tensor = (vectors * values.clamp_min(0).unsqueeze(-2)) @ vectors.mT
    return positive


@dataclass(frozen=True)
class NoisedReference(DistanceKind):
    """A distance whose reference carries noise: every draw of its null meets a reference with fresh noise.

    Args:
        kind: the distance itself.
        spread: standard deviation of the noise in the mean, by statistic.
        noise: where it is drawn from.
    """

    kind: DistanceKind
    spread: dict[str, float]
    noise: GaussianNoise

    def statistics(self, samples: Tensor) -> Statistics:
        """As the distance itself."""
        return self.kind.statistics(samples)

    def squared(self, own: Statistics, reference: Statistics) -> Tensor:
        """Squared distances ``(draws,)`` to as many noisy versions of the reference."""
        draws = len(next(iter(own.values())))
        noisy = {name: x.expand(draws, *x.shape) for name, x in reference.items()}
        for position, (name, scale) in enumerate(self.spread.items()):
            x = wide(noisy[name])
            noisy[name] = x + self.noise.draw(tuple(x.shape), scale, -1 - position, draws).to(x)
        return self.kind.squared(own, tidy(noisy))

    def draw(self, reference: Statistics, n: int, draws: int, generator: torch.Generator) -> Statistics:
        """As the distance itself."""
        return self.kind.draw(reference, n, draws, generator)
