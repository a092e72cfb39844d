"""Which of a client's samples train, validate and test; samples of one group stay on one side."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import DataError
from .runs import Booleans, Ints
from .samples import OFFICIAL, ClientSamples
from .spec import SampleSpec

Split = Literal["time", "stratified", "official"]
Parts = tuple[float, float, float]
_ROUNDING = 1e-6


def client_rng(seed: int, client: str, purpose: str) -> np.random.Generator:
    """Return a generator that depends on the seed, the client's name and the purpose, on no other client."""
    digest = hashlib.blake2b(f"{purpose}\0{client}".encode(), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "little")])


def choose_split(samples: ClientSamples, wish: str) -> Split:
    """Return the split that ``"auto"`` stands for, or the one wished for.

    A source's own split counts when some client has training and test samples in it: one that deals whole clients
    leaves nothing to test a client's own model with.

    Raises:
        DataError: the samples lack what the split needs.
    """
    source = f"Source {samples.name!r}"
    if wish == "official" and samples.official is None:
        raise DataError(f"{source} has no split of its own. Use split='auto', 'time' or 'stratified'.")
    if wish == "time" and samples.times is None:
        raise DataError(f"{source} has no times to order its samples by. Use split='stratified'.")
    if wish == "official" or (wish == "auto" and _official_within_clients(samples)):
        return "official"
    if wish == "time" or (wish == "auto" and samples.times is not None):
        return "time"
    return "stratified"


def split_samples(samples: ClientSamples, spec: SampleSpec) -> tuple[Tensor, tuple[str, ...]]:
    """Return the span of every sample, and the rules in words.

    Args:
        samples: the population.
        spec: shares, kind of split and seed.

    Returns:
        ``(samples,)`` int8, a place in ``SPANS`` or -1 for a sample that no span takes; a client's spans do not
        depend on any other client, except whether the source has validation samples at all.

    Raises:
        DataError: the samples lack what the split needs.
    """
    kind = choose_split(samples, spec.split)
    spans = np.empty(len(samples.targets), np.int8)
    validates = samples.official is not None and bool((samples.official == OFFICIAL["validation"]).any())
    for client, name in enumerate(samples.clients):
        rows = samples.rows(client)
        units, first = _units(samples, rows)
        if kind == "official":
            spans[rows] = _official(samples, rows, spec, validates=validates)
        elif kind == "time":
            spans[rows] = by_time(_times(samples, rows), units, spec.parts)
        else:
            labels = _labels(samples, rows)[first]
            spans[rows] = deal(labels, spec.parts, client_rng(spec.seed, name, "split"))[units]
    return torch.from_numpy(spans), _in_words(kind, samples, spec, spans, validates=validates)


