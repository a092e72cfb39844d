"""Wide text tables, a column of stamps and one column a meter, read in blocks and reduced to coarser steps."""

import csv as plain_csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from ..errors import DataError
from ..runs import Floats, Ints
from .households import Household

Rows = tuple[Ints, npt.NDArray[np.float64]]
_BLOCK_BYTES = 1 << 23  # some 2,000 rows of 370 meters
_SPARSEST, _SPARE_STEPS = (
    2,
    100_000,
)  # a table may lack every second row, and as many steps beyond (2.8 years of quarters)
_WHERE = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?.*invalid value '(.*)'", re.DOTALL)


@dataclass(frozen=True)
class Layout:
    """How a wide table is written.

    Args:
        where: the file, for errors.
        delimiter: between fields.
        decimal: the decimal mark.
        stamp: header of the first column.
        meter: pattern of the other headers.
        like: one of them, for errors.
        step: seconds from one row to the next.
    """

    where: str
    delimiter: str
    decimal: str
    stamp: str
    meter: str
    like: str
    step: int


def read_header(stream: IO[bytes], layout: Layout) -> tuple[str, ...]:
    """Read the first line and return the names of the meters.

    Raises:
        DataError: another delimiter, other columns, or a meter that comes twice.
    """
    line = stream.readline().decode("utf-8-sig", "replace").rstrip("\r\n")
    if not line:
        raise DataError(f"File {layout.where} is empty. Download it again.")
    names = next(plain_csv.reader([line], delimiter=layout.delimiter))
    shown = line if len(line) < 60 else line[:57] + "..."
    if len(names) < 2:
        raise DataError(
            f"File {layout.where}: the header {shown!r} has no {layout.delimiter!r}. The official file is delimited by "
            f"{layout.delimiter!r}; download it again rather than one that was saved anew."
        )
    foreign = [name for name in names[1:] if not re.fullmatch(layout.meter, name)]
    if names[0] != layout.stamp or foreign:
        what = f"column {foreign[0]!r}" if foreign else f"first column {names[0]!r}"
        raise DataError(
            f"File {layout.where}: the header {shown!r} is not the official one, see {what}; expected {layout.stamp!r} "
            f"and then meters like {layout.like!r}. Download the file again."
        )
    twice = [name for name, count in Counter(names[1:]).items() if count > 1]
    if twice:
        raise DataError(f"File {layout.where}: meter {twice[0]!r} comes twice. Remove one of its columns.")
    return tuple(names[1:])


