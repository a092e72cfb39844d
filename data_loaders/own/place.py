"""One client's readings onto its grid: clock changes, duplicates, what zero and negative mean, units, runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..clocks import Stamps, to_utc
from ..errors import DataError
from ..grid import Gridded, How, detect_step, on_grid
from ..runs import Booleans, Floats, Ints
from ..units import convert_unit, find_unit
from .cast import NAT
from .options import OwnSpec
from .readings import Piece
from .spec import seconds_of


@dataclass(frozen=True, eq=False)
class Sorted:
    """One client's readings in UTC and in time order, duplicates resolved.

    Args:
        client: its name.
        stamps: ``(rows,)`` datetime64[us], where a step begins.
        values: ``(rows, channels)`` float32 as in the files, NaN = missing.
        step: seconds between neighbouring stamps that occur most; None where stamps are irregular.
        counts: rows and what became of them, by cause.
    """

    client: str
    stamps: Stamps
    values: Floats
    step: float | None
    counts: Counter[str]


@dataclass(frozen=True, eq=False)
class Placed:
    """One client's readings on the grid, in the unit wanted.

    Args:
        client: its name.
        start: UTC stamp of the first step, datetime64[us].
        values: ``(steps, channels)`` float32.
        breaks: steps at which a new run begins.
        counts: as of :class:`Sorted`, with what the grid left out.
    """

    client: str
    start: np.datetime64
    values: Floats
    breaks: tuple[int, ...]
    counts: Counter[str]


def sort_readings(client: str, pieces: Sequence[Piece], spec: OwnSpec) -> Sorted:
    """Return a client's readings of all files in UTC and in time order.

    Raises:
        DataError: a clock that goes back, an hour that does not exist, contradicting duplicates, negative values,
            each where the spec does not say what to do.
    """
    counts = Counter[str]()
    parts = [_utc(client, piece, spec, counts) for piece in pieces]
    stamps = np.concatenate([part for part, _ in parts])
    values = np.concatenate([part for _, part in parts])
    there = ~np.isnat(stamps)
    counts["without a stamp"] += int((~there).sum())
    order = np.flatnonzero(there)[np.argsort(stamps[there], kind="stable")]
    stamps, values = stamps[order], values[order]
    values = _signs(client, stamps, values, spec, counts)
    stamps, values = _resolved(client, stamps, values, spec, counts)
    step = _step(stamps)
    if spec.time.stamp == "end" and len(stamps):
        if step is None:
            raise DataError(
                f"Client {client!r}: time.stamp: end needs stamps at one step, these are irregular."
            )
        stamps = stamps - np.timedelta64(round(step * 1e6), "us")
    return Sorted(client, stamps, values, step, counts)


def place(readings: Sorted, spec: OwnSpec, step: float) -> Placed:
    """Return a client's readings on a grid of ``step`` seconds.

    Raises:
        DataError: readings that are coarser than the grid, or a grid out of proportion to them.
    """
    client, native = readings.client, readings.step
    if native is not None and native > step * 1.001:
        raise DataError(
            f"Client {client!r} has a reading every {native:g} s, the grid a step every {step:g} s. Set time.step to "
            f"{native:g}s or more, or leave the client out."
        )
    least = None if native is None else max(1, round(step / native))
    if native is not None and least is not None and abs(least * native - step) > 1e-3 * native:
        raise DataError(
            f"Client {client!r} has a reading every {native:g} s, which does not divide the step of {step:g} s. Set "
            f"time.step to a multiple of {native:g}s."
        )
    runs = [
        _gridded(client, readings.stamps[rows], readings.values[rows], spec, step, least)
        for rows in _runs(readings.stamps, spec)
    ]
    filled = [run for run in runs if len(run.values)]
    values = np.concatenate([run.values for run in filled] or [readings.values[:0]])
    ends = np.cumsum([len(run.values) for run in filled])
    counts = readings.counts.copy()
    for run in runs:
        counts.update({cause: count for cause, count in run.counts.items() if cause != "rows"})
    start = filled[0].start if filled else np.datetime64("NaT", "us")
    return Placed(client, start, in_unit(values, spec, step), tuple(map(int, ends[:-1])), counts)


def in_unit(values: Floats, spec: OwnSpec, step: float) -> Floats:
    """Return values whose target is in the unit wanted; power becomes energy of a step of ``step`` seconds."""
    unit, wanted = spec.value.unit, spec.value.to
    if wanted is None or wanted == unit:
        return values
    target = convert_unit(values[:, :1].astype(np.float64), unit, wanted, step)
    return np.concatenate([target.astype(np.float32), values[:, 1:]], axis=1)


def what_unit(unit: str) -> str:
    """Return ``"power"``, ``"energy"``, or ``""`` for any other unit."""
    try:
        known = find_unit(unit)
    except DataError:
        return ""
    return "energy" if known.endswith(("J", "Wh")) else "power" if known.endswith("W") else ""


def _utc(client: str, piece: Piece, spec: OwnSpec, counts: Counter[str]) -> tuple[Stamps, Floats]:
    """Return one file's rows in UTC, oldest first."""
    micros, values = np.concatenate(piece.stamps), np.concatenate(piece.values)
    counts["rows"] += len(micros)
    micros, values = _forward(micros, values, counts)
    local = micros.view("datetime64[us]")
    if piece.utc or spec.time.timezone == "UTC":
        back = int((np.diff(micros[micros != NAT]) < 0).sum())
        if back and spec.time.order == "error":
            raise _goes_back(client, local[micros != NAT], back)
        counts["sorted"] += back
        return local, values
    if spec.time.order == "sort":
        order = np.argsort(micros, kind="stable")
        counts["sorted"] += int((np.diff(micros) < 0).sum())
        local, values = local[order], values[order]
    zone = spec.time.timezone
    utc = to_utc(local, zone, ambiguous=spec.time.ambiguous, nonexistent=spec.time.nonexistent, client=client)
    there = ~np.isnat(utc)
    counts["clock changes"] += int((np.diff((local - utc)[there].astype(np.int64)) != 0).sum())
    return utc, values


