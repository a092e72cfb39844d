"""Low Carbon London: half-hourly electricity of 5,567 households, 2011 to 2014, in three layouts on disk."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from ..errors import DataError, raise_if_any
from ..registry import About, register_source
from ..series import ClientSeries
from .households import Household, HouseholdRules, assemble, clip, to_hourly
from .london_csv import ATTRIBUTES, INFORMATION, read_information, read_meters
from .london_table import PREPARED, STEP_SECONDS, open_table
from .meters import Meters


@register_source("london")
@dataclass(frozen=True)
class London:
    """Households of the Low Carbon London trial.

    Reads, whichever ``root`` holds: prepared tables (``load_hourly.parquet`` or ``load_halfhourly.parquet``
    with one column a household, and ``clients.csv``); the official CSV archive; its Kaggle re-arrangement.

    Args:
        root: folder, or one CSV file.
        frequency: ``"1h"`` (the sum of hh:00 and hh:30, missing where either is) or ``"30min"``.
        start: first day or stamp, UTC, ``"2013-01-01"``; None for all.
        end: the day or stamp after the last, exclusive; None for all.
        min_days: drop households with readings for fewer days (early leavers).
        min_coverage: drop those with a smaller share of readings between their first and last.
        max_zero_share: drop meters that read zero in a larger share of their readings.
        clients: stop after so many kept households, for quick runs; None for all.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="household electricity",
        what="Low Carbon London smart meters, kWh per hour or half hour, 2011-2014",
        clients="5,567",
        licence="CC BY 4.0",
        attributes=ATTRIBUTES,
        needs="root=FOLDER (download from the London Datastore)",
    )

    root: str
    frequency: Literal["1h", "30min"] = "1h"
    start: str | None = None
    end: str | None = None
    min_days: float = 90
    min_coverage: float = 0.9
    max_zero_share: float = 0.9
    clients: int | None = None

    def __post_init__(self) -> None:
        raise_if_any(_problems(self))

    def load(self) -> ClientSeries:
        """Return the households that keep the rules, in kWh per step.

        Raises:
            DataError: nothing to read at ``root``, a file or value that cannot be read, or no household left.
        """
        root = Path(self.root).expanduser()
        if not root.exists():
            raise DataError(
                f"There is no file or folder {root}. Point root at the London data; {_looked_for()}"
            )
        prepared = [root / PREPARED[name] for name in dict.fromkeys((self.frequency, "30min"))]
        table = next((path for path in prepared if path.is_file()), None)
        if table is None and (root / PREPARED["1h"]).is_file():
            raise DataError(
                f"{root} holds hourly readings only; frequency='30min' needs {PREPARED['30min']} there."
            )
        return self._from_table(table) if table else self._from_meters(read_meters(root), root)

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
        period = tuple(None if stamp is None else _seconds(stamp) for stamp in (self.start, self.end))
        hourly = self.frequency == "1h"
        clipped = (clip(to_hourly(h) if hourly else h, *period) for h in households)
        rules = HouseholdRules(self.min_days, self.min_coverage, self.max_zero_share)
        step = STEP_SECONDS[self.frequency]
        series = assemble(
            "london", clipped, rules, capacity=capacity, step_seconds=step, clients=self.clients
        )
        return replace(series, rules=self._rules() + series.rules)

    def _rules(self) -> tuple[str, ...]:
        said = {
            "an hour is the sum of hh:00 and hh:30, missing where either is": self.frequency == "1h",
            f"period: from {self.start or 'the first'} up to {self.end or 'the last'} reading": self.start
            or self.end,
            f"clients: only the first {self.clients} households that keep the rules": self.clients,
        }
        return tuple(words for words, applies in said.items() if applies)


def _attributes(series: ClientSeries, known: pd.DataFrame) -> pd.DataFrame:
    """Return what is known of the kept households; tariff and ACORN are "unknown" where nothing says them."""
    table = known.reindex(index=list(series.clients))
    for name in ATTRIBUTES:
        said = table[name] if name in table else pd.Series(None, index=table.index, dtype="str")
        table[name] = said.astype("str").where(said.notna(), "unknown")
    rest = [name for name in table.columns if name not in ATTRIBUTES]
    return table[[*ATTRIBUTES, *rest]].rename_axis(index="client")


def _problems(source: London) -> list[str]:
    problems = []
    if source.frequency not in STEP_SECONDS:
        problems.append(f"frequency must be '1h' or '30min', got {source.frequency!r}.")
    problems += [
        f"{name} must be a fraction between 0 and 1, got {getattr(source, name)}."
        for name in ("min_coverage", "max_zero_share")
        if not 0 <= getattr(source, name) <= 1
    ]
    if source.min_days < 0:
        problems.append(f"min_days must not be negative, got {source.min_days}.")
    if source.clients is not None and source.clients < 1:
        problems.append(f"clients must be at least 1, or None for all, got {source.clients}.")
    return problems + _period_problems(source.start, source.end)


def _period_problems(start: str | None, end: str | None) -> list[str]:
    try:
        stamps = [_seconds(stamp) for stamp in (start, end) if stamp is not None]
    except ValueError:
        return [f"start and end must be stamps like 2013-01-01, got {start!r} and {end!r}."]
    return (
        [f"start must be before end, got {start} and {end}."]
        if len(stamps) == 2 and stamps[0] >= stamps[1]
        else []
    )


def _seconds(stamp: str) -> int:
    return int(np.datetime64(stamp, "s").astype(np.int64))


def _looked_for() -> str:
    return f"looked for {PREPARED['1h']}, {PREPARED['30min']}, or CSV files with LCLid and DateTime or tstp."
