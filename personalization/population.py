"""Distance of every client to the population of the others, calibrated: the package's main entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from .calibration import calibrate, fit_null, size_grid
from .distances import Distances
from .errors import check_features
from .kind import DISTANCES, DistanceKind, Statistics, build_distance
from .numeric import size_groups, wide
from .reference import Summary, Weighting, combine, summarise

_BATCH_VALUES = 4_000_000
_CHUNK = 128


def distance_to_population(
    features: Sequence[Tensor],
    kind: str | DistanceKind = "sliced",
    *,
    seed: int = 0,
    draws: int = 256,
    gate: float = 1.0,
    weighting: Weighting = "samples",
    standardise: bool = False,
    names: Sequence[str] | None = None,
    **options: object,
) -> Distances:
    """Distance of each client to all others, calibrated at the client's own sample size.

    Simulates in one process what :mod:`personalization.reference` says each party does: clients send weighted
    sums, get the population's, subtract their own part and compare themselves.

    Args:
        features: one tensor ``(n_k, F)`` per client, of one dtype and device; ``n_k >= 2`` may differ.
        kind: a name in :data:`personalization.DISTANCES`, or a distance built beforehand.
        seed: of the null's draws and, for a kind given by name, of its projections.
        draws: samples of the null per size on the grid.
        gate: the z-score below which the calibrated distance is 0; ``gate=0`` subtracts the null's mean only.
        weighting: a client's weight in the population, its ``samples`` or ``uniform``.
        standardise: divide by the population's standard deviation per feature first, itself a sum over
            clients.
        names: of the clients, for error messages.
        options: of the kind, ``projections=``, ``quantiles=``, ``order=`` for "sliced".

    Returns:
        Distances in the features' dtype and on their device. One client alone has nobody to differ from:
        distance 0, p-value 1. The samples of a client count as independent; where they are not (days in a
        row), p-values are too small, while the order of clients of like size stays meaningful.

    Raises:
        ValueError: see :func:`personalization.errors.check_features`; unknown kind or option, with the
            nearest one.
    """
    check_features(features, names)
    built = _build(kind, seed, options)
    samples = _standardised(features) if standardise else list(features)
    n = torch.tensor([len(x) for x in samples], device=samples[0].device)
    if len(samples) == 1:
        return _alone(samples[0], n)
    own = client_statistics(built, samples)
    total = combine(part.summed() for _, part in _summaries(own, n, weighting))
    squared, size = _compare(built, own, n, weighting, total)
    squared = torch.where(squared > _rounding(samples), squared, 0.0)
    grid = size_grid(float(n.min()), float(n.max()))
    null = fit_null(built, total.mean(), grid, draws=draws, seed=seed)
    return calibrate(squared, size, n, null, gate=gate, dtype=samples[0].dtype)


def client_statistics(kind: DistanceKind, features: Sequence[Tensor]) -> Statistics:
    """Statistics of many clients, ``(clients, ...)``; those of equal size are computed in one batch."""
    parts = [(who, kind.statistics(x)) for who, x in size_groups(features, _BATCH_VALUES)]
    order = torch.tensor([k for who, _ in parts for k in who], device=features[0].device).argsort()
    return {name: torch.cat([own[name] for _, own in parts])[order] for name in parts[0][1]}


def _summaries(own: Statistics, n: Tensor, weighting: Weighting) -> Iterator[tuple[slice, Summary]]:
    """The clients' messages, in chunks so that the weighted copies never lie in memory all at once."""
    for start in range(0, len(n), _CHUNK):
        rows = slice(start, start + _CHUNK)
        yield rows, summarise({name: x[rows] for name, x in own.items()}, n[rows], weighting=weighting)


def _compare(
    kind: DistanceKind, own: Statistics, n: Tensor, weighting: Weighting, total: Summary
) -> tuple[Tensor, Tensor]:
    """Squared distance of each client to the others, and its effective sample size."""
    squared, size = [], []
    for rows, summaries in _summaries(own, n, weighting):
        others = total.without(summaries)
        mine = {name: x[rows] for name, x in own.items()}
        squared.append(wide(kind.squared(mine, others.mean())))
        size.append(1 / (1 / n[rows] + 1 / others.effective_size()))
    return torch.cat(squared), torch.cat(size)


def _build(kind: str | DistanceKind, seed: int, options: dict[str, object]) -> DistanceKind:
    if isinstance(kind, DistanceKind):
        if options:
            raise ValueError(f"Options {sorted(options)} come with a distance already built; set them there.")
        return kind
    cls = DISTANCES.get(kind)
    if cls is not None and "seed" in {f.name for f in fields(cls)}:  # type: ignore[arg-type]
        options = {"seed": seed, **options}
    return build_distance(kind, **options)


def _standardised(features: Sequence[Tensor]) -> list[Tensor]:
    """Centre and scale by the pooled moments of all samples; a constant feature is only centred."""
    count = sum(len(x) for x in features)
    mean = sum((wide(x).sum(0) for x in features[1:]), wide(features[0]).sum(0)) / count
    spread = sum(((wide(x) - mean) ** 2).sum(0) for x in features)
    std = (torch.as_tensor(spread) / count).sqrt()
    floor = 1e-6 * mean.abs()
    std = torch.where(std > floor, std, 1.0)
    return [((wide(x) - mean) / std).to(x.dtype) for x in features]


def _rounding(features: Sequence[Tensor]) -> float:
    """Squared distance below which two laws differ by rounding only."""
    eps, wide_eps = torch.finfo(features[0].dtype).eps, torch.finfo(torch.float64).eps
    mean_square = float(sum(float(wide(x).square().mean()) for x in features)) / len(features)
    return max((16 * eps) ** 2, 64 * wide_eps) * mean_square


def _alone(x: Tensor, n: Tensor) -> Distances:
    zero = x.new_zeros(1)
    return Distances(zero, zero, zero, zero, zero + 1, n, zero, zero)
