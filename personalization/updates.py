r"""Calibrated distances between clients' updates: how much of a gap is noise of few samples, told from replicates.

A client's update is a function of its samples, so it carries their noise, and a plain cosine mostly says who has few.
A client that trains on R disjoint parts of its samples shows that noise (:mod:`personalization.replicates`). The null adds
contrasts of two clients to the mean update of all, and so assumes three things: all clients' noise has one law; it falls
with the number of parts, or of samples; and the *expected* update does not depend on how many samples a part has. The
last does not hold for networks trained to convergence: what fifteen samples teach is no scaled copy of what three hundred
do. Parts of one size for all keep it true, whatever is trained.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from .calibration import Measured, judge, relative_scale
from .distances import Distances
from .errors import check_draws, check_gate, unknown_name
from .null import Null, null_of
from .numeric import for_squares, pairwise_squared, rounding_of, safe_root, seeded, wide
from .pairwise import Pairwise, judge_pairs, plain_pairs
from .parameters import client_shares, others
from .replicates import Replicates, Updates, replicates_of

Metric = Literal["cosine", "l2"]

_FEW = 60

D = TypeVar("D", Distances, Pairwise)


def update_distances(
    updates: Updates,
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
        updates: parameters or ``anchor - local``, finite, all trained alike from one anchor:

            - a sequence of ``(R_k, parameters)``: from :math:`R_k \ge 1` disjoint parts of a client's samples, *parts of
              one size for all*, more of them where there are more samples. p-values hold for whatever is trained so.
            - ``(clients, R, parameters)`` from R >= 2 parts of equal size of a client's samples. Where clients differ in n,
              p-values hold for what is nearly a mean over samples (few steps, linear models); of networks trained long,
              small clients look far.
            - ``(clients, parameters)``, which cannot be calibrated.
        n: samples of the clients, all parts together, ``(clients,)``, at least one a part.
        metric: "l2", or "cosine": the chord :math:`\sqrt{2 (1 - \cos)}` between directions, so that ``value ** 2 / 2`` is
            :func:`personalization.cosine_distance`.
        weights: of the clients in the mean, non-negative, ``(clients,)``; ``n`` where not given.
        draws: of the null per size.
        seed: of the null.
        gate: the z-score below which the calibrated distance is 0.

    Returns:
        Distances of the mean of a client's updates, in their dtype and on their device, without gradients; "l2" in the
        parameters' units, "cosine" in [0, 2]. Not calibrated, the null is 0, p is 1, the error infinite and ``calibrated``
        is ``value``. One client alone has distance 0. Float64 copies take some five times the updates' memory in float32.

    Raises:
        ValueError: another shape, NaN, R = 1 in a tensor, parts of which only one client has two, fewer samples than
            parts, an unknown metric, negative weights or none.
    """
    learned, dtype = _compared(updates, n, metric, gate, draws)
    told = learned.told
    w = client_shares(told.mean, told.n if weights is None else weights)
    if len(told.mean) == 1:
        nothing = told.mean.new_zeros(1)
        return replace(_plain(nothing, told.n), std_error=nothing).to(dtype)
    rest = others(told.mean, w)
    squared = learned.squared(told.mean, rest)
    if not len(told.contrasts):
        return _plain(learned.unit * safe_root(squared), told.n).to(dtype)
    noise = w.square() / told.size
    rest_size = (1 - w).square() / (noise.sum() - noise)
    own, theirs = (told.contrasts @ x.T for x in (told.mean, rest))
    variance = learned.variance(own, theirs, told.mean, rest) / told.size
    variance = variance + learned.variance(theirs, own, rest, told.mean) / rest_size
    grid = _grid(told.size)
    null = learned.null(grid, rest_size.median().expand_as(grid), draws, seed)
    size = 1 / (1 / told.size + 1 / rest_size)
    measured = Measured(squared, variance, torch.ones_like(squared, dtype=torch.bool))
    return learned.scaled(judge(measured, null, size, told.n, gate=gate, dtype=squared.dtype)).to(dtype)