def read_rows(stream: IO[bytes], names: tuple[str, ...], layout: Layout) -> Iterator[Rows]:
    """Yield blocks of rows after the header: seconds since 1970 ``(rows,)`` and values ``(rows, meters)``, NaN = missing.

    Raises:
        DataError: a value that is no number (names column and row), a broken row, or a stamp off the regular step or far
            from the others.
    """
    stamp = layout.stamp or "stamp"
    kinds = {stamp: pa.timestamp("s")} | dict.fromkeys(names, pa.float64())
    first = before = None
    row = 2
    try:
        with csv.open_csv(
            stream,
            csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=[stamp, *names], use_threads=False),
            csv.ParseOptions(delimiter=layout.delimiter),
            csv.ConvertOptions(column_types=kinds, decimal_point=layout.decimal),
        ) as reader:
            for batch in reader:
                seconds = batch.column(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
                first = int(seconds[0]) if first is None else first
                _check_span(seconds, first, row, layout)
                before = _check_stamps(seconds, before, row, layout)
                row += batch.num_rows
                yield seconds, np.stack([c.to_numpy(zero_copy_only=False) for c in batch.columns[1:]], axis=1)
    except pa.ArrowInvalid as error:
        raise DataError(_in_words(str(error), names, layout)) from error


def reduce_rows(blocks: Iterable[Rows], step: int, least: int) -> tuple[int, Floats]:
    """Return sums over steps of ``step`` seconds, missing where a step has fewer than ``least`` rows or a missing one.

    Args:
        blocks: see :func:`read_rows`, in time order; each is let go of once summed.
        step: multiples of it since 1970 are where steps begin.
        least: rows a step must have.

    Returns:
        Seconds since 1970 of the first step, and ``(steps, meters)``.
    """
    parts = deque[tuple[Ints, Floats, Ints]]()
    for seconds, values in blocks:
        slots = seconds // step
        begin = np.flatnonzero(np.diff(slots, prepend=slots[0] - 1))
        sums = np.add.reduceat(values, begin, axis=0).astype(np.float32)
        parts.append((slots[begin], sums, np.diff(begin, append=len(slots))))
    first, last = int(parts[0][0][0]), int(parts[-1][0][-1])
    total = np.zeros((last - first + 1, parts[0][1].shape[1]), np.float32)
    rows = np.zeros(len(total), np.int64)
    while parts:
        slots, sums, counts = parts.popleft()
        total[slots - first] += sums
        rows[slots - first] += counts
    total[rows < least] = np.nan
    return first * step, total


def columns(names: Iterable[str], start: int, step: int, table: Floats) -> Iterator[Household]:
    """Yield the columns of a table as meters."""
    for place, name in enumerate(names):
        yield Household(name, start, step, np.ascontiguousarray(table[:, place]))


def _check_stamps(seconds: Ints, before: int | None, row: int, layout: Layout) -> int:
    """Return the block's last stamp; raise where stamps do not ascend by multiples of the step."""
    gaps = np.diff(seconds, prepend=seconds[0] - layout.step if before is None else before)
    wrong = np.flatnonzero((gaps < 1) | (gaps % layout.step != 0))
    if len(wrong):
        stamp = in_words(int(seconds[wrong[0]]))
        what = (
            "comes twice" if gaps[wrong[0]] == 0 else "goes back" if gaps[wrong[0]] < 0 else "is off the grid"
        )
        raise DataError(
            f"File {layout.where}, row {row + wrong[0]}: stamp {stamp} {what}; rows are {layout.step} s apart. Sort the "
            "rows, remove duplicates, or download the file again."
        )
    return int(seconds[-1])


def _check_span(seconds: Ints, first: int, row: int, layout: Layout) -> None:
    """Raise where a stamp lies so far from the file's first that a wrong year is likelier than rows left out."""
    steps, rows = (seconds - first) // layout.step + 1, row - 1 + np.arange(len(seconds))
    far = np.flatnonzero(steps > _SPARSEST * rows + _SPARE_STEPS)
    if len(far):
        at = int(far[0])
        raise DataError(
            f"File {layout.where}, row {row + at}: stamp {in_words(int(seconds[at]))} is far off, {steps[at]:,} steps of "
            f"{layout.step} s from the first row's, {in_words(first)}, for {rows[at]:,} rows. Correct the stamp, or "
            "remove the row."
        )


def in_words(seconds: int) -> str:
    """Return seconds since 1970 as a stamp."""
    return str(np.datetime64(seconds, "s")).replace("T", " ")


def _in_words(error: str, names: tuple[str, ...], layout: Layout) -> str:
    """Return what pyarrow says of a table in our words: column, row (the header is row 1) and value."""
    found = _WHERE.search(error)
    if "Empty CSV file" in error:
        return f"File {layout.where} has a header and no rows. Download it again."
    if not found:
        # rows are counted from the one after the header
        said = re.sub(r"Row #(\d+)", lambda match: f"row {int(match[1]) + 1}", error.splitlines()[0])
        return f"File {layout.where} is broken: {said[:200]}. Download it again."
    column, row, value = int(found[1]), found[2], found[3]
    place = f", row {int(row) + 1}" if row else ""
    if column == 0:
        return f"File {layout.where}{place}: {value!r} is not a stamp like 2011-01-01 00:15:00. Download it again."
    other = {",": ".", ".": ","}[layout.decimal]
    hint = f" The decimal mark of this file is {layout.decimal!r}." if other in value else ""
    return (
        f"File {layout.where}, column {names[column - 1]!r}{place}: {value!r} is not a number.{hint} "
        "Correct the value, or download the file again."
    )
