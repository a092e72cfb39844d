"""Distance of every client to the population of the others, calibrated: the package's main entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch
from torch import Tensor

from .calibration import Measured, calibrate
from .distances import Distances
from .errors import Features, check_draws, check_features, check_flag, check_gate, unknown_name
from .halves import corrected, half_counts, half_null
from .kind import DISTANCES, AnyDistance, DistanceKind, Statistics, build_distance
from .null import Null, fit_null, size_grid
from .numeric import rounding, single, size_groups, wide
from .reference import Summary, Weighting, check_weighting, combine, summarise
from .resampled import deals_needed, dealt, pool_null
from .sampled import Pool, sampled_distances
from .samples import SampleDistance

NullLaw = Literal["law", "halves", "pool"]

DRAWS: dict[NullLaw, int] = {"law": 256, "halves": 256, "pool": 512}

_BATCH_VALUES = 4_000_000
_CHUNK = 128


def distance_to_population(
    features: Features,
    kind: str | AnyDistance = "sliced",
    *,
    seed: int = 0,
    draws: int | None = None,
    gate: float = 1.0,
    weighting: Weighting = "samples",
    null_from: NullLaw | None = None,
    standardise: bool = False,
    **options: object,
) -> Distances:
    """Distance of each client to all others, calibrated at the client's own sample size.

    For the kinds that need sums only ("sliced", "gaussian") this simulates in one process what
    :mod:`personalization.reference` says each party does: clients send weighted sums, get the population's, subtract
    their own part and compare themselves. Every other distance compares samples: a client's with a seeded draw of
    all others', see :mod:`personalization.sampled`; there the samples themselves must be in one place.

    Args:
        features: one tensor ``(n_k, F)`` per client, of one dtype and device, ``n_k >= 2`` may differ; in any iterable, or
            in a mapping from names, by which errors call them.
        kind: a name in :data:`personalization.DISTANCES`, or a distance built beforehand.
        seed: of the null's draws and, for a kind given by name, of its projections.
        draws: samples of the null per size on the grid; 256 of a law, corrected or not, 512 of a pool; 64, or the
            kind's own number, for kinds that compare samples.
        gate: the z-score below which the calibrated distance is 0; ``gate=0`` subtracts the null's mean only.
        weighting: a client's weight in the population, its ``samples`` or ``uniform``.
        null_from: what the null is drawn from. ``"law"``: the law that sums describe, all that a server knows; the default
            of kinds that need sums only. ``"halves"``: that law, corrected by sums of what clients see between halves of
            their own samples, for clusters and heavy tails; as it is where fewer than eight clients have four samples.
            See :mod:`personalization.halves`. ``"pool"``: all clients'
            samples, whatever their law, which must be in one place; the only one of kinds that compare samples. See
            :mod:`personalization.resampled`.
        standardise: divide by the population's standard deviation per feature first, itself a sum over
            clients.
        options: of the kind, ``projections=``, ``quantiles=``, ``order=`` for "sliced", ``reference_size=`` for those
            of samples.

    Returns:
        Distances in the features' dtype (the null's moments in float32 at least) and on their device. One client alone
        has nobody to differ from: distance 0, p-value 1. The samples of a client count as independent; where they are
        not (days in a row), p-values are too small, while the order of clients of like size stays meaningful.

    Raises:
        ValueError: see :func:`personalization.errors.check_features`; unknown kind or option, with the
            nearest one.
    """
    clients = check_features(features)
    check_gate(gate)
    check_flag("standardise", standardise)
    check_weighting(weighting)
    if draws is not None:
        check_draws(draws)
    built = build_kind(kind, seed, options)
    null_from = check_null(null_from, built)
    samples = single(clients)
    if standardise:
        samples = standardised(samples, labels_of(built))
    if len(samples) == 1:
        found = _alone(samples[0])
    elif isinstance(built, SampleDistance):
        found = sampled_distances(samples, built, seed=seed, draws=draws, gate=gate, weighting=weighting)
    else:
        how = _Judging(seed, DRAWS[null_from] if draws is None else draws, gate, null_from)
        found = _of_sums(samples, built, weighting, how)
    return found.to(clients[0].dtype)


@dataclass(frozen=True)
class _Judging:
    seed: int
    draws: int
    gate: float
    null_from: NullLaw


def _of_sums(samples: Sequence[Tensor], kind: DistanceKind, weighting: Weighting, how: _Judging) -> Distances:
    n = torch.tensor([len(x) for x in samples], device=samples[0].device)
    own = client_statistics(kind, samples)
    total = combine(part.summed() for _, part in _summaries(own, n, weighting))
    squared, size = _compare(kind, own, n, weighting, total)
    squared = torch.where(squared > rounding(samples, kind.degree), squared, 0.0)
    with torch.no_grad():  # distances have gradients, what they are judged by has none
        variance = _variance(kind, samples, own, weighting, total)
        null = _null(samples, kind, weighting, how, total.mean(), n)
    measured = Measured(squared, variance, torch.ones_like(squared, dtype=torch.bool))
    return calibrate(measured, size, n, null, gate=how.gate, dtype=samples[0].dtype)


def _null(
    samples: Sequence[Tensor],
    kind: DistanceKind,
    weighting: Weighting,
    how: _Judging,
    reference: Statistics,
    n: Tensor,
) -> Null:
    largest = float(n.max())
    grid = size_grid(float(n.min()), largest)
    samples = [x.detach() for x in samples]
    if how.null_from != "pool":
        reference = {name: x.detach() for name, x in reference.items()}
        null = fit_null(kind, reference, grid, draws=how.draws, seed=how.seed, largest=largest)
        if how.null_from == "law":
            return null
        halves = half_null(kind, reference, n, draws=how.draws, seed=how.seed)
        return corrected(null, halves, half_counts(kind, samples, halves, seed=how.seed).sum(0))
    pool = Pool.of(samples, weighting, how.seed)
    reference = dealt_reference(kind, samples, pool, weighting)
    return pool_null(kind, pool, reference, grid, draws=how.draws, largest=largest)


def dealt_reference(
    kind: DistanceKind, samples: Sequence[Tensor], pool: Pool, weighting: Weighting
) -> Statistics:
    """Mean statistics of populations without differences, see :func:`personalization.resampled.dealt`."""
    n = torch.tensor([len(x) for x in samples], device=samples[0].device)
    deals = (
        client_statistics(kind, dealt(samples, pool, k)) for k in range(deals_needed(n, by_rows=pool.by_rows))
    )
    return combine(part.summed() for own in deals for _, part in _summaries(own, n, weighting)).mean()


def client_statistics(kind: DistanceKind, features: Sequence[Tensor]) -> Statistics:
    """Statistics of many clients, ``(clients, ...)``; those of equal size are computed in one batch."""
    if not features:
        raise ValueError("features is empty; give one (n_k, F) tensor per client, at least one.")
    widths = {tuple(x.shape[1:]) if isinstance(x, Tensor) else type(x).__name__ for x in features}
    if len(widths) > 1 or isinstance(next(iter(widths)), str):
        raise ValueError(f"features are of {widths}; give tensors (n_k, F) with one F for all.")
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


def _variance(
    kind: DistanceKind, features: Sequence[Tensor], own: Statistics, weighting: Weighting, total: Summary
) -> Tensor:
    """First-order variance of the squared distances, ``(clients,)``."""
    variance = wide(features[0]).new_zeros(len(features))
    for who, x in size_groups(features, _BATCH_VALUES):
        for start in range(0, len(who), _CHUNK):
            index = torch.tensor(who[start : start + _CHUNK], device=x.device)
            mine = {name: column[index] for name, column in own.items()}
            n = torch.full_like(index, x.shape[-2])
            others = total.without(summarise(mine, n, weighting=weighting)).mean()
            variance[index] = wide(kind.linear_variance(x[start : start + _CHUNK], mine, others))
    return variance


def check_null(null_from: NullLaw | None, kind: AnyDistance) -> NullLaw:
    """The null of a kind, its own default for None.

    Raises:
        ValueError: an unknown name, or one of sums for a kind that compares samples.
    """
    if null_from is None:
        return "pool" if isinstance(kind, SampleDistance) else "law"
    if null_from not in get_args(NullLaw):
        raise unknown_name("null_from", null_from, get_args(NullLaw))
    if null_from != "pool" and isinstance(kind, SampleDistance):
        raise ValueError(
            f"null_from={null_from!r} with {type(kind).__name__}: sums give it no law; use null_from='pool', or leave it "
            "out."
        )
    return null_from


def labels_of(kind: AnyDistance) -> int:
    """How many trailing columns hold class numbers, which nothing may scale."""
    return kind.labels if isinstance(kind, SampleDistance) else 0


def build_kind(kind: str | AnyDistance, seed: int, options: dict[str, object]) -> AnyDistance:
    """The distance meant by a name and options, with this seed where it has one; or the one already built.

    Raises:
        ValueError: unknown name or option; options beside a distance already built.
    """
    if "names" in options:
        raise ValueError("names is no option; give features as a mapping of the clients' names to tensors.")
    if not isinstance(kind, str):
        if not isinstance(kind, DistanceKind | SampleDistance):
            raise ValueError(
                f"kind={kind!r} is no distance; give a name such as 'sliced', or an instance of one."
            )
        if options:
            raise ValueError(f"Options {sorted(options)} come with a distance already built; set them there.")
        return kind
    cls = DISTANCES.get(kind)
    if cls is not None and "seed" in {f.name for f in fields(cls)}:  # type: ignore[arg-type]
        options = {"seed": seed, **options}
    return build_distance(kind, **options)


def standardised(features: Sequence[Tensor], labels: int = 0) -> list[Tensor]:
    """Centre and scale by the pooled moments of all samples; a constant feature is only centred, a label left alone."""
    count = sum(len(x) for x in features)
    mean = sum((wide(x).sum(0) for x in features[1:]), wide(features[0]).sum(0)) / count
    spread = sum(((wide(x) - mean) ** 2).sum(0) for x in features)
    std = (torch.as_tensor(spread) / count).sqrt()
    floor = 1e-6 * mean.abs()
    std = torch.where(std > floor, std, 1.0)
    if labels:
        mean[-labels:], std[-labels:] = 0.0, 1.0
    return [((wide(x) - mean) / std).to(x.dtype) for x in features]


def _alone(x: Tensor) -> Distances:
    zero, n = x.new_zeros(1), torch.tensor([len(x)], device=x.device)
    return Distances(zero, zero, zero, zero, zero + 1, n, zero, zero, zero)
