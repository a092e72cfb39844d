"""A table of labelled samples as a population: one row a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from ..clocks import to_utc
from ..errors import DataError
from ..samples import OFFICIAL, ClientSamples
from ..series import Dropped, offsets_of
from .cast import NAT, Numbers, Place, numbers, stamps
from .files import Table, batches, lacking
from .findings import Findings
from .options import MISSING, OwnSpec, Time

_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLITS = {"": -1} | {name: OFFICIAL[span] for span, names in _NAMES.items() for name in names}


@dataclass(frozen=True)
class Roles:
    """What the columns of a table of samples are.

    Args:
        numbers: features, then targets.
        texts: client, label, categories, group, split: those there are.
        features: number columns that are input.
        stamp: column that orders the samples; None for none.
    """

    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    features: tuple[str, ...]
    stamp: str | None

    @property
    def columns(self) -> list[str]:
        """All of them."""
        return [*self.texts, *self.numbers, *([self.stamp] if self.stamp else [])]


def roles_of(spec: OwnSpec, table: Table) -> Roles:
    """Return what the columns are; features that are not named are all columns not named elsewhere."""
    labels = spec.labels
    texts = [spec.client.column, labels.label, *labels.categories, labels.group, labels.split]
    named = tuple(dict.fromkeys(name for name in texts if name))
    # an untouched time.column says nothing where the table has no such column
    stamp = spec.time.column if spec.time != Time() or spec.time.column in table.columns else None
    rest = [name for name in table.columns if name and name not in {*named, *labels.targets, stamp}]
    features = labels.features or tuple(name for name in rest if name not in spec.client.ignore)
    return Roles((*features, *labels.targets), named, features, stamp)


def read_samples(
    spec: OwnSpec, tables: Sequence[Table], attributes: pd.DataFrame, findings: Findings
) -> ClientSamples:
    """Return the samples of all files by client, in the order of the files.

    Raises:
        DataError: every column, cell or row that cannot be used, or no client left.
    """
    frame, roles = read_frame(spec, tables, findings)
    findings.raise_if_any()
    return to_samples(frame, roles, spec, attributes, findings)


def read_frame(spec: OwnSpec, tables: Sequence[Table], findings: Findings) -> tuple[pd.DataFrame, Roles]:
    """Return all rows as one frame of text, numbers and microseconds; rows that lack something are problems.

    A column ``" complete"`` says which rows lack nothing.
    """
    parts = list[pd.DataFrame]()
    roles = Roles((), (), (), None)
    for number, table in enumerate(tables):
        roles = roles_of(spec, table) if number == 0 else roles
        if lacking(table, roles.columns, findings):
            continue
        row = 0
        for batch in batches(table, roles.columns, roles.texts, findings):
            parts.append(_frame(batch, Place(table, "", row), roles, spec, findings))
            row += batch.num_rows
        findings.counts["rows"] += row
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=roles.columns), roles


def to_samples(
    frame: pd.DataFrame, roles: Roles, spec: OwnSpec, attributes: pd.DataFrame, findings: Findings
) -> ClientSamples:
    """Return complete rows as a population.

    Raises:
        DataError: no client is left, or features that do not make up ``labels.steps``.
    """
    labels = spec.labels
    whole = frame[frame[" complete"]] if len(frame) else frame
    counts = whole[spec.client.column].value_counts() if len(whole) else pd.Series(dtype=int)
    kept = sorted(str(name) for name in counts.index[counts >= spec.client.min_samples])
    if not kept:
        raise DataError(
            f"No client of {spec.name!r} is left: {findings.counts['rows']} rows, {len(whole)} of them complete, "
            f"client.min_samples={spec.client.min_samples}."
        )
    whole = whole[whole[spec.client.column].isin(kept)]
    whole = whole.iloc[np.argsort(whole[spec.client.column].to_numpy(str), kind="stable")]
    inputs, channels = _inputs(whole, roles, spec)
    classes = in_order(list(whole[labels.label].unique())) if labels.label else ()
    dropped = [name for name in sorted(map(str, counts.index)) if name not in set(kept)]
    return ClientSamples(
        name=spec.name,
        inputs=inputs,
        targets=_targets(whole, classes, spec),
        offsets=offsets_of([int(counts[name]) for name in kept]),
        clients=tuple(kept),
        attributes=attributes.reindex(index=kept).rename_axis(index="client"),
        classes=classes,
        groups=_codes(whole, labels.group),
        times=torch.from_numpy(np.array(whole[roles.stamp], np.int64) // 1_000_000) if roles.stamp else None,
        official=_official(whole, labels.split),
        channel_names=channels,
        target_names=labels.targets,
        unit=labels.unit,
        rules=_rules(len(frame) - int(frame[" complete"].sum()), spec, findings),
        dropped=tuple(
            Dropped(name, f"min_samples: {counts[name]} samples, {spec.client.min_samples} asked for")
            for name in dropped
        ),
    )


def in_order(classes: Sequence[str]) -> tuple[str, ...]:
    """Return class names in order, whole numbers by size."""
    numeric = all(name.lstrip("+-").isdigit() for name in classes)
    return tuple(sorted(classes, key=int if numeric else str))


def texts_of(column: pa.Array) -> pd.Series:
    """Return a column as text without blanks around it, ``""`` where there is none."""
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    words = [str(word).strip() for word in coded.dictionary.to_pylist()]
    words = ["" if word.lower() in MISSING else word for word in words] + [""]
    codes = coded.indices.fill_null(len(words) - 1).to_numpy(zero_copy_only=False)
    return pd.Series(np.array(words, object)[codes], dtype=object)


def _frame(
    batch: pa.RecordBatch, place: Place, roles: Roles, spec: OwnSpec, findings: Findings
) -> pd.DataFrame:
    def at(name: str) -> Place:
        return Place(place.table, name, place.row)

    data: dict[str, pd.Series | Numbers | np.ndarray] = {}
    for name in roles.numbers:
        data[name] = numbers(batch.column(name), at(name), spec.csv, findings).astype(np.float32)
    lacks = np.zeros(batch.num_rows, np.bool_)
    what = np.full(batch.num_rows, "", object)
    for name in reversed(roles.numbers):
        absent = np.isnan(data[name])
        lacks, what = lacks | absent, np.where(absent, name, what)
    optional = (spec.labels.group, spec.labels.split, *spec.labels.categories)
    for name in roles.texts:
        data[name] = texts_of(batch.column(name))
        absent = (data[name] == "").to_numpy() & (name not in optional)
        lacks, what = lacks | absent, np.where(absent, name, what)
    if roles.stamp:
        data[roles.stamp] = _times(batch, at(roles.stamp), spec, findings)
        absent = data[roles.stamp] == NAT
        lacks, what = lacks | absent, np.where(absent, roles.stamp, what)
    if lacks.any() and spec.labels.incomplete == "error":
        first = int(np.flatnonzero(lacks)[0])
        findings.problem(
            ("incomplete", place.table.shown),
            f"File {place.table.shown}, {place.table.line(place.row + first)}: no value for {what[first]!r}. Fill it in, "
            "or set labels.incomplete: drop.",
            int(lacks.sum()),
        )
    return pd.DataFrame({**data, " complete": ~lacks})


def _times(batch: pa.RecordBatch, place: Place, spec: OwnSpec, findings: Findings) -> np.ndarray:
    micros, utc = stamps(batch.column(place.column), place, spec.time, findings)
    if utc or spec.time.timezone == "UTC":
        return micros
    # samples are not readings in a row: nothing tells the two autumn hours apart, so summer time is taken
    ambiguous = "summer" if spec.time.ambiguous == "order" else spec.time.ambiguous
    try:
        found = to_utc(
            micros.view("datetime64[us]"),
            spec.time.timezone,
            ambiguous=ambiguous,
            nonexistent=spec.time.nonexistent,
        )
    except DataError as error:
        findings.error(("clock", place.table.shown), error)
        return micros
    return found.astype(np.int64)


def _inputs(whole: pd.DataFrame, roles: Roles, spec: OwnSpec) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Return ``(samples, steps, channels)`` and the channels' names."""
    parts = [whole[list(roles.features)].to_numpy(np.float32)]
    names = list(roles.features)
    for column in spec.labels.categories:
        levels = in_order([level for level in whole[column].unique() if level])
        parts.append((whole[column].to_numpy(object)[:, None] == np.array(levels, object)).astype(np.float32))
        names += [f"{column}={level}" for level in levels]
    table, steps = np.concatenate(parts, axis=1), spec.labels.steps
    if table.shape[1] == 0 or table.shape[1] % steps:
        raise DataError(
            f"labels.steps: {table.shape[1]} features do not make {steps} equal steps. Name the features in "
            "labels.features, step by step."
        )
    inputs = torch.from_numpy(np.array(table)).reshape(len(table), steps, -1)
    return inputs, tuple(names) if steps == 1 else ()


