"""Low Carbon London's half-hourly readings in the official archive's CSV layout and in Kaggle's.

Both hold one row a reading: the household, a stamp, a value padded with blanks. Header names carry blanks
too; stamps have up to 7 digits of fractional seconds; ``Null`` stands on stamps off the half-hour grid; some
rows come twice.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ..errors import DataError
from ..runs import Floats
from .meters import STEP_SECONDS, Meters, add_readings

ATTRIBUTES = ("tariff", "acorn", "acorn_group")
COLUMNS = {
    "lclid": "client",
    "datetime": "stamp",
    "tstp": "stamp",
    "kwh/hh (per half hour)": "value",
    "energy(kwh/hh)": "value",
    "stdortou": "tariff",
    "acorn": "acorn",
    "acorn_grouped": "acorn_group",
}
INFORMATION = "informations_households.csv"
_MISSING = pa.array(["", "null", "na", "nan"])
_CHUNK_BYTES = 1 << 24  # a chunk of some 250,000 rows


def read_meters(root: Path) -> Meters:
    """Read every file of readings below ``root`` (or the file ``root``), in chunks.

    Raises:
        DataError: no such file, a value that is no number, a stamp that is none, or a broken file.
    """
    meters = Meters()
    files = [root] if root.is_file() else sorted(root.rglob("*.csv"))
    for path in files:
        columns = _columns(path)
        if {"client", "stamp", "value"} <= set(columns):
            _read_file(path, columns, meters)
        elif path.name != INFORMATION:
            meters.ignored.append(str(path.relative_to(root)) if path != root else path.name)
    if not meters.grids:
        raise DataError(
            f"No readings in {root}: looked in {len(files)} .csv files for the columns LCLid, DateTime or "
            "tstp, and 'KWH/hh (per half hour)' or 'energy(kWh/hh)'. Point root at the unpacked archive."
        )
    return meters


def read_information(path: Path) -> pd.DataFrame:
    """Return Kaggle's ``informations_households.csv`` as attributes, indexed by household."""
    table = pd.read_csv(path, skipinitialspace=True, dtype=str)
    table = table.rename(columns={name: COLUMNS.get(name.strip().lower(), name) for name in table.columns})
    if "client" not in table.columns:
        raise DataError(f"File {path} has no column LCLid, only {', '.join(table.columns)}.")
    return table.set_index("client")[[name for name in ATTRIBUTES if name in table.columns]]


def _columns(path: Path) -> dict[str, str]:
    """Return ours -> the file's names of the columns we know; empty for what is no table."""
    try:
        header = pd.read_csv(path, nrows=0).columns
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
        return {}
    return {COLUMNS[name.strip().lower()]: str(name) for name in header if name.strip().lower() in COLUMNS}


def _read_file(path: Path, columns: dict[str, str], meters: Meters) -> None:
    text = {columns[ours]: pa.string() for ours in ("stamp", "value")}
    coded = {
        theirs: pa.dictionary(pa.int32(), pa.string()) for theirs in columns.values() if theirs not in text
    }
    options = csv.ConvertOptions(include_columns=list(columns.values()), column_types=text | coded)
    rows = 1
    try:
        with csv.open_csv(path, csv.ReadOptions(block_size=_CHUNK_BYTES), convert_options=options) as reader:
            for batch in reader:
                _add_batch(batch.rename_columns([*columns]), meters, path, rows, columns)
                rows += batch.num_rows
    except pa.ArrowInvalid as error:
        raise DataError(f"File {path} is broken: {error}. Unpack or download it again.") from error


def _add_batch(batch: pa.RecordBatch, meters: Meters, path: Path, rows: int, columns: dict[str, str]) -> None:
    """Put a chunk's readings on the grids of their households."""
    stamps = _cast(batch.column("stamp"), pa.timestamp("ns"), f"{path}, column {columns['stamp']!r}", rows)
    numbers = _cast(batch.column("value"), pa.float32(), f"{path}, column {columns['value']!r}", rows)
    values: Floats = numbers.to_numpy(zero_copy_only=False).astype(np.float32)
    seconds, fraction = np.divmod(stamps.cast(pa.int64()).to_numpy(zero_copy_only=False), 10**9)
    on_grid = (fraction == 0) & (seconds % STEP_SECONDS == 0)
    meters.counts.update({
        "rows": len(values),
        "off the grid": int((~on_grid).sum()),
        "null": int((on_grid & np.isnan(values)).sum()),
    })  # fmt: skip
    clients = batch.column("client")
    codes = clients.indices.to_numpy(zero_copy_only=False)
    # files are sorted by household; the sort costs nothing then and makes any other order work
    order = np.argsort(codes, kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    for block in np.split(order, cuts):
        client = str(clients.dictionary[int(codes[block[0]])].as_py()).strip()
        known = block[on_grid[block] & ~np.isnan(values[block])]
        add_readings(meters, client, seconds[known] // STEP_SECONDS, values[known])
        _add_attributes(meters, client, batch, int(block[0]))


def _cast(column: pa.Array, kind: pa.DataType, where: str, rows: int) -> pa.Array:
    """Return a column of padded text as numbers or stamps, null where nothing was recorded.

    Raises:
        DataError: naming ``where``, the row (the header is row 1) and the first value that is neither.
    """
    text = pc.utf8_trim_whitespace(column)
    if pa.types.is_floating(kind):
        text = pc.if_else(pc.is_in(pc.utf8_lower(text), _MISSING), pa.scalar(None, pa.string()), text)
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        plain = pd.Series(text.to_pylist(), dtype="str")
        number = pa.types.is_floating(kind)
        good = pd.to_numeric(plain, errors="coerce") if number else pd.to_datetime(plain, errors="coerce")
        bad = int(np.flatnonzero(good.isna() & plain.notna())[0])
    wanted = "a number" if number else "a stamp like 2013-01-01 00:30:00"
    raise DataError(
        f"File {where}, row {rows + 1 + bad}: {plain[bad]!r} is not {wanted}. Correct or remove the row."
    )


def _add_attributes(meters: Meters, client: str, batch: pa.RecordBatch, row: int) -> None:
    if client not in meters.attributes:
        known = [name for name in ATTRIBUTES if name in batch.schema.names]
        values = {name: batch.column(name)[row].as_py() for name in known}
        meters.attributes[client] = {name: str(value).strip() for name, value in values.items() if value}
