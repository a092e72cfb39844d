"""FedWaD: Wasserstein distance by meeting on the geodesic (Rakotomamonjy, Nadjahi and Ralaivola, ICLR 2024).

References:
    Rakotomamonjy et al., Federated Wasserstein distance, ICLR 2024, arXiv:2310.01973; interpolants with a fixed
    number of points, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import check_fields
from .base import Outcome, Protocol
from .interpolation import gaussian_points, interpolant, wasserstein
from .noise import GaussianNoise
from .pairs import clipped, noisy_cloud, noisy_scalar, pairs, require_client_unit
from .transcript import SERVER, Message, Piece, Route, Transcript, client


@dataclass(frozen=True, kw_only=True)
class FedWaD(Protocol):
    r"""All pairs of clients, W2, by interpolating measures.

    For each pair the server sends a cloud :math:`\xi`; each of the two moves it a share of the way towards its samples
    and sends it back; the server's next cloud lies half-way between the two. At the end each sends its W2 to the last
    cloud, and their sum is the result: never below the true W2 (triangle inequality), and equal to it where the cloud
    lies on the geodesic. Where both clients have ``support`` samples it never grows from round to round and tends to
    W2, if shares near 1 occur; a constant share of .5 stops on paths that are shortest only nearby, measured at 1 to
    8 % above W2. Where sample counts differ, a cloud of fixed size cannot lie on the geodesic: 0 to 5 % remain.

    Args:
        rounds: how often the cloud goes down and up.
        support: S, points of the cloud; the number of samples of the pair's larger client if None.
        share: of the way that a client moves the cloud, in (0, 1); None draws it anew for each round. It is public.
        noise: on every cloud and distance that goes up, for one client; None sends them as they are.
        seed: of the first cloud.

    Raises:
        ValueError: an option out of range.
    """

    rounds: int = 20
    support: int | None = None
    share: float | None = None
    noise: GaussianNoise | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.rounds < 1 or (self.support is not None and self.support < 1):
            raise ValueError(f"rounds={self.rounds} and support={self.support} must be at least 1.")
        if self.share is not None and not 0 < self.share < 1:
            raise ValueError(f"share={self.share} must lie between 0 and 1.")
        require_client_unit(self.noise, "FedWaD")

    def learns(self) -> str:
        """What the server learns."""
        if self.noise is not None:
            return f"Clouds and distances, {self.noise.statement()}, all pairs and rounds counted."
        return (
            "The samples themselves: it knows the cloud it sent and the share of the way, so that each point sent "
            "back gives away where it heads, which is a sample or, with fewer points than samples, a mean of a few."
        )

    def _plan(
        self, sizes: Sequence[int], features: int, dtype: torch.dtype, classes: int
    ) -> Sequence[Message]:
        """The messages of a run: four clouds a round and pair."""
        messages: list[Message] = []
        for i, j in pairs(len(sizes)):
            cloud = (Piece("cloud", (self._support(sizes[i], sizes[j]), features), dtype),)
            for round_ in range(1, self.rounds + 1):
                messages += [_down(round_, k).of(cloud) for k in (i, j)]
                messages += [_up(round_, k).of(cloud) for k in (i, j)]
            messages += [_down(self.rounds + 1, k).of(cloud) for k in (i, j)]
            scalar = (Piece("distance", (), torch.float64),)
            messages += [_answer(self.rounds + 1, k).of(scalar) for k in (i, j)]
        return messages

    def _play(self, samples: list[Tensor], labels: list[Tensor], *, record: bool) -> Outcome:
        """Play all parties; ``pairwise`` is never below the true W2 without noise."""
        samples = [clipped(x, self.noise) for x in samples]
        pairwise = torch.zeros(len(samples), len(samples), dtype=torch.float64)
        messages: list[Message] = []
        for i, j in pairs(len(samples)):
            value, sent = self._pair(samples, i, j, record=record)
            pairwise[i, j] = pairwise[j, i] = value
            messages += sent
        return Outcome(Transcript(tuple(messages), len(samples)), pairwise=pairwise.to(samples[0]))

    def releases(self, clients: int) -> int:
        """How many messages of one client noise has to cover."""
        return (clients - 1) * (self.rounds + 1)

    def share_of(self, round_: int) -> float:
        """The share of a round, counted from 1, the same for all pairs."""
        if self.share is not None:
            return self.share
        generator = torch.Generator().manual_seed(self.seed)
        return float(torch.rand(round_, generator=generator, dtype=torch.float64)[-1])

    def _support(self, one: int, other: int) -> int:
        return self.support if self.support is not None else max(one, other)

    def _pair(self, samples: list[Tensor], i: int, j: int, *, record: bool) -> tuple[float, list[Message]]:
        x = samples[i]
        cloud = gaussian_points(self._support(len(x), len(samples[j])), x.shape[1], self.seed, x)
        messages: list[Message] = []
        for round_ in range(1, self.rounds + 1):
            messages += [_down(round_, k).carry({"cloud": cloud}, record=record) for k in (i, j)]
            moved = [self._moved(cloud, samples, k, (i, j, round_)) for k in (i, j)]
            messages += [
                _up(round_, k).carry({"cloud": back}, record=record)
                for k, back in zip((i, j), moved, strict=True)
            ]
            cloud = interpolant(moved[0], moved[1], 0.5)
        messages += [_down(self.rounds + 1, k).carry({"cloud": cloud}, record=record) for k in (i, j)]
        releases = self.releases(len(samples))
        answers = [
            noisy_scalar(wasserstein(cloud, samples[k]), self.noise, releases, i, j, k, 0) for k in (i, j)
        ]
        messages += [
            _answer(self.rounds + 1, k).carry({"distance": d}, record=record)
            for k, d in zip((i, j), answers, strict=True)
        ]
        return float(answers[0] + answers[1]), messages

    def _moved(self, cloud: Tensor, samples: list[Tensor], k: int, key: tuple[int, int, int]) -> Tensor:
        share = self.share_of(key[2])
        moved = interpolant(cloud, samples[k], share)
        return noisy_cloud(moved, self.noise, share, self.releases(len(samples)), *key, k)


def _down(round_: int, k: int) -> Route:
    return Route(round_, SERVER, client(k), "cloud")


def _up(round_: int, k: int) -> Route:
    return Route(round_, client(k), SERVER, "interpolant")


def _answer(round_: int, k: int) -> Route:
    return Route(round_, client(k), SERVER, "distance to the cloud")
