"""Half-hourly readings collected row by row: one grid a household, duplicates and odd stamps counted."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..runs import Booleans, Floats, Ints
from .households import Household

STEP_SECONDS = 1800


@dataclass
class Meters:
    """Readings collected so far: one grid of half-hours a household.

    Args:
        grids: household -> (half-hours since 1970 of its first slot, values with NaN for missing).
        attributes: household -> tariff, ACORN class and group where the files say so.
        counts: rows read and rows left out, by cause.
        ignored: files that hold no readings.
    """

    grids: dict[str, tuple[int, Floats]] = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    ignored: list[str] = field(default_factory=list)

    def steps(self) -> int:
        """Half-hours of all households together, at most."""
        return sum(len(values) for _, values in self.grids.values())

    def pop_households(self) -> Iterator[Household]:
        """Yield the households by name, letting go of each."""
        for client in sorted(self.grids):
            first, values = self.grids.pop(client)
            yield Household(client, first * STEP_SECONDS, STEP_SECONDS, values)

    def rules(self) -> tuple[str, ...]:
        """Return what was done to the rows, in words, with counts."""
        counted = (
            f"{self.counts['off the grid']} of {self.counts['rows']} rows off the half-hour grid left out",
            f"{self.counts['null']} rows without a value are missing readings",
            f"{self.counts['duplicated']} exact duplicates collapsed; of {self.counts['conflicting']} that "
            "contradict an earlier row the earlier one is kept",
        )
        some = ", ".join(self.ignored[:3]) + (", ..." if len(self.ignored) > 3 else "")
        return counted + (
            (f"{len(self.ignored)} files without readings ignored: {some}",) if self.ignored else ()
        )


def add_readings(meters: Meters, client: str, slots: Ints, values: Floats) -> None:
    """Write readings where the household has none yet; count the others as duplicates."""
    if not len(slots):
        meters.grids.setdefault(client, (0, np.zeros(0, np.float32)))
        return
    slots, values = _first_of_each(slots, values, meters.counts)
    first, grid = _grown(meters.grids.get(client), int(slots[0]), int(slots[-1]))
    present = grid[slots - first]
    meters.counts["duplicated"] += int((present == values).sum())
    meters.counts["conflicting"] += int((~np.isnan(present) & (present != values)).sum())
    grid[slots - first] = np.where(np.isnan(present), values, present)
    meters.grids[client] = (first, grid)


def _first_of_each(slots: Ints, values: Floats, counts: Counter[str]) -> tuple[Ints, Floats]:
    """Return the readings in time order, the first of several at one stamp."""
    if len(slots) < 2 or np.diff(slots).min() > 0:
        return slots, values
    order = np.argsort(slots, kind="stable")
    slots, values = slots[order], values[order]
    first: Booleans = np.concatenate(([True], np.diff(slots) > 0))
    same = values == values[first][np.cumsum(first) - 1]
    counts["duplicated"] += int((same & ~first).sum())
    counts["conflicting"] += int((~same & ~first).sum())
    return slots[first], values[first]


def _grown(present: tuple[int, Floats] | None, low: int, high: int) -> tuple[int, Floats]:
    """Return a grid that reaches from slot ``low`` to ``high`` and holds what was there."""
    if present is None or not len(present[1]):
        return low, np.full(high - low + 1, np.nan, np.float32)
    first, grid = present
    if first <= low and high < first + len(grid):
        return present
    begin, end = min(low, first), max(high + 1, first + len(grid))
    # by a quarter at least, so that a file sorted by time does not copy every grid for every chunk
    end = max(end, first + len(grid) * 5 // 4) if high >= first + len(grid) else end
    larger = np.full(end - begin, np.nan, np.float32)
    larger[first - begin : first - begin + len(grid)] = grid
    return begin, larger
