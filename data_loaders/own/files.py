"""Which files there are, their headers, and their rows in batches of text: CSV and parquet alike."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as pcsv

from ..errors import DataError, did_you_mean
from .findings import Findings
from .options import Csv, OwnSpec

_CHUNK_BYTES = 1 << 24
_ROWS = 1 << 18
_DELIMITERS = {",": "','", ";": "';'", "\t": '"\\t"', "|": "'|'"}


@dataclass(frozen=True)
class Table:
    """One file of rows.

    Args:
        path: of the file.
        shown: the path as messages name it, relative to the YAML file.
        columns: names of its columns, blanks around them left out; a name that comes twice has ``#2`` added.
        stored: the names as parquet stores them, in the same order.
        csv: how it is written; None for parquet.
    """

    path: Path
    shown: str
    columns: tuple[str, ...]
    stored: tuple[str, ...]
    csv: Csv | None

    def line(self, row: int) -> str:
        """Return ``"line 7"`` of the text file (``"row 5"`` of a parquet file) that holds data row ``row``, from 0."""
        if self.csv is None:
            return f"row {row + 1}"
        skip = self.csv.skip_rows + (not self.csv.columns)
        with open(self.path, encoding=_codec(self.csv), errors="replace", newline=None) as lines:
            filled = (number for number, text in enumerate(lines, 1) if number > skip and text.strip())
            return f"line {next((number for at, number in enumerate(filled) if at == row), row + skip + 1)}"


def find_files(spec: OwnSpec, folder: Path) -> list[Path]:
    """Return the files that the patterns name, sorted, each once.

    Raises:
        DataError: a pattern that names none; says what lies there.
    """
    found, problems = dict[Path, None](), list[str]()
    for pattern in spec.files:
        given = Path(pattern).expanduser()
        base, rest = (
            (Path(given.anchor), str(given.relative_to(given.anchor)))
            if given.is_absolute()
            else (folder, pattern)
        )
        paths = (
            [base / rest] if (base / rest).is_file() else sorted(p for p in base.glob(rest) if p.is_file())
        )
        found |= dict.fromkeys(paths)
        if not paths:
            near = (base / rest).parent
            there = sorted(p.name for p in near.iterdir())[:8] if near.is_dir() else []
            lies = (
                f"There are {', '.join(there)}." if there else f"There is no folder {near}, or it is empty."
            )
            problems.append(f"files: {pattern!r} names no file in {base}. {lies}")
    if problems:
        raise DataError(*problems)
    return list(found)


def open_tables(spec: OwnSpec, paths: Sequence[Path], folder: Path, findings: Findings) -> list[Table]:
    """Return the files with their headers; those that cannot be read are problems."""
    tables = []
    for path in paths:
        shown = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
        try:
            tables.append(open_table(path, shown, None if _is_parquet(path, spec) else spec.csv))
        except DataError as error:
            findings.error(("open", shown), error)
    return tables


def open_table(path: Path, shown: str, options: Csv | None) -> Table:
    """Return a file with its header.

    Raises:
        DataError: it cannot be opened, is empty, is not in its encoding, or no parquet file.
    """
    try:
        stored = _parquet_columns(path) if options is None else _csv_columns(path, shown, options)
    except (OSError, UnicodeError, pa.ArrowInvalid) as error:
        raise DataError(_why(shown, error, options)) from error
    names = [str(name).strip() for name in stored]
    counts = Counter[str]()
    unique = []
    for name in names:
        counts[name] += 1
        unique.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return Table(path, shown, tuple(unique), tuple(stored), options)


def lacking(table: Table, wanted: Sequence[str], findings: Findings) -> bool:
    """Record the columns that a file lacks, with what it has, and return whether there are any."""
    missing = [name for name in wanted if name not in table.columns]
    for name in missing:
        findings.problem(
            ("column", table.shown, name),
            f"File {table.shown} has no column {name!r}. {_hint(table, name)}",
        )
    return bool(missing)


def batches(
    table: Table, columns: Sequence[str], coded: Sequence[str], findings: Findings
) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows with these columns only; text columns as text, ``coded`` ones as dictionaries.

    Lines with another number of columns than the header's are problems and left out.
    """
    try:
        if table.csv is None:
            yield from _parquet_batches(table, columns)
        else:
            yield from _csv_batches(table, table.csv, columns, coded, findings)
    except (OSError, UnicodeError, pa.ArrowInvalid) as error:
        findings.problem(("broken", table.shown), _why(table.shown, error, table.csv))


def _is_parquet(path: Path, spec: OwnSpec) -> bool:
    return spec.format == "parquet" or (spec.format == "auto" and path.suffix.lower() in (".parquet", ".pq"))


