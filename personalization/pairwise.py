"""Distances between all pairs of clients, calibrated at both sample sizes: what graphs and clusters are built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .calibration import Measured, standard_error
from .errors import (
    Features,
    check_counts,
    check_draws,
    check_features,
    check_finite,
    check_flag,
    check_gate,
    check_positions,
)
from .kind import AnyDistance, DistanceKind, Statistics
from .null import Null, fit_null, p_value, size_grid, z_score
from .numeric import for_squares, narrowed, rounding, safe_root, seeded, single, wide
from .population import DRAWS, NullLaw, build_kind, check_null, client_statistics, labels_of, standardised
from .reference import combine, summarise
from .resampled import pool_pair_null
from .sampled import Pool, alike, permutation_null, thinned
from .samples import SampleDistance
from .spread import ratio

_ROWS = 64  # what the cache holds
_SQUARE = 256  # rows that are turned into columns at once


@dataclass(frozen=True)
class Pairwise:
    """Distances between clients; matrices ``(clients, clients)``, symmetric with a zero diagonal.

    Floating matrices have the dtype of what was measured, ``null_mean`` float32 at least, for it is a square.

    Attributes:
        value: raw distances, in the units of the features; the larger the fewer samples the two clients have.
        null_mean: mean squared distance of two clients of those sizes without a difference; 0 where not calibrated.
        z: ``(value^2 - null_mean) / null_std``; 0 where not calibrated.
        p_value: chance of a distance at least this large without a difference; 1 where not calibrated.
        calibrated: ``sqrt(max(0, value^2 - null_mean))``, 0 where z is below the gate; else ``value``.
        n: samples of the clients, int64, ``(clients,)``.
        converged: whether the solver behind ``value`` converged, bool.
        std_error: standard error of ``value`` over samples of those sizes, in the units of the features; inf where
            not calibrated.
    """

    value: Tensor
    null_mean: Tensor
    z: Tensor
    p_value: Tensor
    calibrated: Tensor
    n: Tensor
    converged: Tensor
    std_error: Tensor

    def __len__(self) -> int:
        return len(self.n)

    def select(self, index: Tensor | Sequence[int]) -> Pairwise:
        """The distances among some clients, by positions or a boolean mask; ValueError where it is neither."""
        chosen = check_positions(index, len(self)).to(self.n.device)
        square = {f.name: getattr(self, f.name)[chosen][:, chosen] for f in fields(self) if f.name != "n"}
        return Pairwise(n=self.n[chosen], **square)

    def to(self, target: torch.device | str | torch.dtype) -> Pairwise:
        """The distances on another device or in another floating dtype.

        ``n`` stays int64 and ``converged`` bool; ``null_mean``, a square, is float32 at least.
        """
        if not isinstance(target, torch.dtype):
            return Pairwise(**{f.name: getattr(self, f.name).to(target) for f in fields(self)})
        names = ("value", "z", "p_value", "calibrated", "std_error")
        found = {name: narrowed(getattr(self, name), target) for name in names}
        return replace(self, null_mean=narrowed(self.null_mean, for_squares(target)), **found)


def pairwise_distances(
    features: Features,
    kind: str | AnyDistance = "sliced",
    *,
    calibrated: bool = True,
    seed: int = 0,
    draws: int | None = None,
    gate: float = 1.0,
    null_from: NullLaw | None = None,
    standardise: bool = False,
    **options: object,
) -> Pairwise:
    """Distance between any two clients.

    "sliced" of order 2 and "gaussian" with ``diagonal=True`` take one matrix product; the others loop over pairs.

    Args:
        features: as in :func:`personalization.distance_to_population`.
        kind: a name in :data:`personalization.DISTANCES`, or a distance built beforehand.
        calibrated: subtract what the two clients' sampling noise alone would show.
        seed: of the null's draws and, for a kind given by name, of its projections.
        draws: samples of the null per size; as in :func:`personalization.distance_to_population`.
        gate: the z-score below which a calibrated distance is 0.
        null_from: what the null is drawn from, ``"law"`` or ``"pool"``; as in
            :func:`personalization.distance_to_population`.
        standardise: divide by the population's standard deviation per feature first.
        options: of the kind.

    Returns:
        The distances, in the features' dtype (``null_mean`` in float32 at least) and on their device.

    Raises:
        ValueError: as :func:`personalization.distance_to_population`.
    """
    check_gate(gate)
    check_flag("calibrated", calibrated)
    check_flag("standardise", standardise)
    if draws is not None:
        check_draws(draws)
    clients = check_features(features)
    built = build_kind(kind, seed, options)
    null_from = check_null(null_from, built)
    if null_from == "halves":
        raise ValueError(
            "null_from='halves' is of distances to the population; for pairs take 'law' or 'pool'."
        )
    samples, dtype = single(clients), clients[0].dtype
    if standardise:
        samples = standardised(samples, labels_of(built))
    n = torch.tensor([len(x) for x in samples], device=samples[0].device)
    if isinstance(built, SampleDistance):
        return _between_samples(
            samples, built, n, _Options(calibrated, seed, built.draws if draws is None else draws, gate)
        ).to(dtype)
    own = client_statistics(built, samples)
    chosen = _Options(calibrated, seed, DRAWS[null_from] if draws is None else draws, gate)
    return _between_statistics(
        own, built, n, chosen, rounding(samples, built.degree), samples if null_from == "pool" else None
    ).to(dtype)


def pairwise_of_statistics(
    own: Statistics,
    kind: DistanceKind,
    n: Tensor | Sequence[int],
    *,
    draws: int = 256,
    seed: int = 0,
    gate: float = 1.0,
) -> Pairwise:
    """Calibrated distances between clients whose statistics, not samples, are known: a server that holds sketches.

    Args:
        own: of all clients, with a leading axis, see :meth:`personalization.DistanceKind.statistics`.
        kind: the distance.
        n: samples of the clients, int64, ``(clients,)``.
        draws: samples of the null per size.
        seed: of the null.
        gate: the z-score below which a calibrated distance is 0.

    Raises:
        ValueError: no statistics, those of another kind, or NaN, or in less precision; sample counts that fit no client.
    """
    check_gate(gate)
    check_draws(draws)
    if not isinstance(kind, DistanceKind):
        raise ValueError(
            f"{type(kind).__name__} has no statistics; give a DistanceKind, such as SlicedDistance()."
        )
    needed = kind.statistics(torch.zeros(2, 1)).keys()
    if not isinstance(own, dict):
        raise ValueError(
            f"own is of type {type(own).__name__}; give what a DistanceKind's statistics() returned."
        )
    if not needed <= own.keys():
        raise ValueError(
            f"own holds {', '.join(sorted(own)) or 'nothing'}; {type(kind).__name__} has statistics {', '.join(needed)}."
        )
    check_finite(**{f"own's {name}": x for name, x in own.items()})
    first = next(iter(own.values()))
    counts = check_counts(n, len(first)).to(first.device)
    for name, rows in own.items():
        if len(rows) != len(first):
            raise ValueError(
                f"own holds {name} of {len(rows)} clients, others of {len(first)}; give all of each."
            )
    if "mean" in own:
        wanted = kind.statistics(torch.zeros(2, own["mean"].shape[-1], device=first.device))
        odd = [name for name, x in wanted.items() if own[name].shape[1:] != x.shape]
        if odd:
            raise ValueError(
                f"own holds {odd[0]} of shape {tuple(own[odd[0]].shape)}, {kind} makes "
                f"{('clients', *wanted[odd[0]].shape)}; give statistics of this kind."
            )
        for name, x in wanted.items():
            if torch.promote_types(own[name].dtype, x.dtype) != own[name].dtype:
                raise ValueError(
                    f"own holds {name} in {own[name].dtype}; give it in {x.dtype}, as {kind} makes it."
                )
    return _between_statistics(own, kind, counts, _Options(True, seed, draws, gate), 0.0, None)


@dataclass(frozen=True)
class _Options:
    calibrated: bool
    seed: int
    draws: int
    gate: float


def _between_statistics(
    own: Statistics,
    kind: DistanceKind,
    n: Tensor,
    options: _Options,
    floor: float,
    samples: Sequence[Tensor] | None,
) -> Pairwise:
    squared = kind.pairwise(own)
    squared.masked_fill_(squared <= floor, 0.0)
    if not options.calibrated or len(n) == 1:
        return plain_pairs(squared, n)
    # Chunks, for the weighted copies of all statistics would double the memory.
    parts = [slice(start, start + _ROWS) for start in range(0, len(n), _ROWS)]
    mean = combine(
        summarise({name: x[rows] for name, x in own.items()}, n[rows]).summed() for rows in parts
    ).mean()
    mean = {name: x.detach() for name, x in mean.items()}
    grid = size_grid(float(n.min()), float(n.max()))
    if samples is None:
        null = fit_null(kind, mean, grid, draws=options.draws, seed=options.seed)
    else:
        pool = Pool.of([x.detach() for x in samples], "samples", options.seed)
        null = pool_pair_null(kind, pool, mean, grid, draws=options.draws)
    with torch.no_grad():
        fixed = {name: x.detach() for name, x in own.items()}
        each = kind.pair_variance(fixed, mean, seeded(options.seed, "noise"))
        wider = kind.widening(fixed, mean, n)
    sizes = n.to(null.mean.dtype)
    found = _judged(squared, _Noise(each, wider), n, null.at(sizes), options.gate)
    if null.scores is None:
        return found
    for start in range(0, len(n), _ROWS):  # the chance takes several matrices per size of the grid
        rows = slice(start, start + _ROWS)
        both = 2 / (1 / sizes[rows, None] + 1 / sizes)
        found.p_value[rows] = null.chance(both, found.z[rows].to(sizes.dtype))
    found.p_value.fill_diagonal_(1)
    return found


@dataclass(frozen=True)
class _Noise:
    """Of clients' own samples, for errors.

    Attributes:
        variance: of squared distances to first order, times the samples, ``(clients, clients)``.
        wider: by how much the clients' own nulls deviate more than the population's, ``(clients,)``.
    """

    variance: Tensor
    wider: Tensor


def _judged(
    squared: Tensor, noise: _Noise, n: Tensor, moments: tuple[Tensor, Tensor, Tensor], gate: float
) -> Pairwise:
    """Means of two independent noises add. So do their deviations: ``2 tr (A/n + B/m)^2 = (s + s')^2`` where A is B.

    The law of their sum is then that of either one, so that skewness is between theirs.
    """
    found = _unwritten(squared, n)
    each, exact = noise.variance, moments[1] * noise.wider.to(moments[1])
    mean, std, skew = (x.to(squared.dtype) for x in moments)
    for start in range(0, len(n), _ROWS):  # each pair once
        rows, others = slice(start, start + _ROWS), slice(start - start % _SQUARE, None)
        spread = std[rows, None] + std[others]
        weighed = ((std * skew)[rows, None] + (std * skew)[others]) / torch.where(spread > 0, spread, 1.0)
        variance = each[rows, others] / n[rows, None] + each[others, rows].T / n[others]
        part = (rows, others)
        _fill(found, part, (mean[rows, None] + mean[others], spread, weighed), gate)
        # In float64: a variance of squares is a fourth power of the features.
        found.std_error[part] = standard_error(
            wide(squared[part].detach()), variance, exact[rows, None] + exact[others]
        )
    for matrix in (found.null_mean, found.z, found.p_value, found.calibrated, found.std_error):
        for start in range(0, len(n), _SQUARE):
            rows, below = slice(start, start + _SQUARE), slice(start + _SQUARE, None)
            matrix[below, rows] = matrix[rows, below].T
    return _finished(found)


def judge_pairs(
    measured: Measured,
    moments: tuple[Tensor, Tensor, Tensor],
    n: Tensor,
    gate: float,
    wider: Tensor | float = 1.0,
) -> Pairwise:
    """Judge squared distances by mean, deviation and skewness of their nulls, all ``(clients, clients)``.

    For their errors alone the nulls' deviations are multiplied by ``wider``.
    """
    found = _unwritten(measured.squared, n)
    mean, std, skew = (x.to(measured.squared.device) for x in moments)
    _fill(found, (slice(None), slice(None)), (mean, std, skew), gate)
    wider = wider.to(std) if isinstance(wider, Tensor) else wider
    found.std_error.copy_(standard_error(measured.squared.detach(), measured.variance, std * wider))
    return replace(_finished(found), converged=measured.converged)


def _unwritten(squared: Tensor, n: Tensor) -> Pairwise:
    """Matrices that :func:`_fill` and a standard error will fill: zeros first would be one more pass over a gigabyte."""
    mean, z, p_value, calibrated, std_error = (torch.empty_like(squared) for _ in range(5))
    converged = torch.ones_like(squared, dtype=torch.bool)
    return Pairwise(squared, mean, z, p_value, calibrated, n, converged, std_error)


def _fill(
    found: Pairwise, part: tuple[slice, slice], moments: tuple[Tensor, Tensor, Tensor], gate: float
) -> None:
    """Judge a part of the squared distances, in place: the matrices of a city fill a gigabyte."""
    squared, (mean, std, skew) = found.value[part], moments
    limit = torch.finfo(squared.dtype).max
    z = z_score(squared, mean, std).clamp(-limit, limit)
    found.calibrated[part] = torch.where(z >= gate, safe_root(squared - mean), 0.0)
    found.null_mean[part], found.z[part] = mean, z
    found.p_value[part] = p_value(squared, mean, std, skew)


def _finished(found: Pairwise) -> Pairwise:
    for matrix in (found.null_mean, found.z, found.calibrated, found.std_error):
        matrix.fill_diagonal_(0)
    found.p_value.fill_diagonal_(1)
    if found.value.requires_grad:
        return replace(found, value=safe_root(found.value))
    found.value.sqrt_()
    return found


def plain_pairs(squared: Tensor, n: Tensor) -> Pairwise:
    """Squared distances ``(clients, clients)`` that nothing calibrates; the matrix is used up."""
    zeros, ones = torch.zeros_like(squared), torch.ones_like(squared)
    unsaid = torch.full_like(squared, torch.inf)
    found = _finished(Pairwise(squared, zeros, zeros.clone(), ones, zeros.clone(), n, ones.bool(), unsaid))
    found.calibrated.copy_(found.value)
    return found


def _between_samples(
    samples: Sequence[Tensor], kind: SampleDistance, n: Tensor, options: _Options
) -> Pairwise:
    pool = Pool.of(samples, "samples", options.seed)
    kind = kind.fitted(pool.rows[pool.shuffle[:2048]].detach())
    own = [thinned(x, kind.max_samples, options.seed + k) for k, x in enumerate(samples)]
    judged = options.calibrated and len(own) > 1
    measured = _all_pairs(kind, own, variance=judged)
    squared = torch.where(
        measured.squared > rounding(samples, kind.degree, kind.labels), measured.squared, 0.0
    )
    if not judged:
        found = plain_pairs(squared, n)
    else:
        used = torch.tensor([len(x) for x in own], dtype=squared.dtype)
        null = _pair_null(kind, pool, used, options.draws).at(1 / (1 / used[:, None] + 1 / used))
        wider = _wider(kind, own, pool, used)
        found = judge_pairs(replace(measured, squared=squared), null, n, options.gate, wider)
    return replace(found, converged=measured.converged).to(samples[0].dtype)


def _wider(kind: SampleDistance, own: Sequence[Tensor], pool: Pool, used: Tensor) -> Tensor:
    """By how much the null of the two clients' own laws deviates more than the pool's, ``(clients, clients)``."""
    sizes = torch.stack([kind.noise_size(x) for x in (pool.rows[pool.shuffle[:2048]], *own)]).to(used)
    each = ratio(sizes[1:], sizes[0]) / used
    return (each[:, None] + each) / (1 / used[:, None] + 1 / used)


def _all_pairs(kind: SampleDistance, own: Sequence[Tensor], *, variance: bool) -> Measured:
    """What is measured of all pairs, ``(clients, clients)``; each pair is compared once."""
    pairs = torch.triu_indices(len(own), len(own), 1).T.tolist()
    squared, spread = (wide(own[0]).new_zeros(len(own), len(own)) for _ in range(2))
    converged = torch.ones_like(squared, dtype=torch.bool)
    for who in alike([(len(own[i]), len(own[j])) for i, j in pairs]):
        i, j = ([pairs[k][side] for k in who] for side in (0, 1))
        x, y = torch.stack([own[k] for k in i]), torch.stack([own[k] for k in j])
        value, done = kind.between(x, y)
        squared[i, j] = wide(value).square()
        converged[i, j] = converged[j, i] = done
        if variance:
            spread[i, j] = wide(kind.pair_variance(x, y))
    return Measured(squared + squared.T, spread + spread.T, converged)


def _pair_null(kind: SampleDistance, pool: Pool, used: Tensor, draws: int) -> Null:
    """The null of two samples of equal size; pairs of unequal size have that of their harmonic mean."""
    most = max(1, len(pool.rows) // 2)
    sizes = sorted({min(n, most) for n in size_grid(float(used.min()), float(used.max()), points=6)})
    return permutation_null(kind, pool, [(n, n) for n in sizes], draws)
