"""The VED on disk: weekly CSVs, in 7z archives or unpacked, and the cars' tables.

Archives are read week by week as they are unpacked, into memory and nowhere else: no member ever becomes a file.
"""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import pandas as pd

from ..errors import DataError, raise_if_any

WEEK = re.compile(r"VED_\d{6}_week\.csv")
REQUIRED = ("DayNum", "VehId", "Trip", "Timestamp(ms)", "Vehicle Speed[km/h]")
OPTIONAL = (
    "MAF[g/sec]",
    "Engine RPM[RPM]",
    "Absolute Load[%]",
    "OAT[DegC]",
    "Fuel Rate[L/hr]",
    "HV Battery Current[A]",
    "HV Battery Voltage[V]",
    "Short Term Fuel Trim Bank 1[%]",
    "Long Term Fuel Trim Bank 1[%]",
)
ATTRIBUTES = ("engine", "vehicle_class", "displacement_l", "transmission", "drive_wheels", "weight_lb")
_RENAMED = {"Outside Air Temperature[DegC]": "OAT[DegC]"}
_STATIC = {
    "vehicle type": "engine",
    "enginetype": "engine",
    "vehicle class": "vehicle_class",
    "engine configuration & displacement": "displacement_l",
    "transmission": "transmission",
    "drive wheels": "drive_wheels",
    "generalized_weight": "weight_lb",
    "generalized_weight[lb]": "weight_lb",
}
_MOST_RATIO, _MOST_FREE = 200, 256 << 20  # an archive that unpacks to more is no honest one
_AGAIN = "Get it again from github.com/gsoh/VED."


def read_weeks(root: Path, use: Callable[[pd.DataFrame, str], None]) -> list[str]:
    """Call ``use(rows, where)`` with each week's rows, in no order; return the weeks.

    Args:
        root: a weekly CSV, an archive, or a folder of them; of a week that is there unpacked and packed the CSV counts.
        use: takes rows with the columns of the file that are known here.

    Raises:
        DataError: nothing to read, a week twice, a header that changed, a value that is no number, a broken archive.
    """
    files = [root] if root.is_file() else sorted(root.rglob("*"))
    unpacked = [path for path in files if WEEK.fullmatch(path.name)]
    names = [path.name for path in unpacked]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        there = ", ".join(str(path) for path in unpacked if path.name == twice)
        raise DataError(f"Week {twice} is there more than once: {there}. Remove all but one.")
    for path in unpacked:
        with path.open("rb") as file:
            use(_read_week(file, str(path)), str(path))
    for archive in (path for path in files if path.suffix == ".7z"):
        names += _read_archive(archive, set(names), use)
    if not names:
        raise DataError(
            f"No week in {root}: looked for VED_<yymmdd>_week.csv and for *.7z with such files. "
            "Point root at the Data folder of github.com/gsoh/VED."
        )
    return sorted(names)


def _read_archive(archive: Path, have: set[str], use: Callable[[pd.DataFrame, str], None]) -> list[str]:
    try:
        import py7zr
    except ImportError as error:
        raise DataError(
            f"{archive} is a 7z archive, for which py7zr is needed: pip install 'persofl[ved]', or unpack it by hand."
        ) from error
    try:
        # given an open file, py7zr reads in one thread, one member after the other
        with archive.open("rb") as file, py7zr.SevenZipFile(file) as opened:
            inside = [item for item in opened.list() if item.is_file]
            wanted = _weeks_inside(archive, inside)
            new = {path: name for path, name in wanted.items() if name not in have}
            if new:
                opened.extract(targets=list(new), factory=_factory(archive, use))
    except (DataError, MemoryError):
        raise
    except Exception as error:  # whatever py7zr meets in a file that is not as it should be
        raise DataError(
            f"{archive} is damaged or cut off ({error or type(error).__name__}). {_AGAIN}"
        ) from error
    return list(new.values())


def _weeks_inside(archive: Path, inside: list[Any]) -> dict[str, str]:
    """Return the paths of an archive's weeks with their names."""
    found = {item.filename: item for item in inside if WEEK.fullmatch(PurePosixPath(item.filename).name)}
    wanted = {path: PurePosixPath(path).name for path in found}
    outside = [
        path for path in wanted if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts
    ]
    empty = [path for path, item in found.items() if not item.uncompressed]
    problems = {
        f"{archive} holds no VED_<yymmdd>_week.csv among {len(inside)} files": not wanted,
        f"{archive}: member {outside[:1]} points outside": outside,
        f"{archive}: member {empty[:1]} is empty": empty,
        f"{archive} holds a week twice": len(set(wanted.values())) < len(wanted),
    }
    raise_if_any(f"{problem}. {_AGAIN}" for problem, applies in problems.items() if applies)
    return wanted


def _factory(archive: Path, use: Callable[[pd.DataFrame, str], None]) -> Any:
    """Return what gives py7zr a buffer for each member, and uses the member once it is whole."""
    from py7zr.io import Py7zIO, WriterFactory

    most = max(_MOST_FREE, _MOST_RATIO * archive.stat().st_size)
    written = 0

    class Buffer(Py7zIO):
        def __init__(self, name: str) -> None:
            self.name, self.bytes = name, io.BytesIO()

        def write(self, data: bytes | bytearray) -> int:
            nonlocal written
            written += len(data)
            if written > most:
                raise DataError(
                    f"{archive} unpacks to more than {most >> 20} MiB: no honest archive. {_AGAIN}"
                )
            return self.bytes.write(data)

        def read(self, size: int | None = None) -> bytes:
            return self.bytes.read(size)

        def seek(self, offset: int, whence: int = 0) -> int:
            return self.bytes.seek(offset, whence)

        def flush(self) -> None:
            pass

        def size(self) -> int:
            return self.bytes.getbuffer().nbytes

        def close(self) -> None:
            where = f"{archive}, member {self.name}"
            self.bytes.seek(0)
            use(_read_week(self.bytes, where), where)
            self.bytes.close()

    class Buffers(WriterFactory):
        def create(self, filename: str) -> Buffer:
            return Buffer(filename)

    return Buffers()


