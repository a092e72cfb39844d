"""What tables in the layouts wide, long and folder say: each client's stamps and values, file by file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..runs import Floats, Ints
from .cast import Place, numbers, stamps
from .files import Table, batches, lacking
from .findings import Findings
from .options import OwnSpec

_UNIT = re.compile(r"[\[(]\s*([^\])]+?)\s*[\])]\s*$")


@dataclass
class Piece:
    """One client's readings in one file, in the order of the file.

    Args:
        stamps: microseconds since 1970, chunk by chunk.
        values: ``(rows, channels)`` in the unit of the file, chunk by chunk; the target is channel 0.
        utc: whether stamps are UTC for certain.
    """

    stamps: list[Ints] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    utc: bool = False


@dataclass
class Readings:
    """A population as the files have it.

    Args:
        pieces: client -> file -> its readings.
        tables: the files that were read.
        rows: data rows read of each file.
    """

    pieces: dict[str, dict[str, Piece]] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)

    def add(self, client: str, table: Table, when: Ints, values: Floats, *, utc: bool) -> None:
        """Append a chunk of a client's rows."""
        piece = self.pieces.setdefault(client, {}).setdefault(table.shown, Piece(utc=utc))
        piece.stamps.append(when)
        piece.values.append(values)


def read_series(spec: OwnSpec, tables: Sequence[Table], findings: Findings) -> Readings:
    """Read all files of a wide, long or folder layout; problems are recorded, their cells are missing."""
    readings = Readings(tables=list(tables))
    for table in tables:
        if spec.layout == "wide":
            _read_wide(spec, table, readings, findings)
        else:
            _read_rows(spec, table, readings, findings)
    return readings


def client_of(shown: str, pattern: str | None) -> str | None:
    """Return the client's name that a path holds, None where it does not fit the pattern.

    Args:
        shown: the path, ``"data/building_7/2019.csv"``.
        pattern: fits the end of the path; ``{client}`` is the name, other ``{words}`` and ``*`` are anything.
    """
    path = Path(shown).as_posix()
    if pattern is None:
        return Path(path).stem
    parts = re.split(r"(\{\w+\}|\*)", pattern)
    form = "".join(
        "(?P<client>[^/]+?)" if part == "{client}" else "[^/]*" if _is_anything(part) else re.escape(part)
        for part in parts
    )
    match = re.search(rf"(?:^|/){form}$", path)
    return match["client"] if match else None


def client_columns(spec: OwnSpec, table: Table, findings: Findings) -> list[str]:
    """Return the columns of a wide table that are clients; twice the same name is a problem."""
    wanted = list(spec.client.columns) or [name for name in table.columns if name]
    columns = [name for name in wanted if name not in (spec.time.column, *spec.client.ignore)]
    twice = [name.rpartition("#")[0] for name in columns if name not in table.stored and "#" in name]
    double = sorted({name for name in twice if name in table.columns})
    if double:
        findings.problem(
            ("twice", table.shown),
            f"File {table.shown} has more than one column {', '.join(map(repr, double[:5]))}. Rename them, or leave "
            "one out.",
        )
    units = {match[1]: name for name in columns if (match := _UNIT.search(name))}
    if len(units) > 1:
        shown = ", ".join(f"{name!r}" for name in units.values())
        findings.problem(
            ("units", table.shown),
            f"File {table.shown} mixes units in its header: {shown}. Bring all columns to one unit.",
        )
    return columns


def _is_anything(part: str) -> bool:
    return part == "*" or (part.startswith("{") and part.endswith("}"))


def _read_wide(spec: OwnSpec, table: Table, readings: Readings, findings: Findings) -> None:
    columns = client_columns(spec, table, findings)
    if lacking(table, [spec.time.column, *spec.client.columns], findings):
        return
    if not columns:
        findings.problem(("no client", table.shown), f"File {table.shown} has no column beside the stamps.")
        return
    for row, batch in _numbered(table, [spec.time.column, *columns], [spec.time.column], readings, findings):
        place = Place(table, spec.time.column, row)
        when, utc = stamps(batch.column(0), place, spec.time, findings)
        for name in columns:
            values = numbers(batch.column(name), Place(table, name, row), spec.csv, findings)
            # one column of stamps for all clients: they share the array
            readings.add(name, table, when, values.astype(np.float32)[:, None], utc=utc)


def _read_rows(spec: OwnSpec, table: Table, readings: Readings, findings: Findings) -> None:
    """Read a file of the long layout, or one client's file of a folder."""
    held = [spec.value.column, *spec.covariates]
    coded = [spec.time.column] + ([spec.client.column] if spec.layout == "long" else [])
    owner = client_of(table.shown, spec.client.pattern) if spec.layout == "folder" else ""
    if owner is None:
        findings.problem(
            ("pattern", table.shown),
            f"File {table.shown} does not fit client.pattern {spec.client.pattern!r}. Mend it, or name fewer files.",
        )
    if lacking(table, [*coded, *held], findings) or owner is None:
        return
    for row, batch in _numbered(table, [*coded, *held], coded, readings, findings):
        when, utc = stamps(batch.column(0), Place(table, spec.time.column, row), spec.time, findings)
        values = np.stack(
            [
                numbers(batch.column(name), Place(table, name, row), spec.csv, findings).astype(np.float32)
                for name in held
            ],
            axis=1,
        )
        if owner:
            readings.add(owner, table, when, values, utc=utc)
            continue
        for client, rows in _by_client(batch.column(1), Place(table, spec.client.column, row), findings):
            readings.add(client, table, when[rows], values[rows], utc=utc)


def _numbered(
    table: Table, columns: Sequence[str], coded: Sequence[str], readings: Readings, findings: Findings
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches with the number of data rows before each."""
    row = 0
    for batch in batches(table, columns, coded, findings):
        yield row, batch
        row += batch.num_rows
    readings.rows[table.shown] = row


def _by_client(column: pa.Array, place: Place, findings: Findings) -> Iterator[tuple[str, Ints]]:
    """Yield each client's rows of a batch in their order; rows without a client are a problem."""
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    names = [str(name).strip() for name in coded.dictionary.to_pylist()]
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")  # costs nothing where the file is sorted by client
    for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        if not len(rows):
            continue
        code = int(codes[rows[0]])
        name = names[code] if code >= 0 else ""
        if name:
            yield name, rows
            continue
        first = int(rows[0])
        findings.problem(
            ("nobody", place.table.shown),
            lambda at=first: (  # type: ignore[misc]
                f"File {place.table.shown}, {place.table.line(place.row + at)}, column {place.column!r}: the row names no "
                "client. Fill it in, or remove the row."
            ),
            len(rows),
        )
