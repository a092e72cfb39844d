"""Distance of every client to the others by a distance that compares samples, calibrated.

Unlike the kinds that need sums only, this needs all samples in one place. The population is the *mixture* of the other
clients' samples, known by a seeded draw of ``reference_size`` of their rows, one draw for each client. The null is
drawn by permutation: at each size on a grid, a sample of n rows of the pool against as many others as a client's
reference has. Under no difference both are exchangeable, so the null is exact at the sizes of the grid.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .calibration import Measured, judge
from .distances import Distances
from .errors import check_draws
from .null import Null, null_of, size_grid
from .numeric import rounding, seeded, wide
from .reference import Weighting, client_weights
from .samples import SampleDistance

_BATCH_PAIRS = 4_000_000
_POOL_ROWS = 65_536
_GRID = 6
_ENOUGH = 256  # draws that show the shape of a law


def sampled_distances(
    samples: Sequence[Tensor],
    kind: SampleDistance,
    *,
    seed: int,
    draws: int | None,
    gate: float,
    weighting: Weighting,
) -> Distances:
    """Distances of at least two clients to the others; see :func:`personalization.distance_to_population`."""
    pool = Pool.of(samples, weighting, seed)
    kind = kind.fitted(pool.rows[pool.shuffle[:2048]].detach())
    own = [thinned(x, kind.max_samples, seed + k) for k, x in enumerate(samples)]
    others = [pool.others(k, kind.reference_size) for k in range(len(samples))]
    measured = _measure(kind, own, others)
    squared = torch.where(
        measured.squared > rounding(samples, kind.degree, kind.labels), measured.squared, 0.0
    )
    used = torch.tensor([[len(x), len(y)] for x, y in zip(own, others, strict=True)], dtype=torch.float64)
    size = used.prod(1) / used.sum(1)
    grid = size_grid(float(used[:, 0].min()), float(used[:, 0].max()), points=_GRID)
    sizes = [(n, min(kind.reference_size, len(pool.rows) - n)) for n in grid]
    null = permutation_null(kind, pool, sizes, kind.draws if draws is None else draws)
    n = torch.tensor([len(x) for x in samples], device=squared.device)
    measured = Measured(squared, measured.variance, measured.converged)
    return judge(measured, null, size, n, gate=gate, dtype=samples[0].dtype)


@dataclass(frozen=True)
class Pool:
    """All clients' rows, and how a population is drawn from them.

    Attributes:
        rows: ``(N, F)``.
        owner: whose each row is, ``(N,)``.
        chance: of each client in the population, ``(clients,)``.
        shuffle: a seeded order of all rows, ``(N,)``.
        seed: of every draw.
        by_rows: whether every row counts the same, so that draws need no replacement.
    """

    rows: Tensor
    owner: Tensor
    chance: Tensor
    shuffle: Tensor
    seed: int
    by_rows: bool

    @classmethod
    def of(cls, samples: Sequence[Tensor], weighting: Weighting, seed: int) -> Pool:
        """The pool of these clients' samples.

        Raises:
            ValueError: unknown weighting.
        """
        n = torch.tensor([len(x) for x in samples])
        chance = client_weights(n.double(), weighting)
        owner = torch.arange(len(samples)).repeat_interleave(n)
        shuffle = torch.randperm(int(n.sum()), generator=seeded(seed, "pool"))
        return cls(
            torch.cat(list(samples)), owner, chance / chance.sum(), shuffle, seed, weighting == "samples"
        )

    def others(self, client: int, size: int) -> Tensor:
        """Up to ``size`` rows of the other clients, ``(m, F)``: a stretch of the shuffle, from a place of its own."""
        generator = seeded(self.seed, f"others {client}")
        total, own = len(self.rows), int((self.owner == client).sum())
        size = min(size, total - own)
        if not self.by_rows:
            chance = self.chance.clone()
            chance[client] = 0
            return self.rows[self._by_client(chance, (size,), generator)]
        start = int(torch.randint(total, (1,), generator=generator))
        stretch = self.shuffle[(start + torch.arange(min(total, size + own))) % total]
        return self.rows[stretch[self.owner[stretch] != client][:size]]

    def generator(self, purpose: str) -> torch.Generator:
        """A generator of the pool's seed for one purpose."""
        return seeded(self.seed, purpose)

    def draw(self, n: int, draws: int, generator: torch.Generator) -> Tensor:
        """``draws`` samples of n rows, with replacement, ``(draws, n, F)``."""
        if self.by_rows:
            index = torch.randint(len(self.rows), (draws, n), generator=generator)
        else:
            index = self._by_client(self.chance, (draws, n), generator)
        return self.rows[index]

    def halves(self, n: int, m: int, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``draws`` pairs of disjoint samples of the pool, ``(draws, n, F)`` and ``(draws, m, F)``."""
        if self.by_rows:
            some = self.shuffle[: max(_POOL_ROWS, 4 * (n + m))]
            index = torch.stack(
                [some[torch.randperm(len(some), generator=generator)[: n + m]] for _ in range(draws)]
            )
        else:
            index = self._by_client(self.chance, (draws, n + m), generator)
        return self.rows[index[:, :n]], self.rows[index[:, n:]]

    def _by_client(self, chance: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Rows drawn with replacement: first a client, then one of its rows."""
        flat = int(torch.Size(shape).numel())
        clients = torch.multinomial(chance, flat, replacement=True, generator=generator)
        counts = torch.bincount(self.owner, minlength=len(chance))
        within = (torch.rand(flat, generator=generator, dtype=torch.float64) * counts[clients]).long()
        return (counts.cumsum(0) - counts)[clients].add(within).reshape(shape)


def thinned(x: Tensor, limit: int, seed: int) -> Tensor:
    """At most ``limit`` rows of ``x``, a seeded draw without replacement where there are more."""
    if len(x) <= limit:
        return x
    keep = torch.randperm(len(x), generator=seeded(seed, "thin"))[:limit]
    return x[keep.to(x.device)]


def alike(pairs: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Positions of pairs of samples of like sizes ``(n, m)``, in batches that bound the cost matrices' memory."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for k, sizes in enumerate(pairs):
        groups[sizes].append(k)
    for (n, m), members in groups.items():
        step = max(1, _BATCH_PAIRS // max(n, m) ** 2)
        for start in range(0, len(members), step):
            yield members[start : start + step]


def _measure(kind: SampleDistance, own: Sequence[Tensor], others: Sequence[Tensor]) -> Measured:
    squared = wide(own[0]).new_zeros(len(own))
    variance, converged = torch.zeros_like(squared), torch.ones_like(squared, dtype=torch.bool)
    for who in alike([(len(x), len(y)) for x, y in zip(own, others, strict=True)]):
        x, y = torch.stack([own[k] for k in who]), torch.stack([others[k] for k in who])
        value, done = kind.between(x, y)
        squared[who], converged[who] = wide(value).square(), done
        variance[who] = wide(kind.linear_variance(x, y))
    return Measured(squared, variance, converged)


def permutation_null(kind: SampleDistance, pool: Pool, sizes: Sequence[tuple[int, int]], draws: int) -> Null:
    """The null of two disjoint samples of the pool at each pair of sizes ``(n, m)``, over ``n m / (n + m)``.

    Raises:
        ValueError: fewer than two draws.
    """
    check_draws(draws)
    generator = seeded(pool.seed, "null")
    effective, scaled = [], []
    for n, m in sorted(sizes, key=lambda pair: pair[0] * pair[1] / sum(pair)):
        step = max(1, _BATCH_PAIRS // max(n, m) ** 2)
        parts = []
        for start in range(0, draws, step):
            with torch.no_grad():  # distances have gradients, what they are judged by has none
                value, _ = kind.between(*pool.halves(n, m, min(step, draws - start), generator))
            parts.append(wide(value).square().cpu())
        effective.append(n * m / (n + m))
        scaled.append(effective[-1] * torch.cat(parts))
    grid = torch.tensor(effective, dtype=torch.float64)
    # In n m / (n + m) the mean bends where n nears m: a parabola is off there, with most clients.
    return null_of(grid, torch.stack(scaled), any_shape=draws >= _ENOUGH, degree=3)
