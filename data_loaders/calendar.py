"""What is known beside the target: the calendar on a local clock, and weather or tariffs joined by stamp.

    series = add_calendar(series, ("hour", "weekday"), tz="Europe/London", holidays=("2013-12-25",))
    series = add_covariate(series, "temperature", weather["temp_c"], known=True)       # a forecast of the hours ahead

Every channel costs as much memory as the target does.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from .clocks import Stamps, as_stamps, to_local
from .errors import DataError, did_you_mean
from .runs import Floats
from .series import ClientSeries

FEATURES = ("hour", "weekday", "weekend", "yearday", "holiday")
_DAY_MICROS = 86_400_000_000
_NAMED = 5  # an error names this many clients and counts the rest


def add_calendar(
    series: ClientSeries,
    features: Sequence[str] = ("hour", "weekday", "yearday", "holiday"),
    tz: str = "Europe/London",
    holidays: Sequence[str | date] | None = None,
) -> ClientSeries:
    """Return the series with calendar channels, known in advance.

    Args:
        series: left as it is; one run a client.
        features: see :func:`calendar_features`.
        tz: of the clients' clocks; stamps of series are UTC.
        holidays: local dates, ``"2013-12-25"``; without them there is no channel ``"holiday"``.

    Raises:
        DataError: an unknown feature or zone, dates that are none, a channel that is there already, or runs after
            a break, whose stamps are not recorded.
    """
    names, _ = calendar_features(np.zeros(0, "datetime64[us]"), features, tz, holidays)
    if not names:
        raise DataError(
            f"Calendar features {list(features)} without holidays=... give no channel. Name the dates."
        )

    def columns(stamps: Stamps) -> Floats:
        return calendar_features(stamps, features, tz, holidays)[1]

    return _extended(
        series, names, True, _shared(series, columns), f"calendar on the clock of {tz}: {', '.join(names)}"
    )


def calendar_features(
    stamps: object,
    features: Sequence[str] = ("hour", "weekday", "yearday", "holiday"),
    tz: str = "Europe/London",
    holidays: Sequence[str | date] | None = None,
) -> tuple[tuple[str, ...], Floats]:
    """Return names of columns, and what a local calendar says of stamps, ``(n, columns)`` float32.

    Args:
        stamps: ``(n,)`` UTC, see :func:`data_loaders.grid.as_stamps`.
        features: ``"hour"`` of the day, to the fraction, ``"weekday"`` and ``"yearday"`` are two columns each, sine and
            cosine of the angle, so that midnight is near midnight; ``"weekend"`` is 1 on Saturday and Sunday;
            ``"holiday"`` is 1 on ``holidays``, and left out when there are none.
        tz: of the clock that the calendar is read on.
        holidays: local dates.

    Raises:
        DataError: an unknown feature or zone, or dates that are none.
    """
    unknown = [name for name in features if name not in FEATURES]
    if unknown:
        raise DataError(f"Unknown calendar feature {unknown[0]!r}. {did_you_mean(unknown[0], FEATURES)}")
    local = to_local(as_stamps(stamps), tz)
    days = local.astype("datetime64[D]")
    number = days.astype(np.int64)
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for name in features:
        if name == "hour":
            columns |= _circle(name, (local.astype(np.int64) % _DAY_MICROS) / _DAY_MICROS)
        elif name == "weekday":  # 1970 began on a Thursday; Monday is 0
            columns |= _circle(name, (number + 3) % 7 / 7)
        elif name == "yearday":
            columns |= _circle(name, _through_the_year(days))
        elif name == "weekend":
            columns[name] = ((number + 3) % 7 >= 5).astype(np.float64)
        elif holidays:
            columns[name] = np.isin(days, _dates(holidays)).astype(np.float64)
    stacked = np.empty((len(local), len(columns)), np.float32)
    for place, column in enumerate(columns.values()):
        stacked[:, place] = column
    return tuple(columns), stacked


def add_covariate(
    series: ClientSeries,
    name: str,
    table: "pd.Series[float] | pd.DataFrame",
    *,
    known: bool = False,
    max_age: int = 3,
) -> ClientSeries:
    """Return the series with one more channel, joined by stamp: the last value at or before each step.

    Args:
        series: left as it is; one run a client.
        name: of the channel.
        table: numbers on stamps (UTC where they have no zone): a Series for all clients, or a DataFrame with one column
            a client. Missing values are skipped: the last *observed* value counts.
        known: whether it is known in advance (a tariff; the weather, if a forecast may be had), so that windows see it
            ``horizon`` steps ahead.
        max_age: steps of the series a value may be old; beyond, the channel is missing.

    Raises:
        DataError: a table without numbers on unique stamps, with infinities, without a client's column, or whose
            stamps meet no client's; a channel of that name; or runs after a break.
    """
    if max_age < 0:
        raise DataError(f"max_age must not be negative, got {max_age}.")
    readings = _columns_of(series, name, table)
    limit = np.timedelta64(round((max_age * series.step_seconds) * 1e6), "us")

    def column(client: int) -> Floats:
        return _last_before(*readings[client % len(readings)], series.stamps_of(client), limit)

    rule = f"covariate {name}: the last value at or before a step, at most {max_age} steps old, else missing"
    result = _extended(series, (name,), known, column, rule)
    if len(series) and bool(result.values[:, -1].isnan().all()):
        seen = np.concatenate([stamps for stamps, _ in readings])
        span = f"runs from {seen.min()} to {seen.max()}" if len(seen) else "is missing everywhere"
        raise DataError(
            f"Covariate {name!r} has no value for any step of source {series.name!r}: it {span}, the first series "
            f"starts at {series.starts.min()}, max_age={max_age} steps. Are both UTC?"
        )
    return result


def _extended(
    series: ClientSeries, names: Sequence[str], known: bool, columns: Callable[[int], Floats], rule: str
) -> ClientSeries:
    """Return a series with more channels; besides the new buffer only one client's columns are held."""
    present = series.channel_names or ("target", *(f"channel {c}" for c in range(1, series.channels)))
    twice = [name for name in names if name in present]
    if twice:
        raise DataError(f"Source {series.name!r} has a channel {twice[0]!r} already. Choose another name.")
    values = torch.empty((len(series.values), series.channels + len(names)), dtype=torch.float32)
    values[:, : series.channels] = series.values
    for client in range(len(series)):
        rows = slice(int(series.offsets[client]), int(series.offsets[client + 1]))
        values[rows, series.channels :] = torch.from_numpy(columns(client))
    return replace(
        series,
        values=values,
        channel_names=(*present, *names),
        known=(*series.known, *(names if known else ())),
        rules=(*series.rules, rule),
    )


