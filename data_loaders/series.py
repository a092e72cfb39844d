"""Client series: one flat buffer for a whole population, with offsets per client."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .errors import DataError


@dataclass(frozen=True)
class Dropped:
    """A client that was left out, and why.

    ``reason`` starts with the rule and a colon (``"min_days: 15.1 days observed, 90 asked for"``), so that
    reasons can be counted by rule.
    """

    client: str
    reason: str


@dataclass(frozen=True, eq=False)
class ClientSeries:
    """The series of a population of clients on regular grids, each client of its own length.

    Args:
        name: the source's name.
        values: ``(total steps, channels)`` float32, NaN = missing; channel 0 is the target, in ``unit``.
        offsets: ``(clients + 1,)`` int64; client ``k`` is ``values[offsets[k]:offsets[k + 1]]``.
        clients: one unique name a client.
        attributes: one row a client, indexed by ``clients`` in this order; what is known beside the series.
        starts: ``(clients,)`` datetime64[s], the stamp of each client's first step.
        step_seconds: seconds from one step to the next; need not be whole (10 Hz is 0.1).
        unit: of the target.
        rules: the rules that made the population, in words.
        dropped: the clients left out by these rules.
        channel_names: of the channels, target first; none where they have no names.
        known: names of channels that are known in advance (calendar, weather forecasts); a window sees them
            ``horizon`` steps ahead.
        breaks: ``(breaks,)`` int64 rows of ``values``, ascending, where a new run of the same client begins; strictly
            inside a client. A client's first run starts at its stamp; when later ones do is not recorded. Nothing
            crosses a break: no window, no filled gap, no day, no pair of the naive error.

    Raises:
        DataError: shapes, names or offsets that contradict each other.
    """

    name: str
    values: Tensor
    offsets: Tensor
    clients: tuple[str, ...]
    attributes: pd.DataFrame
    starts: np.ndarray
    step_seconds: float
    unit: str
    rules: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    channel_names: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    breaks: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def __post_init__(self) -> None:
        problems = _contradictions(self)
        if problems:
            raise DataError(*problems)

    def __len__(self) -> int:
        return len(self.clients)

    @property
    def channels(self) -> int:
        """Values per step; the first is the target."""
        return int(self.values.shape[1])

    @property
    def lengths(self) -> Tensor:
        """Steps of each client, ``(clients,)`` int64."""
        return self.offsets.diff()

    def of(self, client: int) -> Tensor:
        """Return one client's series, ``(steps, channels)``, as a view of the buffer."""
        return self.values[int(self.offsets[client]) : int(self.offsets[client + 1])]

    def breaks_of(self, client: int) -> Tensor:
        """Return where one client's later runs begin, ``(breaks,)`` int64 rows of :meth:`of`."""
        low, high = torch.searchsorted(self.breaks, self.offsets[client : client + 2])
        return self.breaks[low:high] - self.offsets[client]

    def stamps_of(self, client: int, rows: slice = slice(None)) -> np.ndarray:
        """Return the UTC stamps of one client's steps, or of some of its ``rows``, datetime64[us].

        Raises:
            DataError: a client with several runs; when later ones began is not recorded.
        """
        if len(self.breaks_of(client)):
            raise DataError(
                f"Client {self.clients[client]!r} of source {self.name!r} has {len(self.breaks_of(client)) + 1} runs, and "
                "a series records the stamp of the first only. Join what needs stamps before runs are joined."
            )
        steps = np.arange(int(self.lengths[client]))[rows] * (self.step_seconds * 1e6)
        return np.asarray(
            self.starts[client].astype("datetime64[us]") + np.rint(steps).astype("timedelta64[us]")
        )

    def select(self, clients: Sequence[int]) -> "ClientSeries":
        """Return the series of some clients, in the order given; the values are copied."""
        values = torch.cat([self.of(int(client)) for client in clients] or [self.values[:0]])
        return self.select_as(clients, values)

    def select_as(self, clients: Sequence[int], values: Tensor) -> "ClientSeries":
        """Return some clients, in the order given, with other ``values`` ``(their steps, channels)``, not copied."""
        chosen = [int(client) for client in clients]
        offsets = offsets_of([int(self.lengths[client]) for client in chosen])
        breaks = [self.breaks_of(client) + offsets[place] for place, client in enumerate(chosen)]
        return replace(
            self,
            values=values,
            offsets=offsets,
            clients=tuple(self.clients[client] for client in chosen),
            attributes=self.attributes.iloc[chosen],
            starts=self.starts[chosen],
            breaks=torch.cat([*breaks, self.breaks[:0]]),
        )

    def fingerprint(self) -> str:
        """Return a hash of names, offsets, stamps, values and breaks: the data set's identity, 16 hex digits."""
        digest = hashlib.blake2b(digest_size=8)
        step = int(self.step_seconds) if self.step_seconds == int(self.step_seconds) else self.step_seconds
        digest.update("\n".join((*self.clients, str(step), self.unit)).encode())
        for array in (self.offsets.numpy(), self.starts.astype("datetime64[s]"), self.values.cpu().numpy()):
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        if self.channel_names or len(self.breaks):  # a series without them keeps the identity it always had
            digest.update(repr((self.channel_names, self.known, self.breaks.tolist())).encode())
        return digest.hexdigest()


