"""Trips of a week of the VED on grids of one second."""

import numpy as np
import pandas as pd

from ..errors import DataError
from ..runs import fill_gaps
from .traces import Array, Trace
from .ved_energy import column, energy

CHANNELS = {
    "speed": "Vehicle Speed[km/h]",
    "energy": "",
    "rpm": "Engine RPM[RPM]",
    "load": "Absolute Load[%]",
    "temperature": "OAT[DegC]",
}
UNITS = {"speed": "km/h", "energy": "kW"}
DAY_ONE = 1509494400.0  # DayNum 1 is 1 November 2017, 0:00, local time
LONGEST_HOURS = 24


def trips(
    rows: pd.DataFrame, static: pd.DataFrame, wanted: tuple[str, ...], hold: int, where: str
) -> list[Trace]:
    """Return the trips of a week, each second the mean of its rows.

    Args:
        rows: of one file, with the VED's columns.
        static: the cars' tables, indexed by ``VehId``.
        wanted: names of ``CHANNELS``, the target first.
        hold: seconds without a reading, at most so many on end, take the last one.
        where: the file, for errors.

    Raises:
        DataError: a trip longer than a day, or before its own start: the clock's unit is another.
    """
    cars = rows["VehId"].to_numpy(np.int64)
    keys = np.stack([cars, rows["Trip"].to_numpy(np.int64)], axis=1)
    distinct, trip = np.unique(keys, axis=0, return_inverse=True)
    trip = trip.reshape(-1)
    seconds = _seconds(rows, where)
    steps = np.zeros(len(distinct), np.int64)
    np.maximum.at(steps, trip, seconds + 1)
    first = np.concatenate([[0], np.cumsum(steps)])
    values = np.stack([_channel(rows, name, cars, static) for name in wanted], axis=1)
    grid = _means(values, first[trip] + seconds, int(first[-1]))
    day = np.full(len(distinct), np.inf)
    np.minimum.at(day, trip, rows["DayNum"].to_numpy(np.float64))
    return [
        Trace(
            car=f"veh{car:03d}",
            run=str(number),
            start=DAY_ONE + 86400 * (day[place] - 1),
            values=fill_gaps(grid[first[place] : first[place + 1]], hold),
        )
        for place, (car, number) in enumerate(distinct.tolist())
    ]


def _seconds(rows: pd.DataFrame, where: str) -> np.ndarray:
    clock = rows["Timestamp(ms)"].to_numpy(np.float64)
    wrong = (clock < 0) | (clock >= LONGEST_HOURS * 3.6e6)
    if wrong.any():
        row = int(wrong.argmax())
        line, which = int(rows.index[row]) + 2, rows.iloc[row]
        raise DataError(
            f"{where}, line {line}: Timestamp(ms) of car {which['VehId']:.0f}, trip {which['Trip']:.0f} is "
            f"{clock[row]:.0f}, not within {LONGEST_HOURS} h of the trip's start. Is it in milliseconds since then?"
        )
    return (clock // 1000).astype(np.int64)


def _channel(rows: pd.DataFrame, name: str, cars: np.ndarray, static: pd.DataFrame) -> Array:
    if name != "energy":
        return column(rows, CHANNELS[name])
    known = static.reindex(cars)
    return energy(rows, known["engine"].to_numpy(object), known["displacement_l"].to_numpy(np.float64))


def _means(values: Array, place: np.ndarray, steps: int) -> np.ndarray:
    """Return ``(steps, channels)`` float32 means of what is observed at each place, NaN where nothing is."""
    grid = np.empty((steps, values.shape[1]), np.float32)
    for channel in range(values.shape[1]):
        observed = ~np.isnan(values[:, channel])
        count = np.bincount(place[observed], minlength=steps)
        total = np.bincount(place[observed], values[observed, channel], minlength=steps)
        grid[:, channel] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return grid
