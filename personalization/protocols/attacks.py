"""What an honest-but-curious server can make of a transcript: attacks to audit a protocol with before it is used.

Each reads nothing but the messages that the server sent or received, and what is public about the protocol.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..numeric import wide
from ..sketch import unit_projections
from .base import Protocol
from .fedwad import FedWaD
from .gaussians import ClassGaussians
from .interpolation import transport_plan
from .sketches import QuantileSketches
from .summed import SummedReference
from .transcript import SERVER, Message, Transcript, client
from .triangle import TriangleWad


def reconstruct(
    protocol: Protocol, transcript: Transcript, k: int, features: int, *, secret: Tensor | None = None
) -> Tensor:
    """The server's best guess at a client's samples.

    FedWaD: match the cloud that went down with the one that came back, and walk on along each line to its end.
    TriangleWad: the same if the server has got the secret cloud, else the cut scaled back, blurred as it is.
    Sketches: the mean, by least squares. Gaussians: the means of the classes. Sums: the client's own mean where it
    went up in the clear, else the population's, which is all there is.

    Args:
        protocol: whose options are public.
        transcript: of a run with ``record=True``.
        k: the client.
        features: F, which is public.
        secret: TriangleWad's Gaussian cloud, if some client gave it away.

    Returns:
        One or many guesses ``(guesses, F)``, float64.

    Raises:
        ValueError: the transcript has no content, or the protocol is none of these.
    """
    seen = transcript.seen_by(SERVER)
    up = next((m for m in seen if m.sender == client(k)), None)
    if up is None or up.content is None:
        raise ValueError(f"The transcript holds nothing of client {k}; run the protocol with record=True.")
    if isinstance(protocol, FedWaD):
        return _ends_of_the_way(protocol, seen, k)
    if isinstance(protocol, TriangleWad):
        cut = _array(up, "cloud")
        return cut / protocol.share if secret is None else extrapolated(wide(secret), cut, protocol.share)
    if isinstance(protocol, QuantileSketches):
        return mean_of_sketch(_array(up, "sketch"), features, seed=protocol.seed)
    if isinstance(protocol, ClassGaussians):
        return _array(up, "mean")[_array(up, "count") > 0]
    if isinstance(protocol, SummedReference):
        return _mean_of_sums(protocol, seen, up)
    raise ValueError(f"No attack on {type(protocol).__name__} is known here.")


def _ends_of_the_way(protocol: FedWaD, seen: tuple[Message, ...], k: int) -> Tensor:
    # The first pair's clouds, in the round that moved furthest: least rounding to multiply.
    mine = [m for m in seen if client(k) in (m.sender, m.receiver) and "cloud" in {p.name for p in m.pieces}]
    best = max(range(1, protocol.rounds + 1), key=protocol.share_of)
    down, up = (
        next(m for m in mine if m.round == best and getattr(m, end) == SERVER)
        for end in ("sender", "receiver")
    )
    return extrapolated(_array(down, "cloud"), _array(up, "cloud"), protocol.share_of(best))


def extrapolated(start: Tensor, moved: Tensor, share: float) -> Tensor:
    """Where the points of a cloud were heading, from where they are after a known share of the way.

    The cloud's points may have been shuffled: transport from start to cut is the matching itself.
    """
    matched = transport_plan(start, moved)[0].argmax(1)
    return start + (moved[matched] - start) / share


def mean_of_sketch(sketch: Tensor, features: int, *, seed: int) -> Tensor:
    """A client's mean ``(1, F)`` from the means along the directions, by least squares."""
    directions = unit_projections(features, len(sketch), seed=seed, like=sketch)
    mean: Tensor = torch.linalg.lstsq(directions, sketch.mean(1, keepdim=True)).solution.T
    return mean


def membership_gaps(sketch: Tensor, candidates: Tensor, *, seed: int) -> Tensor:
    """How far each candidate's projections lie from the nearest quantile, on average over the directions.

    With as many levels as samples a member's projections are all there, and its gap is zero to rounding.

    Args:
        sketch: shape ``(L, Q)``.
        candidates: shape ``(m, F)``.
        seed: of the directions.

    Returns:
        Shape ``(m,)``, in the units of the features.
    """
    directions = unit_projections(candidates.shape[1], len(sketch), seed=seed, like=wide(candidates))
    along = wide(candidates) @ directions.T
    gaps: Tensor = (along[:, :, None] - wide(sketch)[None]).abs().amin(-1).mean(-1)
    return gaps


def reconstruction_error(guesses: Tensor, samples: Tensor) -> float:
    """Root mean squared distance from each sample to the nearest guess, in the units of the features."""
    return float(torch.cdist(wide(samples), wide(guesses)).amin(1).square().mean().sqrt())


def _mean_of_sums(protocol: SummedReference, seen: tuple[Message, ...], up: Message) -> Tensor:
    if protocol.masks is None:
        counts = torch.stack([_array(up, "n")])
        weight = counts if protocol.weighting == "samples" else torch.ones_like(counts)
        return _array(up, "mean")[None] / weight
    total = next(m for m in seen if m.what == "sum of the summaries")
    return _array(total, "mean")[None] / _array(total, "weight")


def _array(message: Message, name: str) -> Tensor:
    if message.content is None:
        raise ValueError("The transcript holds no content; run the protocol with record=True.")
    return wide(message.content[name])
