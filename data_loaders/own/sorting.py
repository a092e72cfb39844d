"""One client's readings in UTC and in time order: clock changes, duplicates, what zero and negative mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ..clocks import Stamps, to_utc
from ..errors import DataError
from ..grid import detect_step
from ..runs import Booleans, Floats, Ints
from ..units import find_unit
from .cast import NAT
from .options import OwnSpec
from .readings import Piece


@dataclass(frozen=True, eq=False)
class Sorted:
    """One client's readings in UTC and in time order, duplicates resolved.

    Args:
        client: its name.
        stamps: ``(rows,)`` datetime64[us], where a step begins.
        values: ``(rows, channels)`` float32 as in the files, NaN = missing.
        step: seconds between neighbouring stamps that occur most; None where stamps are irregular.
        counts: rows and what became of them, by cause.
        levels: mean of the target in each file the client is in, in the order of the files.
    """

    client: str
    stamps: Stamps
    values: Floats
    step: float | None
    counts: Counter[str]
    levels: tuple[float, ...] = ()


def sort_readings(client: str, pieces: Sequence[Piece], spec: OwnSpec) -> Sorted:
    """Return a client's readings of all files in UTC and in time order.

    Raises:
        DataError: a clock that goes back, an hour that does not exist, contradicting duplicates, negative values,
            each where the spec does not say what to do.
    """
    counts = Counter[str]()
    parts = _utc(client, pieces, spec, counts)
    stamps = np.concatenate([part for part, _ in parts])
    values = np.concatenate([part for _, part in parts])
    there = ~np.isnat(stamps)
    counts["without a stamp"] += int((~there).sum()) - counts["in the skipped hour"]
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
    levels = tuple(_mean(part[:, 0]) for _, part in parts)
    return Sorted(client, stamps, values, step, counts, levels)


def what_unit(unit: str) -> str:
    """Return ``"power"``, ``"energy"``, or ``""`` for any other unit."""
    try:
        known = find_unit(unit)
    except DataError:
        return ""
    return "energy" if known.endswith(("J", "Wh")) else "power" if known.endswith("W") else ""


def _utc(
    client: str, pieces: Sequence[Piece], spec: OwnSpec, counts: Counter[str]
) -> list[tuple[Stamps, Floats]]:
    """Return each file's rows in UTC, oldest first."""
    parts = [_forward(np.concatenate(p.stamps), np.concatenate(p.values), counts) for p in pieces]
    counts["rows"] += sum(len(micros) for micros, _ in parts)
    local = [micros.view("datetime64[us]") for micros, _ in parts]
    values = [readings for _, readings in parts]
    if spec.time.timezone != "UTC" and len({piece.utc for piece in pieces}) > 1:
        raise DataError(
            f"Client {client!r}: stamps of some files carry an offset from UTC, others do not. Write one."
        )
    if spec.time.timezone == "UTC" or all(piece.utc for piece in pieces):
        for stamps in local:
            back = int((np.diff(stamps[~np.isnat(stamps)]) < np.timedelta64(0, "us")).sum())
            if back and spec.time.order == "error":
                raise _goes_back(client, stamps[~np.isnat(stamps)], back)
            counts["sorted"] += back
        return list(zip(local, values, strict=True))
    if spec.time.order == "sort":
        for at, stamps in enumerate(local):
            order = np.argsort(stamps, kind="stable")
            counts["sorted"] += int((np.diff(stamps) < np.timedelta64(0, "us")).sum())
            local[at], values[at] = stamps[order], values[at][order]
    utc = _of_clock(client, local, spec)
    for shown, stamps in zip(local, utc, strict=True):
        there = ~np.isnat(stamps)
        counts["in the skipped hour"] += int((~there & ~np.isnat(shown)).sum())
        counts["clock changes"] += int((np.diff((shown - stamps)[there].astype(np.int64)) != 0).sum())
    return list(zip(utc, values, strict=True))


def _of_clock(client: str, local: Sequence[Stamps], spec: OwnSpec) -> list[Stamps]:
    """Return local stamps in UTC; files that follow each other are one series, so that one may end in the autumn hour."""
    if len(local) > 1:
        order = sorted(range(len(local)), key=lambda at: local[at][:1].view(np.int64).tolist())
        cuts = np.cumsum([len(local[at]) for at in order])[:-1]
        with suppress(DataError):  # files that overlap do not follow each other
            joined = np.split(_of_zone(client, np.concatenate([local[at] for at in order]), spec), cuts)
            return [joined[order.index(at)] for at in range(len(local))]
    return [_of_zone(client, stamps, spec) for stamps in local]


def _of_zone(client: str, local: Stamps, spec: OwnSpec) -> Stamps:
    time = spec.time
    try:
        return to_utc(
            local, time.timezone, ambiguous=time.ambiguous, nonexistent=time.nonexistent, client=client
        )
    except DataError as error:
        raise DataError(*(_in_our_keys(text) for text in error.problems)) from error


def _goes_back(client: str, local: Stamps, back: int) -> DataError:
    first = int(np.flatnonzero(np.diff(local) < np.timedelta64(0, "us"))[0])
    return DataError(
        f"Client {client!r}: the clock goes back from {_plain(local[first])} to {_plain(local[first + 1])} ({back} such "
        "rows). If the rows are merely unsorted, set time.order: sort; if the clock is local, set time.timezone"
        f"{_proposed(local[first + 1])}; if the name stands for two clients, give each its own."
    )


def _proposed(stamp: np.datetime64) -> str:
    """Return a zone whose clock shows this stamp twice in autumn, in words; empty when none of the usual does."""
    day = stamp.astype("datetime64[D]")
    sunday = (int(day.astype(int)) + 4) % 7 == 0  # 1970-01-01 was a Thursday
    month, of_month = int(str(day)[5:7]), int(str(day)[8:])
    hour = int((stamp - day) // np.timedelta64(1, "h"))
    if sunday and month == 10 and of_month > 24 and hour in (1, 2):
        return ", such as Europe/Berlin" if hour == 2 else ", such as Europe/London"
    return ", such as America/New_York" if sunday and month == 11 and of_month < 8 and hour == 1 else ""


def _plain(stamp: np.datetime64) -> str:
    """Return a stamp without a fraction of a second that is none."""
    return str(stamp).removesuffix(".000000")


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
            f"Client {client!r}: {target[negative][0]:g} {spec.value.unit} at {_plain(stamps[negative][0])} is negative "
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
        zone = _proposed(stamps[at]) if spec.time.timezone == "UTC" else ""
        raise DataError(
            f"Client {client!r} has {kept[at, 0]:g} and {values[at, 0]:g} at {_plain(stamps[at])} ({len(conflicting)} such "
            "rows contradict an earlier one). Set duplicates: first, mean or sum, or mend the files."
            + (f" If the clock is local, set time.timezone{zone}." if zone else "")
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


def _mean(values: Floats) -> float:
    observed = values[~np.isnan(values)]
    return float(observed.mean()) if len(observed) else float("nan")


def _in_our_keys(text: str) -> str:
    """Return the words of :func:`to_utc` with the keys of the YAML file for its arguments."""
    for word in ("ambiguous", "nonexistent"):
        text = text.replace(f"{word}='", f"time.{word}: '")
    text = text.replace(".000000", "").replace("Sort the rows,", "Set time.order: sort,")
    return text.replace(
        "or cut the series there.", "cut the series there, or rename one of two clients of this name."
    )
