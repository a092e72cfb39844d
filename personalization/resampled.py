"""The null of distances of sums, from the samples themselves: for analyses, where all of them are in one place.

:func:`personalization.fit_null` draws from a law that sums describe, all that a server knows. Where that law is not
the clients' (heavy tails, clusters) its p-values fail. Here samples are drawn from all clients' rows instead, whatever
their law: exact, but for repeated rows, if the clients share it. If they do not, the noise is that of the mixture,
which is wider than a client's own, so that fewer clients are found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .calibration import Null, null_of
from .errors import check_draws
from .kind import DistanceKind, Statistics
from .numeric import wide
from .sampled import Pool

_BATCH_VALUES = 4_000_000


def dealt(samples: Sequence[Tensor], pool: Pool) -> list[Tensor]:
    """The pool's rows dealt to clients of the same sizes: a population without differences, as blunt as theirs."""
    sizes = [len(x) for x in samples]
    if pool.by_rows:
        return list(pool.rows[pool.shuffle].split(sizes))
    return list(pool.draw(sum(sizes), 1, pool.generator("deal"))[0].split(sizes))


def pool_null(
    kind: DistanceKind, pool: Pool, reference: Statistics, sizes: Sequence[int], *, draws: int
) -> Null:
    """Samples of the pool against a population of it.

    Args:
        kind: the distance.
        pool: of all clients' rows.
        reference: mean statistics of clients :func:`dealt` from the pool.
        sizes: the grid, increasing, see :func:`personalization.size_grid`.
        draws: samples per size.

    Returns:
        The null on the grid.

    Raises:
        ValueError: fewer than two draws.
    """

    def squared(n: int, count: int, generator: torch.Generator) -> Tensor:
        return kind.squared(kind.statistics(pool.draw(n, count, generator)), reference)

    return _drawn(squared, kind, pool, reference, sizes, draws)


def pool_pair_null(
    kind: DistanceKind, pool: Pool, reference: Statistics, sizes: Sequence[int], *, draws: int
) -> Null:
    """One client's half of the null of two samples of the pool of equal size; arguments as of :func:`pool_null`."""

    def squared(n: int, count: int, generator: torch.Generator) -> Tensor:
        one, other = (kind.statistics(pool.draw(n, count, generator)) for _ in range(2))
        return kind.squared(one, other) / 2

    return _drawn(squared, kind, pool, reference, sizes, draws)


def _drawn(
    squared: Callable[[int, int, torch.Generator], Tensor],
    kind: DistanceKind,
    pool: Pool,
    reference: Statistics,
    sizes: Sequence[int],
    draws: int,
) -> Null:
    check_draws(draws)
    generator, width = pool.generator("null"), pool.rows.shape[1]
    scaled = []
    for n in sizes:
        step = max(1, min(draws, _BATCH_VALUES // (n * width)))
        parts = [wide(squared(n, min(step, draws - start), generator)) for start in range(0, draws, step)]
        scaled.append(n * torch.cat(parts))
    grid = torch.tensor(sizes, dtype=scaled[0].dtype, device=scaled[0].device)
    return null_of(grid, torch.stack(scaled), lambda n: kind.ripple(reference, n), any_shape=True)