def _goes_back(client: str, local: Stamps, back: int) -> DataError:
    first = int(np.flatnonzero(np.diff(local) < np.timedelta64(0, "us"))[0])
    return DataError(
        f"Client {client!r}: the clock goes back from {local[first]} to {local[first + 1]} ({back} such rows). If the "
        "rows are merely unsorted, set time.order: sort; if the clock is local, set time.timezone."
    )


def _forward(micros: Ints, values: Floats, counts: Counter[str]) -> tuple[Ints, Floats]:
    """Turn round rows that run from new to old, as many exports do."""
    steps = np.diff(micros[micros != NAT])
    if len(steps) and (steps < 0).mean() > 0.9:
        counts["from new to old"] += len(micros)
        return micros[::-1], values[::-1]
    return micros, values


def _signs(client: str, stamps: Stamps, values: Floats, spec: OwnSpec, counts: Counter[str]) -> Floats:
    """Apply what zero and negative values mean to the target."""
    target = values[:, 0]
    zero = np.zeros(len(target), np.bool_)
    if spec.value.zero == "missing":
        zero = target == 0
    elif spec.value.zero == "missing_before_start":
        begun = np.flatnonzero(np.nan_to_num(target) != 0)
        zero[: begun[0] if len(begun) else len(target)] = True
        zero &= target == 0
    negative = np.nan_to_num(target) < 0
    rule = spec.value.negative
    if negative.any() and (rule == "error" or (rule == "auto" and what_unit(spec.value.unit))):
        raise DataError(
            f"Client {client!r}: {target[negative][0]:g} {spec.value.unit} at {stamps[negative][0]} is negative "
            f"({int(negative.sum())} such readings). Set value.negative to keep (it feeds in) or missing (it is wrong)."
        )
    lost = zero | (negative if rule == "missing" else False)
    if not lost.any():
        return values
    counts["zero"] += int(zero.sum())
    counts["negative"] += int((lost & negative).sum())
    changed = values.copy()
    changed[lost, 0] = np.nan
    return changed


