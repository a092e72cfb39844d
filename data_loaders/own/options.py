"""The keys of the YAML file that says what is what in data of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SERIES = ("wide", "long", "folder")
MISSING = ("", "na", "n/a", "nan", "null", "none")


def between(low: float, high: float = float("inf")) -> dict[str, Any]:
    """Return the metadata of a field whose number lies between ``low`` and ``high``."""
    return {"bounds": (low, high)}


@dataclass(frozen=True)
class Csv:
    r"""How text tables are written.

    Args:
        delimiter: between columns: ``","``, ``";"``, ``"\t"``, ``"|"``.
        decimal: mark, ``"."`` or ``","``.
        thousands: mark within numbers, ``""`` for none.
        encoding: ``"utf-8"``, ``"latin-1"``, ``"utf-16"``; a byte order mark is left out.
        skip_rows: lines before the header.
        columns: names where the files have no header line.
        missing: texts that mean "no value" beside the usual ones (empty, NA, N/A, NaN, null, none).
    """

    delimiter: str = ","
    decimal: str = "."
    thousands: str = ""
    encoding: str = "utf-8"
    skip_rows: int = field(default=0, metadata=between(0))
    columns: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Time:
    """What stamps look like and what they mean.

    Args:
        column: of the stamps.
        format: as in ``strptime`` (``"%d.%m.%Y %H:%M"``); ``"auto"`` for ISO 8601, ``"unix"`` or ``"unix_ms"`` for
            numbers since 1970.
        timezone: ``"UTC"``, or of a local clock that changes, ``"Europe/Madrid"``.
        step: of the grid, ``"15min"``, ``"1h"``, ``"0.1s"``; ``"auto"`` for the step the readings have.
        stamp: whether a stamp is where its step begins or ends.
        new_run_after: a gap longer than this (``"10min"``) begins a new run, such as another trip of a car, and no
            window crosses it; none for one series with gaps.
        order: rows of a client whose stamps decrease are an error or sorted; files from new to old are turned round.
        ambiguous: stamps of the autumn hour that a local clock shows twice: told apart by the order of the rows, or all
            summer time, all winter time, or missing.
        nonexistent: stamps of the spring hour that it skips: an error, taken as not yet put forward, or missing.
    """

    column: str = "timestamp"
    format: str = "auto"
    timezone: str = "UTC"
    step: str = "auto"
    stamp: Literal["start", "end"] = "start"
    new_run_after: str | None = None
    order: Literal["error", "sort"] = "error"
    ambiguous: Literal["order", "summer", "winter", "missing"] = "order"
    nonexistent: Literal["error", "shift", "missing"] = "error"


@dataclass(frozen=True)
class Client:
    """Who the clients are, and which are kept.

    Args:
        column: holding their names (long, samples, wav).
        pattern: of a file's path, ``"building_{client}/{year}.csv"`` (folder); ``{client}`` is the name, any other
            ``{word}`` and ``*`` match what they may; none takes the file name without its ending.
        columns: that are clients (wide); none for all but the stamps.
        ignore: columns that are not (wide).
        min_days: drop clients with readings for fewer days.
        min_coverage: drop those with a smaller share of readings between their first and last.
        max_zero_share: drop those whose readings are zero in a larger share.
        min_samples: drop those with fewer samples (samples, wav).
    """

    column: str = "client"
    pattern: str | None = None
    columns: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    min_days: float = field(default=0, metadata=between(0))
    min_coverage: float = field(default=0, metadata=between(0, 1))
    max_zero_share: float = field(default=1, metadata=between(0, 1))
    min_samples: int = field(default=1, metadata=between(1))


@dataclass(frozen=True)
class Value:
    """What the readings are.

    Args:
        column: holding them (long, folder).
        unit: they have: power (W, kW, MW), energy of a step (Wh, kWh, MWh), or any other text.
        to: unit wanted; none keeps ``unit``. Power becomes the energy of a step of the grid.
        aggregate: several readings in a step of the grid; ``"auto"`` sums energies and takes the mean of all else.
        zero: ``"value"``; ``"missing"`` where no reading was stored as 0; ``"missing_before_start"`` where a client's
            column is 0 until it begins.
        negative: readings below 0 are an error, missing, or kept; ``"auto"`` is an error for power and energy.
    """

    column: str = "value"
    unit: str = "kWh"
    to: str | None = None
    aggregate: Literal["auto", "sum", "mean", "last"] = "auto"
    zero: Literal["value", "missing", "missing_before_start"] = "value"
    negative: Literal["auto", "error", "missing", "keep"] = "auto"


@dataclass(frozen=True)
class Attributes:
    """A table with one row a client: tariff, region, vehicle type.

    Args:
        file: CSV, written as the data are, or parquet; relative to the YAML file.
        key: column of the clients' names.
        delimiter: where it differs from that of the data.
        decimal: the same.
        encoding: the same.
    """

    file: str
    key: str = "client"
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class Labels:
    """Labelled samples: a table with one row a sample, or the manifest of clips.

    A column ``time.column``, where there is one, orders the samples.

    Args:
        features: number columns that are the input (samples); none for all columns not named elsewhere.
        categories: text columns that are input too, one 0/1 channel a value (samples).
        steps: the features are so many steps of equally many channels, step by step (samples).
        label: column of the class.
        targets: number columns to predict, instead of a label (samples).
        unit: of the targets.
        group: column; samples of a client that share its value stay on one side of a split.
        split: column of the official split, holding train, validation (or val, dev) and test.
        incomplete: samples without a feature, label or client are an error, or dropped and counted.
    """

    features: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    steps: int = field(default=1, metadata=between(1))
    label: str | None = None
    targets: tuple[str, ...] = ()
    unit: str = ""
    group: str | None = None
    split: str | None = None
    incomplete: Literal["error", "drop"] = "error"


@dataclass(frozen=True)
class Audio:
    """What clips become; all but ``path`` as in the voice sources.

    Args:
        path: column of the manifest with the clip's file, relative to the manifest.
        rate: samples a second; recordings with more are resampled, those with fewer refused.
        seconds: length of a clip; shorter recordings get zeros at their end, longer ones keep their middle.
        features: log-mel spectrograms, or the wave itself.
        mels: bands of the spectrogram.
        cmvn: ``"clip"`` takes each clip's channel and level away.
        level: ``"peak"`` scales every recording to full scale.
        stereo: refuse several channels, or take their mean.
        min_peak: recordings with a lower peak, of full scale, are near silent and left out.
        on_bad: files that cannot be read are an error, or left out and named.
    """

    path: str = "path"
    rate: int = field(default=8000, metadata=between(1000, 192_000))
    seconds: float = field(default=1.0, metadata=between(0.01, 60))
    features: Literal["log_mel", "wave"] = "log_mel"
    mels: int = field(default=40, metadata=between(1, 512))
    cmvn: Literal["none", "clip"] = "none"
    level: Literal["none", "peak"] = "none"
    stereo: Literal["error", "mean"] = "error"
    min_peak: float = field(default=0.001, metadata=between(0, 1))
    on_bad: Literal["error", "skip"] = "error"


@dataclass(frozen=True)
class OwnSpec:
    """A population of one's own; the fields are the keys of the YAML file.

    Args:
        layout: ``wide`` (one column a client), ``long`` (a row holds stamp, client, value), ``folder`` (one file a
            client), ``samples`` (a row is a labelled sample), ``wav`` (a manifest of clips).
        files: patterns relative to the YAML file, ``"meters_*.csv"``, ``"**/*.parquet"``.
        name: of the population in tables and reports.
        format: ``"auto"`` goes by the ending.
        csv: how text tables are written.
        time: what stamps look like and mean.
        client: who the clients are, and which are kept.
        value: what the readings are.
        covariates: further number columns, channels beside the target (long, folder).
        known: those of the covariates that are known in advance.
        duplicates: readings that share client and stamp and differ; equal ones always collapse.
        attributes: a table with one row a client.
        labels: what a sample's row holds (samples, wav).
        audio: what clips become (wav).
    """

    layout: Literal["wide", "long", "folder", "samples", "wav"]
    files: tuple[str, ...]
    name: str = "own"
    format: Literal["auto", "csv", "parquet"] = "auto"
    csv: Csv = Csv()
    time: Time = Time()
    client: Client = Client()
    value: Value = Value()
    covariates: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    duplicates: Literal["error", "first", "mean", "sum"] = "error"
    attributes: Attributes | None = None
    labels: Labels = Labels()
    audio: Audio = Audio()
