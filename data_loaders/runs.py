"""Valid windows as runs of equally spaced first rows, never as one index a window."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import DataError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]
NO_BREAKS: Ints = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Runs:
    """All windows of a population in one span, numbered client by client.

    Args:
        first: ``(runs,)`` int64, row of the buffer where a run's first window starts.
        before: ``(runs,)`` int64, windows of all clients before this run.
        base: ``(clients + 1,)`` int64, windows before each client.
        stride: rows from one window of a run to the next.
    """

    first: Tensor
    before: Tensor
    base: Tensor
    stride: int

    def count(self) -> Tensor:
        """Return the windows of each client, ``(clients,)`` int64."""
        return self.base.diff()

    def positions(self, clients: Tensor, ranks: Tensor) -> Tensor:
        """Return the first rows of windows ``ranks`` ``(c, n)`` of ``clients`` ``(c,)``, ``(c, n)`` int64.

        Raises:
            DataError: a rank outside ``0 .. count - 1`` of its client.
        """
        low, high = self.base[clients].unsqueeze(1), self.base[clients + 1].unsqueeze(1)
        number = low + ranks
        if bool(((ranks < 0) | (number >= high)).any()):
            raise DataError(_outside(clients, ranks, (high - low).squeeze(1)))
        run = torch.searchsorted(self.before, number, right=True) - 1
        return self.first[run] + self.stride * (number - self.before[run])

    def to(self, device: torch.device | str) -> "Runs":
        """Return the same runs on another device."""
        return Runs(self.first.to(device), self.before.to(device), self.base.to(device), self.stride)


def join_runs(per_client: Sequence[tuple[Ints, Ints]], offsets: Tensor, stride: int) -> Runs:
    """Lay the runs of all clients end to end.

    Args:
        per_client: ``(first, count)`` of each client's runs, rows counted from the client's own start.
        offsets: ``(clients + 1,)`` where each client starts in the buffer.
        stride: rows from one window of a run to the next.
    """
    starts = offsets.tolist()
    firsts = [first + start for (first, _), start in zip(per_client, starts, strict=False)]
    counts = [count for _, count in per_client]
    windows = torch.tensor([0, *(int(count.sum()) for count in counts)], dtype=torch.int64)
    lengths = np.concatenate([np.zeros(1, np.int64), *counts])
    before = torch.from_numpy(np.cumsum(lengths)[:-1])
    return Runs(
        torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *firsts])), before, windows.cumsum(0), stride
    )


def find_runs(valid: Booleans, low: int, high: int, stride: int) -> tuple[Ints, Ints]:
    """Return ``(first, count)`` of the runs of valid windows on ``low, low + stride, ...`` below ``high``.

    Args:
        valid: ``(starts,)`` whether a window may start at this row.
        low: first row of the grid.
        high: one past the last row.
        stride: rows between neighbours of the grid.
    """
    grid = valid[low : max(low, high) : stride]
    edges = np.diff(np.concatenate(([False], grid, [False])).astype(np.int8))
    begin, end = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return (low + stride * begin).astype(np.int64), (end - begin).astype(np.int64)


def all_clear(bad: Booleans, width: int) -> Booleans:
    """Return whether the ``width`` rows from each start on hold no bad one, ``(rows - width + 1,)``."""
    total = np.concatenate(([0], np.cumsum(bad, dtype=np.int32)))
    return (
        np.asarray(total[width:] == total[: len(total) - width])
        if len(bad) >= width
        else np.zeros(0, np.bool_)
    )


def run_edges(rows: int, breaks: Ints) -> tuple[Ints, Ints]:
    """Return the first row of each row's own run and the row after its last, both ``(rows,)``.

    Args:
        rows: of the client.
        breaks: ``(breaks,)`` rows where a new run begins.
    """
    edges = np.concatenate(([0], breaks, [rows])).astype(np.int64)
    lengths = np.diff(edges)
    return np.repeat(edges[:-1], lengths), np.repeat(edges[1:], lengths)


def uncut(starts: int, width: int, breaks: Ints) -> Booleans:
    """Return whether the ``width`` rows from each of ``starts`` rows on lie in one run, ``(starts,)``."""
    cut = np.zeros(starts + width, np.bool_)
    cut[breaks[breaks < len(cut)]] = True
    # a break at the first row of a window cuts nothing off it
    return all_clear(cut[1:], width - 1)[:starts] if width > 1 else np.ones(starts, np.bool_)


def fill_gaps(values: Floats, max_gap: int, breaks: Ints = NO_BREAKS) -> Floats:
    """Return ``(rows, channels)`` where gaps of up to ``max_gap`` rows take the last observed value.

    Longer gaps, and those with nothing before them in their run, stay NaN as a whole. A gap ends where its run does.

    Args:
        values: ``(rows, channels)`` of one client.
        max_gap: rows.
        breaks: ``(breaks,)`` rows where a new run begins.
    """
    missing = np.isnan(values)
    if max_gap == 0 or not missing.any():
        return values
    rows = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(missing, -1, rows), axis=0)
    following = np.minimum.accumulate(np.where(missing, len(values), rows)[::-1], axis=0)[::-1]
    begin: Ints | int = 0
    if len(breaks):
        first, end = run_edges(len(values), breaks)
        begin, last, following = (
            first[:, None],
            np.maximum(last, first[:, None] - 1),
            np.minimum(following, end[:, None]),
        )
    fillable = missing & (last >= begin) & (following - last - 1 <= max_gap)
    return np.where(fillable, np.take_along_axis(values, np.maximum(last, 0), axis=0), values)


def _outside(clients: Tensor, ranks: Tensor, counts: Tensor) -> str:
    bad = (ranks < 0) | (ranks >= counts.unsqueeze(1))
    row, column = (int(i) for i in bad.nonzero()[0])
    return (
        f"Client number {int(clients[row])} has {int(counts[row])} windows in this span, "
        f"rank {int(ranks[row, column])} was asked for. Draw ranks below count(span)[client]."
    )
