"""Series that lie in a file and are read where a window is drawn: populations larger than memory.

The operating system keeps in memory what was read lately, and gives it up when others ask for memory. What a population
costs beside that are its clients' names, attributes and offsets.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .errors import DataError
from .series import ClientSeries, Dropped, offsets_of

_SHARED = ("name", "step_seconds", "unit", "channel_names", "known", "channels")


class MappedFile:
    """A file of float32 that grows while it is entered, and is mapped once it is whole.

    Args:
        folder: made when missing.
        name: of the file; one that is there is replaced when the new one is whole, and stays readable for those that
            have it mapped.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str) -> None:
        self.path = Path(folder) / name
        self._growing = self.path.with_name(f"{name}.{os.getpid()}.new")
        self._count = 0

    def __enter__(self) -> MappedFile:
        """Begin an empty file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._growing, "wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not finished."""
        self._file.close()
        self._growing.unlink(missing_ok=True)

    def append(self, values: np.ndarray) -> None:
        """Write float32 values behind the others."""
        np.ascontiguousarray(values, dtype=np.float32).tofile(self._file)
        self._count += values.size

    def finish(self, channels: int) -> Tensor:
        """Put the file in its place; return its values ``(rows, channels)``, mapped.

        They can be written to like any tensor: such pages then lie in memory, and never reach the file.
        """
        self._file.close()
        self._growing.rename(self.path)
        if not self._count:  # nothing is no mapping
            return torch.zeros(0, channels)
        whole = torch.from_file(str(self.path), shared=False, size=self._count, dtype=torch.float32)
        return whole.view(-1, channels)


def map_series(parts: Iterable[ClientSeries], folder: str | os.PathLike[str]) -> ClientSeries:
    """Write parts of a population one after the other into ``folder/series.f32``, and return the whole, mapped.

    Args:
        parts: of one source, each with clients of its own; of a generator's, one is in memory at a time.
        folder: where the values lie from now on, as long as the series is used.

    Raises:
        DataError: no part; parts whose source, step, unit or channels differ; a client in two of them.
        OSError: the file cannot be written; nothing is left of it, and an earlier one is as it was.
    """
    shared: dict[str, Any] = {}
    lengths, breaks, attributes, starts = [], [], [], []
    rules: dict[str, None] = {}
    dropped: list[Dropped] = []
    row = 0
    with MappedFile(folder, "series.f32") as file:
        for part in parts:
            own = {name: getattr(part, name) for name in _SHARED}
            shared = shared or own
            _refuse_others(shared, own)
            file.append(part.values.cpu().numpy())
            lengths.append(part.lengths)
            attributes.append(part.attributes)
            starts.append(part.starts)
            breaks.append(part.breaks + row)
            rules.update(dict.fromkeys(part.rules))
            dropped += part.dropped
            row += len(part.values)
        if not shared:
            raise DataError("There is no part of a series to map; give at least one.")
        whole = pd.concat(attributes)
        twice = whole.index[whole.index.duplicated()]
        if len(twice):
            raise DataError(
                f"Source {shared['name']!r}: client {twice[0]!r} is in two parts. Give every part clients of its own, or "
                "other names."
            )
        values = file.finish(shared.pop("channels"))
    return ClientSeries(
        values=values,
        offsets=offsets_of(torch.cat(lengths).tolist()),
        clients=tuple(whole.index),
        attributes=whole,
        starts=np.concatenate(starts),
        rules=tuple(rules),
        dropped=tuple(dropped),
        breaks=torch.cat(breaks),
        **shared,
    )


def _refuse_others(first: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        if value != first[name]:
            raise DataError(
                f"Source {first['name']!r}: a part has {name}={value!r}, the first one {first[name]!r}. Map parts of one "
                "source only."
            )
