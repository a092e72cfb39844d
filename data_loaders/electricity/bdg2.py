"""Building Data Genome 2: hourly electricity of 1,578 buildings at 19 sites, 2016 and 2017."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from ..cache import cached
from ..errors import DataError, did_you_mean, raise_if_any
from ..home import find_root
from ..registry import About, register_source
from ..remote import Remote
from ..series import ClientSeries
from .files import find_file, readable
from .households import assemble, clip
from .options import Negative, negative_in_words, option_problems, period, period_in_words, rules_of, sound
from .weather import add_weather, weather_table
from .wide import Layout, columns, read_header, read_rows, reduce_rows

ENERGY, METADATA, WEATHER = "electricity_cleaned.csv", "metadata.csv", "weather.csv"
TEXT_ATTRIBUTES = ("site_id", "primaryspaceusage", "sub_primaryspaceusage", "timezone")
NUMBER_ATTRIBUTES = ("sqm", "yearbuilt", "numberoffloors", "occupants", "lat", "lng")
_NEEDED = ("building_id", "site_id", "primaryspaceusage", "sqm", "timezone")
_HOUR = 3600
_BASE = "https://media.githubusercontent.com/media/buds-lab/building-data-genome-project-2/master/data/"


@register_source("bdg2")
@dataclass(frozen=True)
class BuildingDataGenome2:
    """Buildings of the Building Data Genome Project 2, from the three files anywhere below ``root``.

    Stamps are the building's local clock as the files have it: every day has 24 rows, and what was done to the hours of
    the clock changes is not documented. Weather is by site and on the same clock.

    Args:
        root: folder with ``electricity_cleaned.csv``, ``metadata.csv`` and, for weather, ``weather.csv``; None for
            what was fetched.
        sites: only buildings of these sites, ``("Panther", "Rat")``; none for all.
        usages: only buildings of these primary usages, ``("Office",)``; none for all.
        weather: add the site's weather as channels.
        weather_channels: columns of ``weather.csv``; buildings where one was never observed are dropped.
        start: first day or stamp, local; None for all.
        end: the day or stamp after the last, exclusive; None for all.
        min_days: drop buildings with readings for fewer days.
        min_coverage: drop those with a smaller share of readings between their first and last.
        max_zero_share: drop those that read zero in a larger share of their readings.
        clients: stop after so many kept buildings, for quick runs; None for all.
        negative: ``"error"`` refuses negative readings, ``"missing"`` leaves them out and counts them.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="building electricity",
        what="Building Data Genome 2, kWh per hour, 2016-2017",
        clients="1,578",
        licence="CC BY-SA 4.0",
        attributes=TEXT_ATTRIBUTES + NUMBER_ATTRIBUTES,
        needs="persofl data fetch bdg2, or root=FOLDER",
        size="195 MB",
        attribution="Miller et al., The Building Data Genome Project 2, Scientific Data 7, 368, 2020",
        remotes=(
            Remote(
                url=f"{_BASE}meters/cleaned/{ENERGY}",
                name=ENERGY,
                sha256="b6ffc9b4dfcefe5c753594730a08ae822b0d50fec6815abb8f185591e6c630a3",
                size=174_977_911,
            ),
            Remote(
                url=f"{_BASE}metadata/{METADATA}",
                name=METADATA,
                sha256="992d0b29f24f96ad4332bc4dbb534b7bdd7dd2689aad093f94e93068ecddca02",
            ),
            Remote(
                url=f"{_BASE}weather/{WEATHER}",
                name=WEATHER,
                sha256="a8189f1c6acdf3b9933a9e6354b8e7c1278cd56a7075929623a17565d44f04bd",
                size=19_457_782,
            ),
        ),
    )

    root: str | None = None
    sites: tuple[str, ...] = ()
    usages: tuple[str, ...] = ()
    weather: bool = False
    weather_channels: tuple[str, ...] = ("airTemperature", "dewTemperature", "windSpeed")
    start: str | None = None
    end: str | None = None
    min_days: float = 90
    min_coverage: float = 0.9
    max_zero_share: float = 0.9
    clients: int | None = None
    negative: Negative = "error"

    def __post_init__(self) -> None:
        none = ["weather_channels must name at least one column."] if not self.weather_channels else []
        raise_if_any(none + option_problems(self))

    def load(self) -> ClientSeries:
        """Return the buildings that keep the rules, in kWh per hour.

        Raises:
            DataError: a file is not there, cannot be read or is not the official one, or no building is left.
        """
        root = find_root("bdg2", self.root)
        return cached(self, "bdg2", root, lambda: self._read(root))

    def _read(self, root: Path) -> ClientSeries:
        known = read_metadata(find_file(root, METADATA))
        path, counts = find_file(root, ENERGY), Counter[str]()
        layout = Layout(str(path), ",", ".", "timestamp", r".*\S.*", "Panther_office_Karla", _HOUR)
        with readable(path), path.open("rb") as stream:
            names = read_header(stream, layout)
            start, table = reduce_rows(read_rows(stream, names, layout), _HOUR, least=1)
        chosen = self._chosen(names, known)
        buildings = columns([names[place] for place in chosen], start, _HOUR, table[:, chosen])
        series = assemble(
            "bdg2",
            sound(
                (clip(building, *period(self)) for building in buildings), self.negative, counts, "building"
            ),
            rules_of(self, "building"),
            capacity=len(chosen) * len(table),
            step_seconds=_HOUR,
            clients=self.clients,
        )
        said = self._rules() + period_in_words(self, "building") + negative_in_words(self.negative, counts)
        series = replace(series, rules=said + series.rules, attributes=_attributes(series.clients, known))
        if not self.weather:
            return series
        path = find_file(root, WEATHER)
        channels, lacking = self._weather_channels(path)
        series = add_weather(series, read_weather(path, channels), series.attributes["site_id"].tolist())
        said = (f"weather: the file has no {', '.join(lacking)}",) if lacking else ()
        return replace(series, rules=(*series.rules, *said))

    def _weather_channels(self, path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the columns to take and those that the file lacks; what was asked for by name must be there."""
        with readable(path):
            there = set(map(str, pd.read_csv(path, nrows=0).columns))
        lacking = tuple(name for name in self.weather_channels if name not in there)
        if self.weather_channels != type(self).weather_channels or len(lacking) == len(self.weather_channels):
            return self.weather_channels, ()
        return tuple(name for name in self.weather_channels if name in there), lacking

    def _chosen(self, names: tuple[str, ...], known: pd.DataFrame) -> list[int]:
        """Return the columns of the buildings asked for."""
        table, mask = _attributes(names, known), np.ones(len(names), np.bool_)
        for column, wanted in (("site_id", self.sites), ("primaryspaceusage", self.usages)):
            here = set(table[column])
            raise_if_any(
                f"There is no {column} {name!r}. {did_you_mean(name, here)}"
                for name in wanted
                if name not in here
            )
            mask &= table[column].isin(list(wanted)).to_numpy() if wanted else True
        if not mask.any():
            raise DataError(
                f"No building of sites {self.sites} has usage {self.usages}. Ask for fewer of them."
            )
        return [int(place) for place in np.flatnonzero(mask)]

    def _rules(self) -> tuple[str, ...]:
        chosen = {"sites": self.sites, "usages": self.usages}
        return (
            "clock: the building's local time as in the file, 24 rows a day",
            *(f"{name}: only {', '.join(wanted)}" for name, wanted in chosen.items() if wanted),
        )


def read_metadata(path: Path) -> pd.DataFrame:
    """Return ``metadata.csv`` by building.

    Raises:
        DataError: other columns, a building that comes twice, or areas that are no numbers.
    """
    with readable(path):
        table = pd.read_csv(path, dtype=dict.fromkeys(("building_id", *TEXT_ATTRIBUTES), "str"))
    lacking = [name for name in _NEEDED if name not in table.columns]
    if lacking:
        raise DataError(
            f"File {path} has no column {lacking[0]!r}, only {', '.join(map(str, table.columns[:6]))}, ... It should be "
            "comma-separated; download it again."
        )
    table = table.set_index("building_id")
    if not table.index.is_unique:
        raise DataError(
            f"File {path}: building {table.index[table.index.duplicated()][0]!r} comes twice. Remove one of its rows."
        )
    for name in NUMBER_ATTRIBUTES:
        if name in table and not pd.api.types.is_numeric_dtype(table[name]):
            numbers = pd.to_numeric(table[name], errors="coerce")
            bad = table.index[numbers.isna() & table[name].notna()][0]
            raise DataError(
                f"File {path}, building {bad!r}: {name} {table.loc[bad, name]!r} is not a number. The decimal mark of "
                "this file is '.'."
            )
    return table


def read_weather(path: Path, channels: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return ``weather.csv`` as one table of ``channels`` a site, by local stamp.

    Raises:
        DataError: other columns, or values that are no numbers.
    """
    with readable(path):
        raw = pd.read_csv(path)
    lacking = [name for name in ("timestamp", "site_id", *channels) if name not in raw.columns]
    if lacking:
        raise DataError(
            f"File {path} has no column {lacking[0]!r}. {did_you_mean(lacking[0], map(str, raw.columns))}"
        )
    wanted = ["timestamp", *channels]
    return {
        str(site): weather_table(part[wanted], str(path), "timestamp")
        for site, part in raw.groupby("site_id")
    }


def _attributes(names: Iterable[str], known: pd.DataFrame) -> pd.DataFrame:
    """Return what the metadata say of buildings; text is "unknown" and numbers NaN where they say nothing."""
    table = known.reindex(index=list(names), columns=[*TEXT_ATTRIBUTES, *NUMBER_ATTRIBUTES])
    for name in TEXT_ATTRIBUTES:
        table[name] = table[name].astype("str").where(table[name].notna(), "unknown")
    return table.astype(dict.fromkeys(NUMBER_ATTRIBUTES, "float64")).rename_axis(index="client")
