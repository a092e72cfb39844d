"""Runs of cars on the road: physics, resampling, and laying them in one buffer with breaks between runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ..errors import DataError
from ..series import ClientSeries, Dropped, count_reasons, offsets_of

Array = npt.NDArray[np.float64]
GRAVITY = 9.81
ROLLING = 0.132
DRAG = 0.000302
_SLOPE_SECONDS = 5.0  # at 10 m/s a rise over 50 m, so that GNSS noise of 0.1 m counts for 0.2 %
_LEAST_METRES = 10.0  # over less the slope is noise and taken as flat
_STEEPEST = 0.2


@dataclass(frozen=True, eq=False)
class Trace:
    """One run of one car on a regular grid.

    Args:
        car: the client.
        run: its name within the source.
        start: seconds since 1970 of the first step.
        values: ``(steps, channels)``, the target first, NaN = missing.
        known: of the car in this run, averaged or joined into attributes by the source.
    """

    car: str
    run: str
    start: float
    values: npt.NDArray[np.floating[Any]]
    known: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TraceRules:
    """Which runs and cars are kept.

    Args:
        min_minutes: of observed target a car must have.
        min_run_seconds: shorter runs are left out.
    """

    min_minutes: float = 1.0
    min_run_seconds: float = 10.0

    def problems(self) -> list[str]:
        """Return what is out of range, one sentence each."""
        return [
            f"{name} must not be negative, got {getattr(self, name)}."
            for name in ("min_minutes", "min_run_seconds")
            if not getattr(self, name) >= 0
        ]


def specific_power(speed: Array, acceleration: Array, sin_grade: Array | float = 0.0) -> Array:
    r"""Return vehicle-specific power, a proxy of tractive power, kW per tonne; negative when braking.

    .. math:: \mathrm{VSP} = v (1.1 a + 9.81 \sin\theta + 0.132) + 0.000302 v^3

    Args:
        speed: m/s.
        acceleration: m/s2.
        sin_grade: sine of the road's grade, 0 for flat.

    References:
        Jimenez-Palacios, Understanding and quantifying motor vehicle emissions with vehicle specific power and TILDAS
        remote sensing, MIT, 1999.
    """
    return np.asarray(speed * (1.1 * acceleration + GRAVITY * sin_grade + ROLLING) + DRAG * speed**3)


def acceleration(speed: Array, step_seconds: float) -> Array:
    """Return backward differences of ``(steps,)`` speeds; NaN at the first and where one of the two is missing.

    A later speed must not enter: the step is an input of forecasts that begin with the next one.
    """
    return np.diff(speed, prepend=np.nan) / step_seconds


def sine_of_grade(speed: Array, altitude: Array, step_seconds: float) -> Array:
    """Return the road's grade from altitudes, ``(steps,)``: rise over way in the 5 s before, at most 0.2.

    0 where the car moved less than 10 m and in the first 5 s of a run; NaN where speed or altitude is missing.
    """
    back = round(_SLOPE_SECONDS / step_seconds)
    way = np.cumsum(np.nan_to_num(speed)) * step_seconds
    sine = np.where(np.isnan(speed + altitude), np.nan, 0.0)
    if len(speed) > back:
        rise, run = altitude[back:] - altitude[:-back], way[back:] - way[:-back]
        inner = np.where(run < _LEAST_METRES, 0, np.nan_to_num(rise) / np.maximum(run, _LEAST_METRES))
        sine[back:] += inner.clip(-_STEEPEST, _STEEPEST)
    return sine


def resample(values: Array, every: int, how: Literal["mean", "pick"]) -> Array:
    """Return ``(steps // every, channels)``: each ``every`` steps' mean, missing where one is, or their first.

    Steps that do not fill the last group are left out.
    """
    groups = values[: len(values) // every * every].reshape(-1, every, values.shape[1])
    return groups.mean(axis=1) if how == "mean" else groups[:, 0].copy()


def trim(values: npt.NDArray[Any]) -> tuple[int, npt.NDArray[Any]]:
    """Return the first step with an observed target, and the steps from there to the last; none if there is none."""
    observed = np.flatnonzero(~np.isnan(values[:, 0]))
    if not len(observed):
        return 0, values[:0]
    return int(observed[0]), values[observed[0] : observed[-1] + 1]


@dataclass(frozen=True)
class Layout:
    """What a population of traces is called and measured in."""

    name: str
    unit: str
    channel_names: tuple[str, ...]
    step_seconds: float


def assemble(
    layout: Layout,
    traces: Iterable[Trace],
    rules: TraceRules,
) -> tuple[ClientSeries, dict[str, list[Trace]]]:
    """Lay runs end to end, car by car in order of name, each car's runs in the order given.

    A run goes from its first to its last observed target.

    Args:
        layout: names, unit and step.
        traces: of all cars, in any order of cars.
        rules: which runs and cars are kept.

    Returns:
        The series with attributes ``runs`` and ``minutes``; and the runs kept of each car, for further attributes.

    Raises:
        DataError: an infinite value, or no car left.
    """
    by_car, short = dict[str, list[Trace]](), 0
    for trace in traces:
        if np.isinf(trace.values).any():
            step = int(np.flatnonzero(np.isinf(trace.values).any(axis=1))[0])
            raise DataError(
                f"Source {layout.name!r}, car {trace.car!r}, run {trace.run!r}: infinite value at step {step}. "
                "Mark missing values as empty."
            )
        first, values = trim(trace.values)
        runs = by_car.setdefault(trace.car, [])
        if len(values) * layout.step_seconds < rules.min_run_seconds or not len(values):
            short += 1
            continue
        start = trace.start + first * layout.step_seconds
        runs.append(Trace(trace.car, trace.run, start, values, trace.known))
    minutes = {car: _minutes(runs, layout.step_seconds) for car, runs in by_car.items()}
    kept = {car: by_car[car] for car in sorted(by_car) if minutes[car] >= max(rules.min_minutes, 1e-9)}
    dropped = tuple(
        Dropped(car, f"min_minutes: {minutes[car]:.2g} minutes observed, {rules.min_minutes:g} asked for")
        for car in sorted(by_car)
        if car not in kept
    )
    if not kept:
        raise DataError(
            f"No car of source {layout.name!r} is left: {count_reasons(dropped) or 'there are no runs'}, "
            f"{short} runs shorter than {rules.min_run_seconds:g} s. Lower min_minutes or min_run_seconds."
        )
    return _laid(layout, kept, minutes, _said(rules, short), dropped), kept


def _said(rules: TraceRules, short: int) -> tuple[str, ...]:
    return (
        "each run of a car is by itself, from its first to its last observed target: no window crosses runs",
        f"min_run_seconds: {short} runs shorter than {rules.min_run_seconds:g} s or without a target are left out",
        f"min_minutes: a car with fewer than {rules.min_minutes:g} observed minutes is dropped",
    )


def _laid(
    layout: Layout,
    kept: Mapping[str, Sequence[Trace]],
    minutes: Mapping[str, float],
    said: tuple[str, ...],
    dropped: tuple[Dropped, ...],
) -> ClientSeries:
    names = tuple(kept)
    lengths = [[len(run.values) for run in runs] for runs in kept.values()]
    ends = np.cumsum([length for car in lengths for length in car])
    own = np.cumsum([sum(car) for car in lengths])
    attributes = pd.DataFrame(
        {"runs": [len(car) for car in lengths], "minutes": [minutes[name] for name in names]},
        index=pd.Index(names, name="client"),
    )
    return ClientSeries(
        name=layout.name,
        values=torch.from_numpy(
            np.concatenate([run.values for runs in kept.values() for run in runs]).astype(
                np.float32, copy=False
            )
        ),
        offsets=offsets_of([sum(car) for car in lengths]),
        clients=names,
        attributes=attributes,
        starts=np.array([int(runs[0].start) for runs in kept.values()], "datetime64[s]"),
        step_seconds=layout.step_seconds,
        unit=layout.unit,
        rules=said,
        dropped=dropped,
        channel_names=layout.channel_names,
        breaks=torch.from_numpy(np.setdiff1d(ends, own).astype(np.int64)),
    )


def _minutes(runs: Sequence[Trace], step_seconds: float) -> float:
    return float(sum((~np.isnan(run.values[:, 0])).sum() for run in runs) * step_seconds / 60)
