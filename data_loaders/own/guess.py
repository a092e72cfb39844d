"""A first YAML file for a table that nobody has described yet."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from ..grid import detect_step
from .cast import fitting_format, parse_stamps
from .options import Client, Csv, Labels, OwnSpec, Time, Value
from .schema import plain
from .sniff import Sample, is_missing, is_number, sniff
from .spec import write_spec

_SOUND = re.compile(r"\.(wav|flac|ogg)$", re.IGNORECASE)
_WHO = re.compile(
    r"(^|[^a-z])(id|client|meter|user|house|hold|customer|building|vehicle|car|speaker|lclid|mac|site|station|"
    r"z(ä|ae)hler|kunde|cups|pod)|id$",
    re.IGNORECASE,
)
_WHEN = re.compile(r"time|date|stamp|tstp|zeit|datum|fecha|hora|data", re.IGNORECASE)
_WHAT = re.compile(
    r"kwh|\bwh|kw\b|mwh|power|load|energy|value|consum|wert|verbrauch|energ|potencia|demand|speed",
    re.IGNORECASE,
)
_LABEL = re.compile(r"label|class|keyword|word|digit|target", re.IGNORECASE)
_UNIT = re.compile(  # a bare W must stand in brackets: MT_W is no unit
    r"(?<![a-z])(kwh|mwh|wh|kw|mw)(?![a-z])|[\[(]\s*(w)\s*[\])]", re.IGNORECASE
)


def guess(path: str | Path) -> dict[str, Any]:
    """Return the keys of a YAML file for an unknown table, or a folder of them; what it says is to be checked.

    Args:
        path: a CSV or parquet file, or a folder of such files, one a client.

    Raises:
        DataError: nothing to read.
    """
    found: dict[str, Any] = plain(guess_spec(Path(path).expanduser()))
    return found


def starting_yaml(path: str | Path, folder: Path | None = None) -> str:
    """Return :func:`guess` as YAML with a head that says what a guess cannot know.

    Args:
        path: as of :func:`guess`.
        folder: where the YAML will lie, so that it names the files from there; None for beside ``path``.
    """
    file = Path(path).expanduser()
    spec = guess_spec(file)
    if folder is not None:
        way = PurePath(os.path.relpath(file.resolve().parent, folder.resolve()))
        spec = replace(spec, files=tuple((way / name).as_posix() for name in spec.files))
    unknown = {
        "samples": "labels: what is to be predicted, and no feature that is only known afterwards",
        "wav": "client.column and labels.label",
    }.get(spec.layout, "time.timezone, time.stamp, value.unit and what zero means")
    head = f"# Guessed from {Path(path).name}. Check every line, above all {unknown}."
    return f"{head}\n# All keys: docs/own_data.md\n{write_spec(spec)}"


def guess_spec(path: Path) -> OwnSpec:
    """Return a spec for an unknown table; see :func:`guess`."""
    if path.is_dir():
        return _of_folder(path)
    if path.suffix.lower() in (".parquet", ".pq"):
        return _of(path.name, _parquet(path))
    return _of(path.name, sniff(path))


def _of_folder(folder: Path) -> OwnSpec:
    files = sorted(
        p for p in folder.iterdir() if p.suffix.lower() in (".csv", ".txt", ".parquet") and p.is_file()
    )
    if not files:
        raise DataError(
            f"Folder {folder} holds no .csv, .txt or .parquet file. Name a file, or another folder."
        )
    first = guess_spec(files[0])
    # a column of numbers beside the stamps is one client's file, whatever it looked like by itself
    layout = "folder" if first.layout == "wide" else first.layout
    columns = first.client.columns
    value = replace(first.value, column=columns[0]) if layout == "folder" and columns else first.value
    client = Client() if layout == "folder" else first.client
    pattern = f"{folder.name}/*{files[0].suffix}"
    return replace(first, layout=layout, files=(pattern,), client=client, value=value)


def _parquet(path: Path) -> Sample:
    try:
        file = pq.ParquetFile(path)
        batch = next(file.iter_batches(batch_size=2000), None)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"File {path} is no parquet file that can be read: {error!s:.90}.") from error
    names = tuple(name for name in file.schema_arrow.names if name != "__index_level_0__")
    columns = {name: batch.column(name).to_pylist() if batch else [] for name in names}
    cells = {name: ["" if item is None else str(item) for item in items] for name, items in columns.items()}
    return Sample(Csv(), names, cells)


def _of(file: str, sample: Sample) -> OwnSpec:
    cells, csv = sample.cells, sample.csv
    stamp, form = _stamp_column(sample)
    figures = [name for name in sample.columns if name != stamp and _are_numbers(cells[name], csv.decimal)]
    texts = [name for name in sample.columns if name not in (stamp, *figures)]
    numeric = [name for name in figures if not _counts_rows(name, cells[name])]
    sound = next((name for name in texts if _SOUND.search(next(filter(None, cells[name]), ""))), None)
    if sound is not None:
        return _of_sound(file, sample, sound, [name for name in texts if name != sound])
    who = _client_column(sample, [*texts, *numeric], stamp)
    time = Time(column=stamp or "timestamp", format=form)
    if stamp is None or (who is not None and not _regular(sample, stamp, form, who)):
        return _of_samples(file, csv, who, time, texts, [name for name in numeric if name != who])
    values = [name for name in numeric if name != who]
    if who is None and len(values) == 1:
        value = Value(values[0], unit=_unit([values[0], file]))
        return OwnSpec("folder", (file,), csv=csv, time=time, value=value)
    if who is None:
        ignore = tuple(texts)
        value = Value(unit=_unit([*values[:1], file]))
        return OwnSpec("wide", (file,), csv=csv, time=time, client=Client(ignore=ignore), value=value)
    column = next((name for name in values if _WHAT.search(name)), values[0] if values else "value")
    return OwnSpec(
        "long",
        (file,),
        csv=csv,
        time=time,
        client=Client(column=who),
        value=Value(column, unit=_unit([column, file])),
    )


def _of_sound(file: str, sample: Sample, path: str, others: Sequence[str]) -> OwnSpec:
    from .options import Audio

    label = next((name for name in others if _LABEL.search(name)), None)
    names = [name for name in [*others, *sample.columns] if name not in (path, label)]
    who = next((name for name in names if _WHO.search(name)), names[0] if names else "client")
    label = label or next((name for name in names if name != who), "label")
    return OwnSpec(
        "wav",
        (file,),
        csv=sample.csv,
        client=Client(column=who),
        labels=Labels(label=label),
        audio=Audio(path),
    )


def _of_samples(
    file: str, csv: Csv, who: str | None, time: Time, texts: Sequence[str], numeric: Sequence[str]
) -> OwnSpec:
    """Return a spec of labelled samples: the label by its name, else the first number that looks like a quantity."""
    label = next((name for name in texts if _LABEL.search(name) and name != who), None)
    target = next((name for name in numeric if _WHAT.search(name)), numeric[-1] if numeric else "target")
    features = tuple(name for name in numeric if label or name != target)
    labels = Labels(
        features=features,
        label=label,
        targets=() if label else (target,),
        unit="" if label else _unit([target], ""),
        incomplete="drop",
    )
    return OwnSpec(
        "samples", (file,), csv=csv, time=time, client=Client(column=who or "client"), labels=labels
    )


def _stamp_column(sample: Sample) -> tuple[str | None, str]:
    """Return the column of the stamps and their form; those whose name says so first."""
    names = sorted(sample.columns, key=lambda name: not _WHEN.search(name))
    for name in names:
        texts = list(dict.fromkeys(text for text in sample.cells[name] if not is_missing(text)))
        if not texts:
            continue
        if all(is_number(text, sample.csv.decimal) for text in texts):
            whole = float(texts[0].replace(",", "."))
            if _WHEN.search(name) and 1e8 < whole < 1e13:
                return name, "unix_ms" if whole > 1e11 else "unix"
            continue
        form = fitting_format(texts[:5000])
        if form is not None:
            return name, form
    return None, "auto"


def _are_numbers(cells: Sequence[str], decimal: str) -> bool:
    observed = [cell for cell in cells if not is_missing(cell)]
    good = sum(is_number(cell, decimal) or cell.lower().lstrip("-") == "inf" for cell in observed)
    return bool(observed) and good > 0.9 * len(observed)


def _counts_rows(name: str, cells: Sequence[str]) -> bool:
    """Return whether a column of whole numbers merely names the rows."""
    return bool(re.search(r"id$|^(nr|no|index|row)$", name, re.IGNORECASE)) and len(set(cells)) == len(cells)


def _client_column(sample: Sample, names: Sequence[str], stamp: str | None) -> str | None:
    """Return the column of the clients' names: fewer different values than rows, and a name that fits if several."""
    wanted = [name for name in names if _may_be_client(sample.cells[name])]
    named = [name for name in wanted if _WHO.search(name)]
    if named:
        # the finest of those that are named so: a user rather than the garage
        return max((len(set(sample.cells[name])), -at, name) for at, name in enumerate(named))[2]
    texts = [name for name in wanted if not _are_numbers(sample.cells[name], sample.csv.decimal)]
    repeated = stamp is not None and len(set(sample.cells[stamp])) < len(sample.cells[stamp])
    alone = len(texts) == 1 and len(names) == 2  # stamp, text, number: one client told in every row
    return texts[0] if texts and (repeated or stamp is None or alone) else None


