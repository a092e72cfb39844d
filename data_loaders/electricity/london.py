"""Low Carbon London: half-hourly electricity of 5,567 households, 2011 to 2014, in three layouts on disk."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd

from ..cache import cached
from ..errors import DataError, raise_if_any
from ..home import find_root
from ..registry import About, register_source
from ..remote import Remote
from ..series import ClientSeries
from .files import readable
from .households import Household, assemble, clip, to_hourly
from .london_csv import ATTRIBUTES, INFORMATION, read_information, read_meters
from .london_table import PREPARED, STEP_SECONDS, open_table
from .meters import Meters
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
from .weather import add_weather, read_bedford

# the other archive, LCL-FullData.zip, is packed with deflate64, which Python cannot unpack
PARTITIONED = Remote(
    url="https://data.london.gov.uk/download/vqm0d/04feba67-f1a3-4563-98d0-f3071e3d56d1/Partitioned%20LCL%20Data.zip",
    name="Partitioned LCL Data.zip",
    size=795_722_689,
    unpack="zip",
    members=("*.csv",),
)


@register_source("london")
@dataclass(frozen=True)
class London:
    """Households of the Low Carbon London trial.

    Reads, whichever ``root`` holds: prepared tables (``load_hourly.parquet`` or ``load_halfhourly.parquet``
    with one column a household, and ``clients.csv``); the official CSV archive; its Kaggle re-arrangement.

    Args:
        root: folder, or one CSV file; None for what was fetched or prepared.
        frequency: ``"1h"`` (the sum of hh:00 and hh:30, missing where either is) or ``"30min"``.
        start: first day or stamp, UTC, ``"2013-01-01"``; None for all.
        end: the day or stamp after the last, exclusive; None for all.
        min_days: drop households with readings for fewer days (early leavers).
        min_coverage: drop those with a smaller share of readings between their first and last.
        max_zero_share: drop meters that read zero in a larger share of their readings.
        clients: stop after so many kept households, for quick runs; None for all.
        weather: add Bedford's temperature, humidity and irradiance as channels, from the file beside the tables.
        negative: ``"error"`` refuses negative readings, ``"missing"`` leaves them out and counts them.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="household electricity",
        what="Low Carbon London smart meters, kWh per hour or half hour, 2011-2014",
        clients="5,567",
        licence="CC BY 4.0",
        attributes=ATTRIBUTES,
        needs="persofl data fetch london, or root=FOLDER",
        size="796 MB",
        attribution="Low Carbon London project, UK Power Networks / Greater London Authority",
        remotes=(PARTITIONED,),
    )

    root: str | None = None
    frequency: Literal["1h", "30min"] = "1h"
    start: str | None = None
    end: str | None = None
    min_days: float = 90
    min_coverage: float = 0.9
    max_zero_share: float = 0.9
    clients: int | None = None
    weather: bool = False
    negative: Negative = "error"

    def __post_init__(self) -> None:
        raise_if_any(_problems(self))

    def load(self) -> ClientSeries:
        """Return the households that keep the rules, in kWh per step.

        Raises:
            DataError: nothing to read at ``root``, a file or value that cannot be read, or no household left.
        """
        root = find_root("london", self.root)
        with readable(root):
            return cached(self, "london", root, lambda: self._read(root))

    def _read(self, root: Path) -> ClientSeries:
        prepared = [root / PREPARED[name] for name in dict.fromkeys((self.frequency, "30min"))]
        table = next((path for path in prepared if path.is_file()), None)
        if table is None and (root / PREPARED["1h"]).is_file():
            raise DataError(
                f"{root} holds hourly readings only; frequency='30min' needs {PREPARED['30min']} there."
            )
        series = self._from_table(table) if table else self._from_meters(read_meters(root), root)
        return add_weather(series, {"": read_bedford(root)}) if self.weather else series

    def _from_table(self, path: Path) -> ClientSeries:
        households, capacity = open_table(path)
        series = self._assemble(households, capacity)
        listed = path.with_name("clients.csv")
        known = pd.read_csv(listed, index_col=0) if listed.is_file() else pd.DataFrame()
        return replace(series, attributes=_attributes(series, known))

    def _from_meters(self, meters: Meters, root: Path) -> ClientSeries:
        rules = meters.rules()
        series = self._assemble(meters.pop_households(), meters.steps())
        known = pd.DataFrame.from_dict(meters.attributes, orient="index")
        for path in sorted(root.rglob(INFORMATION)):
            known = known.combine_first(read_information(path))
        return replace(series, attributes=_attributes(series, known), rules=rules + series.rules)

    def _assemble(self, households: Iterator[Household], capacity: int) -> ClientSeries:
        hourly, counts = self.frequency == "1h", Counter[str]()
        clipped = (clip(household, *period(self)) for household in households)
        checked = sound(clipped, self.negative, counts, "household")
        series = assemble(
            "london",
            map(to_hourly, checked) if hourly else checked,
            rules_of(self, "household"),
            capacity=capacity,
            step_seconds=STEP_SECONDS[self.frequency],
            clients=self.clients,
        )
        hours = ("an hour is the sum of hh:00 and hh:30, missing where either is",) if hourly else ()
        said = hours + period_in_words(self, "household") + negative_in_words(self.negative, counts)
        return replace(series, rules=said + series.rules)


def _attributes(series: ClientSeries, known: pd.DataFrame) -> pd.DataFrame:
    """Return what is known of the kept households; tariff and ACORN are "unknown" where nothing says them."""
    table = known.reindex(index=list(series.clients))
    for name in ATTRIBUTES:
        said = table[name] if name in table else pd.Series(None, index=table.index, dtype="str")
        table[name] = said.astype("str").where(said.notna(), "unknown")
    rest = [name for name in table.columns if name not in ATTRIBUTES]
    return table[[*ATTRIBUTES, *rest]].rename_axis(index="client")


def _problems(source: London) -> list[str]:
    return choice_problems("frequency", source.frequency, ("1h", "30min")) + option_problems(source)
