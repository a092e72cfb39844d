"""Clients' state on disk: memory does not grow with the population, and a crash at any moment loses no checkpoint.

A file a matrix, a row a client, written in place. What a row held when the last checkpoint was made is saved to an undo
log before it is written over, so that the store can go back to either of the last two checkpoints: to the older one too,
because a process may die after the store was marked and before the checkpoint file was in place. Rows are read and written
by their offsets, for a cohort only, on a thread of their own; the operating system writes them back behind the run. A crash
of the process loses nothing, nor does one of the machine: an undo log is on the disk before what it saves is written over.

Several processes of one machine share the folder: each writes its own clients' rows, and an undo log of its own. The first
begins the folder and goes back to a checkpoint for all, so that a run may go on with another number of processes.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .algorithms import Rows
from .errors import PersoflError
from .ranks import ALONE, Ranks
from .store import ClientStore

_HEAD = struct.Struct("<q")  # client
ABOUT = "store.json"
_HINT = "The checkpoint on file is as it was."


class DiskStore(ClientStore):
    """State of the population in a folder, float32, one file per matrix.

    Args:
        population: number of clients.
        folder: empty or new for a run that starts, that of the checkpoint for one that goes on.

    Raises:
        PersoflError: when first written to, a folder that holds another run's clients.
    """

    def __init__(self, population: int, folder: str | Path) -> None:
        super().__init__(population)
        self.folder = Path(folder)
        self.token, self.generation = "", 0
        self._ranks = ALONE
        self._marks, self._floor = 0, 0  # marks of this fit, and the oldest moment that a file may hold
        self._broken: PersoflError | None = None
        self.columns: dict[str, int] = {}
        self._files: dict[str, int] = {}
        self._logged = torch.zeros(population, dtype=torch.bool)
        self._log: Any = None
        self._writer = ThreadPoolExecutor(1)
        self._pending: tuple[Tensor, Future[None]] | None = None

    def join(self, ranks: Ranks, machines: int = 1) -> None:
        """Share the folder with processes that train together; all then make every call but :meth:`read` together.

        Raises:
            PersoflError: they are on several machines, which do not see each other's writes.
        """
        if machines > 1:
            raise PersoflError(
                f"Clients on disk are for the processes of one machine, not of {machines}. Leave out training.store, or "
                "give num_nodes=1."
            )
        self._ranks = ranks

    def to(self, device: torch.device) -> None:
        """Nothing to move: rows are on disk, and come to the device of those that ask."""

    def read(self, clients: Tensor, newcomers: Rows) -> Rows:
        """State of ``clients``; those never seen take their rows of ``newcomers`` (same order)."""
        if not self.columns:
            return newcomers
        self._settle(clients)
        seen = self.seen[clients]
        found = {}
        for name, new in newcomers.items():
            rows = new.clone()
            if bool(seen.any()):
                rows[seen] = self._read(name, clients[seen]).to(rows)
            found[name] = rows
        return found

    def write(self, clients: Tensor, rows: Rows) -> None:
        """Keep the rows of ``clients``; on disk by the time that anyone reads them.

        Raises:
            PersoflError: they, or earlier ones, could not be written; from then on until a checkpoint is loaded.
        """
        self._settle(None)
        if rows and not self.columns:
            self._begin({name: values.shape[1] for name, values in rows.items()})
        kept = {name: values.detach().to("cpu", torch.float32).contiguous() for name, values in rows.items()}
        if not kept:
            self.seen[clients] = True
            return
        self.seen[clients] = True
        self._pending = clients, self._writer.submit(self._keep, clients, kept)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint holds: who was seen, and which moment of the folder it belongs to; no rows.

        Marks that moment: from here on rows that change are saved first.
        """
        self._ranks.agree(self._sync, _HINT)
        # Processes stay at one generation: none knows what the others wrote.
        if self.columns and (self._ranks.count > 1 or bool(self._logged.any())):
            if self._marks:  # the fit went on, so that the checkpoint of its last mark is on file
                self._floor = self.generation
            self._next(self.generation + 1)
        self._marks += 1
        mark = (
            torch.frombuffer(bytearray(self.token.encode()), dtype=torch.uint8)
            if self.token
            else torch.empty(0)
        )
        return {"seen": self.seen.clone(), "disk": mark.clone(), "generation": torch.tensor(self.generation)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go back to the moment of a checkpoint, or take over the rows of one that holds them.

        Raises:
            PersoflError: another population; the folder is another run's, or has gone on too far.
        """
        if "disk" not in state:
            self._take_over(state)
            return
        self._refuse_other_population(len(state["seen"]))
        self._close()
        self._marks, self._floor = 0, 0
        if len(state["disk"]):
            token, generation = (
                bytes(state["disk"].to(torch.uint8).tolist()).decode(),
                int(state["generation"]),
            )
            self._ranks.agree(lambda: self._reopen(token, generation), _HINT)
            self._next(generation)
        self.seen = state["seen"].to("cpu", copy=True)

    def _begin(self, columns: dict[str, int]) -> None:
        """Start in a folder that holds no clients."""
        self.columns, self.token = columns, self._ranks.first(secrets.token_hex(8))
        self._ranks.agree(self._create if self._ranks.rank == 0 else lambda: None, _HINT)
        self._open()
        self._next(0)

    def _create(self) -> None:
        if (self.folder / ABOUT).exists():
            raise PersoflError(
                f"{self.folder} holds the clients of another run. Go on with that run from its checkpoint, give another "
                "folder, or remove this one."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {"token": self.token, "population": len(self.seen), "columns": self.columns}
        written = self.folder / f"{ABOUT}.new"
        with written.open("w") as file:
            file.write(json.dumps(about))
            file.flush()
            os.fsync(file.fileno())
        written.rename(self.folder / ABOUT)

    def _sync(self) -> None:
        self._settle(None)
        for file in self._files.values():
            os.fsync(file)

    def _open(self) -> None:
        for name in self.columns:
            self._files[name] = os.open(self.folder / f"{name}.f32", os.O_RDWR | os.O_CREAT, 0o644)

    def _next(self, generation: int) -> None:
        """Begin the undo log of a generation, and drop those that no checkpoint can need."""
        self.generation = generation
        if self._log is not None:
            self._log.close()
        self._log = open(self.folder / f"undo-{generation}-{self._ranks.rank}.log", "wb", buffering=0)  # noqa: SIM115
        sync_folder(self.folder)
        self._logged.zero_()
        for number, log in self._logs():  # of processes that are no more, too
            if number < self._floor:
                log.unlink(missing_ok=True)

    def _logs(self) -> list[tuple[int, Path]]:
        return [(int(file.stem.split("-")[1]), file) for file in self.folder.glob("undo-*-*.log")]

    def begin(self) -> None:
        """A fit begins: whether the last mark's checkpoint got to its file is not known here, so its way back stays."""
        self._marks = 0

    def _keep(self, clients: Tensor, rows: Rows) -> None:
        """On the writer's thread: save what is written over for the first time since the checkpoint, then write."""
        first = ~self._logged[clients]
        if bool(first.any()):
            chosen = clients[first]
            old = [self._read(name, chosen) for name in self.columns]
            parts = [
                _HEAD.pack(client) + b"".join(values[row].numpy().tobytes() for values in old)
                for row, client in enumerate(chosen.tolist())
            ]
            begin = os.fstat(self._log.fileno()).st_size
            try:
                _whole(self._log.fileno(), b"".join(parts))
                os.fsync(self._log.fileno())  # before what it saves is written over
            except OSError:
                os.ftruncate(self._log.fileno(), begin)  # half an entry would shift all behind it
                raise
            self._logged[chosen] = True
        for name, values in rows.items():
            self._write(name, clients, values)

    def _read(self, name: str, clients: Tensor) -> Tensor:
        """Rows of a file; those beyond its end are zero."""
        columns = self.columns[name]
        rows = torch.zeros(len(clients), columns)
        flat = rows.numpy()
        for row, client in enumerate(clients.tolist()):
            os.preadv(self._files[name], [flat[row]], 4 * columns * client)
        return rows

    def _write(self, name: str, clients: Tensor, values: Tensor) -> None:
        columns, flat = self.columns[name], values.numpy()
        for row, client in enumerate(clients.tolist()):
            _whole(self._files[name], memoryview(flat[row]).cast("B"), 4 * columns * client)

    def _settle(self, clients: Tensor | None) -> None:
        """Wait for the rows under way, of these clients or of any; what went wrong there is raised here."""
        if self._broken is not None:
            raise self._broken
        if self._pending is None:
            return
        busy, writing = self._pending
        if clients is not None and not bool(torch.isin(clients, busy).any()):
            return
        self._pending = None
        try:
            writing.result()
        except OSError as error:
            self._broken = PersoflError(
                f"The clients' rows could not be written to {self.folder}: {error}. The last checkpoint is as it was; make "
                "room and go on from it."
            )
            raise self._broken from error

    def _reopen(self, token: str, generation: int) -> None:
        try:
            about = json.loads((self.folder / ABOUT).read_text())
        except (OSError, ValueError) as error:
            raise PersoflError(
                f"The checkpoint keeps its clients in a folder, and {self.folder} has none: give the one of its run."
            ) from error
        if about["token"] != token:
            raise PersoflError(f"{self.folder} holds the clients of another run than the checkpoint's.")
        self._refuse_other_population(about["population"])
        self.columns, self.token = {str(k): int(v) for k, v in about["columns"].items()}, token
        self._open()
        if self._ranks.rank == 0:
            self._go_back(generation)

    def _go_back(self, generation: int) -> None:
        """Write back what all processes' logs saved since a moment, the latest first, and drop what lies behind it."""
        logs = self._logs()
        kept = sorted({number for number, _ in logs})
        if generation not in kept:
            raise PersoflError(
                f"{self.folder} has gone on beyond the checkpoint (its moment is {generation}, kept are "
                f"{kept}). Go on from a later checkpoint."
            )
        later = sorted((entry for entry in logs if entry[0] >= generation), reverse=True)
        for _, log in later:
            self._restore(log)
        for file in self._files.values():  # before the logs go that could write it back once more
            os.fsync(file)
        for number, log in later:  # those of this moment are begun anew by the processes that there are
            if number > generation or int(log.stem.split("-")[2]) >= self._ranks.count:
                log.unlink()

    def _restore(self, log: Path) -> None:
        """Write back what an undo log saved; an entry cut off by a crash was not yet written over."""
        for client, values in self._entries(log):
            where, start = torch.tensor([client]), 0
            for name, columns in self.columns.items():
                self._write(name, where, values[:, start : start + columns].contiguous())
                start += columns

    def _entries(self, log: Path) -> Iterator[tuple[int, Tensor]]:
        width = sum(self.columns.values())
        size = _HEAD.size + 4 * width
        with log.open("rb") as file:
            while len(entry := file.read(size)) == size:
                (client,) = _HEAD.unpack_from(entry)
                if not 0 <= client < len(self.seen):
                    raise PersoflError(f"{log} is damaged: it names client {client} of {len(self.seen)}.")
                values = torch.frombuffer(bytearray(entry[_HEAD.size :]), dtype=torch.float32)
                yield client, values.reshape(1, width)

    def _take_over(self, state: dict[str, Tensor]) -> None:
        """Rows of a checkpoint that was made with the clients in memory."""
        self._refuse_other_population(len(state["seen"]))
        self._close()
        rows = {key.removeprefix("rows."): value for key, value in state.items() if key != "seen"}
        clients = state["seen"].to("cpu").nonzero().flatten()
        self.columns = {}
        for part in self._ranks.mine(clients).split(1000):
            self.write(part, {name: values[part] for name, values in rows.items()})
        self._settle(None)
        self.seen = state["seen"].to("cpu", copy=True)

    def _refuse_other_population(self, clients: int) -> None:
        if clients != len(self.seen):
            raise PersoflError(
                f"The checkpoint holds {clients} clients, the data {len(self.seen)}. Load it with the data (and the rules "
                "that drop clients) that it was trained on."
            )

    def _close(self) -> None:
        if self._broken is None:
            self._settle(None)
        self._broken = None
        for file in self._files.values():
            os.close(file)
        self._files.clear()
        if self._log is not None:
            self._log.close()
            self._log = None

    def __del__(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._writer.shutdown(wait=False)


def sync_folder(folder: Path) -> None:
    """Put the names of its files on the disk, without which what is in a new one may be lost."""
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def _whole(file: int, content: bytes | memoryview, offset: int | None = None) -> None:
    """Write all of it, at an offset or at the end."""
    done = os.write(file, content) if offset is None else os.pwrite(file, content, offset)
    if done != len(content):
        raise OSError(f"wrote {done} of {len(content)} bytes; is the disk full?")