def _may_be_client(cells: Sequence[str]) -> bool:
    observed = [cell for cell in cells if not is_missing(cell)]
    fractions = any(re.fullmatch(r"[-+]?\d*[.,]\d+", cell) for cell in observed)
    return bool(observed) and not fractions and len(set(observed)) <= max(1, len(cells) // 2)


def _regular(sample: Sample, stamp: str, form: str, who: str) -> bool:
    """Return whether the stamps of the client with most rows have a step."""
    by_client: dict[str, list[str]] = {}
    for client, text in zip(sample.cells[who], sample.cells[stamp], strict=True):
        by_client.setdefault(client, []).append(text)
    longest = max(by_client.values(), key=len)
    texts = list(dict.fromkeys(longest))
    if form.startswith("unix"):
        micros = (
            np.array([float(text) for text in texts if text]) * (1e3 if form == "unix_ms" else 1e6)
        ).astype(np.int64)
    else:
        micros = parse_stamps(texts, form)[0]
    try:
        detect_step(micros.view("datetime64[us]"))
    except DataError:
        return False
    return True


def _unit(names: Sequence[str], default: str = "kWh") -> str:
    """Return the unit that a name holds."""
    known: Mapping[str, str] = {"kwh": "kWh", "kw": "kW", "mwh": "MWh", "mw": "MW", "wh": "Wh", "w": "W"}
    for name in names:
        match = _UNIT.search(name.replace("_", " "))
        if match:
            return known[(match[1] or match[2]).lower()]
    return default
