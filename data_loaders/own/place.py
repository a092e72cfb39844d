"""One client's readings onto its grid: coarser steps, units, runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..clocks import Stamps
from ..errors import DataError
from ..grid import Gridded, How, on_grid
from ..runs import Floats
from ..units import convert_unit
from .options import OwnSpec
from .sorting import Sorted, what_unit
from .spec import seconds_of


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
