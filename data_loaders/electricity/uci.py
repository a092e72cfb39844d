"""UCI ElectricityLoadDiagrams20112014: 370 Portuguese meters, quarter-hourly, 2011 to 2014."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, ClassVar, Literal
from zipfile import ZipFile

import numpy as np

from ..cache import cached
from ..clocks import to_utc
from ..errors import DataError, raise_if_any
from ..home import find_root
from ..registry import About, register_source
from ..remote import Remote
from ..runs import Booleans, Floats, Ints
from ..series import ClientSeries
from .files import check_start, readable
from .households import Household, assemble, clip
from .options import (
    Negative,
    choice_problems,
    find_negative,
    negative_in_words,
    option_problems,
    period,
    period_in_words,
    rules_of,
)
from .wide import Layout, Rows, columns, read_header, read_rows, reduce_rows

TEXT = "LD2011_2014.txt"
ZONE = "Europe/Lisbon"
STEP_SECONDS = {"1h": 3600, "15min": 900}
_QUARTER = 900
_REMOTE = Remote(
    url="https://archive.ics.uci.edu/static/public/321/electricityloaddiagrams20112014.zip",
    name="electricityloaddiagrams20112014.zip",
    sha256="f6c4d0e0df12ecdb9ea008dd6eef3518adb52c559d04a9bac2e1b81dcfc8d4e1",
    size=261_335_609,
    unpack="zip",
    members=(TEXT,),
)


@register_source("uci_electricity")
@dataclass(frozen=True)
class UCIElectricity:
    """Meters of ElectricityLoadDiagrams20112014, from the zip as published or from ``LD2011_2014.txt``.

    The file has a row every quarter of an hour of Portuguese time, 96 a day on every day: kW, stamped at the end of the
    quarter. A step here is stamped by its beginning. In March the hour that the clock skips is zero; in
    October the hour it repeats holds two hours' energy. Zeros before a meter's first reading mean that it was not yet
    a client.

    Args:
        root: the zip, the text file, or a folder with either; None for what was fetched.
        frequency: ``"1h"`` (the sum of four quarters, missing where one is) or ``"15min"``.
        clock: ``"utc"``: nothing is missing, and both hours of October's pair get half; load and stamps part by an hour
            in summer, as everywhere on UTC. ``"local"``: the file's own, where March's skipped hour is missing.
        october: ``"halve"`` the repeated hour, or take it as ``"missing"``.
        start: first day or stamp on the clock chosen; None for all.
        end: the day or stamp after the last, exclusive; None for all.
        min_days: drop meters with readings for fewer days.
        min_coverage: drop those with a smaller share of readings between their first and last.
        max_zero_share: drop those that read zero in a larger share of their readings.
        clients: stop after so many kept meters, for quick runs; None for all.
        negative: ``"error"`` refuses negative readings, ``"missing"`` leaves them out and counts them.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="electricity meters",
        what="UCI ElectricityLoadDiagrams20112014, Portugal, kWh per hour or quarter-hour, 2011-2014",
        clients="370",
        licence="CC BY 4.0",
        needs="persofl data fetch uci_electricity, or root=ZIP",
        size="261 MB",
        attribution="Trindade, ElectricityLoadDiagrams20112014, UCI Machine Learning Repository, 2015, "
        "doi 10.24432/C58C86",
        remotes=(_REMOTE,),
    )

    root: str | None = None
    frequency: Literal["1h", "15min"] = "1h"
    clock: Literal["utc", "local"] = "utc"
    october: Literal["halve", "missing"] = "halve"
    start: str | None = None
    end: str | None = None
    min_days: float = 90
    min_coverage: float = 0.9
    max_zero_share: float = 0.9
    clients: int | None = None
    negative: Negative = "error"

    def __post_init__(self) -> None:
        raise_if_any(
            choice_problems("frequency", self.frequency, tuple(STEP_SECONDS))
            + choice_problems("clock", self.clock, ("utc", "local"))
            + choice_problems("october", self.october, ("halve", "missing"))
            + option_problems(self)
        )

    def load(self) -> ClientSeries:
        """Return the meters that keep the rules, in kWh per step.

        Raises:
            DataError: no file at ``root``, one that cannot be read or is not the official one, or no meter left.
        """
        root = find_root("uci_electricity", self.root)
        return cached(self, "uci_electricity", root, lambda: self._read(root))

    def _read(self, root: Path) -> ClientSeries:
        step, counts = STEP_SECONDS[self.frequency], Counter[str]()
        with open_text(root) as (stream, where):
            layout = Layout(where, ";", ",", "", r"MT_\d+", "MT_001", _QUARTER)
            names = read_header(stream, layout)
            power = self._sound(read_rows(stream, names, layout), names, where, counts)
            energy = _energy(power, self.october, counts)
            start, table = reduce_rows(energy, step, step // _QUARTER)
        if self.clock == "utc":
            start, table = _to_utc(start, step, table)
        meters = (clip(_begun(meter), *period(self)) for meter in columns(names, start, step, table))
        series = assemble(
            "uci_electricity",
            meters,
            rules_of(self, "meter"),
            capacity=table.size,
            step_seconds=step,
            clients=self.clients,
        )
        said = self._rules(counts) + period_in_words(self, "meter") + negative_in_words(self.negative, counts)
        return replace(series, rules=said + series.rules)

    def _sound(
        self, blocks: Iterable[Rows], names: tuple[str, ...], where: str, counts: Counter[str]
    ) -> Iterator[Rows]:
        """Yield the blocks as in the file with negative readings refused or missing, before a sum hides them."""
        for ends, power in blocks:
            place = f"File {where}: "
            below = find_negative(power, ends, names, self.negative, "meter", "kW", place)
            counts["negative"] += int(below.sum())
            power[below] = np.nan
            yield ends, power

    def _rules(self, counts: Counter[str]) -> tuple[str, ...]:
        repeated = "halved" if self.october == "halve" else "missing"
        return (
            "kW of a quarter-hour are a quarter of it in kWh; a step is stamped by its beginning",
            *(
                ("an hour is the sum of its four quarters, missing where one is",)
                if self.frequency == "1h"
                else ()
            ),
            f"clock: {'Portuguese time' if self.clock == 'local' else 'UTC'}; {counts['skipped']} quarters that "
            f"the Portuguese clock skipped in March hold nothing ({counts['skipped with energy']} of them did), "
            f"{counts['repeated']} that it repeated in October, with the energy of both, are {repeated}",
            "zeros before a meter's first other reading are missing: it was not yet a client",
        )


@contextmanager
def open_text(root: Path) -> Iterator[tuple[IO[bytes], str]]:
    """Open the text file at ``root``, in the zip where it is in one, and yield it with its name for errors.

    Raises:
        DataError: no such file, or one that cannot be read.
    """
    path = _find(root)
    check_start(path)
    with readable(path):
        if path.suffix.lower() != ".zip":
            with path.open("rb") as stream:
                yield stream, str(path)
            return
        with ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
            texts = [name for name in members if Path(name).name == TEXT]
            if not texts:
                raise DataError(
                    f"File {path} holds no {TEXT}, only: {', '.join(members[:5]) or 'nothing'}. Is it the archive "
                    "of data set 321?"
                )
            with archive.open(texts[0]) as stream:
                yield stream, f"{path}, member {texts[0]}"


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    for pattern in (TEXT, "*.zip"):
        found = [path for path in sorted(root.rglob(pattern)) if "__MACOSX" not in path.parts]
        if found:
            return found[0]
    raise DataError(
        f"There is neither {TEXT} nor a zip in {root}. Point root at the download of data set 321."
    )


def _energy(blocks: Iterable[Rows], october: str, counts: Counter[str]) -> Iterator[Rows]:
    """Yield kWh by the quarter's beginning, with what the clock changes did to the file undone."""
    for ends, power in blocks:
        begins, energy = ends - _QUARTER, power * (_QUARTER / 3600)
        skipped, repeated = _clock_changes(begins)
        counts["skipped"] += int(skipped.sum())
        counts["skipped with energy"] += int((np.nan_to_num(energy[skipped]) != 0).any(axis=1).sum())
        counts["repeated"] += int(repeated.sum())
        energy[skipped] = np.nan
        energy[repeated] *= 0.5 if october == "halve" else np.nan
        yield begins, energy


def _clock_changes(local: Ints) -> tuple[Booleans, Booleans]:
    """Return which local seconds the Portuguese clock skips, and which it shows twice, ``(n,)`` each."""
    stamps = local.astype("datetime64[s]")
    skipped = np.isnat(to_utc(stamps, ZONE, ambiguous="summer", nonexistent="missing"))
    repeated = np.isnat(to_utc(stamps, ZONE, ambiguous="missing", nonexistent="shift"))
    return skipped, repeated


def _to_utc(start: int, step: int, table: Floats) -> tuple[int, Floats]:
    """Return a table of the local clock on UTC's, ``(steps, meters)``; a repeated step stands in both its places."""
    local = (start + step * np.arange(len(table))).astype("datetime64[s]")
    places = [
        to_utc(local, ZONE, ambiguous="summer", nonexistent="missing"),
        to_utc(local, ZONE, ambiguous="winter", nonexistent="missing"),
    ]
    there = ~np.isnat(places[0])
    slots = [place[there].astype("datetime64[s]").astype(np.int64) // step for place in places]
    first = int(slots[0][0])
    moved = np.full((int(slots[1][-1]) - first + 1, table.shape[1]), np.nan, np.float32)
    for slot in slots:
        moved[slot - first] = table[there]
    return first * step, moved


def _begun(meter: Household) -> Household:
    """Return a meter whose zeros before its first other reading are missing."""
    used = np.flatnonzero((meter.values != 0) & ~np.isnan(meter.values))
    values = meter.values.copy()
    values[: used[0] if len(used) else len(values)] = np.nan
    return replace(meter, values=values)
