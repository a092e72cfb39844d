"""Cambridge University estates: hourly electricity and gas of buildings, 2000 to 2023."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from ..cache import cached
from ..errors import DataError, raise_if_any
from ..home import find_root
from ..registry import About, register_source
from ..runs import Booleans
from ..series import ClientSeries, Dropped
from .files import check_start, readable
from .households import Household, assemble, clip
from .options import (
    Negative,
    choice_problems,
    negative_in_words,
    option_problems,
    period,
    period_in_words,
    rules_of,
    sound,
)
from .shared_meters import own_meters
from .weather import add_weather, weather_table
from .wide import Layout, Rows, read_header, read_rows, reduce_rows

HEADERS = {"electricity": "equipment load [kWh]", "gas": "heating load [kWh]"}
_FOLDER = "UCam_Building_b"
_HOUR = 3600
_WEATHER = ("aux_weather*.csv", "aux_data/*/processed_data/bedford/*.csv")


@register_source("cambridge")
@dataclass(frozen=True)
class CambridgeEstates:
    """Buildings of the Cambridge estates archive: ``UCam_Building_b<N>/{electricity,gas}/<year>.csv`` below ``root``.

    The archive stores missing half-hours as zero, so that an hour with one of two is half as high. Its first hour of
    every year is such a half. Stamps are UTC.

    Args:
        root: folder of the archive; None for what was prepared.
        energy: ``"electricity"`` or ``"gas"``.
        zeros: ``"missing"``: zeros are missing, and so are the hours before and after them, of which a half may be;
            ``"keep"``: zeros are load; ``"auto"``: missing for electricity, kept for gas, where heating that is off
            is zero as well and nothing tells the two apart.
        weather: add Bedford's temperature, humidity and irradiance as channels.
        start: first day or stamp, UTC; None for all.
        end: the day or stamp after the last, exclusive; None for all.
        min_days: drop buildings with readings for fewer days.
        min_coverage: drop those with a smaller share of readings between their first and last; years that the archive
            leaves out count as missing.
        max_zero_share: drop those that read zero in a larger share of their readings.
        clients: stop after so many kept buildings, for quick runs; None for all.
        negative: ``"error"`` refuses negative readings, ``"missing"`` leaves them out and counts them.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="building electricity or gas",
        what="Cambridge University estates, kWh per hour, 2000-2023",
        clients="over 120",
        licence="MIT",
        attributes=("first_year", "last_year", "years"),
        needs="root=FOLDER (download from doi 10.5281/zenodo.10955332)",
        attribution="Langtry and Choudhary, Cambridge University Estates building energy usage archive, 2024, "
        "doi 10.5281/zenodo.10955332; weather: Met Office MIDAS Open",
    )

    root: str | None = None
    energy: Literal["electricity", "gas"] = "electricity"
    zeros: Literal["auto", "missing", "keep"] = "auto"
    weather: bool = False
    start: str | None = None
    end: str | None = None
    min_days: float = 90
    min_coverage: float = 0.5
    max_zero_share: float = 0.9
    clients: int | None = None
    negative: Negative = "error"

    def __post_init__(self) -> None:
        raise_if_any(
            choice_problems("energy", self.energy, tuple(HEADERS))
            + choice_problems("zeros", self.zeros, ("auto", "missing", "keep"))
            + option_problems(self)
        )

    def load(self) -> ClientSeries:
        """Return the buildings that keep the rules, in kWh per hour.

        Raises:
            DataError: no building's folder at ``root``, a file or value that cannot be read, or no building left.
        """
        root = find_root("cambridge", self.root)
        return cached(self, "cambridge", root, lambda: self._read(root))

    def _read(self, root: Path) -> ClientSeries:
        files = self._files(root)
        counts, shared = Counter[str](), list[Dropped]()
        buildings = own_meters((self._building(name, paths, counts) for name, paths in files.items()), shared)
        series = assemble(
            "cambridge",
            sound(
                (clip(building, *period(self)) for building in buildings), self.negative, counts, "building"
            ),
            rules_of(self, "building"),
            capacity=sum(_span(paths) for paths in files.values()),
            step_seconds=_HOUR,
            clients=self.clients,
        )
        said = self._rules(counts) + period_in_words(self, "building")
        series = replace(
            series,
            rules=said + negative_in_words(self.negative, counts) + series.rules,
            dropped=(*shared, *series.dropped),
            attributes=_attributes(series.clients, files),
        )
        return add_weather(series, {"": read_weather(root)}) if self.weather else series

    def _files(self, root: Path) -> dict[str, list[Path]]:
        """Return each building's files by year, the buildings by number."""
        folders = [root] if root.name.startswith(_FOLDER) else root.rglob(f"{_FOLDER}*")
        ordered = sorted((folder for folder in folders if folder.is_dir()), key=_by_number)
        files = dict[str, list[Path]]()
        for folder in ordered:
            if folder.name in files:
                raise DataError(
                    f"Building {folder.name!r} comes twice below {root}, see {folder}. Remove one."
                )
            if paths := sorted((folder / self.energy).glob("[0-9][0-9][0-9][0-9].csv")):
                files[folder.name] = paths
        if not files:
            raise DataError(
                f"There is no {_FOLDER}<N>/{self.energy}/<year>.csv in {root}. Point root at the unpacked archive."
            )
        return files

    def _building(self, name: str, paths: list[Path], counts: Counter[str]) -> Household:
        """Return a building's years with what is missing as NaN."""
        counts["files"] += len(paths)
        blocks = (_read_year(path, HEADERS[self.energy]) for path in paths)
        start, table = reduce_rows(blocks, _HOUR, least=1)
        energy = np.ascontiguousarray(table[:, 0])
        if self._zeros_are_missing:
            zero = energy == 0
            beside = _beside(zero)
            counts["zeros"] += int(zero.sum())
            counts["beside"] += int((beside & ~np.isnan(energy)).sum())
            energy[zero | beside] = np.nan
        return Household(name, start, _HOUR, energy)

    @property
    def _zeros_are_missing(self) -> bool:
        return self.zeros == "missing" or (self.zeros == "auto" and self.energy == "electricity")

    def _rules(self, counts: Counter[str]) -> tuple[str, ...]:
        zeros = (
            f"zeros: {counts['zeros']} readings of zero are missing, and so are {counts['beside']} hours beside them, "
            "which may hold one half-hour of two"
            if self._zeros_are_missing
            else "zeros: kept as load; the archive also stores missing readings as zero"
        )
        return (
            f"the first hour of each of {counts['files']} building-years holds one half-hour of two and is missing",
            zeros,
            "buildings whose readings are the same in every year both have share a meter; the first is kept",
        )


