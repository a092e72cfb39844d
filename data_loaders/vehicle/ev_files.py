"""The sessions' files: the official CSV as published (and not as a spreadsheet saved it), and prepared parquet.

Official: ``;`` between columns, a decimal comma, CRLF, local stamps ``21.12.2018 10:20``, ``NA`` for a missing plug-out.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import DataError
from .sessions import COLUMNS, HOUR

PREPARED = "sessions.parquet"
OFFICIAL = "Dataset 1_EV charging reports.csv"
HEADER = {
    "session_ID": "session_id",
    "Garage_ID": "garage",
    "User_ID": "client",
    "User_type": "user_type",
    "Start_plugin": "plugin_local",
    "End_plugout": "plugout_local",
    "El_kWh": "energy_kwh",
    "Duration_hours": "duration_h",
}
AGAIN = f"Download {OFFICIAL!r} again (doi 10.17632/jbks2rcwyj.1) and do not open it in a spreadsheet."
_NUMBER = r"-?\d+(?:,\d+)?(?:[eE][-+]?\d+)?"
_TOLERANCE_H = 0.1  # between Duration_hours and the stamps, which are whole minutes
_ODD_SHARE = 0.05  # of sessions; 0.3 % of the published ones differ by more, around clock changes
_MAX_KW = 50.0  # no home charger gives more


def read_sessions(root: Path) -> pd.DataFrame:
    """Return one row a session with ``sessions.COLUMNS``, as published, sorted by plug-in.

    Args:
        root: the CSV, or a folder with it or with the prepared ``sessions.parquet``.

    Raises:
        DataError: no such file, a changed header, a value that is none, or a copy whose decimals are destroyed.
    """
    path = _find(root)
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    _verify(table, path)
    return table.sort_values(["plugin_local", "session_id"], kind="stable").reset_index(drop=True)


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    if (root / PREPARED).is_file():
        return root / PREPARED
    found = sorted(root.rglob("*.csv"))
    official = [path for path in found if path.name == OFFICIAL] or [
        path for path in found if _first_line(path).startswith("session_ID")
    ]
    if not official:
        raise DataError(
            f"No sessions in {root}: looked for {PREPARED}, {OFFICIAL!r}, or a CSV whose header begins with session_ID "
            f"among {len(found)} .csv files. {AGAIN}"
        )
    return official[0]


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        return ""


def _read_parquet(path: Path) -> pd.DataFrame:
    table: pd.DataFrame = pd.read_parquet(path)
    lacking = [name for name in COLUMNS if name not in table.columns]
    if lacking:
        raise DataError(f"File {path} lacks the columns {', '.join(lacking)}. Prepare it again.")
    return table[list(COLUMNS)]


def _read_csv(path: Path) -> pd.DataFrame:
    header = _first_line(path)
    if not header:
        raise DataError(f"File {path} is empty or no text. {AGAIN}")
    names = header.split(";")
    lacking = [name for name in HEADER if name not in names]
    if lacking:
        why = (
            "the columns are not parted by ';': a spreadsheet saved it anew"
            if len(names) == 1
            else f"its header lacks {', '.join(lacking)}"
        )
        raise DataError(f"File {path}, line 1: {why}. {AGAIN}")
    text = pd.read_csv(path, sep=";", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    text = text[list(HEADER)].rename(columns=HEADER).apply(lambda column: column.str.strip())
    table: pd.DataFrame = text[["client", "garage", "user_type"]].astype(str)
    for name in ("session_id", "energy_kwh", "duration_h"):
        table[name] = _numbers(text[name], path, name)
    for name in ("plugin_local", "plugout_local"):
        table[name] = _stamps(text[name], path, name)
    for name in ("session_id", "energy_kwh", "plugin_local", "client"):
        _refuse(table[name].isna() | (table[name] == ""), text[name], path, name, "is missing")
    if len(table) > 20 and not text["energy_kwh"].str.contains(",").any():
        raise DataError(
            f"File {path}, column 'El_kWh': no decimal comma in {len(table)} rows, decimals are destroyed. {AGAIN}"
        )
    table["session_id"] = table["session_id"].astype(np.int64)
    return table


def _numbers(text: "pd.Series[str]", path: Path, name: str) -> "pd.Series[float]":
    empty = text.isin(["", "NA"])
    why = "is no number with a decimal comma: the file was saved anew or is broken"
    _refuse(~(text.str.fullmatch(_NUMBER) | empty), text, path, name, why)
    return text.mask(empty, "nan").str.replace(",", ".").astype(np.float64)


def _stamps(text: "pd.Series[str]", path: Path, name: str) -> "pd.Series[pd.Timestamp]":
    empty = text.isin(["", "NA"])
    stamps = pd.to_datetime(text.mask(empty), format="%d.%m.%Y %H:%M", errors="coerce")
    _refuse(stamps.isna() & ~empty, text, path, name, "is no stamp like 21.12.2018 10:20")
    return stamps


def _refuse(bad: "pd.Series[bool]", values: "pd.Series[str]", path: Path, name: str, why: str) -> None:
    """Raise for the first bad row; its line counts the header."""
    rows = np.flatnonzero(bad.to_numpy())
    if len(rows):
        theirs = {ours: theirs for theirs, ours in HEADER.items()}[name]
        value = str(values.iloc[int(rows[0])])
        raise DataError(f"File {path}, line {rows[0] + 2}, column {theirs!r}: {value!r} {why}. {AGAIN}")


def _verify(table: pd.DataFrame, path: Path) -> None:
    """Raise where sessions contradict themselves: what destroyed decimals, swapped stamps or broken copies look like."""
    where = f"File {path}"
    twice = table["session_id"][table["session_id"].duplicated()]
    if len(twice):
        raise DataError(
            f"{where}: session_ID {twice.iloc[0]} stands on two rows. Remove one of them. {AGAIN}"
        )
    energy, hours = (table[name].to_numpy(np.float64) for name in ("energy_kwh", "duration_h"))
    wrong = np.flatnonzero((energy < 0) | ~np.isfinite(energy) | np.isinf(hours))
    if len(wrong):
        raise DataError(f"{where}, {_said(table, wrong[0])}: energy must be finite and not negative. {AGAIN}")
    between = (table["plugout_local"] - table["plugin_local"]).dt.total_seconds().to_numpy(np.float64) / HOUR
    back = np.flatnonzero(between < -1)  # an hour back is the clock change of October
    if len(back):
        raise DataError(
            f"{where}, {_said(table, back[0])}: it ends before it begins. Mend its stamps. {AGAIN}"
        )
    checks = {
        "Duration_hours differs from plug-out minus plug-in": np.abs(between - hours) > _TOLERANCE_H,
        f"El_kWh over Duration_hours is more than {_MAX_KW:g} kW": energy > _MAX_KW * (hours + _TOLERANCE_H),
    }
    for what, odd in checks.items():
        if odd.sum() > _ODD_SHARE * max(len(table), 20):
            raise DataError(
                f"{where}: {what} in {int(odd.sum())} of {len(table)} sessions, first {_said(table, odd.argmax())}. "
                f"The decimals are destroyed, as in copies that a spreadsheet saved. {AGAIN}"
            )


def _said(table: pd.DataFrame, row: int) -> str:
    it = table.iloc[int(row)]
    return (
        f"session {it['session_id']} of user {it['client']!r} ({it['plugin_local']} to {it['plugout_local']}, "
        f"{it['energy_kwh']} kWh, {it['duration_h']} h)"
    )