def deal(labels: Ints, parts: Parts, rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """Deal units to three spans so that each class and the whole keep the shares.

    Args:
        labels: ``(units,)`` class of each unit.
        parts: shares of the spans, sum 1.
        rng: says which unit goes where, and where the odd ones go.

    Returns:
        ``(units,)`` int8; a class of c units has ``c * part`` of them in each span, rounded up or down.
    """
    classes, inverse = np.unique(labels, return_inverse=True)
    totals = np.diff([0, *_ends(len(labels), parts)])
    counts = rounded(np.bincount(inverse, minlength=len(classes)), parts, totals, rng)
    order = rng.permutation(len(labels))
    order = order[np.argsort(inverse[order], kind="stable")]
    spans = np.empty(len(labels), np.int8)
    spans[order] = np.repeat(np.tile(np.arange(3, dtype=np.int8), len(classes)), counts.ravel())
    return spans


def rounded(sizes: Ints, parts: Parts, totals: Ints, rng: np.random.Generator) -> Ints:
    """Round ``sizes * parts`` up or down so that rows sum to ``sizes`` and columns to ``totals``.

    Such a rounding exists for any table whose totals are themselves rounded up or down.

    Args:
        sizes: ``(classes,)`` units of each class.
        parts: shares of the three spans.
        totals: ``(3,)`` units of each span.
        rng: where the odd units go.

    References:
        Cox, A constructive procedure for unbiased controlled rounding, JASA 82, 1987. We start from a random
        rounding of the rows and move units between columns until their sums fit too.
    """
    quota = sizes[:, None] * np.asarray(parts)
    low = np.floor(quota + _ROUNDING).astype(np.int64)
    may = quota - low > _ROUNDING
    rank = np.argsort(np.argsort(-np.where(may, rng.random(quota.shape), -1.0), axis=1), axis=1)
    up = rank < (sizes - low.sum(axis=1))[:, None]
    while _move(up, may, totals - low.sum(axis=0) - up.sum(axis=0)):
        pass
    return np.asarray(low + up)


def _move(up: Booleans, may: Booleans, lacking: Ints) -> bool:
    """Move one unit, perhaps by way of a third column, to a column that lacks one; False when none can."""
    for giver, taker in product(np.flatnonzero(lacking < 0), np.flatnonzero(lacking > 0)):
        for path in ((giver, taker), (giver, 3 - giver - taker, taker)):
            rows = [np.flatnonzero(up[:, a] & ~up[:, b] & may[:, b])[:1] for a, b in pairwise(path)]
            if all(len(row) for row in rows):
                for row, (a, b) in zip(rows, pairwise(path), strict=True):
                    up[row, a], up[row, b] = False, True
                return True
    return False


def by_time(times: Ints, units: Ints, parts: Parts) -> npt.NDArray[np.int8]:
    """Return the span of every sample ``(n,)``: earliest first, a group where its earliest sample lies.

    Args:
        times: ``(n,)`` seconds.
        units: ``(n,)`` the sample's group, numbers from 0.
        parts: shares of the spans.
    """
    if not len(times):
        return np.zeros(0, np.int8)
    earliest = np.full(int(units.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(earliest, units, times)
    # ordered by the group's time, then by the group, so that a group's samples stand side by side
    order = np.lexsort((times, units, earliest[units]))
    rank = np.empty(len(times), np.int64)
    rank[order] = np.arange(len(times))
    begins = np.full(len(earliest), len(times))
    np.minimum.at(begins, units, rank)
    return np.searchsorted(_ends(len(times), parts)[:2], begins[units], side="right").astype(np.int8)


def _ends(count: int, parts: Parts) -> list[int]:
    """Return where the three spans of ``count`` units end, rounded as ``WindowSpec.bounds`` does."""
    return [int(count * parts[0] + _ROUNDING), int(count * (parts[0] + parts[1]) + _ROUNDING), count]


def _units(samples: ClientSamples, rows: slice) -> tuple[Ints, Ints]:
    """Return the unit ``(n,)`` of each of a client's samples, from 0, and each unit's first sample."""
    if samples.groups is None:
        each = np.arange(rows.stop - rows.start)
        return each, each
    _, first, inverse = np.unique(samples.groups[rows].numpy(), return_index=True, return_inverse=True)
    return inverse, first


def _labels(samples: ClientSamples, rows: slice) -> Ints:
    """Return what is stratified by: the classes, or one stratum for float targets."""
    if samples.classes:
        return samples.targets[rows].numpy()
    return np.zeros(rows.stop - rows.start, np.int64)


def _times(samples: ClientSamples, rows: slice) -> Ints:
    if samples.times is None:
        raise DataError(f"Source {samples.name!r} has no times.")
    return samples.times[rows].numpy()


def _official(
    samples: ClientSamples, rows: slice, spec: SampleSpec, *, validates: bool
) -> npt.NDArray[np.int8]:
    """Return a client's official spans; where the source has no validation part, one cut from training."""
    if samples.official is None:
        raise DataError(f"Source {samples.name!r} has no split of its own.")
    spans = samples.official[rows].numpy().astype(np.int8)
    units, _ = _units(samples, rows)
    spans = _first_sides(spans, units)
    training = np.flatnonzero(spans == OFFICIAL["train"])
    if validates or not len(training):
        return spans
    share = spec.validation / (spec.train + spec.validation)
    _, first, inner = np.unique(units[training], return_index=True, return_inverse=True)
    cut = (1 - share, share, 0.0)
    if samples.times is not None:
        spans[training] = by_time(_times(samples, rows)[training], inner, cut)
    else:
        client = int(np.searchsorted(samples.offsets.numpy(), rows.start, side="right")) - 1
        rng = client_rng(spec.seed, samples.clients[client], "split")
        spans[training] = deal(_labels(samples, rows)[training][first], cut, rng)[inner]
    return spans


def _first_sides(spans: npt.NDArray[np.int8], units: Ints) -> npt.NDArray[np.int8]:
    """Return a client's official spans with each unit wholly in the first one that it touches, so that no take leaks."""
    side = np.full(len(spans), len(OFFICIAL), np.int8)
    taken = spans >= 0
    np.minimum.at(side, units[taken], spans[taken])
    return np.where(taken, side[units], -1).astype(np.int8)


def _official_within_clients(samples: ClientSamples) -> bool:
    """Return whether some client has training and test samples in the source's own split."""
    if samples.official is None:
        return False
    owners = torch.repeat_interleave(torch.arange(len(samples)), samples.lengths)
    has = [
        torch.zeros(len(samples), dtype=torch.bool).index_fill_(
            0, owners[samples.official == OFFICIAL[span]], True
        )
        for span in ("train", "test")
    ]
    return bool((has[0] & has[1]).any())


def _in_words(
    kind: Split, samples: ClientSamples, spec: SampleSpec, spans: npt.NDArray[np.int8], *, validates: bool
) -> tuple[str, ...]:
    percent = [f"{part:.0%}" for part in spec.parts]
    shares = f"{percent[0]} train, {percent[1]} validate, {percent[2]} test, per client"
    together = "; samples of a group stay together" if samples.groups is not None else ""
    if kind == "time":
        return (f"split: by time, {shares}{together}",)
    if kind == "stratified":
        how = "each class dealt at random" if samples.classes else "dealt at random"
        return (f"split: {how} (seed {spec.seed}), {shares}{together}",)
    words = ["split: the source's own"]
    if not validates:
        share = spec.validation / (spec.train + spec.validation)
        words.append(f"split: it has no validation part; {share:.0%} of each client's training part are it")
    return (*words, *_repairs(samples, spans))


def _first_side(samples: ClientSamples) -> npt.NDArray[np.int8]:
    """Return the first side of each sample's group, ``(samples,)``; -1 for what the source leaves open."""
    official = (
        np.full(len(samples.targets), -1, np.int8) if samples.official is None else samples.official.numpy()
    )
    sides = np.empty(len(official), np.int8)
    for client in range(len(samples)):
        rows = samples.rows(client)
        sides[rows] = _first_sides(official[rows].astype(np.int8), _units(samples, rows)[0])
    return sides


def _repairs(samples: ClientSamples, spans: npt.NDArray[np.int8]) -> Sequence[str]:
    """Say how many samples the source's own split left out or put on both sides of a group."""
    if samples.official is None:
        return ()
    official = samples.official.numpy()
    out = int((spans < 0).sum())
    said = [f"split: {out} samples without an official span are left out"] if out else []
    sides = _first_side(samples)
    for name, part in {"training": OFFICIAL["train"], "validation": OFFICIAL["validation"]}.items():
        # a validation sample may also have been cut from training
        moved = int(((official > part) & (spans >= 0) & (sides == part)).sum())
        if moved:
            said.append(f"split: {moved} samples join the {name} part of their group")
    return said
