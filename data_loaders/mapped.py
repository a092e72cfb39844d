"""Series that lie in a file and are read where a window is drawn: populations larger than memory.

The operating system keeps in memory what was read lately, and gives it up when others ask for memory. What a population
costs beside that are its clients' names, attributes and offsets.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

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
        """Begin an empty file, and remove what processes that were killed left.

        Raises:
            DataError: the folder is a file.
        """
        if self.path.parent.exists() and not self.path.parent.is_dir():
            raise DataError(f"{self.path.parent} is a file; give a folder for {self.path.name}.")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for left in self.path.parent.glob(f"{self.path.name}.*.new"):
            if not _alive(left.suffixes[-2].lstrip(".")):
                left.unlink(missing_ok=True)
        self._file = self._open()
        return self

    def _open(self) -> IO[bytes]:
        return open(self._growing, "wb")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not finished."""
        with suppress(OSError):  # of what could not be written before
            self._file.close()
        self._growing.unlink(missing_ok=True)

    def append(self, values: np.ndarray) -> None:
        """Write float32 values behind the others."""
        with self._told():
            self._file.write(np.ascontiguousarray(values, dtype=np.float32).tobytes())
        self._count += values.size

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            words = f"{error.strerror}, after {4 * self._count / 2**20:,.0f} MB"
            raise OSError(error.errno, words, str(self._growing)) from error

    def finish(self, channels: int) -> Tensor:
        """Put the file in its place; return its values ``(rows, channels)``, mapped.

        They can be written to like any tensor: such pages then lie in memory, and never reach the file.

        Raises:
            OSError: not all of it is on disk; an earlier file is as it was.
        """
        with self._told():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        self._growing.rename(self.path)
        if not self._count:  # nothing is no mapping
            return torch.zeros(0, channels)
        whole = torch.from_file(str(self.path), shared=False, size=self._count, dtype=torch.float32)
        return whole.view(-1, channels)


def map_series(parts: Iterable[ClientSeries] | ClientSeries, folder: str | os.PathLike[str]) -> ClientSeries:
    """Write parts of a population one after the other into ``folder/series.f32``, and return the whole, mapped.

    Args:
        parts: of one source, each with clients of its own, or one series; of a generator's, one is in memory at a time.
        folder: where the values lie from now on, as long as the series is used.

    Raises:
        DataError: no part; parts whose source, step, unit or channels differ; a client in two of them.
        OSError: the file cannot be written; nothing is left of it, and an earlier one is as it was.
    """
    if isinstance(parts, ClientSeries):
        parts = [parts]
    shared: dict[str, Any] = {}
    lengths, breaks, attributes, starts = [], [], [], []
    rules: dict[str, None] = {}
    names: set[str] = set()
    dropped: list[Dropped] = []
    row = 0
    with MappedFile(folder, "series.f32") as file:
        for part in parts:
            if not isinstance(part, ClientSeries):
                raise DataError(
                    f"A part is of type {type(part).__name__}; give ClientSeries, in a list or a generator."
                )
            own = {name: getattr(part, name) for name in _SHARED}
            shared = shared or own
            _refuse_others(shared, own)
            _refuse_twice(part, names)
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


def _refuse_twice(part: ClientSeries, names: set[str]) -> None:
    twice = names.intersection(part.clients)
    if twice:
        raise DataError(
            f"Source {part.name!r}: client {min(twice)!r} is in two parts. Give every part clients of its own, or other "
            "names."
        )
    names.update(part.clients)


def _alive(number: str) -> bool:
    """Whether a process of that number runs."""
    try:
        os.kill(int(number), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True