def read_weather(root: Path) -> pd.DataFrame:
    """Return Bedford's weather by UTC stamp from the archive's ``aux_data`` or files ``aux_weather*.csv``.

    Raises:
        DataError: there is none, or a file with other columns.
    """
    found = [path for pattern in _WEATHER for path in sorted(root.rglob(pattern))]
    if not found:
        raise DataError(
            f"weather=True needs {' or '.join(_WEATHER)} below {root}. Point root at the whole archive, or leave "
            "weather out."
        )
    tables = list[pd.DataFrame]()
    for path in found:
        check_start(path)
        with readable(path):
            tables.append(weather_table(pd.read_csv(path), str(path), "datetime"))
    whole = pd.concat(tables).sort_index()
    return whole[~whole.index.duplicated()]


def _read_year(path: Path, header: str) -> Rows:
    """Return one building-year, its first hour missing: seconds since 1970 and values ``(hours, 1)``."""
    layout = Layout(str(path), ",", ".", "datetime", re.escape(header), header, _HOUR)
    with readable(path), path.open("rb") as stream:
        names = read_header(stream, layout)
        blocks = list(read_rows(stream, names, layout))
    seconds, energy = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    years = np.unique(seconds.astype("datetime64[s]").astype("datetime64[Y]").astype(int) + 1970)
    if years.tolist() != [int(path.stem)]:
        raise DataError(
            f"File {path} holds stamps from {years[0]} to {years[-1]}, not of {path.stem}. Restore its name, or "
            "remove the rows of other years."
        )
    if seconds[0] == np.datetime64(path.stem, "s").astype(np.int64):
        energy[0] = np.nan
    return seconds, energy


def _beside(zero: Booleans) -> Booleans:
    """Return the hours before and after those that are zero, ``(hours,)``."""
    near = np.zeros_like(zero)
    near[1:] |= zero[:-1]
    near[:-1] |= zero[1:]
    return np.asarray(near & ~zero, np.bool_)


def _span(paths: list[Path]) -> int:
    return (int(paths[-1].stem) - int(paths[0].stem) + 1) * 8784


def _by_number(folder: Path) -> tuple[int, str]:
    number = folder.name.removeprefix(_FOLDER)
    return int(number) if number.isdigit() else 10**9, str(folder)


def _attributes(clients: tuple[str, ...], files: dict[str, list[Path]]) -> pd.DataFrame:
    years = [[int(path.stem) for path in files[client]] for client in clients]
    table = {
        "first_year": [listed[0] for listed in years],
        "last_year": [listed[-1] for listed in years],
        "years": [len(listed) for listed in years],
    }
    return pd.DataFrame(table, index=pd.Index(clients, name="client"))
