"""Irregular stamps onto a regular UTC grid, coarser steps, clocks and units: what every source needs.

utc = to_utc(table["time"], "Europe/Lisbon", nonexistent="missing", client=name)
hourly = on_grid(utc, convert_unit(table["kW"], "kW", "kWh", 900), 3600, how="sum", client=name, least=4)
hourly.start, hourly.values, grid_rules(hourly.counts)
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .clocks import Stamps, as_stamps, check_order, to_local, to_utc, who
from .errors import DataError
from .resample import resample_series
from .runs import Booleans, Floats, Ints
from .units import UNITS, convert_unit, find_unit

__all__ = [
    "UNITS",
    "Gridded",
    "as_stamps",
    "check_order",
    "convert_unit",
    "detect_step",
    "find_unit",
    "grid_rules",
    "on_grid",
    "resample_series",
    "to_local",
    "to_utc",
]

How = Literal["exact", "sum", "mean", "last"]
_HOWS = ("exact", "sum", "mean", "last")
_SPARE = 1_000_000  # a grid may be this long, plus a hundred steps a row, before its stamps look wrong


@dataclass(frozen=True, eq=False)
class Gridded:
    """One client's readings on a regular grid, from its first to its last reading.

    Args:
        start: datetime64[us], UTC stamp of the first step; NaT when there is no reading.
        step_seconds: from one step to the next.
        values: ``(steps,)`` or ``(steps, channels)`` float32 as they came in, NaN = missing.
        counts: ``rows`` read and rows left out, by cause; counters of several clients add up, see :func:`grid_rules`.
    """

    start: np.datetime64
    step_seconds: float
    values: Floats
    counts: Counter[str]


def on_grid(
    stamps: object,
    values: npt.ArrayLike,
    step_seconds: float,
    how: How = "exact",
    *,
    client: str = "",
    tolerance: float = 0.0,
    least: int = 1,
    order: Literal["error", "sort"] = "error",
) -> Gridded:
    """Return readings at any stamps as a regular series, and counts of what was left out.

    Rows without a stamp or without any value are missing readings. Rows that repeat an earlier stamp are left out: as
    duplicated when they say the same, as conflicting when they do not (the earlier row is kept).

    Args:
        stamps: ``(rows,)`` UTC, see :func:`as_stamps` and :func:`to_utc`; numbers are seconds since 1970.
        values: ``(rows,)`` or ``(rows, channels)``, NaN = missing.
        step_seconds: of the grid; 0.1 is 10 Hz.
        how: ``"exact"``: a reading belongs to the step of its stamp, others are off the grid and left out; the grid
            has the phase that most stamps have. Otherwise steps are multiples of ``step_seconds`` since 1970, and a
            step collects the readings from its stamp up to the next step's: their ``"sum"`` (missing where one is),
            the ``"mean"`` or the ``"last"`` of those observed. Where stamps mark the end of what they measure,
            subtract that duration first.
        client: for errors.
        tolerance: seconds a reading may be off its step with ``"exact"``; the nearest step gets it.
        least: readings a step must have, else it is missing (4 quarter-hours an hour).
        order: whether stamps that decrease are an error or sorted.

    Raises:
        DataError: infinite values, a clock that goes back, shapes that differ, a grid out of proportion to its rows
            (a wrong year), or options out of range.
    """
    times, readings = as_stamps(stamps), np.asarray(values, np.float64)
    _check(times, readings, step_seconds, how, client)
    if order == "error":
        check_order(times, client)
    counts: Counter[str] = Counter(rows=len(times))
    table = readings[:, None] if readings.ndim == 1 else readings
    times, table = _usable(times, table, counts)
    shape = readings.shape[1:]
    if not len(times):
        return Gridded(np.datetime64("NaT", "us"), step_seconds, np.zeros((0, *shape), np.float32), counts)
    phase, slots, near = _slots(times, step_seconds, how == "exact", tolerance)
    counts["off the grid"] += int((~near).sum())
    slots, table, times = slots[near], table[near], times[near]
    first, last = int(slots.min()), int(slots.max())
    if last - first + 1 > 100 * len(times) + _SPARE:
        raise DataError(
            f"{who(client)}stamps from {times.min()} to {times.max()} make {last - first + 1} steps of "
            f"{step_seconds:g} s for {len(times)} readings. Remove the wrong stamps, or put each run on its own grid."
        )
    keep = _first_of_each(slots if how == "exact" else times, table, counts)
    grid = np.full((last - first + 1, table.shape[1]), np.nan, np.float32)
    filled, reduced = _reduced(slots[keep] - first, table[keep], how, least)
    grid[filled] = reduced
    start = phase + np.timedelta64(round(first * step_seconds * 1e6), "us")
    return Gridded(start, step_seconds, grid.reshape(len(grid), *shape), counts)


def grid_rules(counts: Counter[str]) -> tuple[str, ...]:
    """Return what was left out in words, one sentence a cause; counters of several clients may be added up before."""
    said = {
        "without a stamp": "have no stamp and are left out",
        "without a value": "have no value and are missing readings",
        "off the grid": "are off the grid and left out",
        "duplicated": "repeat an earlier row and are left out",
        "conflicting": "contradict an earlier row of the same stamp, which is kept",
    }
    return tuple(
        f"{counts[cause]} of {counts['rows']} rows {words}" for cause, words in said.items() if counts[cause]
    )


def detect_step(stamps: object, *, client: str = "", min_share: float = 0.5) -> float:
    """Return the seconds between neighbouring stamps that occur most.

    Args:
        stamps: ``(n,)`` in any order, see :func:`as_stamps`; repeated ones count once.
        client: for errors.
        min_share: share of the differences that must equal it.

    Raises:
        DataError: fewer than two different stamps, or none of the differences is that frequent.
    """
    times = as_stamps(stamps)
    steps, counts = np.unique(
        np.diff(np.unique(times[~np.isnat(times)]).astype(np.int64)), return_counts=True
    )
    if not len(steps):
        raise DataError(f"{who(client)}fewer than two different stamps have no step. Give the step yourself.")
    if counts.max() < min_share * counts.sum():
        frequent = np.argsort(-counts, kind="stable")[:3]
        seen = ", ".join(f"{steps[i] / 1e6:g} s ({counts[i] / counts.sum():.0%})" for i in frequent)
        raise DataError(
            f"{who(client)}stamps are irregular: the most frequent steps are {seen}. Choose a step."
        )
    return float(steps[counts.argmax()] / 1e6)


def _check(times: Stamps, readings: npt.NDArray[np.float64], step: float, how: str, client: str) -> None:
    if how not in _HOWS:
        raise DataError(f"how must be one of {', '.join(_HOWS)}, got {how!r}.")
    if not step > 0 or step * 1e6 < 1:
        raise DataError(f"step_seconds must be at least a microsecond, got {step}.")
    if readings.ndim not in (1, 2) or len(readings) != len(times):
        raise DataError(f"{who(client)}{len(times)} stamps do not fit values of shape {readings.shape}.")
    infinite = np.isinf(readings) if readings.ndim == 1 else np.isinf(readings).any(axis=1)
    if infinite.any():
        raise DataError(
            f"{who(client)}infinite value at {times[infinite][0]} ({int(infinite.sum())} such rows). Mark missing "
            "readings as NaN."
        )


def _usable(
    times: Stamps, table: npt.NDArray[np.float64], counts: Counter[str]
) -> tuple[Stamps, npt.NDArray[np.float64]]:
    """Return rows that have a stamp and a value, in time order; of equal stamps in the order of the file."""
    stamped, valued = ~np.isnat(times), ~np.isnan(table).all(axis=1)
    counts["without a stamp"] += int((~stamped).sum())
    counts["without a value"] += int((stamped & ~valued).sum())
    rows = np.flatnonzero(stamped & valued)
    rows = rows[np.argsort(times[rows], kind="stable")]
    return times[rows], table[rows]


def _slots(
    times: Stamps, step_seconds: float, exact: bool, tolerance: float
) -> tuple[np.datetime64, Ints, Booleans]:
    """Return the stamp of step 0, the step of each reading, and whether it is near enough to count."""
    micros, step = times.astype(np.int64), step_seconds * 1e6
    whole = abs(step - round(step)) < 1e-6
    phase = 0 if whole else int(micros[0])
    if exact and whole:
        rests, counts = np.unique(micros % round(step), return_counts=True)
        phase = int(rests[counts.argmax()])
    since = micros - phase
    if not exact:
        slots = since // round(step) if whole else np.floor((since + 0.5) / step).astype(np.int64)
        return np.datetime64(phase, "us"), slots, np.ones(len(times), np.bool_)
    slots = (since + round(step) // 2) // round(step) if whole else np.rint(since / step).astype(np.int64)
    near = np.abs(since - (slots * round(step) if whole else slots * step)) <= tolerance * 1e6 + 0.5
    return np.datetime64(phase, "us"), slots, np.asarray(near, np.bool_)


def _first_of_each(
    keys: npt.NDArray[np.generic], table: npt.NDArray[np.float64], counts: Counter[str]
) -> Booleans:
    """Return which rows are the first of their key, ``(rows,)``; keys are sorted, the others are counted."""
    first: Booleans = np.concatenate(([True], keys[1:] != keys[:-1]))
    if first.all():
        return first
    kept = table[first][np.cumsum(first) - 1]
    same = ((kept == table) | (np.isnan(kept) & np.isnan(table))).all(axis=1)
    counts["duplicated"] += int((same & ~first).sum())
    counts["conflicting"] += int((~same & ~first).sum())
    return first


def _reduced(
    slots: Ints, table: npt.NDArray[np.float64], how: How, least: int
) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Return the steps that have readings and what these come to, ``(filled steps, channels)``."""
    begin = np.flatnonzero(np.concatenate(([True], slots[1:] != slots[:-1])))
    size = np.diff(np.append(begin, len(slots)))[:, None]
    observed = ~np.isnan(table)
    seen = np.add.reduceat(observed.astype(np.int64), begin, axis=0)
    if how in ("exact", "last"):
        rows = np.maximum.reduceat(np.where(observed, np.arange(len(table))[:, None], -1), begin, axis=0)
        result = np.where(seen > 0, np.take_along_axis(table, np.maximum(rows, 0), axis=0), np.nan)
    else:
        total = np.add.reduceat(np.where(observed, table, 0.0), begin, axis=0)
        result = (
            np.where(seen == size, total, np.nan) if how == "sum" else total / np.where(seen, seen, np.nan)
        )
    return slots[begin], np.where(seen >= least, result, np.nan)
