"""The table with one row a client."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from ..errors import DataError
from .files import Table, batches, lacking, open_table
from .findings import Findings
from .options import MISSING, OwnSpec
from .table_samples import texts_of


def read_attributes(spec: OwnSpec, folder: Path, findings: Findings) -> pd.DataFrame:
    """Return the attributes, indexed by client; columns of numbers are numbers, all else is text.

    A client with two rows that differ, a file that cannot be read or has no key column is a problem; the table is
    empty then, and where the spec names none.
    """
    said = spec.attributes
    if said is None:
        return pd.DataFrame()
    path = folder / Path(said.file).expanduser()
    options = replace(
        spec.csv,
        delimiter=said.delimiter or spec.csv.delimiter,
        decimal=said.decimal or spec.csv.decimal,
        encoding=said.encoding or spec.csv.encoding,
        skip_rows=0,
        columns=(),
    )
    parquet = path.suffix.lower() in (".parquet", ".pq")
    try:
        opened = open_table(path, said.file, None if parquet else options)
    except DataError as error:
        findings.error(("attributes",), error)
        return pd.DataFrame()
    if lacking(opened, [said.key], findings):
        return pd.DataFrame()
    before = len(findings.problems)
    table = _parquet(path, findings) if parquet else _read(opened, options.decimal, findings)
    if len(findings.problems) > before:
        return pd.DataFrame()
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    if said.key not in table.columns:
        table = table.reset_index()
    table[said.key] = table[said.key].astype("str").str.strip()
    table = table.drop_duplicates()
    twice = table[said.key][table[said.key].duplicated()].unique()
    if len(twice):
        findings.problem(
            ("attributes", "twice"),
            f"File {said.file}: client {twice[0]!r} has more than one row ({len(twice)} such clients). Keep one each.",
        )
    return table.drop_duplicates(said.key).set_index(said.key)


def _parquet(path: Path, findings: Findings) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        findings.problem(("attributes",), f"File {path} cannot be read: {error!s:.90}. Write it again.")
        return pd.DataFrame()


def _read(table: Table, decimal: str, findings: Findings) -> pd.DataFrame:
    columns = [name for name in table.columns if name]
    parts = [
        pd.DataFrame({name: texts_of(batch.column(name)) for name in columns})
        for batch in batches(table, columns, columns, findings)
    ]
    text = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns, dtype=object)
    return pd.DataFrame({name: _typed(text[name].astype("str"), decimal) for name in columns})


def _typed(column: pd.Series, decimal: str) -> pd.Series:
    """Return a column as numbers where all of it is; names with leading zeros stay text."""
    known = column.where(~column.str.lower().isin(MISSING))
    if known.dropna().str.match(r"^0\d").any():
        return known
    plain = known.str.replace(decimal, ".", regex=False) if decimal != "." else known
    typed = pd.to_numeric(plain, errors="coerce")
    return typed if typed.notna().equals(known.notna()) else known
