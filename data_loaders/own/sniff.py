"""How an unknown text table is written: encoding, delimiter, header, decimal mark."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .options import MISSING, Csv

_HEAD, _TAIL = 1 << 18, 1 << 15
_POINT = re.compile(r"[-+]?\d*\.\d+(e[-+]?\d+)?", re.IGNORECASE)
_COMMA = re.compile(r"[-+]?\d*,\d+")
_WHOLE = re.compile(r"[-+]?\d+")
_BOTH = {
    ".": re.compile(r"[-+]?\d{1,3}([,' ])\d{3}(\1\d{3})*\.\d+"),
    ",": re.compile(r"[-+]?\d{1,3}([.' ])\d{3}(\1\d{3})*,\d+"),
}


@dataclass(frozen=True)
class Sample:
    """Some of a text table's rows.

    Args:
        csv: how it is written.
        columns: names.
        cells: column -> texts of the first and the last rows, blanks left out.
    """

    csv: Csv
    columns: tuple[str, ...]
    cells: dict[str, list[str]]


def sniff(path: Path) -> Sample:
    """Return how a CSV file is written, with some of its rows.

    Raises:
        DataError: it cannot be read, or is empty.
    """
    head, tail, encoding = _ends(path)
    if not head:
        raise DataError(f"File {path} is empty. Nothing can be said about it.")
    delimiter, width = _delimiter(head)
    rows = [_split(line, delimiter) for line in head]
    skip = next((at for at, row in enumerate(rows) if len(row) == width), 0)
    width = len(rows[skip])
    named = not any(_is_value(cell) for cell in rows[skip])
    names = [cell.strip() or f"unnamed {at}" for at, cell in enumerate(rows[skip])] if named else []
    columns = tuple(names or [f"column {at + 1}" for at in range(width)])
    body = rows[skip + named :] + [_split(line, delimiter) for line in tail]
    body = [row for row in body if len(row) == width]
    cells = {name: [row[at].strip() for row in body] for at, name in enumerate(columns)}
    decimal, thousands = _marks([cell for texts in cells.values() for cell in texts])
    # lines before the header are counted in the file, where some may be blank
    lines = path.read_text(encoding, errors="replace")[:_HEAD].splitlines() if skip else []
    skipped = next((at for at, line in enumerate(lines) if line == head[skip]), skip)
    options = Csv(delimiter, decimal, thousands, encoding, skipped, () if named else columns)
    return Sample(options, columns, cells)


def is_number(text: str, decimal: str) -> bool:
    """Return whether a text is a number with this decimal mark."""
    return bool(_WHOLE.fullmatch(text) or (_POINT if decimal == "." else _COMMA).fullmatch(text)) or bool(
        _BOTH[decimal].fullmatch(text)
    )


def is_missing(text: str) -> bool:
    """Return whether a text stands for no value."""
    return text.lower() in MISSING


def _ends(path: Path) -> tuple[list[str], list[str], str]:
    """Return the first and the last lines that hold anything, and the encoding."""
    try:
        with open(path, "rb") as file:
            start = file.read(_HEAD)
            size = path.stat().st_size
            file.seek(max(len(start), size - _TAIL))
            end = file.read()
    except OSError as error:
        raise DataError(f"File {path} cannot be read: {error.strerror}.") from error
    encoding = _encoding(start)
    whole = size <= len(start)
    first = start.decode(encoding, errors="replace").lstrip("\ufeff").splitlines()
    last = [] if encoding == "utf-16" else end.decode(encoding, errors="replace").splitlines()[1:]
    return (
        [line for line in (first if whole else first[:-1]) if line.strip()],
        [x for x in last if x.strip()],
        encoding,
    )


def _encoding(start: bytes) -> str:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    for cut in range(4):  # the last character may be cut in two
        try:
            start[: len(start) - cut].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return "utf-8"
    return "cp1252" if not any(0x80 <= byte < 0xA0 for byte in start) else "latin-1"


def _delimiter(lines: Sequence[str]) -> tuple[str, int]:
    """Return the delimiter under which the lines have one width, header and last lines included, and that width."""
    best = (0.0, 1, ",")
    some = lines[:200]
    for delimiter in (";", "\t", "|", ","):
        widths = [len(_split(line, delimiter)) for line in some]
        width, count = Counter(widths[len(widths) // 2 :] or widths).most_common(1)[0]
        share = count / max(1, len(widths) - len(widths) // 2)
        # a decimal comma cuts rows but not the header, which so has another width
        fits = width in widths[: max(1, len(widths) // 2)] and (width > 1)
        headed = widths[0] == width
        score = share * fits * (1.0 if headed else 0.5)
        if score > best[0]:
            best = (score, width, delimiter)
    return best[2], best[1]


def _split(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def _is_value(text: str) -> bool:
    """Return whether a cell of the first row looks like data: a number with a mark, or a stamp."""
    text = text.strip()
    stamp = re.match(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}([ T]\d|$)", text)
    return bool(stamp or _POINT.fullmatch(text) or _COMMA.fullmatch(text))


def _marks(cells: Sequence[str]) -> tuple[str, str]:
    """Return the decimal and the thousands mark."""
    comma = sum(bool(_COMMA.fullmatch(cell) or _BOTH[","].fullmatch(cell)) for cell in cells)
    point = sum(bool(_POINT.fullmatch(cell) or _BOTH["."].fullmatch(cell)) for cell in cells)
    decimal = "," if comma > point else "."
    marks = Counter(match[1] for cell in cells if (match := _BOTH[decimal].fullmatch(cell)))
    return decimal, marks.most_common(1)[0][0] if marks else ""