def _parquet_columns(path: Path) -> list[str]:
    return list(pq.ParquetFile(path).schema_arrow.names)


def _parquet_batches(table: Table, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    stored = [table.stored[table.columns.index(name)] for name in columns]
    for batch in pq.ParquetFile(table.path).iter_batches(batch_size=_ROWS, columns=stored):
        order = [batch.schema.names.index(name) for name in stored]
        yield batch.select(order).rename_columns(list(columns))


def _csv_columns(path: Path, shown: str, options: Csv) -> list[str]:
    if options.columns:
        with open(path, "rb") as file:
            if not file.read(1):
                raise DataError(f"File {shown} is empty. Write it again, or leave it out of files.")
        return list(options.columns)
    with open(path, encoding=_codec(options), newline="") as file:
        for _ in range(options.skip_rows):
            file.readline()
        header = file.readline()
    if not header.strip():
        raise DataError(
            f"File {shown} is empty, or has no header in line {options.skip_rows + 1}. Check csv.skip_rows."
        )
    return next(csv.reader(io.StringIO(header), delimiter=options.delimiter, skipinitialspace=True))


def _csv_batches(
    table: Table, options: Csv, columns: Sequence[str], coded: Sequence[str], findings: Findings
) -> Iterator[pa.RecordBatch]:
    def ragged(row: pcsv.InvalidRow) -> str:
        findings.problem(
            ("ragged", table.shown),
            f"File {table.shown}: a line has {row.actual_columns} columns, the header {row.expected_columns}: "
            f"{row.text!r:.80}. {_ragged(row.text, options)}",
        )
        return "skip"

    text = {name: pa.string() for name in columns} | {
        name: pa.dictionary(pa.int32(), pa.string()) for name in coded
    }
    names = [name or f"unnamed {at}" for at, name in enumerate(table.columns)]
    read = pcsv.ReadOptions(
        block_size=_CHUNK_BYTES,
        use_threads=False,
        encoding="utf8"
        if _codec(options) == "utf-8-sig"
        else options.encoding,  # Arrow's own is the fast one
        skip_rows=options.skip_rows + (not options.columns),
        column_names=names,
    )
    parsed = pcsv.ParseOptions(delimiter=options.delimiter, invalid_row_handler=ragged)
    wanted = [names[table.columns.index(name)] for name in columns]
    convert = pcsv.ConvertOptions(
        include_columns=wanted,
        column_types=dict(zip(wanted, text.values(), strict=True)),
        strings_can_be_null=False,
    )
    if not _has_rows(table.path, options):
        findings.problem(
            ("empty", table.shown), f"File {table.shown} has a header and no rows. Leave it out of files."
        )
        return
    with pcsv.open_csv(table.path, read, parsed, convert) as reader:
        for batch in reader:
            yield batch.rename_columns(list(columns))


def _has_rows(path: Path, options: Csv) -> bool:
    with open(path, encoding=_codec(options), errors="replace") as lines:
        skip = options.skip_rows + (not options.columns)
        return any(text.strip() for number, text in enumerate(lines) if number >= skip)


def _codec(options: Csv) -> str:
    """Return the encoding; that of UTF-8 leaves a byte order mark out."""
    plain = options.encoding.lower().replace("_", "-")
    return "utf-8-sig" if plain in ("utf-8", "utf8") else options.encoding


def _why(shown: str, error: Exception, options: Csv | None) -> str:
    text = str(error)
    if isinstance(error, PermissionError):
        return f"File {shown} cannot be read: no permission. Run `chmod +r` on it, or ask its owner."
    if isinstance(error, UnicodeError) or "UTF8" in text or "codec can't decode" in text:
        encoding = options.encoding if options else "utf-8"
        return (
            f"File {shown} is not {encoding} text ({text:.90}). Set csv.encoding: latin-1, cp1252 or utf-16."
        )
    if options is None:
        return f"File {shown} is no parquet file, or broken ({text:.90}). Write it again, or set format: csv."
    return f"File {shown} cannot be read as CSV: {text:.160}. Check csv.delimiter and csv.skip_rows."


def _hint(table: Table, name: str) -> str:
    """Return what a lacking column may come from: another delimiter, another line, another spelling."""
    if table.csv is not None and len(table.columns) == 1:
        inside = [words for mark, words in _DELIMITERS.items() if mark in table.columns[0]]
        if inside:
            return f"The header is one column, {table.columns[0]!r:.80}: set csv.delimiter: {inside[0]}."
    shown = table.columns if len(table.columns) <= 12 else (*table.columns[:12], "...")
    return did_you_mean(name, shown)


def _ragged(line: str, options: Csv) -> str:
    if options.delimiter == ",":
        return "Is ',' the decimal mark too? Then numbers need quotes, or the file another delimiter."
    return "Correct the line, or remove it."
