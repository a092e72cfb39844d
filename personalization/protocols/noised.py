"""Working with a noisy reference: make it a law again, and let the null know of the noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kind import DistanceKind, Statistics
from ..numeric import sort_last, wide
from .noise import GaussianNoise


def tidy(reference: Statistics, spread: Mapping[str, float]) -> Statistics:
    """A law from noisy statistics: quantiles in order, a covariance without negative directions, a Gaussian tail.

    Both keep their overall spread, which the noise hardly touches or by a known amount, instead of being widened by
    the noise. The tail index is not sent under noise, whose bound would be far above it.

    Args:
        reference: mean statistics with noise, any leading axes.
        spread: standard deviation of the noise in them, by statistic.
    """
    law = dict(reference)
    if "sketch" in law:
        law["sketch"] = ordered_quantiles(law["sketch"], spread.get("sketch", 0.0))
    law["cov"] = nearest_covariance(shrunk(law["cov"], spread.get("cov", 0.0)))
    law["tail"] = torch.zeros_like(law["mean"][..., 0])
    return law


def ordered_quantiles(sketch: Tensor, spread: float) -> Tensor:
    """Noisy quantiles ``(..., L, Q)`` in order, with the noise's variance taken out of each direction's."""
    ordered = sort_last(sketch)
    centre = ordered.mean(-1, keepdim=True)
    variance = (ordered - centre).square().mean(-1, keepdim=True)
    kept = (1 - spread**2 / torch.where(variance > 0, variance, 1.0)).clamp_min(0).sqrt()
    quantiles: Tensor = centre + kept * (ordered - centre)
    return quantiles


def shrunk(matrix: Tensor, spread: float) -> Tensor:
    """A noisy covariance, made symmetric and drawn to the sphere of its trace by as much as is noise in it.

    The noise's energy is known, so that the share to keep is Ledoit and Wolf's (2004) without an estimate.
    """
    symmetric = (matrix + matrix.mT) / 2
    features = matrix.shape[-1]
    level = symmetric.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    sphere = level * torch.eye(features).to(matrix)
    energy = (symmetric - sphere).square().sum((-2, -1), keepdim=True)
    noise = spread**2 * (features * (features + 1) / 2 - 1)
    kept = (1 - noise / torch.where(energy > 0, energy, 1.0)).clamp_min(0)
    calm: Tensor = sphere + kept * (symmetric - sphere)
    return calm


def nearest_covariance(matrix: Tensor) -> Tensor:
    """The nearest positive semi-definite matrix of the same trace, ``(..., F, F)``; zero where that is not positive.

    Its eigenvalues are the given ones, lowered together until what is positive adds up to the trace.
    """
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    values = values.flip(-1)
    trace = values.sum(-1, keepdim=True).clamp_min(0)
    count = torch.arange(1, values.shape[-1] + 1, device=values.device)
    level = (values.cumsum(-1) - trace) / count
    last = ((values > level) * count).amax(-1, keepdim=True).clamp_min(1) - 1
    kept = (values - level.gather(-1, last)).clamp_min(0).flip(-1) * (trace > 0)
    positive: Tensor = (vectors * kept.unsqueeze(-2)) @ vectors.mT
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
    spread: Mapping[str, float]
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
        return self.kind.squared(own, tidy(noisy, self.spread))

    def draw(self, reference: Statistics, n: int, draws: int, generator: torch.Generator) -> Statistics:
        """As the distance itself."""
        return self.kind.draw(reference, n, draws, generator)
