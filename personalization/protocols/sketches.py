"""Quantile sketches up: every client's quantiles along public directions, and all pairs at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import check_fields, check_order
from ..numeric import wide
from ..sketch import midpoint_levels, quantile_sketches, unit_projections
from ..sliced import pairwise_sliced_wasserstein
from .base import Outcome, Protocol
from .noise import GaussianNoise, check_noise, client_bound, clip_block, clip_rows, sample_sensitivity
from .transcript import SERVER, Message, Piece, Route, Transcript, client


@dataclass(frozen=True, kw_only=True)
class QuantileSketches(Protocol):
    """All pairs of clients, sliced Wasserstein, in one message each.

    Args:
        projections: L, directions.
        quantiles: Q, levels per direction. Fewer levels than samples hide single samples somewhat.
        order: ``p >= 1``; 2 where there is noise, whose part in the distance is then known and taken out.
        noise: added by each client to its own sketch, with nobody to trust; None sends it as it is.
        seed: of the directions, the same for all.

    Raises:
        ValueError: an option out of range.
    """

    projections: int = 64
    quantiles: int = 128
    order: float = 2.0
    noise: GaussianNoise | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_noise(self.noise, "QuantileSketches")
        check_order(self.order)
        if self.projections < 1 or self.quantiles < 1:
            raise ValueError(
                f"projections={self.projections} and quantiles={self.quantiles} must be at least 1."
            )
        if self.noise is not None and self.order != 2:
            raise ValueError(f"order={self.order} with noise: only for order 2 is the noise's part known.")

    def learns(self) -> str:
        """What the server learns."""
        if self.noise is not None:
            return f"One sketch per client, {self.noise.statement()} against everyone, the server included."
        return (
            "Every client's quantiles along the directions: its mean, all its marginals, and, with as many levels as "
            "samples, every sample's projections exactly, so that it can tell who is in the data."
        )

    def _plan(
        self, sizes: Sequence[int], features: int, dtype: torch.dtype, classes: int
    ) -> Sequence[Message]:
        """The messages of a run: one sketch per client, whatever its number of samples."""
        pieces = (Piece("sketch", (self.projections, self.quantiles), dtype),)
        return [_up(k).of(pieces) for k in range(len(sizes))]

    def _play(self, samples: list[Tensor], labels: list[Tensor], *, record: bool) -> Outcome:
        """Play all parties; without noise ``pairwise`` is the sliced distance of the sketches."""
        if self.noise is not None:
            samples = [clip_rows(x, self.noise.clip) for x in samples]
        sketches = quantile_sketches(samples, self.directions(samples[0]), midpoint_levels(self.quantiles))
        scales = self.scales([len(x) for x in samples], samples[0].shape[1])
        if self.noise is not None:
            sketches = self._noised(sketches, scales, samples[0].shape[1])
        messages = tuple(_up(k).carry({"sketch": x}, record=record) for k, x in enumerate(sketches))
        pairwise = pairwise_sliced_wasserstein(sketches, order=self.order)
        if self.noise is not None:
            # E (a + e - b - e')^2 = (a - b)^2 + s^2 + s'^2
            pairwise = (
                (wide(pairwise).square() - _outer_sum(scales.square())).clamp_min(0).sqrt().to(pairwise)
            )
            pairwise.fill_diagonal_(0)
        return Outcome(Transcript(messages, len(samples)), pairwise=pairwise)

    def directions(self, like: Tensor) -> Tensor:
        """The public directions ``(L, F)``."""
        return unit_projections(like.shape[-1], self.projections, seed=self.seed, like=like)

    def scales(self, sizes: Sequence[int], features: int) -> Tensor:
        """Standard deviation of the noise in each client's sketch, ``(clients,)``, float64; 0 without noise."""
        if self.noise is None:
            return torch.zeros(len(sizes), dtype=torch.float64)
        if self.noise.unit == "client":
            # Anything may take the place of a client's message: twice the norm.
            bound = client_bound("sketch", (self.projections, self.quantiles), features, self.noise.clip)
            return torch.full((len(sizes),), self.noise.scale(2 * bound), dtype=torch.float64)
        directions = self.directions(torch.zeros(1, features))
        bounds = [
            sample_sensitivity("sketch", n, self.noise.clip, directions=directions, levels=self.quantiles)
            for n in sizes
        ]
        return torch.tensor([self.noise.scale(bound) for bound in bounds], dtype=torch.float64)

    def _noised(self, sketches: Tensor, scales: Tensor, features: int) -> Tensor:
        noise = self.noise
        if noise is None:
            return sketches
        if noise.unit == "client":
            sketches = clip_block(
                sketches, client_bound("sketch", tuple(sketches.shape[1:]), features, noise.clip)
            )
        drawn = torch.stack(
            [noise.draw(tuple(sketches.shape[1:]), float(s), k) for k, s in enumerate(scales)]
        )
        return sketches + drawn.to(sketches)


def _outer_sum(x: Tensor) -> Tensor:
    return x[:, None] + x[None, :]


def _up(k: int) -> Route:
    return Route(1, client(k), SERVER, "sketch")