def pairwise_update_distances(
    updates: Updates,
    n: Tensor | Sequence[int],
    metric: Metric = "cosine",
    *,
    draws: int = 1024,
    seed: int = 0,
    gate: float = 1.0,
) -> Pairwise:
    """Distance between any two clients' updates; arguments, values and errors as in :func:`update_distances`."""
    learned, dtype = _compared(updates, n, metric, gate, draws)
    told = learned.told
    squared = learned.pairwise()
    if not len(told.contrasts) or len(told.mean) == 1:
        return learned.scaled(plain_pairs(squared, told.n)).to(dtype)
    grid = _grid(told.size)
    null = learned.null(grid, grid, draws, seed)
    variance = learned.pair_variance(squared) / told.size[:, None]
    measured = Measured(squared, variance + variance.T, torch.ones_like(squared, dtype=torch.bool))
    moments = null.at(1 / (1 / told.size[:, None] + 1 / told.size))
    return learned.scaled(judge_pairs(measured, moments, told.n, gate)).to(dtype)


@dataclass(frozen=True)
class _Compared:
    """How updates differ, and what differences come of noise alone.

    Attributes:
        metric: between them.
        told: the updates.
        floor: squared distance that is rounding only.
        unit: of distances, a scalar; the updates are in units of their largest number.
    """

    metric: Metric
    told: Replicates
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
        mean = self.told.mean
        if self.metric == "l2":
            return self._above(pairwise_squared(mean - mean.mean(0)))
        inner = mean @ mean.T
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
        mean, contrasts = self.told.mean, self.told.contrasts
        along = mean @ contrasts.T
        if self.metric == "l2":
            return 4 * pairwise_squared(along) / len(contrasts)
        length = _length(mean)[:, None]
        along = along / length
        inner = along @ along.T / len(contrasts)
        power, cosine = inner.diagonal(), 1 - squared / 2
        spread = power - 2 * cosine * inner + cosine.square() * power[:, None]
        return 4 * spread.clamp_min(0) / length.square()

    def null(self, sizes: Tensor, other_sizes: Tensor, draws: int, seed: int) -> Null:
        """Of the mean update with one client's noise against it with another's, at their harmonic sizes."""
        told = self.told
        # For L2 the mean update cancels out, and would leave its rounding.
        share = told.size / told.size.sum() * (self.metric == "cosine")
        mean = share @ told.mean
        common, along, inner = mean @ mean, told.contrasts @ mean, told.contrasts @ told.contrasts.T
        generator = seeded(seed, "updates")
        harmonic = 1 / (1 / sizes + 1 / other_sizes)
        scaled = []
        for size, other, both in zip(sizes, other_sizes, harmonic, strict=True):
            one, two = told.noise((float(size), float(other)), draws, generator)
            mine, its = one @ inner, two @ inner
            uu = common + 2 * one @ along + (mine * one).sum(1)
            vv = common + 2 * two @ along + (its * two).sum(1)
            uv = common + (one + two) @ along + (mine * two).sum(1)
            squared = uu + vv - 2 * uv if self.metric == "l2" else _chord(uu, vv, uv)
            scaled.append(both * squared.clamp_min(0))
        order = harmonic.argsort()
        return null_of(harmonic[order], torch.stack(scaled)[order])


def _compared(
    updates: Updates, n: Tensor | Sequence[int], metric: str, gate: float, draws: int
) -> tuple[_Compared, torch.dtype]:
    """Both functions' beginning: what was learned, and the dtype to answer in."""
    if metric not in get_args(Metric):
        raise unknown_name("metric of updates", str(metric), get_args(Metric))
    check_gate(gate)
    check_draws(draws)
    told = replicates_of(updates, n)
    dtype = updates.dtype if isinstance(updates, Tensor) else updates[0].dtype
    unit = told.unit if metric == "l2" else torch.ones_like(told.unit)
    if not torch.isfinite(unit.to(for_squares(dtype)).square()):
        raise ValueError(
            f"updates reach {float(unit):.3g}, whose squares {dtype} cannot hold; scale them down."
        )
    power = float(told.mean.square().sum(1).mean()) if metric == "l2" else 1.0
    found = len(told.contrasts)
    if 0 < found < _FEW and len(told.mean) > 1:
        warnings.warn(
            f"{found} contrasts between parts (of a client with R parts R - 1) say little of the updates' noise: of "
            "clients that do not differ p < .05 comes twice as often as it should from 10, 1.5 times from 20, and "
            "nearly right from 200. Train on more parts, or read the order of the distances alone.",
            stacklevel=3,
        )
    return _Compared(metric, told, rounding_of(dtype, power), unit), dtype  # type: ignore[arg-type]


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
