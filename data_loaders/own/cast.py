"""From columns of text to numbers and stamps; what is neither is a problem with its line and the remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..runs import Booleans, Ints
from .files import Table
from .findings import Findings
from .options import MISSING, Csv, Time

Numbers = npt.NDArray[np.float64]
NAT = np.iinfo(np.int64).min
FORMATS = (  # tried when stamps are not ISO 8601, to name the one that fits
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M %p",
    "%d-%m-%Y %H:%M",
    "%d-%m-%Y %H:%M:%S",
    "%d.%m.%y %H:%M",
    "%d/%m/%y %H:%M",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%d%b%y:%H:%M:%S",
    "%d-%b-%Y %H:%M",
    "%d.%m.%Y",
    "%d/%m/%Y",
)
_OFFSET = re.compile(r"(Z|[+-]\d\d:?\d\d)$")
_UNITS = re.compile(r"^[-+]?[\d.,' ]+\s*([a-zA-Z/%°]+)$")


@dataclass(frozen=True)
class Place:
    """Where a column's cells stand, for messages.

    Args:
        table: the file.
        column: name of the column.
        row: data rows of the file before the first cell.
    """

    table: Table
    column: str
    row: int


def numbers(column: pa.Array, place: Place, csv: Csv, findings: Findings) -> Numbers:
    """Return a column as ``(rows,)`` float64, NaN for the texts that mean missing; other texts are problems."""
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type):
        found: Numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return _finite(found, column, place, findings)
    if not _is_text(column):
        words = f"File {place.table.shown}, column {place.column!r} holds {column.type}, not numbers."
        findings.problem(("type", place.table.shown, place.column), f"{words} Name another column.")
        return np.full(len(column), np.nan)
    text = pc.utf8_trim_whitespace(_decoded(column))
    missing = pc.is_in(pc.utf8_lower(text), pa.array([*MISSING, *(word.lower() for word in csv.missing)]))
    text = pc.if_else(pc.fill_null(missing, True), pa.scalar(None, pa.string()), text)
    plain = _plain(text, csv)
    try:
        found = plain.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        series = pd.Series(plain.to_pylist(), dtype=object)
        found = np.array(pd.to_numeric(series, errors="coerce"), np.float64)
        bad = np.flatnonzero(np.isnan(found) & plain.is_valid().to_numpy(zero_copy_only=False))
        _report(text, bad, place, csv, findings)
    return _finite(found, text, place, findings)


def stamps(column: pa.Array, place: Place, time: Time, findings: Findings) -> tuple[Ints, bool]:
    """Return a column as ``(rows,)`` int64 microseconds since 1970, and whether they are UTC for certain.

    Stamps with an offset (``+01:00``, ``Z``) are UTC; all others show the clock of ``time.timezone``. ``NAT`` stands for a
    missing one; text that is no stamp is a problem.
    """
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        zone = getattr(column.type, "tz", None)
        micros = column.cast(pa.timestamp("us", tz=zone), safe=False).cast(pa.int64())
        return pc.fill_null(micros, NAT).to_numpy(zero_copy_only=False), zone is not None
    if time.format.startswith("unix"):
        found = numbers(column, place, Csv(), findings) * (1e3 if time.format == "unix_ms" else 1e6)
        return np.where(np.isnan(found), NAT, np.rint(np.nan_to_num(found))).astype(np.int64), True
    if not _is_text(column):
        words = f"File {place.table.shown}, column {place.column!r} holds {column.type}, not stamps."
        findings.problem(
            ("stamps", place.table.shown), f"{words} Numbers since 1970 need time.format: unix or unix_ms."
        )
        return np.full(len(column), NAT), False
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    texts = [str(text).strip() for text in coded.dictionary.to_pylist()]
    values, utc = parse_stamps(texts, time.format)
    codes = pc.fill_null(coded.indices, len(texts)).to_numpy(zero_copy_only=False)
    empty: Booleans = np.array([text.lower() in MISSING for text in texts], np.bool_)
    _report_stamps(texts, codes, (values == NAT) & ~empty, place, time, findings)
    return np.append(values, NAT)[codes], utc


def parse_stamps(texts: list[str], form: str) -> tuple[Ints, bool]:
    """Return different stamps as ``(n,)`` int64 microseconds since 1970, ``NAT`` where one does not fit the form.

    Args:
        texts: stamps; ``24:00`` is midnight of the next day.
        form: ``"auto"`` for ISO 8601, or as in ``strptime``.

    Returns:
        The numbers, and whether the stamps carry their offset from UTC.
    """
    offset = "%z" in form
    if form == "auto":
        carries = [bool(_OFFSET.search(text[10:])) for text in texts]
        offset = any(carries)
        if offset:  # stamps without an offset among those with one would pass for UTC
            texts = [text if has else "" for text, has in zip(texts, carries, strict=True)]
    values = _parsed(texts, form, offset)
    late = [at for at in np.flatnonzero(values == NAT) if " 24:00" in texts[at] or "T24:00" in texts[at]]
    if late:
        again = _parsed([re.sub(r"([ T])24:00", r"\g<1>00:00", texts[at]) for at in late], form, offset)
        values[late] = np.where(again == NAT, NAT, again + 86_400_000_000)
    return values, offset


def fitting_format(texts: list[str]) -> str | None:
    """Return a form that all these stamps fit, ``"auto"`` for ISO 8601, or None."""
    return next(
        (form for form in ("auto", *FORMATS) if texts and (parse_stamps(texts, form)[0] != NAT).all()), None
    )


def _parsed(texts: list[str], form: str, utc: bool) -> Ints:
    words, shape = pd.Series(texts, dtype=object), "ISO8601" if form == "auto" else form
    try:
        stamps = pd.to_datetime(words, format=shape, errors="coerce", utc=utc)
    except ValueError:  # offsets in damaged text among stamps without one: only these are right
        each = [pd.to_datetime([text], format=shape, errors="coerce")[0] for text in texts]
        stamps = pd.Series([stamp if getattr(stamp, "tz", None) is None else pd.NaT for stamp in each])
    index = pd.DatetimeIndex(stamps)
    return np.asarray(index.tz_convert(None) if utc else index, "datetime64[us]").astype(np.int64)


def _is_text(column: pa.Array) -> bool:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _plain(text: pa.Array, csv: Csv) -> pa.Array:
    """Return numbers as a computer writes them; those whose thousands marks stand elsewhere stay as they are."""
    marks = [
        mark for mark in ((" ", "\u00a0", "\u202f") if csv.thousands == " " else (csv.thousands,)) if mark
    ]
    if marks:
        some = "[" + "".join(map(re.escape, marks)) + "]"
        right = rf"^[-+]?\d{{1,3}}({some}\d{{3}})+({re.escape(csv.decimal)}\d*)?$"
        bare = pc.replace_substring_regex(text, some, "")
        text = pc.if_else(pc.match_substring_regex(text, right), bare, text)
    if csv.decimal == ".":
        return text
    # a point that is left where the comma is the mark is no number; a letter makes the cast refuse it
    return pc.replace_substring(pc.replace_substring(text, ".", "x"), ",", ".")


def _finite(found: Numbers, shown: pa.Array, place: Place, findings: Findings) -> Numbers:
    infinite = np.flatnonzero(np.isinf(found))
    if len(infinite):
        at = int(infinite[0])
        findings.problem(
            ("infinite", place.table.shown),
            lambda: (
                f"{_where(place, at)}: {str(shown[at])!r} is infinite. Correct it, or list that text in csv.missing."
            ),
            len(infinite),
        )
        found = np.where(np.isinf(found), np.nan, found)
    return found


def _report(text: pa.Array, bad: Ints, place: Place, csv: Csv, findings: Findings) -> None:
    """Record cells that are no numbers, with what may be behind the first."""
    if len(bad):
        at = int(bad[0])
        first = str(text[at])
        remedy = _remedy(first, csv)
        findings.problem(
            ("number", place.table.shown, remedy),
            lambda: f"{_where(place, at)}: {first!r} is not a number. {remedy}",
            len(bad),
        )


def _remedy(text: str, csv: Csv) -> str:
    if csv.decimal == "." and re.fullmatch(r"[-+]?\d*,\d+", text):
        return 'Is the comma the decimal mark? Set csv.decimal: ",".'
    if csv.decimal == "," and re.fullmatch(r"[-+]?\d*\.\d+", text):
        return 'Is the point the decimal mark? Set csv.decimal: ".".'
    if re.fullmatch(r"[-+]?\d{1,3}([.,' ]\d{3})+([.,]\d+)?", text):
        return "Are there thousands marks? Set csv.thousands."
    unit = _UNITS.match(text)
    if unit:
        return f"It carries the unit {unit[1]!r}: keep numbers of one unit in the column, and name it in value.unit."
    return "Correct it, or list the text in csv.missing if it means no reading."


def _report_stamps(
    texts: list[str], codes: Ints, bad: Booleans, place: Place, time: Time, findings: Findings
) -> None:
    """Record stamps that do not fit the format, with the one that does."""
    if not bad.any():
        return
    rows = np.flatnonzero(np.append(bad, False)[codes])
    key = ("stamp", place.table.shown)
    if key in findings.problems:
        findings.problem(key, "", len(rows))
        return
    wrong = [text for text, is_bad in zip(texts, bad, strict=True) if is_bad]
    first = texts[int(codes[rows[0]])]
    fits = fitting_format(wrong[:200])
    said = "ISO 8601 (2013-01-31 00:30)" if time.format == "auto" else time.format
    if not bad.all():
        remedy = (
            f"Other stamps do: the file mixes formats{f', these fit {fits!r}' if fits else ''}. Write one."
        )
    else:
        remedy = f'Set time.format: "{fits}".' if fits else "Set time.format, as in strptime."
    findings.problem(
        key,
        f"{_where(place, int(rows[0]))}: stamp {first!r} does not fit {said}. {remedy}",
        len(rows),
    )


def _where(place: Place, row: int) -> str:
    return f"File {place.table.shown}, {place.table.line(place.row + row)}, column {place.column!r}"