def _resolved(
    client: str, stamps: Stamps, values: Floats, spec: OwnSpec, counts: Counter[str]
) -> tuple[Stamps, Floats]:
    """Return one reading a stamp: equal ones collapse, others by the rule."""
    first: Booleans = np.concatenate((np.ones(min(1, len(stamps)), np.bool_), stamps[1:] != stamps[:-1]))
    if first.all():
        return stamps, values
    begin = np.flatnonzero(first)
    kept = values[first][np.cumsum(first) - 1]
    same = ((kept == values) | (np.isnan(kept) & np.isnan(values))).all(axis=1)
    conflicting = np.flatnonzero(~same)
    counts["duplicated"] += int((same & ~first).sum())
    counts["conflicting"] += len(conflicting)
    rule = spec.duplicates
    if len(conflicting) and rule == "error":
        at = int(conflicting[0])
        raise DataError(
            f"Client {client!r} has {kept[at, 0]:g} and {values[at, 0]:g} at {stamps[at]} ({len(conflicting)} such "
            "rows contradict an earlier one). Set duplicates: first, mean or sum, or mend the files."
        )
    if not len(conflicting) or rule == "first":
        return stamps[first], values[first]
    # equal rows are one reading told twice; only different ones are averaged or added
    told = first | ~same
    begin = np.flatnonzero(first[told])
    size = np.diff(np.append(begin, int(told.sum())))[:, None]
    total = np.add.reduceat(values[told].astype(np.float64), begin, axis=0)
    merged = (total / size if rule == "mean" else total).astype(np.float32)
    return stamps[first], merged


def _step(stamps: Stamps) -> float | None:
    try:
        return detect_step(stamps)
    except DataError:
        return None


def _runs(stamps: Stamps, spec: OwnSpec) -> list[slice]:
    """Return where runs begin and end: at gaps longer than ``time.new_run_after``."""
    after = seconds_of(spec.time.new_run_after) if spec.time.new_run_after else None
    if after is None or not len(stamps):
        return [slice(0, len(stamps))]
    cuts = np.flatnonzero(np.diff(stamps) > np.timedelta64(round(after * 1e6), "us")) + 1
    edges = [0, *map(int, cuts), len(stamps)]
    return [slice(low, high) for low, high in pairwise(edges)]


def _gridded(
    client: str, stamps: Stamps, values: Floats, spec: OwnSpec, step: float, least: int | None
) -> Gridded:
    """Return one run on the grid; energies add up, all else is averaged, and what fits the step stays as it is."""
    asked = spec.value.aggregate
    total: How = "sum" if what_unit(spec.value.unit) == "energy" else "mean"
    target: How = total if asked == "auto" else asked
    exact = least == 1 and asked == "auto"
    rest: How = "exact" if exact else "mean"
    every = least or 1
    main = on_grid(stamps, values[:, 0], step, "exact" if exact else target, client=client, least=every)
    if values.shape[1] == 1:
        return Gridded(main.start, step, main.values[:, None], main.counts)
    return _beside(main, on_grid(stamps, values[:, 1:], step, rest, client=client, least=every))


def _beside(main: Gridded, others: Gridded) -> Gridded:
    """Return the target with covariates on its own grid, missing where these have none."""
    joined = np.full((len(main.values), 1 + others.values.shape[1]), np.nan, np.float32)
    joined[:, 0] = main.values
    if len(main.values) and len(others.values):
        late = round((others.start - main.start) / np.timedelta64(1, "us") / (main.step_seconds * 1e6))
        low, high = max(0, late), min(len(joined), late + len(others.values))
        if low < high:
            joined[low:high, 1:] = others.values[low - late : high - late]
    return Gridded(main.start, main.step_seconds, joined, main.counts)
