"""What crosses the wire: messages with their shapes, dtypes and bytes, and, after a run, their content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SERVER = "server"
EVERYONE = "all clients"


def client(k: int) -> str:
    """The party that holds the k-th client's samples."""
    return f"client {k}"


@dataclass(frozen=True)
class Piece:
    """One array of a message: its name, shape and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Size on the wire, without framing."""
        return int(torch.Size(self.shape).numel()) * self.dtype.itemsize


@dataclass(frozen=True)
class Message:
    """One message: who tells whom what, and how large it is.

    Attributes:
        round: when, counted from 1.
        sender: "server" or "client k".
        receiver: the same, or "all clients" for a broadcast.
        what: in words, "masked summary".
        pieces: its arrays.
        content: the arrays themselves; None in a plan, and where a run did not record them.
    """

    round: int
    sender: str
    receiver: str
    what: str
    pieces: tuple[Piece, ...]
    content: Mapping[str, Tensor] | None = None

    @property
    def bytes(self) -> int:
        """Size of its arrays, which are sent as they are."""
        return sum(piece.bytes for piece in self.pieces)


@dataclass(frozen=True)
class Route:
    """A message without its content: round, sender, receiver and what it is."""

    round: int
    sender: str
    receiver: str
    what: str

    def of(self, pieces: tuple[Piece, ...]) -> Message:
        """The planned message."""
        return Message(self.round, self.sender, self.receiver, self.what, pieces)

    def carry(self, content: Mapping[str, Tensor], *, record: bool = True) -> Message:
        """The message itself; its pieces are read off its content."""
        pieces = tuple(Piece(name, tuple(x.shape), x.dtype) for name, x in content.items())
        return Message(
            self.round, self.sender, self.receiver, self.what, pieces, dict(content) if record else None
        )


@dataclass(frozen=True)
class Transcript:
    """All messages of a run, or of a planned one, in their order.

    Attributes:
        messages: the messages; one broadcast is one message.
        clients: K, how many clients took part, which a broadcast's cost depends on.
    """

    messages: tuple[Message, ...]
    clients: int

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    @property
    def rounds(self) -> int:
        """Number of round trips."""
        return max((message.round for message in self), default=0)

    def bytes_up(self) -> int:
        """Bytes that all clients together send to the server."""
        return sum(message.bytes for message in self if message.receiver == SERVER)

    def bytes_down(self) -> int:
        """Bytes that all clients together receive; a broadcast counts once for each."""
        down = (message for message in self if message.sender == SERVER)
        return sum(m.bytes * (self.clients if m.receiver == EVERYONE else 1) for m in down)

    def seen_by(self, party: str) -> tuple[Message, ...]:
        """What a party has seen: the messages it sent or received, broadcasts included."""
        to_all = {party, EVERYONE} if party != SERVER else {SERVER}
        return tuple(m for m in self if m.sender == party or m.receiver in to_all)

    def between(self, sender: str, receiver: str) -> tuple[Message, ...]:
        """The messages from one party to another, broadcasts not included."""
        return tuple(m for m in self if m.sender == sender and m.receiver == receiver)

    def outline(self) -> tuple[tuple[int, str, str, str, tuple[Piece, ...]], ...]:
        """The transcript without content, by which a run and its plan compare."""
        return tuple((m.round, m.sender, m.receiver, m.what, m.pieces) for m in self)

    def table(self) -> str:
        """One line per kind of message: round, direction, what, arrays, bytes of one, how many."""
        kinds: dict[tuple[object, ...], int] = {}
        for m in self:
            arrays = ", ".join(
                f"{p.name} {'x'.join(map(str, p.shape)) or '1'} {str(p.dtype).removeprefix('torch.')}"
                for p in m.pieces
            )
            way = "up" if m.receiver == SERVER else "down to all" if m.receiver == EVERYONE else "down"
            key = (m.round, way, m.what, arrays, m.bytes)
            kinds[key] = kinds.get(key, 0) + 1
        return "\n".join(
            f"round {r:2}  {way:11}  {what}: {arrays}; {size} bytes x {count}"
            for (r, way, what, arrays, size), count in kinds.items()
        )
