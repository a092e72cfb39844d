"""Low Carbon London prepared as wide parquet tables: one column of stamps, one column a household."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from ..runs import Floats, Ints
from .households import Household

STEP_SECONDS = {"30min": 1800, "1h": 3600}
PREPARED = {"1h": "load_hourly.parquet", "30min": "load_halfhourly.parquet"}
_COLUMNS_AT_ONCE = 256  # so that reading holds little beside the buffer


def open_table(path: Path) -> tuple[Iterator[Household], int]:
    """Return the households of a wide table, one by one, and their steps together.

    Raises:
        DataError: no stamps, stamps off a regular grid, or a column that is not numeric.
    """
    table = pq.ParquetFile(path)
    stamps = [
        name
        for name in table.schema_arrow.names
        if pa.types.is_timestamp(table.schema_arrow.field(name).type)
    ]
    if len(stamps) != 1:
        raise DataError(
            f"File {path} needs one column of stamps beside the households, it has {len(stamps)}."
        )
    names = [name for name in table.schema_arrow.names if name != stamps[0]]
    step = STEP_SECONDS["1h" if path.name == PREPARED["1h"] else "30min"]
    slots = _slots(table.read(columns=stamps).column(0), step, path)
    return _columns(table, names, slots, step, path), len(names) * int(slots.max() - slots.min() + 1)


def _slots(stamps: pa.ChunkedArray, step: int, path: Path) -> Ints:
    """Return each row's place on the grid of ``step`` seconds since 1970, ``(rows,)`` int64."""
    seconds: Ints = stamps.cast(pa.timestamp("s"), safe=False).cast(pa.int64()).to_numpy()
    slots, rest = np.divmod(seconds, step)
    wrong = np.flatnonzero((rest != 0) | (np.diff(slots, prepend=slots[:1] - 1) < 1))
    if len(wrong):
        raise DataError(
            f"File {path}, row {wrong[0]}: stamp {stamps[int(wrong[0])]} is no later multiple of {step} s. "
            "Sort the rows and remove duplicates."
        )
    return slots


def _columns(
    table: pq.ParquetFile, names: list[str], slots: Ints, step: int, path: Path
) -> Iterator[Household]:
    first = int(slots[0])
    for begin in range(0, len(names), _COLUMNS_AT_ONCE):
        part = table.read(columns=names[begin : begin + _COLUMNS_AT_ONCE])
        for name in part.schema.names:
            values = np.full(int(slots[-1]) - first + 1, np.nan, np.float32)
            values[slots - first] = _numeric(part.column(name), name, path)
            yield Household(name, first * step, step, values)


def _numeric(column: pa.ChunkedArray, name: str, path: Path) -> Floats:
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type):
        values: Floats = column.cast(pa.float32(), safe=False).to_numpy()
        return values
    plain = column.to_pandas()
    bad = np.flatnonzero(pd.to_numeric(plain, errors="coerce").isna() & plain.notna())
    found = (
        f"row {bad[0]}: {plain.iloc[bad[0]]!r} is not a number"
        if len(bad)
        else f"{column.type} is no number type"
    )
    raise DataError(
        f"File {path}, column {name!r}, {found}. Store energy per step as numbers, missing as null."
    )
