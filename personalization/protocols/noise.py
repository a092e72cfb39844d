r"""Gaussian noise for protocols: what is clipped, how much one unit can change a message, and how much noise that takes.

Two units, stated with every guarantee. Sample counts are public in both, as they are wherever FedAvg weighs by them.

*client*: all samples of one client. In a sum its message is added or removed (weights stay); where a message goes up by
itself it is replaced by any other.
*sample*: one sample of one client is replaced by any other in the ball; for moments the same bound covers one sample
more or less.

Sensitivities, with rows clipped to norm R, n samples, and ``lambda`` the largest eigenvalue of the projections'
``Theta^T Theta``:

    statistic   one sample                                 one client (clipped to this norm)
    mean        2 R / n                                    R
    cov         4 sqrt(2) R^2 / n                          R^2
    sketch      2 R sqrt(ceil(Q / n) lambda)               R sqrt(Q L / F)

The sketch's bound does not fall with n: one sample can move every quantile where the law has a gap. Who wants privacy
for little noise sends moments.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from ..budget import check_guarantee, gaussian_multiplier
from ..errors import check_fields
from ..kind import Statistics

Unit = Literal["client", "sample"]
PUBLIC = ("scores",)
"""Statistics that are functions of the sample count alone."""


@dataclass(frozen=True)
class GaussianNoise:
    """Noise that makes one whole run of a protocol ``(epsilon, delta)``-private for one unit.

    Args:
        epsilon: above 0.
        delta: in (0, 1).
        clip: R, the norm that a sample's features are clipped to; ``1.5 sqrt(F)`` suits standardised features.
        unit: what is protected, one "client" or one "sample".
        seed: of the noise. A real deployment uses a cryptographic generator.

    Raises:
        ValueError: an option out of range.
    """

    epsilon: float
    delta: float = 1e-5
    clip: float = 10.0
    unit: Unit = "client"
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_guarantee(self.epsilon, self.delta)
        if not 0 < self.clip < math.inf:
            raise ValueError(
                f"clip={self.clip} must be a positive number: without a bound no noise suffices."
            )
        if self.unit not in ("client", "sample"):
            raise ValueError(f"unit={self.unit!r} must be 'client' or 'sample'.")

    @property
    def multiplier(self) -> float:
        """Standard deviation over sensitivity, of the whole run seen as one release."""
        return gaussian_multiplier(self.epsilon, self.delta)

    def released(self, release: int) -> Self:
        """The noise of a later run on data that may have changed: what one seed drew twice would show the change."""
        return replace(self, seed=_hash([self.seed, release])) if release else self

    def scale(self, sensitivity: float, releases: int = 1) -> float:
        """Standard deviation for one of several releases of the run, exact by composition of Gaussians."""
        return self.multiplier * math.sqrt(releases) * sensitivity

    def draw(self, shape: tuple[int, ...], scale: float, *key: int) -> Tensor:
        """Noise, float64 on the CPU; a function of the seed, the guarantee and the key.

        The guarantee is part of it: were the same normals scaled for two of them, both releases together would tell what
        lies below.
        """
        guarantee = zlib.crc32(repr((self.epsilon, self.delta, self.clip, self.unit)).encode())
        mixed = torch.tensor([self.seed, guarantee, *key], dtype=torch.int64).tolist()
        generator = torch.Generator().manual_seed(_hash(mixed))
        return scale * torch.randn(shape, generator=generator, dtype=torch.float64)

    def statement(self) -> str:
        """The guarantee in words."""
        return f"({self.epsilon:g}, {self.delta:g})-differentially private for one {self.unit}"


def check_noise(noise: object, protocol: str) -> None:
    """Refuse what is no noise: it would protect nobody.

    Raises:
        ValueError: names the protocol and the value.
    """
    if noise is not None and not isinstance(noise, GaussianNoise):
        raise ValueError(f"{protocol}: noise={noise!r}; give GaussianNoise(...), or None.")


def _hash(key: list[int]) -> int:
    # Splitmix64: neighbouring keys must not give related streams.
    state = 0x9E3779B97F4A7C15
    for part in key:
        state = (state ^ (part & (2**64 - 1))) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state % 2**63


def clip_rows(samples: Tensor, radius: float) -> Tensor:
    """Samples ``(..., F)`` shortened to a norm of at most ``radius``."""
    norm = samples.norm(dim=-1, keepdim=True)
    clipped: Tensor = samples * (radius / norm.clamp_min(1e-30)).clamp_max(1.0)
    return clipped


def clip_block(block: Tensor, bound: float) -> Tensor:
    """Each client's array ``(clients, *shape)`` shortened to a norm of at most ``bound``."""
    norm = block.flatten(1).norm(dim=1)
    factor = (bound / norm.clamp_min(1e-30)).clamp_max(1.0)
    clipped: Tensor = block * factor.reshape(-1, *[1] * (block.ndim - 1))
    return clipped


def client_bound(name: str, shape: tuple[int, ...], features: int, clip: float) -> float:
    """The norm that one client's statistic is clipped to.

    Raises:
        ValueError: the statistic has no known bound.
    """
    if name == "mean":
        return clip
    if name == "cov":
        return clip**2
    if name == "sketch":
        return clip * math.sqrt(shape[-1] * shape[-2] / features)
    raise _unknown(name)


def sample_sensitivity(name: str, n: int, clip: float, *, directions: Tensor, levels: int) -> float:
    """How far one replaced sample of n can move a client's statistic, in L2.

    Sorting is a contraction, so that along a direction the order statistics move together by at most the projected
    change; each is read by at most ``ceil(Q / n)`` levels.

    Raises:
        ValueError: the statistic has no known bound.
    """
    if name == "mean":
        return 2 * clip / n
    if name == "cov":
        return 4 * math.sqrt(2) * clip**2 / n
    if name == "sketch":
        spread = float(torch.linalg.matrix_norm(directions.double(), ord=2))
        return 2 * clip * math.sqrt(math.ceil(levels / n)) * spread
    raise _unknown(name)


def _unknown(name: str) -> ValueError:
    return ValueError(
        f"No sensitivity is known for the statistic {name!r}; noise is there for the distances 'sliced' and 'gaussian'."
    )


def noised_names(statistics: Statistics) -> list[str]:
    """The statistics that take noise: all but the public ones, and the tail index, which is not sent then."""
    return [name for name in statistics if name not in (*PUBLIC, "tail")]