def offsets_of(lengths: Sequence[int]) -> Tensor:
    """Return ``(clients + 1,)`` int64 offsets of series of these lengths laid end to end."""
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


def count_reasons(dropped: Iterable[Dropped]) -> str:
    """Return the rules that dropped clients with their counts, ``"3 by min_days, 1 by max_zero_share"``."""
    counts = Counter(item.reason.split(":")[0] for item in dropped)
    return ", ".join(f"{count} by {rule}" for rule, count in counts.most_common())


def _contradictions(series: ClientSeries) -> list[str]:
    """Return what is wrong with the fields of a series, in sentences."""
    count, shape = len(series.clients), tuple(series.values.shape)
    source = f"Source {series.name!r}"
    checks = {
        f"{source}: values must be (total steps, channels) float32, got {shape} {series.values.dtype}.": (
            len(shape) == 2 and shape[-1] >= 1 and series.values.dtype == torch.float32
        ),
        f"{source}: {count} clients need {count + 1} offsets from 0 to {shape[0]}, got "
        f"{tuple(series.offsets.shape)}.": offsets_fit(series.offsets, count, shape[0]),
        f"{source}: client names are not unique.": len(set(series.clients)) == count,
        f"{source}: the index of attributes differs from the clients.": (
            tuple(series.attributes.index) == series.clients
        ),
        f"{source}: {count} clients need {count} starts, got {len(series.starts)}.": len(series.starts)
        == count,
        f"{source}: step_seconds must be positive, got {series.step_seconds}.": series.step_seconds > 0,
    }
    problems = [problem for problem, holds in checks.items() if not holds]
    inside = [] if problems else _break_problems(series)
    return problems + [f"{source}: {problem}" for problem in inside + _channel_problems(series)]


def _break_problems(series: ClientSeries) -> list[str]:
    """Return what is wrong with the breaks of a series whose offsets fit."""
    breaks = series.breaks
    if breaks.dim() != 1 or breaks.dtype != torch.int64:
        return [f"breaks must be (breaks,) int64 rows, got {tuple(breaks.shape)} {breaks.dtype}."]
    if bool((breaks.diff() <= 0).any()):
        place = int((breaks.diff() <= 0).nonzero()[0])
        return [f"breaks must ascend, got {int(breaks[place])} before {int(breaks[place + 1])}."]
    ends = torch.cat([series.offsets, series.offsets[-1:]])
    wrong = breaks[torch.isin(breaks, ends) | (breaks < 0) | (breaks > series.offsets[-1])]
    if not len(wrong):
        return []
    return [
        f"break {int(wrong[0])} is not inside a client: it must be a row of values after a client's first one. "
        "Clients need no break between them."
    ]


def _channel_problems(series: ClientSeries) -> list[str]:
    """Return what is wrong with the names of channels and those known in advance."""
    names, known, count = series.channel_names, series.known, (*series.values.shape, 0)[1]
    problems = []
    if names and len(names) != count:
        problems.append(f"{count} channels need {count} channel_names, got {', '.join(names)}.")
    problems += [
        f"{field} holds {name!r} {times} times; names must be unique."
        for field, listed in (("channel_names", names), ("known", known))
        for name, times in Counter(listed).items()
        if times > 1
    ]
    unknown = sorted(set(known) - set(names))
    if unknown:
        among = f"among {', '.join(names)}" if names else "in channel_names, which are empty"
        problems.append(f"known channel {', '.join(map(repr, unknown))} is not {among}.")
    if names and names[0] in known:
        problems.append(f"the target {names[0]!r} cannot be known in advance; leave it out of known.")
    return problems


def offsets_fit(offsets: Tensor, clients: int, rows: int) -> bool:
    """Return whether offsets cut ``rows`` rows into ``clients`` parts."""
    if tuple(offsets.shape) != (clients + 1,) or offsets.dtype != torch.int64:
        return False
    return int(offsets[0]) == 0 and int(offsets[-1]) == rows and bool((offsets.diff() >= 0).all())