def _shared(series: ClientSeries, columns: Callable[[Stamps], Floats]) -> Callable[[int], Floats]:
    """Return what gives a client's columns, read off one table for all where their stamps are on one grid."""
    step = series.step_seconds * 1e6
    starts = series.starts.astype("datetime64[us]").astype(np.int64)
    firsts = (starts - starts.min(initial=2**62)) / step
    rows = int((firsts + series.lengths.numpy()).max(initial=0))
    if np.abs(firsts - np.rint(firsts)).max(initial=0) > 1e-9 or rows > len(series.values):
        return lambda client: columns(series.stamps_of(client))
    grid = starts.min(initial=2**62) + np.rint(np.arange(rows) * step).astype(np.int64)
    table = columns(grid.astype("datetime64[us]"))

    def cut(client: int) -> Floats:
        series.stamps_of(client, slice(0))  # refuses runs without stamps
        first = round(firsts[client])
        return table[first : first + int(series.lengths[client])]

    return cut


def _circle(name: str, turn: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    """Return sine and cosine of a share of a whole turn."""
    return {f"{name}_sin": np.sin(2 * np.pi * turn), f"{name}_cos": np.cos(2 * np.pi * turn)}


def _through_the_year(days: npt.NDArray[np.datetime64]) -> npt.NDArray[np.float64]:
    """Return the share of its year before each day; a leap year has 366."""
    years = days.astype("datetime64[Y]")
    first, after = years.astype("datetime64[D]"), (years + np.timedelta64(1, "Y")).astype("datetime64[D]")
    return np.asarray((days - first) / (after - first), np.float64)


def _dates(holidays: Sequence[str | date]) -> npt.NDArray[np.datetime64]:
    try:
        return np.array(list(holidays), "datetime64[D]")
    except (ValueError, TypeError) as error:
        raise DataError(f"holidays must be dates like '2013-12-25', got {list(holidays)[:3]}.") from error


def _columns_of(
    series: ClientSeries, name: str, table: "pd.Series[float] | pd.DataFrame"
) -> list[tuple[Stamps, Floats]]:
    """Return observed stamps and values, of each client or the same for all, sorted."""
    if not isinstance(table.index, pd.DatetimeIndex):
        raise DataError(f"Covariate {name!r} needs a DatetimeIndex, got {type(table.index).__name__}.")
    stamps = as_stamps(table.index)
    unique, counts = np.unique(stamps, return_counts=True)
    if np.isnat(unique).any() or (counts > 1).any():
        wrong = unique[np.isnat(unique) | (counts > 1)][0]
        raise DataError(
            f"Covariate {name!r}: stamp {wrong} is missing or comes more than once. Keep one of each."
        )
    if isinstance(table, pd.DataFrame):
        lacking = [client for client in series.clients if client not in table.columns]
        if lacking:
            some = ", ".join(map(repr, lacking[:_NAMED]))
            raise DataError(
                f"Covariate {name!r} has no column for {len(lacking)} clients: {some}. Name columns so."
            )
        columns = [table[client] for client in series.clients]
    else:
        columns = [table]
    order = np.argsort(stamps)
    return [_observed(name, stamps[order], column.iloc[order]) for column in columns]


def _observed(name: str, stamps: Stamps, column: "pd.Series[float]") -> tuple[Stamps, Floats]:
    try:
        values = column.to_numpy(np.float32, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise DataError(f"Covariate {name!r} is not numeric: {error}. Code its levels as numbers.") from error
    if np.isinf(values).any():
        raise DataError(f"Covariate {name!r} is infinite at {stamps[np.isinf(values)][0]}. Mark it as NaN.")
    seen = ~np.isnan(values)
    return stamps[seen], values[seen]


def _last_before(stamps: Stamps, values: Floats, wanted: Stamps, limit: np.timedelta64) -> Floats:
    """Return the last value at or before each wanted stamp that is no older than ``limit``, ``(wanted, 1)``."""
    if not len(stamps):
        return np.full((len(wanted), 1), np.nan, np.float32)
    place = np.searchsorted(stamps, wanted, side="right") - 1
    fresh = (place >= 0) & (wanted - stamps[np.maximum(place, 0)] <= limit)
    return np.where(fresh, values[np.maximum(place, 0)], np.float32(np.nan))[:, None]
