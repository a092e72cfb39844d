"""Prepared recordings: one FLAC a speaker, all takes end to end, and a manifest that says where each lies."""

import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pandas as pd

from ..errors import DataError, raise_if_any
from .audio import Sound, read_sound
from .options import ClipOptions
from .population import first_speakers
from .takes import Take

MANIFEST = "manifest.csv.gz"
_COLUMNS = ("client", "label", "utterance", "start_sample", "n_samples")
_NUMBERS = _COLUMNS[2:]


def read_manifest(root: Path) -> pd.DataFrame:
    """Return one row a take, ordered by client and place: client, label (text), utterance, start_sample, n_samples.

    Raises:
        DataError: unreadable, columns missing, values that are no counts, or a take listed twice.
    """
    path = root / MANIFEST
    table = read_table(path)
    lacking = [name for name in _COLUMNS if name not in table]
    if lacking:
        raise DataError(
            f"{path} lacks the columns {', '.join(lacking)}; it has {', '.join(map(str, table.columns))}. Check that "
            "it is the manifest of prepared recordings."
        )
    numbers = table[list(_NUMBERS)].apply(pd.to_numeric, errors="coerce")
    bad = numbers.isna() | (numbers < 0) | (numbers % 1 != 0)
    problems = [
        f"{path}, row {int(bad[name].argmax()) + 2}: {name} must be a count, got "
        f"{table[name].iloc[int(bad[name].argmax())]!r}."
        for name in _NUMBERS
        if bad[name].any()
    ]
    raise_if_any(problems)
    table = table.assign(**{name: numbers[name].astype("int64") for name in _NUMBERS})
    twice = table.duplicated(["client", "label", "utterance"])
    if twice.any():
        row = table.loc[twice].iloc[0]
        raise DataError(
            f"{path} lists utterance {row['utterance']} of {row['label']!r} by client {row['client']!r} twice. Delete "
            "one of the rows."
        )
    return table.sort_values(["client", "start_sample"], kind="stable", ignore_index=True)


def read_table(path: Path) -> pd.DataFrame:
    """Return a CSV table as text, names stripped of blanks.

    Raises:
        DataError: it cannot be read.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"Cannot read the table {path}: {error}. Get the file again, and check that you may read it."
        ) from error
    return table.rename(columns=str.strip)


def read_speakers(root: Path) -> pd.DataFrame:
    """Return ``speakers.csv`` indexed by client, numbers as numbers; no rows where there is none.

    Raises:
        DataError: it cannot be read, has no column ``client``, or names one twice.
    """
    path = root / "speakers.csv"
    if not path.is_file():
        return pd.DataFrame(index=pd.Index([], name="client", dtype=object))
    table = read_table(path)
    if "client" not in table:
        raise DataError(f"{path} has no column 'client'; it has {', '.join(table.columns)}.")
    twice = table["client"][table["client"].duplicated()]
    if len(twice):
        raise DataError(f"{path} lists client {twice.iloc[0]!r} twice. Delete one of the rows.")
    return table.set_index("client").apply(_numbers)


def _numbers(column: "pd.Series[str]") -> pd.Series:
    """Return a column as numbers if all its values are, else as text, nothing said as missing."""
    said = column.where(column.str.strip() != "")
    numbers = pd.to_numeric(said, errors="coerce")
    return numbers if numbers.notna().equals(said.notna()) else said


def prepared_takes(
    root: Path,
    options: ClipOptions,
    labels: Collection[str],
    official: Callable[[int], int] = lambda utterance: -1,
) -> tuple[Counter[str], Iterator[Take]]:
    """Return how many takes each speaker has, and the takes themselves, one FLAC after the other.

    Args:
        root: holds the manifest and ``audio/<client>.flac``.
        options: ``clients`` and ``min_clips`` say whose files to read.
        labels: takes with others are passed over.
        official: part of the source's own split by the utterance's number.

    Raises:
        DataError: a file is missing or cannot be read, or is shorter than the manifest says.
    """
    table = read_manifest(root)
    table = table[table["label"].isin(labels)]
    listed = Counter(table["client"])
    takes = (
        take
        for client in first_speakers(listed, options)
        for take in _of_client(root, client, table[table["client"] == client], official)
    )
    return listed, takes


def _of_client(
    root: Path, client: str, table: pd.DataFrame, official: Callable[[int], int]
) -> Iterator[Take]:
    path = root / "audio" / f"{client}.flac"
    sound = read_sound(path)
    columns = (table[name].tolist() for name in ("label", "utterance", "start_sample", "n_samples"))
    for label, number, start, samples in zip(*columns, strict=True):
        where = f"{path}, utterance {number} of {label!r}"
        yield Take(client, label, number, where, _part(sound, start, samples, where), official(number))


def _part(sound: Sound, start: int, samples: int, where: str) -> Callable[[], Sound]:
    def read() -> Sound:
        if start + samples > len(sound.wave) or samples == 0:
            raise DataError(
                f"{where}: the manifest says samples {start} to {start + samples}, the file has {len(sound.wave)}. "
                "Get both again."
            )
        return Sound(sound.wave[start : start + samples], sound.rate)

    return read
