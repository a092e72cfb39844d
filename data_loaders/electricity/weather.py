"""Weather beside the load: a table of a site's observations joined to the stamps of its clients, as channels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..errors import DataError
from ..runs import Floats
from ..series import ClientSeries, Dropped, count_reasons
from .files import readable

BEDFORD = "weather_bedford_hourly.csv.gz"
MAX_AGE_HOURS = 3  # the last observation stands for so long
_HOUR = np.timedelta64(3600, "s")


def read_bedford(folder: Path) -> pd.DataFrame:
    """Return ``air_temp_c``, ``rel_hum_pct``, ``global_irrad_wm2`` of Bedford by UTC stamp.

    Raises:
        DataError: the file is not there, or its columns are others.
    """
    path = (folder if folder.is_dir() else folder.parent) / BEDFORD
    if not path.is_file():
        raise DataError(f"weather=True needs {path}, which is not there. Put it there, or leave weather out.")
    with readable(path):
        return weather_table(pd.read_csv(path), str(path), "timestamp_utc")


def weather_table(raw: pd.DataFrame, where: str, stamp: str) -> pd.DataFrame:
    """Return a table as read with numbers by ascending stamp, the first of several at one stamp.

    Raises:
        DataError: no column of stamps, or a column that does not hold numbers.
    """
    if stamp not in raw:
        raise DataError(f"File {where} has no column {stamp!r}, only {', '.join(map(str, raw.columns))}.")
    stamps = pd.to_datetime(raw[stamp], errors="coerce")
    if stamps.isna().any():
        bad = int(np.flatnonzero(stamps.isna())[0])
        raise DataError(
            f"File {where}, row {bad + 2}: {raw[stamp].iloc[bad]!r} is not a stamp like 2013-01-01 00:00:00."
        )
    text = [name for name in raw if name != stamp and not pd.api.types.is_numeric_dtype(raw[name])]
    if text:
        raise DataError(
            f"File {where}: columns {', '.join(map(str, text))} do not hold numbers. Use '.' as decimal mark."
        )
    table = raw.drop(columns=stamp).set_axis(pd.DatetimeIndex(stamps.to_numpy("datetime64[s]"))).sort_index()
    return table[~table.index.duplicated()]


def add_weather(
    series: ClientSeries, tables: Mapping[str, pd.DataFrame], sites: Sequence[str] | None = None
) -> ClientSeries:
    """Return the series with each site's observations as further channels.

    A step takes the last observation up to its stamp that is at most ``MAX_AGE_HOURS`` old. Clients whose weather
    nobody observed are dropped: no window of theirs would be complete.

    Args:
        series: of one channel, the load.
        tables: site -> numbers by stamp on the series' clock, all with the same columns.
        sites: of each client; None if there is one site for all, named ``""``.

    Raises:
        DataError: no client has weather.
    """
    names = [str(name) for name in next(iter(tables.values())).columns]
    joined = np.full((len(series.values), 1 + len(names)), np.nan, np.float32)
    joined[:, 0] = series.values[:, 0].numpy()
    kept, dropped = list[int](), list[Dropped]()
    for client in range(len(series)):
        site = sites[client] if sites else next(iter(tables))
        begin, end = int(series.offsets[client]), int(series.offsets[client + 1])
        if site in tables:
            joined[begin:end, 1:] = _as_of(tables[site], _stamps(series, client))
        silent = [bool(np.isnan(joined[begin:end, place]).all()) for place in range(1, 1 + len(names))]
        if any(silent):
            lacking = ", ".join(name for name, none in zip(names, silent, strict=True) if none)
            dropped.append(
                Dropped(series.clients[client], f"weather: no {lacking}{f' at {site}' if site else ''}")
            )
        else:
            kept.append(client)
    if not kept:
        raise DataError(
            f"No client of source {series.name!r} has weather: {count_reasons(dropped)} (first: "
            f"{dropped[0].client!r}, {dropped[0].reason}). Use weather of the same period, or leave it out."
        )
    rule = f"weather: a step takes the last observation up to its stamp, at most {MAX_AGE_HOURS} hours old"
    wide = replace(
        series,
        values=torch.from_numpy(joined),
        channel_names=("load", *names),
        rules=(*series.rules, rule),
        dropped=(*series.dropped, *dropped),
    )
    return wide if len(kept) == len(series) else wide.select(kept)


def _stamps(series: ClientSeries, client: int) -> np.ndarray:
    seconds = np.arange(int(series.lengths[client])) * int(series.step_seconds)
    return np.asarray(series.starts[client].astype("datetime64[s]") + seconds.astype("timedelta64[s]"))


def _as_of(table: pd.DataFrame, stamps: np.ndarray) -> Floats:
    """Return each column's last observation up to the stamps, ``(steps, columns)``, NaN where it is too old."""
    columns = list[Floats]()
    for name in table.columns:
        observed = table[name].dropna()
        times, values = observed.index.to_numpy("datetime64[s]"), observed.to_numpy(np.float32)
        place = np.searchsorted(times, stamps, side="right") - 1
        found = np.full(len(stamps), np.nan, np.float32)
        known = np.flatnonzero(place >= 0)
        fresh = known[stamps[known] - times[place[known]] <= MAX_AGE_HOURS * _HOUR]
        found[fresh] = values[place[fresh]]
        columns.append(found)
    return np.stack(columns, axis=1)
