"""The null of distances of sums, from the samples themselves: for analyses, where all of them are in one place.

:func:`personalization.fit_null` draws from a law that sums describe, all that a server knows. Where that law is not
the clients' (heavy tails, clusters) its p-values fail. Here samples are drawn from all clients' rows instead, whatever
their law: exact, but for repeated rows, if the clients share it. If they do not, the noise is that of the mixture,
which is wider than a client's own, so that fewer clients are found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import check_draws
from .kind import DistanceKind, Statistics
from .null import Draws, Null, drawn_null, null_of
from .numeric import wide
from .sampled import Pool

_BATCH_VALUES = 4_000_000


def dealt(samples: Sequence[Tensor], pool: Pool, deal: int = 0) -> list[Tensor]:
    """The pool's rows dealt to clients of the same sizes: a population without differences, as blunt as theirs.

    By rows it is one permutation, whose mean is the pool's; by clients every ``deal`` is drawn anew.
    """
    sizes = [len(x) for x in samples]
    if pool.by_rows:
        return list(pool.rows[pool.shuffle].split(sizes))
    return list(pool.draw(sum(sizes), 1, pool.generator(f"deal {deal}"))[0].split(sizes))


def deals_needed(n: Tensor, *, by_rows: bool) -> int:
    """How many deals to average, so that their noise adds a fiftieth to the null at most.

    One permutation of rows has no noise of its own. Clients' means with equal weights have that of M samples, and it adds
    ``1 / deals (M / n + 1)`` to the null of a client of n.
    """
    if by_rows:
        return 1
    n = n.double()
    size = len(n) ** 2 / float((1 / n).sum())
    return math.ceil(50 / (1 + size / float(n.max())))


def pool_null(
    kind: DistanceKind,
    pool: Pool,
    reference: Statistics,
    sizes: Sequence[int],
    *,
    draws: int,
    largest: float | None = None,
) -> Null:
    """Samples of the pool against a population of it.

    Args:
        kind: the distance.
        pool: of all clients' rows.
        reference: mean statistics of clients :func:`dealt` from the pool.
        sizes: the grid, increasing, see :func:`personalization.size_grid`.
        draws: samples per size.
        largest: size up to which to tell bias from noise, see :func:`personalization.null.drawn_null`.

    Returns:
        The null on the grid.

    Raises:
        ValueError: fewer than two draws.
    """
    generator = pool.generator("null")

    def draw(n: int, count: int) -> Statistics:
        return kind.statistics(pool.draw(n, count, generator))

    rows = _BATCH_VALUES // pool.rows.shape[1]
    return drawn_null(Draws(kind, reference, draw, draws, rows), sizes, largest=largest, any_shape=True)


def pool_pair_null(
    kind: DistanceKind, pool: Pool, reference: Statistics, sizes: Sequence[int], *, draws: int
) -> Null:
    """One client's half of the null of two samples of the pool of equal size; arguments as of :func:`pool_null`."""
    check_draws(draws)
    generator, width = pool.generator("null"), pool.rows.shape[1]
    scaled = []
    for n in sizes:
        step, parts = max(1, min(draws, _BATCH_VALUES // (n * width))), []
        for start in range(0, draws, step):
            count = min(step, draws - start)
            one, other = (kind.statistics(pool.draw(n, count, generator)) for _ in range(2))
            parts.append(wide(kind.squared(one, other)) / 2)
        scaled.append(n * torch.cat(parts))
    grid = torch.tensor(sizes, dtype=scaled[0].dtype, device=scaled[0].device)
    return null_of(grid, torch.stack(scaled), lambda n: kind.ripple(reference, n), any_shape=True)