def _read_week(file: IO[bytes], where: str) -> pd.DataFrame:
    try:
        header = [name.strip() for name in file.readline().decode("utf-8-sig").rstrip("\r\n").split(",")]
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no text. {_AGAIN}") from error
    header = [_RENAMED.get(name, name) for name in header]
    lacking = [name for name in REQUIRED if name not in header]
    if lacking:
        hint = " (are its columns parted by commas?)" if len(header) == 1 else ""
        raise DataError(f"{where}, line 1: the header lacks {', '.join(lacking)}{hint}. {_AGAIN}")
    known = [name for name in header if name in (*REQUIRED, *OPTIONAL)]
    begin = file.tell()
    try:
        rows = pd.read_csv(file, names=header, usecols=known, dtype=np.float64, index_col=False)
    except (ValueError, pd.errors.ParserError) as error:
        file.seek(begin)
        raise DataError(_wrong_cell(file, header, known, where, error)) from error
    _check(rows, where)
    return rows


def _wrong_cell(file: IO[bytes], header: list[str], known: list[str], where: str, error: Exception) -> str:
    """Return the first cell that is no number, in words."""
    try:
        text = pd.read_csv(file, names=header, usecols=known, dtype=str, index_col=False)
    except (ValueError, pd.errors.ParserError):
        return f"{where} is broken: {error}. {_AGAIN}"
    for name in known:
        bad = np.flatnonzero(
            (pd.to_numeric(text[name], errors="coerce").isna() & text[name].notna()).to_numpy()
        )
        if len(bad):
            value = text[name].iloc[int(bad[0])]
            return f"{where}, line {bad[0] + 2}, column {name!r}: {value!r} is no number. {_AGAIN}"
    return f"{where} is broken: {error}. {_AGAIN}"


def _check(rows: pd.DataFrame, where: str) -> None:
    if rows.empty:
        raise DataError(f"{where} has no rows below its header. {_AGAIN}")
    for name in rows.columns:
        values = rows[name].to_numpy(np.float64)
        bad = np.isinf(values) | (
            np.isnan(values) if name in REQUIRED[:4] else np.zeros(len(values), np.bool_)
        )
        if bad.any():
            row = int(bad.argmax())
            raise DataError(
                f"{where}, line {row + 2}, column {name!r}: {values[row]} is no finite number. {_AGAIN}"
            )


def read_static(root: Path) -> pd.DataFrame:
    """Return ``ATTRIBUTES`` of the cars in the tables ``*Static*.xlsx`` below ``root``, indexed by ``VehId``.

    ``NO DATA`` becomes ``"unknown"``, or NaN of numbers; no table gives no row.

    Raises:
        DataError: a table without ``VehId`` and the engine's kind, or a car that stands in the tables twice.
    """
    folder = root.parent if root.is_file() else root
    tables = [table for path in sorted(folder.rglob("*Static*.xlsx")) for table in _static_tables(path)]
    if not tables:
        return pd.DataFrame(columns=list(ATTRIBUTES), index=pd.Index([], dtype=np.int64, name="VehId"))
    joined = pd.concat(tables)
    twice = joined.index[joined.index.duplicated()]
    if len(twice):
        raise DataError(
            f"Car VehId={twice[0]} stands twice in the tables of {folder}. Remove one of its rows."
        )
    return joined


def _static_tables(path: Path) -> Iterator[pd.DataFrame]:
    try:
        import openpyxl  # noqa: F401  pandas' own message names no extra
    except ImportError as error:
        raise DataError(
            f"{path} is an xlsx table, for which openpyxl is needed: pip install 'persofl[ved]'."
        ) from error
    text = pd.read_excel(path, dtype=str)
    text.columns = [str(name).strip() for name in text.columns]
    found = {_STATIC[name.lower()]: name for name in text.columns if name.lower() in _STATIC}
    if "VehId" not in text or "engine" not in found:
        raise DataError(
            f"File {path}: no columns VehId and 'Vehicle Type' or 'EngineType', only {', '.join(text.columns)}. {_AGAIN}"
        )
    numbers = pd.to_numeric(text["VehId"], errors="coerce")
    if numbers.isna().any():
        row = int(numbers.isna().to_numpy().argmax())
        raise DataError(
            f"File {path}, row {row + 2}: VehId {text['VehId'].iloc[row]!r} is no number. {_AGAIN}"
        )
    said = text.apply(lambda column: column.str.strip().mask(column.str.strip() == "NO DATA"))
    known = pd.DataFrame(index=pd.Index(numbers.astype(np.int64), name="VehId"))
    for name in ATTRIBUTES:
        values = said[found[name]] if name in found else pd.Series(None, index=said.index, dtype="str")
        if name == "displacement_l":
            values = values.str.extract(r"(\d+(?:\.\d+)?)\s*L\b")[0]
        number = name in ("displacement_l", "weight_lb")
        plain = (
            pd.to_numeric(values, errors="coerce").astype(np.float64) if number else values.fillna("unknown")
        )
        known[name] = plain.to_numpy()
    yield known
