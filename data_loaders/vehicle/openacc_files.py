"""OpenACC on disk: the campaign's part files, or the prepared table of all runs.

A part file has five header lines (date, order of the vehicles, how many, whether ACC was on, the distance setting), then
columns numbered by position in the platoon, the leader first: ``Speed2`` is the second car's, ``IVS2`` the gap between the
second car and the third. A car without GNSS has empty cells, or no columns at all. The clock is in seconds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import DataError
from .traces import Array

PREPARED = "trajectories_10hz.parquet"
RATE = 10  # Hz
_HEADS = ("Date", "Vehicle_order", "Number_of_vehicles", "ACC", "Distance_setting")
_TABLES = ("clients.csv", "runs.csv")  # beside the prepared table
_COLUMNS = ("run", "vehicle", "position", "time_s", "speed_mps", "gap_m", "leader_speed_mps", "alt_m")
_FASTEST = 70.0  # m/s; a platoon faster than this is measured in km/h
_ODD_SHARE = 0.01  # of a car's speeds, GNSS being what it is
_WHERE = "Download it again from the JRC (OpenACC, JRCDBT0001)."


@dataclass(frozen=True, eq=False)
class Drive:
    """One car in one run at 10 Hz; NaN = missing.

    Args:
        car: its name in the campaign.
        run: the part file's.
        position: in the platoon, 1 leads.
        start: seconds since 1970 of the first step; the day is the run's, the time its clock's, which is the file's own.
        speed: ``(steps,)`` m/s.
        gap: ``(steps,)`` m to the car ahead, bumper to bumper.
        leader_speed: ``(steps,)`` m/s of the car ahead.
        altitude: ``(steps,)`` m.
    """

    car: str
    run: str
    position: int
    start: float
    speed: Array
    gap: Array
    leader_speed: Array
    altitude: Array


def read_drives(root: Path) -> list[Drive]:
    """Return all cars' runs, in the order of the part files' numbers.

    Args:
        root: one part file, a folder of them, or the folder of the prepared table.

    Raises:
        DataError: nothing to read, a header that changed, a value that is no number, or a clock that goes back.
    """
    table = root / PREPARED
    if table.is_file():
        return _in_metres(_read_table(table), root)
    files = [root] if root.is_file() else [path for path in root.rglob("*.csv") if path.name not in _TABLES]
    if not files:
        raise DataError(f"No runs in {root}: looked for {PREPARED} and for part files (*.csv). {_WHERE}")
    names = {path: path.stem if root.is_file() else _run_name(path, root) for path in files}
    drives = [
        drive
        for path in sorted(files, key=lambda p: _natural(names[p]))
        for drive in _part(path, names[path])
    ]
    return _in_metres(drives, root)


def _in_metres(drives: list[Drive], root: Path) -> list[Drive]:
    """Return the drives if their speeds can be m/s."""
    for drive in drives:
        odd = (drive.speed < 0) | (drive.speed > _FASTEST)
        if odd.sum() > _ODD_SHARE * len(odd):
            raise DataError(
                f"{root}, run {drive.run!r}, car {drive.car!r}: {int(odd.sum())} of {len(odd)} speeds lie outside 0 to "
                f"{_FASTEST:g} m/s, first {drive.speed[odd.argmax()]:g}. Are they km/h? Divide them by 3.6."
            )
    return drives


def _run_name(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that puts part 2 before part 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _part(path: Path, run: str) -> Iterator[Drive]:
    day, order = _head(path)
    try:
        text = pd.read_csv(path, skiprows=len(_HEADS), dtype=str, index_col=False, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"File {path} is broken: {str(error).strip()}. {_WHERE}") from error
    text = text.loc[:, [name for name in text.columns if not name.startswith("Unnamed")]]
    table = text.apply(lambda column: _numbers(column, path))
    positions = sorted(int(name[5:]) for name in table.columns if re.fullmatch(r"Speed\d+", name))
    if not positions or "Time" not in table.columns:
        raise DataError(
            f"File {path}, line {len(_HEADS) + 1}: no columns Time and Speed1, Speed2, ... {_WHERE}"
        )
    if positions[-1] > len(order):
        raise DataError(
            f"File {path}: column Speed{positions[-1]} but only {len(order)} vehicles in line 2. {_WHERE}"
        )
    steps = _steps(table["Time"].to_numpy(np.float64), path)
    start = day + steps[0] / RATE
    grid = {name: _on_grid(table[name].to_numpy(np.float64), steps) for name in table.columns}
    nothing = np.full(int(steps[-1] - steps[0]) + 1, np.nan)
    for position in positions:
        yield Drive(
            car=order[position - 1],
            run=run,
            position=position,
            start=start,
            speed=grid[f"Speed{position}"],
            gap=grid.get(f"IVS{position - 1}", nothing),
            leader_speed=grid.get(f"Speed{position - 1}", nothing),
            altitude=grid.get(f"Alt{position}", nothing),
        )


def _head(path: Path) -> tuple[float, list[str]]:
    """Return the day, seconds since 1970, and the vehicles in order."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = [file.readline().strip() for _ in _HEADS]
    except UnicodeDecodeError as error:
        raise DataError(f"File {path} is no text. {_WHERE}") from error
    cells = [[cell.strip() for cell in line.split(",") if cell.strip()] for line in lines]
    for number, (name, found) in enumerate(zip(_HEADS, cells, strict=True), 1):
        if not found or found[0] != name:
            raise DataError(
                f"File {path}, line {number}: expected {name!r} and values after commas, found {lines[number - 1]!r}. "
                f"{_WHERE}"
            )
    order = cells[1][1:]
    twice = [car for car in dict.fromkeys(order) if order.count(car) > 1]
    if twice:
        raise DataError(
            f"File {path}, line 2: vehicle {twice[0]!r} stands there twice. Give each its own name."
        )
    try:
        date, month, year = (int(cell) for cell in cells[0][1:4])
        day = pd.Timestamp(year=year, month=month, day=date).timestamp()
        listed = int(float(cells[2][1]))
    except (ValueError, IndexError) as error:
        raise DataError(
            f"File {path}, lines 1 to 3: no day and number of vehicles ({error}). {_WHERE}"
        ) from error
    if listed != len(order):
        raise DataError(f"File {path}, line 3: {listed} vehicles, but line 2 names {len(order)}. {_WHERE}")
    return day, order


