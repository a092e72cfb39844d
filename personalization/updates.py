r"""Calibrated distances between clients' updates: how much of a gap is noise of few samples, told from replicates.

A client's update is a function of its samples, so it carries their noise, and a plain cosine mostly says who has few.
That noise is not known from one update. A client that trains R times, on R disjoint parts of its samples, shows it:
the mean of the R is its update, and orthonormal contrasts between them have R times the update's noise and nothing of
its difference from the others. The null adds contrasts of other clients to the mean update of all. Fewer than about
twenty contrasts say little of the noise, and p-values are then too small.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from .calibration import Measured, Null, judge, null_of, relative_scale
from .distances import Distances
from .errors import check_counts, check_draws, check_gate, unknown_name
from .numeric import pairwise_squared, rounding_of, safe_root, seeded, wide
from .pairwise import Pairwise, judge_pairs, plain_pairs
from .parameters import check_updates, client_shares, of_order_one, others

Metric = Literal["cosine", "l2"]

_FEW = 20

D = TypeVar("D", Distances, Pairwise)


def update_distances(
    updates: Tensor,
    n: Tensor | Sequence[int],
    metric: Metric = "cosine",
    *,
    weights: Tensor | Sequence[float] | None = None,
    draws: int = 1024,
    seed: int = 0,
    gate: float = 1.0,
) -> Distances:
    r"""Distance of each client's update to the weighted mean of all others.

    Args:
        updates: parameters or ``anchor - local``, finite; ``(clients, parameters)``, which cannot be calibrated, or
            ``(clients, R, parameters)`` from R >= 2 disjoint parts of equal size of a client's samples, which are. All
            trained alike.
        n: samples of the clients, all parts together, ``(clients,)``, at least 1.
        metric: "l2", or "cosine": the chord :math:`\sqrt{2 (1 - \cos)}` between directions, so that ``value ** 2 / 2`` is
            :func:`personalization.cosine_distance`.
        weights: of the clients in the mean, non-negative, ``(clients,)``; ``n`` where not given.
        draws: of the null per size.
        seed: of the null.
        gate: the z-score below which the calibrated distance is 0.

    Returns:
        Distances of the mean of the R updates, in the updates' dtype and on their device, without gradients; "l2" in the
        parameters' units, "cosine" in [0, 2]. Not calibrated, the null is 0, p is 1, the error infinite and ``calibrated``
        is ``value``. One client alone has distance 0. Float64 copies take some four times the updates' memory.

    Raises:
        ValueError: another shape, NaN, R = 1, n below 1, an unknown metric, negative weights or none.
    """
    learned = _learned(updates, n, metric, gate, draws)
    if len(learned.mean) == 1:
        return replace(_plain(updates.new_zeros(1), learned.n), std_error=updates.new_zeros(1))
    w = client_shares(learned.mean, learned.n if weights is None else weights)
    rest = others(learned.mean, w)
    squared = learned.squared(learned.mean, rest)
    if not len(learned.contrasts):
        return _plain(learned.unit * safe_root(squared), learned.n).to(updates.dtype)
    noise = w.square() / learned.size
    rest_size = (1 - w).square() / (noise.sum() - noise)
    own, theirs = (learned.contrasts @ x.T for x in (learned.mean, rest))
    variance = learned.variance(own, theirs, learned.mean, rest) / learned.size
    variance = variance + learned.variance(theirs, own, rest, learned.mean) / rest_size
    typical = rest_size.median()
    _warn_of_few(learned)
    grid = _grid(learned.size)
    null = learned.null(grid, typical.expand_as(grid), draws, seed)
    size = 1 / (1 / learned.size + 1 / rest_size)
    measured = Measured(squared, variance, torch.ones_like(squared, dtype=torch.bool))
    return learned.scaled(judge(measured, null, size, learned.n, gate=gate, dtype=squared.dtype)).to(
        updates.dtype
    )


def pairwise_update_distances(
    updates: Tensor,
    n: Tensor | Sequence[int],
    metric: Metric = "cosine",
    *,
    draws: int = 1024,
    seed: int = 0,
    gate: float = 1.0,
) -> Pairwise:
    """Distance between any two clients' updates; arguments, values and errors as in :func:`update_distances`."""
    learned = _learned(updates, n, metric, gate, draws)
    rows, size = learned.mean, learned.size
    squared = learned.pairwise()
    if not len(learned.contrasts) or len(rows) == 1:
        return learned.scaled(plain_pairs(squared, learned.n)).to(updates.dtype)
    _warn_of_few(learned)
    grid = _grid(size)
    null = learned.null(grid, grid, draws, seed)
    variance = learned.pair_variance(squared) / size[:, None]
    measured = Measured(squared, variance + variance.T, torch.ones_like(squared, dtype=torch.bool))
    moments = null.at(1 / (1 / size[:, None] + 1 / size))
    return learned.scaled(judge_pairs(measured, moments, learned.n, gate)).to(updates.dtype)


