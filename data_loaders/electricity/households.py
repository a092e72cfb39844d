"""What household sources share: one meter's readings, the rules on them, and laying them in one buffer."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from ..errors import DataError
from ..runs import Floats
from ..series import ClientSeries, Dropped, count_reasons, offsets_of

DAY_SECONDS = 86400


@dataclass(frozen=True, eq=False)
class Household:
    """One meter's readings on a regular grid.

    Args:
        client: the meter's name.
        start: seconds since 1970 of the first reading, UTC.
        step_seconds: from one reading to the next.
        values: ``(steps,)`` float32, energy per step, NaN = missing.
    """

    client: str
    start: int
    step_seconds: int
    values: Floats


@dataclass(frozen=True)
class HouseholdRules:
    """Which households are kept; see :meth:`in_words`.

    Args:
        min_days: days' worth of readings a household must have.
        min_coverage: share of readings between its first and its last one.
        max_zero_share: share of zeros among its readings.
        noun: what a client is called.
    """

    min_days: float
    min_coverage: float
    max_zero_share: float
    noun: str = "household"

    def in_words(self) -> tuple[str, ...]:
        """Return one sentence a rule."""
        return (
            f"a {self.noun}'s series runs from its first to its last reading",
            f"min_days: a {self.noun} with readings for fewer than {self.min_days:g} days is dropped",
            f"min_coverage: one with less than {self.min_coverage:.0%} of its span's readings is dropped",
            f"max_zero_share: one whose readings are zero in more than {self.max_zero_share:.0%} is dropped",
        )

    def broken_by(self, household: Household) -> str | None:
        """Return the reason to drop a trimmed household, starting with the rule, or None."""
        observed = household.values[~np.isnan(household.values)]
        if not len(observed):
            return "no reading: nothing in the period asked for"
        days = len(observed) * household.step_seconds / DAY_SECONDS
        coverage, zero = len(observed) / len(household.values), float(np.mean(observed == 0))
        if days < self.min_days:
            return f"min_days: {days:.1f} days of readings, {self.min_days:g} asked for"
        if coverage < self.min_coverage:
            return (
                f"min_coverage: {coverage:.1%} of the readings in its span, {self.min_coverage:.0%} asked for"
            )
        if zero > self.max_zero_share:
            return f"max_zero_share: {zero:.1%} of the readings are zero, {self.max_zero_share:.0%} allowed"
        return None


def clip(household: Household, start: int | None, end: int | None) -> Household:
    """Return the readings with stamps in ``[start, end)``, seconds since 1970; None leaves a side open."""
    step, steps = household.step_seconds, len(household.values)
    low = 0 if start is None else min(steps, max(0, -(-(start - household.start) // step)))
    high = steps if end is None else max(low, min(steps, -(-(end - household.start) // step)))
    return replace(household, start=household.start + low * step, values=household.values[low:high])


def trim(household: Household) -> Household:
    """Return the readings from the first to the last observed one; none when nothing is observed."""
    observed = np.flatnonzero(~np.isnan(household.values))
    low, high = (int(observed[0]), int(observed[-1]) + 1) if len(observed) else (0, 0)
    start = household.start + low * household.step_seconds
    return replace(household, start=start, values=household.values[low:high])


def to_hourly(household: Household) -> Household:
    """Return the hourly sums hh:00 + hh:30, missing where either is; hourly readings as they are."""
    if household.step_seconds == 3600:
        return household
    before = int(household.start % 3600 != 0)
    after = (before + len(household.values)) % 2
    padded = np.pad(household.values, (before, after), constant_values=np.nan)
    hourly = padded.reshape(-1, 2).sum(axis=1, dtype=np.float32)
    return Household(household.client, household.start - 1800 * before, 3600, hourly)


def assemble(
    name: str,
    households: Iterable[Household],
    rules: HouseholdRules,
    *,
    capacity: int,
    step_seconds: int,
    clients: int | None = None,
) -> ClientSeries:
    """Lay the households that keep the rules end to end in one buffer, trimmed, in the order given.

    Args:
        name: of the source.
        households: read one by one, so that only the buffer is held; all with one ``step_seconds``.
        rules: the others are recorded in ``dropped``.
        capacity: at least the steps of all households together; what is not written to costs no memory.
        step_seconds: of the series.
        clients: stop after so many kept households.

    Returns:
        The series in kWh with empty attributes; the caller joins its own and adds its rules.

    Raises:
        DataError: no household is left.
    """
    buffer, kept, dropped = np.empty((capacity, 1), np.float32), list[tuple[str, int, int]](), list[Dropped]()
    filled = 0
    for household in map(trim, households):
        reason = rules.broken_by(household)
        if reason:
            dropped.append(Dropped(household.client, reason))
            continue
        steps = len(household.values)
        buffer[filled : filled + steps, 0] = household.values
        filled += steps
        kept.append((household.client, household.start, steps))
        if len(kept) == clients:
            break
    if not kept:
        raise DataError(
            f"No {rules.noun} of source {name!r} is left: {count_reasons(dropped) or 'none was found'}."
        )
    buffer.resize((filled, 1), refcheck=False)
    names = tuple(client for client, _, _ in kept)
    return ClientSeries(
        name=name,
        values=torch.from_numpy(buffer),
        offsets=offsets_of([steps for _, _, steps in kept]),
        clients=names,
        attributes=pd.DataFrame(index=pd.Index(names, name="client")),
        starts=np.array([start for _, start, _ in kept], "datetime64[s]"),
        step_seconds=step_seconds,
        unit="kWh",
        rules=rules.in_words(),
        dropped=tuple(dropped),
    )