def _numbers(column: "pd.Series[str]", path: Path) -> "pd.Series[float]":
    text = column.str.strip()
    numbers = pd.to_numeric(text.mask(text == ""), errors="coerce").astype(np.float64)
    bad = np.flatnonzero((numbers.isna() & (text != "")).to_numpy() | np.isinf(numbers.to_numpy()))
    if len(bad):
        line = int(bad[0]) + len(_HEADS) + 2
        raise DataError(
            f"File {path}, line {line}, column {column.name!r}: {text.iloc[int(bad[0])]!r} is no finite number. {_WHERE}"
        )
    return numbers


def _steps(time: Array, path: Path) -> np.ndarray:
    """Return each row's step at 10 Hz, counted from the clock's zero, strictly ascending."""
    if not len(time):
        raise DataError(f"File {path} has no rows below its header. {_WHERE}")
    missing = np.flatnonzero(np.isnan(time))
    if len(missing):
        raise DataError(f"File {path}, line {missing[0] + len(_HEADS) + 2}: no Time. {_WHERE}")
    steps = np.round(time * RATE).astype(np.int64)
    back = np.flatnonzero(np.diff(steps) < 1)
    if len(back):
        line = int(back[0]) + len(_HEADS) + 3
        raise DataError(
            f"File {path}, line {line}: the clock goes from {time[back[0]]:g} s to {time[back[0] + 1]:g} s. "
            "Sort the rows, remove duplicates, or split the run there."
        )
    return steps


def _on_grid(values: Array, steps: np.ndarray) -> Array:
    grid = np.full(int(steps[-1] - steps[0]) + 1, np.nan)
    grid[steps - steps[0]] = values
    return grid


def _read_table(path: Path) -> list[Drive]:
    table = pd.read_parquet(path)
    lacking = [name for name in _COLUMNS if name not in table.columns]
    if lacking:
        raise DataError(f"File {path} lacks the columns {', '.join(lacking)}. Prepare it again.")
    days = _days(path.with_name("runs.csv"))
    drives = list[Drive]()
    for (run, car), rows in table.groupby(["run", "vehicle"], observed=True, sort=False):
        where = path.with_name(f"{path.name} (run {run}, vehicle {car})")
        steps = _steps(rows["time_s"].to_numpy(np.float64), where)
        speed, gap, leader, altitude = (
            _on_grid(rows[name].to_numpy(np.float64), steps)
            for name in ("speed_mps", "gap_m", "leader_speed_mps", "alt_m")
        )
        position, start = int(rows["position"].iloc[0]), days.get(str(run), 0.0) + steps[0] / RATE
        drives.append(Drive(str(car), str(run), position, start, speed, gap, leader, altitude))
    return sorted(drives, key=lambda drive: (_natural(drive.run), drive.position))


def _days(path: Path) -> dict[str, float]:
    """Return each run's day, seconds since 1970, as far as ``runs.csv`` says."""
    if not path.is_file():
        return {}
    runs = pd.read_csv(path)
    return {
        str(run): pd.Timestamp(str(day)).timestamp()
        for run, day in zip(runs["run"], runs["date"], strict=True)
    }
