"""What a client's readings look like, in numbers, and what about them is hardly right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..clocks import Stamps
from ..runs import Floats
from ..units import convert_unit
from .options import OwnSpec
from .place import Placed
from .sorting import Sorted, what_unit

_HOUR = np.timedelta64(1, "h")
_DAY = np.timedelta64(1, "D")
_USUAL = (0.1, 200_000.0)  # kWh a day: from a garage to a hospital
_FACTORS = {1000: "W for kW or Wh for kWh", 4: "kW for kWh of a quarter-hour", 2: "kW for kWh of a half-hour"}


@dataclass(frozen=True)
class ClientFacts:
    """One client as the files have it.

    Args:
        client: its name.
        first: UTC stamp of its first step, ISO text; empty when it could not be placed.
        last: of its last step.
        days: from the first to the last step.
        readings: observed steps of the grid.
        step: seconds between its readings; 0 where they are irregular.
        gaps: runs of missing steps between the first and the last.
        longest_gap_hours: of the longest.
        missing: share of missing steps.
        duplicates: readings that repeat another.
        conflicting: readings that contradict another.
        off_grid: readings between two steps of the grid.
        zeros: share of zeros among the readings.
        negative: readings below 0.
        mean: of the readings, in the unit wanted.
        per_day: kWh a day for power and energy; 0 for all else.
        constant: whether all readings are equal.
    """

    client: str
    first: str
    last: str
    days: float
    readings: int
    step: float
    gaps: int
    longest_gap_hours: float
    missing: float
    duplicates: int
    conflicting: int
    off_grid: int
    zeros: float
    negative: int
    mean: float
    per_day: float
    constant: bool


def client_facts(item: Sorted, placed: Placed | None, spec: OwnSpec, step: float) -> ClientFacts:
    """Return the facts of one client; what needs a grid is 0 where it has none."""
    raw = item.values[:, 0]
    raw = raw[~np.isnan(raw)]
    grid = placed.values[:, 0] if placed else np.zeros(0, np.float32)
    observed = grid[~np.isnan(grid)]
    lengths = gap_lengths(grid)
    counts = placed.counts if placed else item.counts
    start = placed.start if placed and len(grid) else np.datetime64("NaT", "us")
    end = start + np.timedelta64(round(max(0, len(grid) - 1) * step * 1e6), "us")
    return ClientFacts(
        client=item.client,
        first="" if np.isnat(start) else str(start.astype("datetime64[s]")),
        last="" if np.isnat(start) else str(end.astype("datetime64[s]")),
        days=round(len(grid) * step / 86400, 3),
        readings=len(observed),
        step=item.step or 0.0,
        gaps=len(lengths),
        longest_gap_hours=round(float(lengths.max(initial=0)) * step / 3600, 3),
        missing=round(1 - len(observed) / max(1, len(grid)), 6) if len(grid) else 0.0,
        duplicates=counts["duplicated"],
        conflicting=counts["conflicting"],
        off_grid=counts["off the grid"],
        zeros=round(float((raw == 0).mean()), 6) if len(raw) else 0.0,
        negative=int((raw < 0).sum()),
        mean=float(observed.mean()) if len(observed) else 0.0,
        per_day=energy_per_day(raw, item.step, spec.value.unit),
        constant=len(raw) > 1 and bool((raw == raw[0]).all()),
    )


def gap_lengths(values: Floats) -> np.ndarray:
    """Return the lengths of the runs of missing values, ``(gaps,)``."""
    edges = np.diff(np.concatenate(([False], np.isnan(values), [False])).astype(np.int8))
    return np.asarray(np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1))


def energy_per_day(readings: Floats, step: float | None, unit: str) -> float:
    """Return the mean kWh a day that readings in ``unit`` mean; 0 where they are no power or energy."""
    kind = what_unit(unit)
    if not len(readings) or not kind or (kind == "energy" and not step):
        return 0.0
    mean = float(readings.mean(dtype=np.float64))
    if kind == "power":
        return round(convert_unit(mean, unit, "kW") * 24, 6)
    return round(convert_unit(mean, unit, "kWh") * 86400 / float(step or 1), 6)


def implausible(facts: Sequence[ClientFacts], readings: Sequence[Sorted], spec: OwnSpec) -> list[str]:
    """Return remarks on units, registers, zeros and clocks that are hardly right."""
    said = [*_of_size(facts, spec), *_of_one_client(facts), *_of_files(readings)]
    said += [*_registers(readings), *_zeros(facts, readings, spec), *_clock(readings, spec)]
    return said


def _of_size(facts: Sequence[ClientFacts], spec: OwnSpec) -> list[str]:
    days = np.array([item.per_day for item in facts if item.per_day > 0])
    if not len(days):
        return []
    median = float(np.median(days))
    if _USUAL[0] <= median <= _USUAL[1]:
        return []
    much = "little" if median < _USUAL[0] else "much"
    return [
        f"The median client uses {median:,.4g} kWh a day, which is {much} for anything with a meter. Is value.unit "
        f"{spec.value.unit!r} right? (W and kW, Wh and kWh differ by 1000.)"
    ]


def _of_one_client(facts: Sequence[ClientFacts]) -> list[str]:
    """Flag clients a factor 1000 away from all others, and a factor 4 or 2 where their step differs too."""
    using = [item for item in facts if item.per_day > 0]
    if len(using) < 3:
        return []
    logs = np.log10([item.per_day for item in using])
    away = logs - np.median(logs)
    spread = 1.4826 * float(np.median(np.abs(away)))
    steps = [item.step for item in using]
    usual = max(set(steps), key=steps.count)
    said = []
    for item, far in zip(using, away, strict=True):
        if abs(abs(far) - 3) < 0.5 and spread < 0.5:
            said.append(
                f"Client {item.client!r} uses {item.per_day:,.4g} kWh a day, about {10 ** abs(far):,.0f} times "
                f"{'more' if far > 0 else 'less'} than the median client: {_FACTORS[1000]}?"
            )
        for factor in (4, 2):
            ratio = usual / item.step if item.step else 1.0
            if abs(ratio - factor) < 0.01 and abs(abs(far) - np.log10(factor)) < 0.08 and spread < 0.1:
                said.append(
                    f"Client {item.client!r} has a step of {item.step:g} s, the others {usual:g} s, and {10**far:.2g} "
                    f"times their energy: {_FACTORS[factor]}?"
                )
    return said


def _of_files(readings: Sequence[Sorted]) -> list[str]:
    """Flag a factor that all clients change by from one of their files to the next."""
    steps: dict[int, list[float]] = {}
    for item in readings:
        for at, (before, after) in enumerate(zip(item.levels, item.levels[1:], strict=False)):
            if before > 0 and after > 0:
                steps.setdefault(at, []).append(after / before)
    said = []
    for at, ratios in steps.items():
        middle = float(np.median(ratios))
        close = np.abs(np.log10(np.array(ratios) / middle)) < 0.3
        for factor, words in _FACTORS.items():
            near = 0.3 if factor == 1000 else 0.03
            if (
                len(ratios) >= 2
                and close.mean() > 0.8
                and abs(abs(np.log10(middle)) - np.log10(factor)) < near
            ):
                said.append(
                    f"From file {at + 1} to file {at + 2} of their own, {len(ratios)} clients change by a factor of "
                    f"{middle:.3g}: {words}?"
                )
    return said


def _registers(readings: Sequence[Sorted]) -> list[str]:
    rising = [item.client for item in readings if _is_register(item.values[:, 0])]
    if not rising:
        return []
    return [
        f"{among(rising, 'client')} only ever rising: a meter's register? Take the differences from one reading to the "
        "next first."
    ]


def among(names: Sequence[str], what: str) -> str:
    """Return ``"Client 'a' is"`` or ``"3 clients ('a', 'b', 'c') are"``."""
    if len(names) == 1:
        return f"{what.capitalize()} {names[0]!r} is"
    shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {what}s ({shown}) are"


def _is_register(values: Floats) -> bool:
    observed = values[~np.isnan(values)]
    steps = np.diff(observed)
    return len(steps) >= 24 and bool((steps >= 0).all()) and float((steps > 0).mean()) > 0.3


def _zeros(facts: Sequence[ClientFacts], readings: Sequence[Sorted], spec: OwnSpec) -> list[str]:
    if spec.value.zero != "value":
        return []
    said, late, filled = [], [], []
    for fact, item in zip(facts, readings, strict=True):
        values = item.values[:, 0]
        nonzero = np.flatnonzero(np.nan_to_num(values) != 0)
        if not len(nonzero) or fact.zeros == 0:
            continue
        if item.stamps[nonzero[0]] - item.stamps[0] > 7 * _DAY:
            late.append(fact.client)
        elif float(np.quantile(values[nonzero], 0.01)) > 0.1 * float(values[nonzero].mean()):
            filled.append(fact.client)
    if late:
        said.append(
            f"{among(late, 'client')} zero for more than a week before the first reading: set value.zero: "
            "missing_before_start if that was before the start."
        )
    if filled:
        said.append(
            f"{among(filled, 'client')} exactly 0 at times and never near it otherwise: set value.zero: missing if no "
            "reading is stored as 0."
        )
    return said


def _clock(readings: Sequence[Sorted], spec: OwnSpec) -> list[str]:
    """Flag stamps said to be UTC that skip the hour which a local clock skips in spring."""
    if spec.time.timezone != "UTC":
        return []
    skipped: dict[str, int] = {}
    for item in readings:
        for zone, hours in _spring_hours(item.stamps).items():
            if any(_skips(item.stamps, hour) for hour in hours):
                skipped[zone] = skipped.get(zone, 0) + 1
    return [
        f"{count} of {len(readings)} clients lack the very hour that a local clock skips in spring: is the clock local? "
        f"Set time.timezone, such as {zone}."
        for zone, count in skipped.items()
        if 2 * count > len(readings)
    ]


def _spring_hours(stamps: Stamps) -> Mapping[str, list[np.datetime64]]:
    if not len(stamps):
        return {}
    years = range(int(str(stamps[0])[:4]), int(str(stamps[-1])[:4]) + 1)
    march = [np.datetime64(f"{year}-03-31") for year in years]
    last = [
        day - np.timedelta64((int(day.astype(int)) + 4) % 7, "D") for day in march
    ]  # 1970-01-01 was a Thursday
    first = [np.datetime64(f"{year}-03-01") for year in years]
    second = [day + np.timedelta64((3 - int(day.astype(int))) % 7 + 7, "D") for day in first]
    return {
        "Europe/London": [day + _HOUR for day in last],
        "Europe/Berlin": [day + 2 * _HOUR for day in last],
        "America/New_York": [day + 2 * _HOUR for day in second],
    }


def _skips(stamps: Stamps, hour: np.datetime64) -> bool:
    """Return whether there are readings in the hours around this one and none in it."""
    edges = np.searchsorted(stamps, [hour - _HOUR, hour, hour + _HOUR, hour + 2 * _HOUR])
    before, inside, after = np.diff(edges)
    return bool(before and after and not inside)
