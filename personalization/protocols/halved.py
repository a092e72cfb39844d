"""The messages by which a null is corrected from halves, see :mod:`personalization.halves`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import check_finite, unknown_name
from ..halves import BINS, KNOTS, half_counts, half_sizes, knots, of_knots
from ..kind import DistanceKind, Statistics
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
    down = tuple(Piece(name, (grid,), torch.float64) for name in KNOTS)
    up = Piece("counts", (grid, BINS), torch.int64 if masked else torch.float64)
    return [_DOWN.of(down), *(_up(k, masked).of((up,)) for k in range(len(sizes)))]


def counted(
    kind: DistanceKind, samples: Tensor, reference: Statistics, halves: Mapping[str, Tensor], *, seed: int
) -> Tensor:
    """One client's counts ``(sizes, 128)``, by the law's null that it was sent.

    Raises:
        ValueError: what was sent is no null.
    """
    given = dict(halves) if isinstance(halves, Mapping) else {}
    shapes = {name: tuple(x.shape) for name, x in given.items() if isinstance(x, Tensor)}
    grid = shapes.get("sizes", ())
    if set(given) != set(KNOTS) or shapes != dict.fromkeys(KNOTS, grid) or len(grid) != 1 or 0 in grid:
        raise ValueError(
            f"halves holds {shapes}; give what halves() returned: {', '.join(KNOTS)}, each (sizes,)."
        )
    check_finite(**{f"halves[{name!r}]": x for name, x in given.items()})
    if bool((given["sizes"] <= 0).any() or (given["std"] < 0).any()):
        raise ValueError(
            "halves has a size that is not above 0 or a negative std; give what halves() returned."
        )
    return half_counts(kind, [samples], of_knots(kind, reference, halves), seed=seed)[0]


def check_sum(counts: Tensor, law: Null) -> Tensor:
    """The sum of the clients' counts, float64 ``(sizes, 128)``.

    Raises:
        ValueError: another shape, or numbers that count nothing.
    """
    shape = (len(law.sizes), BINS)
    found = type(counts).__name__
    if isinstance(counts, Tensor):
        number = counts.dtype != torch.bool and not counts.is_complex()
        found = str(tuple(counts.shape) if number else counts.dtype)
    if found != str(shape):
        raise ValueError(f"counts is {found}; give the sum over clients of what counts() returned, {shape}.")
    check_finite(counts=counts)
    if bool((counts.round() < 0).any()):
        raise ValueError(
            f"counts has {float(counts.min()):g}; give the sum over clients, after masks are taken off."
        )
    return counts.to(law.sizes)


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
