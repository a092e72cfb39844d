"""The messages by which a null is corrected from halves, see :mod:`personalization.halves`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import unknown_name
from ..halves import BINS, half_counts, half_sizes, knots
from ..kind import DistanceKind
from ..null import Null
from .masks import PairwiseMasks
from .transcript import EVERYONE, SERVER, Message, Piece, Route, client

_DOWN = Route(1, SERVER, EVERYONE, "null of halves")


def check_law(null_from: str, *, noised: bool) -> None:
    """What a null may be drawn from where sums are all there is.

    Raises:
        ValueError: another name, or halves, whose counts are exact, beside noise.
    """
    if null_from not in ("law", "halves"):
        raise unknown_name("null_from", null_from, ("law", "halves"))
    if noised and null_from == "halves":
        raise ValueError(
            "SummedReference: null_from='halves' sends exact counts, which noise=... does not hide. Leave one of them out."
        )


def planned(sizes: Sequence[int], *, masked: bool) -> list[Message]:
    """The messages of clients of these sizes."""
    grid = len(half_sizes(torch.tensor(sizes)))
    down = tuple(Piece(name, (grid,), torch.float64) for name in ("sizes", "mean", "std", "skew"))
    up = Piece("counts", (grid, BINS), torch.int64 if masked else torch.float64)
    return [_DOWN.of(down), *(_up(k, masked).of((up,)) for k in range(len(sizes)))]


def exchanged(
    kind: DistanceKind,
    samples: Sequence[Tensor],
    law: Null,
    masks: PairwiseMasks | None,
    *,
    seed: int,
    record: bool,
) -> tuple[list[Message], Tensor]:
    """The same messages as sent, and the sum of the clients' counts ``(sizes, bins)``."""
    own = {"counts": half_counts(kind, samples, law, seed=seed)}
    sent = own if masks is None else masks.encode(own, turn=1)  # that of the summaries is 0
    total = {name: x.sum(0) for name, x in sent.items()}
    total = total if masks is None else masks.decode(total)
    messages = [_DOWN.carry(knots(law), record=record)]
    for k, counts in enumerate(sent["counts"]):
        messages.append(_up(k, masks is not None).carry({"counts": counts}, record=record))
    return messages, total["counts"]


def _up(k: int, masked: bool) -> Route:
    return Route(2, client(k), SERVER, "masked counts of halves" if masked else "counts of halves")