@dataclass(frozen=True)
class _Learned:
    """Updates in float64, and their noise.

    Attributes:
        metric: between them.
        n: samples, ``(clients,)``.
        mean: over the replicates, ``(clients, P)``.
        size: samples that the noise is worth, ``(clients,)``.
        contrasts: between replicates, with the noise of one sample, as many for each client, ``(A, P)``; empty without
            replicates.
        floor: squared distance that is rounding only.
        unit: that distances are in; the rest is over the largest of all parameters.
    """

    metric: Metric
    n: Tensor
    mean: Tensor
    size: Tensor
    contrasts: Tensor
    floor: float
    unit: Tensor

    def scaled(self, found: D) -> D:
        """In the unit of the parameters."""
        once = {name: getattr(found, name) * self.unit for name in ("value", "calibrated", "std_error")}
        twice = {
            name: getattr(found, name) * self.unit**2
            for name in ("null_mean", "null_std")
            if hasattr(found, name)
        }
        return replace(found, **once, **twice)

    def squared(self, u: Tensor, v: Tensor) -> Tensor:
        if self.metric == "l2":
            return self._above((u - v).square().sum(-1))
        return self._above(_chord(u.square().sum(-1), v.square().sum(-1), (u * v).sum(-1)))

    def pairwise(self) -> Tensor:
        if self.metric == "l2":
            return self._above(pairwise_squared(self.mean - self.mean.mean(0)))
        inner = self.mean @ self.mean.T
        lengths = inner.diagonal()
        return self._above(_chord(lengths[:, None], lengths, (inner + inner.T) / 2).fill_diagonal_(0))

    def _above(self, squared: Tensor) -> Tensor:
        return torch.where(squared > self.floor, squared, 0.0)

    def variance(self, own: Tensor, other: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Of the squared distance to first order in u, times its size; ``own``, ``other`` are contrasts times u, v."""
        if self.metric == "l2":
            return 4 * (own - other).square().mean(0)
        first, second = (_length(x) for x in (u, v))
        cosine = (u * v).sum(-1) / (first * second)
        return 4 * ((other / second - cosine * own / first) / first).square().mean(0)

    def pair_variance(self, squared: Tensor) -> Tensor:
        """``(clients, clients)``: row i to first order in the update of client i, times its size."""
        along = self.mean @ self.contrasts.T
        if self.metric == "l2":
            return 4 * pairwise_squared(along) / len(self.contrasts)
        length = _length(self.mean)[:, None]
        along = along / length
        inner = along @ along.T / len(self.contrasts)
        power, cosine = inner.diagonal(), 1 - squared / 2
        spread = power - 2 * cosine * inner + cosine.square() * power[:, None]
        return 4 * spread.clamp_min(0) / length.square()

    def null(self, sizes: Tensor, other_sizes: Tensor, draws: int, seed: int) -> Null:
        """Of the mean update with one client's noise against it with another's, at their harmonic sizes."""
        # For L2 the mean update cancels out, and would leave its rounding.
        share = self.size / self.size.sum() * (self.metric == "cosine")
        rows = torch.cat([share[None] @ self.mean, self.contrasts])
        inner = rows @ rows.T
        generator, count = seeded(seed, "updates"), len(self.contrasts)
        each = count // len(self.mean)
        harmonic = 1 / (1 / sizes + 1 / other_sizes)
        scaled = []
        for s, t, h in zip(sizes, other_sizes, harmonic, strict=True):
            a = torch.randint(count, (draws,), generator=generator)
            # Any contrast but those of the same client, from the end of its own on.
            step = torch.randint(each, count, (draws,), generator=generator)
            a, b = (x.to(inner.device) for x in (a, (a // each * each + step) % count))
            sign = (2 * torch.randint(2, (2, draws), generator=generator) - 1).to(inner)
            x, y = sign[0] / s.sqrt(), sign[1] / t.sqrt()
            i, j = a + 1, b + 1
            whole, mine, its = inner[0, 0], inner[0, i] * x, inner[0, j] * y
            uu = whole + 2 * mine + inner[i, i] * x.square()
            vv = whole + 2 * its + inner[j, j] * y.square()
            uv = whole + mine + its + inner[i, j] * x * y
            squared = uu + vv - 2 * uv if self.metric == "l2" else _chord(uu, vv, uv)
            scaled.append(h * squared.clamp_min(0))
        order = harmonic.argsort()
        return null_of(harmonic[order], torch.stack(scaled)[order])


def _learned(updates: Tensor, n: Tensor | Sequence[int], metric: str, gate: float, draws: int) -> _Learned:
    if metric not in get_args(Metric):
        raise unknown_name("metric of updates", str(metric), get_args(Metric))
    check_gate(gate)
    check_draws(draws)
    replicates = updates.shape[1] if isinstance(updates, Tensor) and updates.ndim == 3 else 0
    if replicates == 1:
        raise ValueError(
            "updates has one replicate a client, which shows no noise; give (clients, parameters), or train every "
            "client on two or more disjoint parts of its samples."
        )
    check_updates(updates.flatten(1) if replicates else updates)
    counts = check_counts(n, len(updates), max(1, replicates)).to(updates.device)
    rows, unit = of_order_one(updates.detach())
    if metric == "cosine":
        unit = torch.ones_like(unit)
    elif not torch.isfinite(unit.to(updates.dtype).square()):
        raise ValueError(
            f"updates reach {float(unit):.3g}, whose squares {updates.dtype} cannot hold; scale them down."
        )
    mean = rows.mean(1) if replicates else rows
    power = float(mean.square().sum(1).mean()) if metric == "l2" else 1.0
    floor = rounding_of(updates.dtype, power)
    size, contrasts = wide(counts), rows.new_empty(0, rows.shape[-1])
    if replicates:
        raw = (_contrasts(replicates).to(rows) @ rows) / replicates**0.5
        size = _effective_size(size, raw.square().sum(-1).mean(1))
        contrasts = (raw * size.sqrt()[:, None, None]).flatten(0, 1)
    return _Learned(metric, counts, mean, size, contrasts, floor, unit)  # type: ignore[arg-type]


def _warn_of_few(learned: _Learned) -> None:
    found = len(learned.contrasts)
    if found < _FEW:
        warnings.warn(
            f"{found} contrasts between replicates (clients x (R - 1)) say little of the updates' noise, and p-values are "
            f"too small; from {_FEW} on they hold. Train on more parts, or read the order of the distances alone.",
            stacklevel=3,
        )


def _contrasts(replicates: int) -> Tensor:
    """Helmert's: ``(R - 1, R)``, orthonormal rows that sum to zero."""
    rows = torch.ones(replicates - 1, replicates, dtype=torch.float64).tril()
    k = torch.arange(1, replicates, dtype=torch.float64)
    rows[torch.arange(replicates - 1), torch.arange(1, replicates)] = -k
    return rows / (k * (k + 1)).sqrt()[:, None]


def _effective_size(n: Tensor, noise: Tensor) -> Tensor:
    """Sizes in samples, ``1 / (1/n + c)``: c is noise that more samples do not lessen, of batches or starting points.

    c is the one under which ``noise (clients,)``, mean squared contrasts, is likeliest if it is gamma-distributed
    about ``1/n + c`` with one shape, and 0 unless that beats the law ``1/n`` by Akaike's criterion.
    """
    if not bool((noise > 0).all()) or len(n) < 3:
        return n
    floors = torch.cat([n.new_zeros(1), torch.logspace(-3, 3, 61, dtype=n.dtype).to(n) / n.median()])
    law = 1 / n + floors[:, None]
    ratio = noise / law
    level = ratio.mean(1)
    fit = -law.log().mean(1) - level.log()
    best = int(fit.argmax())
    shape = level[best].square() / ratio[best].var().clamp_min(1e-300)
    # Twice the log-likelihood gained, against two for the parameter.
    worth = 2 * len(n) * shape * (fit[best] - fit[0]) > 2
    return 1 / law[best] if bool(worth) else n


def _grid(size: Tensor) -> Tensor:
    low, high = size.min(), size.max()
    if float(high) <= 1.01 * float(low):
        return low[None]
    steps = torch.linspace(0, 1, 8, dtype=size.dtype, device=size.device)
    return low * (high / low) ** steps


def _length(rows: Tensor) -> Tensor:
    length = rows.norm(dim=-1)
    return torch.where(length > 0, length, 1.0)


def _chord(uu: Tensor, vv: Tensor, uv: Tensor) -> Tensor:
    """Squared distance of directions: 2 where one has none, 0 where neither has."""
    uu, vv = torch.broadcast_tensors(uu, vv)
    lengths = (uu.clamp_min(0).sqrt() * vv.clamp_min(0).sqrt()).clamp_min(1e-300)
    return torch.where((uu <= 0) & (vv <= 0), 0.0, (2 - 2 * uv / lengths).clamp(0, 4))


def _plain(value: Tensor, n: Tensor) -> Distances:
    zero = torch.zeros_like(value)
    return Distances(
        value=value,
        null_mean=zero,
        null_std=zero,
        z=zero,
        p_value=zero + 1,
        n=n,
        calibrated=value,
        relative=relative_scale(wide(value), wide(zero)).to(value.dtype),
    )
