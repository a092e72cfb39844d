"""A tree of sound files and the manifest that says who says what in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from ..errors import DataError
from ..samples import ClientSamples
from ..series import Dropped
from .files import Table, batches, lacking
from .findings import Findings
from .options import OwnSpec
from .table_samples import SPLITS, in_order, texts_of

if TYPE_CHECKING:
    from ..voice.options import ClipOptions
    from ..voice.takes import Collected, Take


@dataclass(frozen=True)
class Listed:
    """One row of a manifest.

    Args:
        file: of the clip.
        client: who speaks.
        label: what is said.
        group: what stays together, ``""`` for none.
        official: part of the manifest's own split, as in ``OFFICIAL``; -1 for none.
    """

    file: Path
    client: str
    label: str
    group: str = ""
    official: int = -1


def read_manifest(spec: OwnSpec, tables: Sequence[Table], findings: Findings) -> list[Listed]:
    """Return the rows of the manifests; rows that lack something, unknown splits and files not there are problems."""
    labels, listed = spec.labels, list[Listed]()
    said = [spec.audio.path, spec.client.column, labels.label, labels.group, labels.split]
    columns = [name for name in said if name]
    for table in tables:
        if lacking(table, columns, findings):
            continue
        row = 0
        for batch in batches(table, columns, columns, findings):
            texts = {name: texts_of(batch.column(name)).to_list() for name in columns}
            for at in range(batch.num_rows):
                cells = {name: texts[name][at] for name in columns}
                listed += _listed(cells, table, row + at, spec, findings)
            row += batch.num_rows
        findings.counts["rows"] += row
    return listed


def read_clips(
    spec: OwnSpec, tables: Sequence[Table], attributes: pd.DataFrame, findings: Findings
) -> ClientSamples:
    """Return the clips that the manifests name, by speaker, as features.

    Raises:
        DataError: every row of a manifest that cannot be used; the first file that cannot be read.
    """
    from ..voice.population import to_population
    from ..voice.takes import collect

    listed = read_manifest(spec, tables, findings)
    options = clip_options(spec, findings)
    findings.raise_if_any()
    collected = collect(_takes(listed), options)
    classes = in_order(sorted({item.label for item in listed}))
    found = to_population(spec.name, collected, options, classes=classes, attributes=attributes)
    found = replace(
        found,
        dropped=tuple(Dropped(d.client, d.reason.replace("min_clips", "min_samples")) for d in found.dropped),
    )
    if spec.labels.group is None:
        return found
    return replace(found, groups=_joined(found, collected, listed))


def clip_options(spec: OwnSpec, findings: Findings) -> ClipOptions:
    """Return the options of the voice sources; those that contradict each other are problems."""
    from ..voice.options import ClipOptions, clip_problems

    audio = {name: value for name, value in vars(spec.audio).items() if name != "path"}
    options = ClipOptions(**audio, min_clips=spec.client.min_samples)
    for problem in clip_problems(options):
        findings.problem(("audio", problem), f"audio: {problem}")
    return options


def _listed(
    cells: dict[str, str], table: Table, row: int, spec: OwnSpec, findings: Findings
) -> Iterator[Listed]:
    labels = spec.labels
    needed = [spec.audio.path, spec.client.column, *([labels.label] if labels.label else [])]
    empty = [name for name in needed if not cells[name]]
    if empty:
        if spec.labels.incomplete == "error":
            findings.problem(
                ("incomplete", table.shown),
                f"File {table.shown}, {table.line(row)}: no value for {empty[0]!r}. Fill it in, or set "
                "labels.incomplete: drop.",
            )
        return
    path = table.path.parent / cells[spec.audio.path]
    part = cells[labels.split].lower() if labels.split else ""
    if part not in SPLITS:
        findings.problem(
            ("split", table.shown),
            f"File {table.shown}, {table.line(row)}: split {part!r} is none of "
            f"{', '.join(name for name in SPLITS if name)}.",
        )
    elif not path.is_file() and spec.audio.on_bad == "error":
        findings.problem(
            ("clip", table.shown),
            f"File {table.shown}, {table.line(row)}: there is no clip {cells[spec.audio.path]!r} in "
            f"{table.path.parent}. Paths are relative to the manifest; mend it, or set audio.on_bad: skip.",
        )
    else:
        group = cells[labels.group] if labels.group else ""
        yield Listed(path, cells[spec.client.column], cells[labels.label or ""], group, SPLITS[part])


def _takes(listed: Sequence[Listed]) -> Iterator[Take]:
    from ..voice.tree import file_take

    for number, item in enumerate(listed):
        yield file_take(item.file, item.client, item.label, number, item.official)


def _joined(found: ClientSamples, collected: Collected, listed: Sequence[Listed]) -> torch.Tensor:
    """Return groups that hold a client's equal takes and those that share the manifest's group."""
    table = collected.table
    codes = pd.Categorical(table["label"], list(found.classes)).codes
    table = table.iloc[np.lexsort((table["number"], codes, table["client"]))]
    first = table.groupby("digest", sort=False)["client"].transform("first")
    table = table[(table["client"] == first) & table["client"].isin(found.clients)]
    if len(table) != len(found.targets) or found.groups is None:
        raise DataError(f"Population {found.name!r} lost track of its clips' groups.")
    names = [listed[number].group or f" {number}" for number in table["number"]]
    owners = np.repeat(np.arange(len(found)), found.lengths.numpy())
    said = pd.factorize(pd.MultiIndex.from_arrays([owners, names]))[0]
    group = found.groups.numpy().copy()
    while True:  # the least number spreads through both kinds of group until nothing changes
        before = group.copy()
        for kind in (said, found.groups.numpy()):
            least = np.full(int(kind.max()) + 1, np.iinfo(np.int64).max)
            np.minimum.at(least, kind, group)
            group = least[kind]
        if np.array_equal(before, group):
            return torch.from_numpy(pd.factorize(group)[0].astype(np.int64))


def speakers(listed: Sequence[Listed]) -> Counter[str]:
    """Return how many clips each speaker has."""
    return Counter(item.client for item in listed)