def _targets(whole: pd.DataFrame, classes: tuple[str, ...], spec: OwnSpec) -> torch.Tensor:
    if spec.labels.label is None:
        return torch.from_numpy(np.array(whole[list(spec.labels.targets)], np.float32))
    codes = pd.Categorical(whole[spec.labels.label], list(classes)).codes
    return torch.from_numpy(codes.astype(np.int64))


def _codes(whole: pd.DataFrame, column: str | None) -> torch.Tensor | None:
    """Return groups by number; a sample without one is a group of its own."""
    if column is None:
        return None
    alone = whole[column] == ""
    words = whole[column].where(~alone, pd.Series([f" {at}" for at in range(len(whole))], index=whole.index))
    return torch.from_numpy(pd.factorize(words)[0].astype(np.int64))


def _official(whole: pd.DataFrame, column: str | None) -> torch.Tensor | None:
    if column is None:
        return None
    parts = whole[column].str.lower().map(SPLITS)
    if parts.isna().any():
        bad = whole[column][parts.isna()].iloc[0]
        raise DataError(
            f"Column {column!r} holds {bad!r}; labels.split knows {', '.join(name for name in SPLITS if name)}."
        )
    return torch.from_numpy(np.array(parts, np.int8))


def _rules(incomplete: int, spec: OwnSpec, findings: Findings) -> tuple[str, ...]:
    rows = findings.counts["rows"]
    said = [f"{incomplete} of {rows} rows lack a value and are left out"] if incomplete else []
    if spec.client.min_samples > 1:
        said.append(f"min_samples: a client with fewer than {spec.client.min_samples} samples is dropped")
    return (f"{rows} rows, one a sample", *said)
