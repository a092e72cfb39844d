r"""TriangleWad: one round against a Gaussian reference that the server does not know.

Each client moves a secret Gaussian cloud :math:`\gamma` most of the way towards its samples and sends it up. Two sides
of a triangle with the corner :math:`\gamma`, cut at the same share: the piece between the cuts is parallel to the
third side, so that ``W(cut, cut) / share`` stands for ``W(client, client)``. In a flat space it would be equal; W2 is
curved the way that makes it larger, never smaller.

References:
    Li and Pang, Private Wasserstein distance (TriangleWad), 2024, arXiv:2404.06787. The bounds are our own reading:
    non-negative curvature (Ambrosio, Gigli and Savare 2008, section 7.3) below, the triangle inequality above.
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
class TriangleWad(Protocol):
    r"""All pairs of clients, W2 from above, in one round.

    With s the share, ``W <= estimate <= W + (1 - s)/s (W + W(i, gamma) + W(j, gamma))`` where clients have ``support``
    samples each; ``bound`` states the error that follows from what the server knows,
    :math:`2 \frac{1 - s}{s} (W(i, \gamma) + W(j, \gamma))`. Other sample counts are compared by their barycentric
    projections on the cloud, which the bound leaves out.

    Args:
        share: s, in (0, 1): near 1 the result is exact and the clouds are the samples; near 0 they tell little.
        support: S, points of the cloud; the largest client's number of samples if None.
        noise: on the clouds and distances that go up, for one client.
        seed: of the Gaussian cloud, known to the clients and kept from the server.

    Raises:
        ValueError: an option out of range.
    """

    share: float = 0.5
    support: int | None = None
    noise: GaussianNoise | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share} must lie between 0 and 1.")
        if self.support is not None and self.support < 1:
            raise ValueError(f"support={self.support} must be at least 1.")
        require_client_unit(self.noise, "TriangleWad")

    def learns(self) -> str:
        """What the server learns."""
        if self.noise is not None:
            return f"One cloud and one distance per client, {self.noise.statement()}."
        return (
            "Every client's samples blurred by the secret Gaussian cloud, and thereby its mean and covariance nearly; "
            "the samples themselves if it ever gets the seed from any one client."
        )

    def _plan(
        self, sizes: Sequence[int], features: int, dtype: torch.dtype, classes: int
    ) -> Sequence[Message]:
        """The messages of a run: one cloud and one number per client."""
        pieces = (
            Piece("cloud", (self._support(sizes), features), dtype),
            Piece("distance", (), torch.float64),
        )
        return [_up(k).of(pieces) for k in range(len(sizes))]

    def _play(self, samples: list[Tensor], labels: list[Tensor], *, record: bool) -> Outcome:
        """Play all parties; ``bound`` is the error that ``pairwise`` may have at most."""
        samples = [clipped(x, self.noise) for x in samples]
        gamma = self.reference([len(x) for x in samples], samples[0])
        sent = [self._message(gamma, x, k) for k, x in enumerate(samples)]
        messages: list[Message] = [_up(k).carry(content, record=record) for k, content in enumerate(sent)]
        to_gamma = torch.stack([content["distance"] for content in sent])
        pairwise = torch.zeros(len(samples), len(samples), dtype=torch.float64)
        for i, j in pairs(len(samples)):
            pairwise[i, j] = pairwise[j, i] = wasserstein(sent[i]["cloud"], sent[j]["cloud"]) / self.share
        bound = 2 * (1 - self.share) / self.share * (to_gamma[:, None] + to_gamma[None, :])
        bound.fill_diagonal_(0)
        transcript = Transcript(tuple(messages), len(samples))
        if self.noise is not None:  # The bound knows nothing of the noise.
            return Outcome(transcript, pairwise=pairwise.to(samples[0]))
        return Outcome(transcript, pairwise=pairwise.to(samples[0]), bound=bound.to(samples[0]))

    def reference(self, sizes: Sequence[int], like: Tensor) -> Tensor:
        """The Gaussian cloud ``(S, F)`` that the clients share and the server must not have."""
        return gaussian_points(self._support(sizes), like.shape[1], self.seed, like)

    def _support(self, sizes: Sequence[int]) -> int:
        return self.support if self.support is not None else max(sizes)

    def _message(self, gamma: Tensor, x: Tensor, k: int) -> dict[str, Tensor]:
        cloud = noisy_cloud(interpolant(gamma, x, self.share), self.noise, self.share, 2, k, 0)
        return {"cloud": cloud, "distance": noisy_scalar(wasserstein(gamma, x), self.noise, 2, k, 1)}


def _up(k: int) -> Route:
    return Route(1, client(k), SERVER, "cut")
