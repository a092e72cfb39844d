"""Checkpoints written while the next rounds train."""

from __future__ import annotations

import atexit
import copy
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from .diskstore import sync_folder
from .placed import HOST
from .ranks import Ranks


class BackgroundCheckpointIO(TorchCheckpointIO):
    """Copies a checkpoint, and writes it on a thread of its own; for ``Trainer(plugins=[...])``.

    One checkpoint is written at a time, and the next is made when it is there, so that clients on disk
    (:mod:`persofl.diskstore`), which know the way back to two moments, never get further ahead of the file. A file is put
    in its place when it is whole, so that a process that dies, or a disk that is full, leaves the one before. An error
    while writing is raised by the next call, or when the fit ends.

    The thread is there while a :class:`~persofl.FederatedModule` fits, from :meth:`start` to :meth:`teardown`. Otherwise
    nobody would wait for the file, so a checkpoint is written at once; so it is inside another plugin, because Lightning's
    wrappers do not pass ``teardown`` on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._writer: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def start(self) -> None:
        """Write in the background from here on, until :meth:`teardown`."""
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
            # Ctrl-C may cut off a teardown too: what went wrong is then told at the process's end.
            atexit.register(self._at_exit)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Begin to write, or write; see the class."""
        self.settle()
        if self._writer is None:
            self._write(checkpoint, path, storage_options)
            return
        try:
            # Not of tensors only: callbacks put into a checkpoint what they like, and go on changing it.
            copied = copy.deepcopy(checkpoint)
        except Exception:
            # What can be written need not be copyable, such as a tensor with its gradient's graph.
            self._write(checkpoint, path, storage_options)
            return
        self._pending = self._writer.submit(self._write, copied, path, storage_options)

    def _write(self, checkpoint: dict[str, Any], path: Any, storage_options: Any) -> None:
        """Whole, or not at all: beside its place, in which it is put at once.

        Lightning's own writing ends in a copy over the older file where the system's temporary files lie on another disk.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        growing = place.with_name(f"{place.name}.new")
        try:
            with growing.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            growing.replace(place)
            sync_folder(place.parent)  # clients on disk drop the way back to the one before
        except BaseException:
            growing.unlink(missing_ok=True)
            raise

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Read a checkpoint, after what is being written."""
        self.settle()
        return super().load_checkpoint(*args, **kwargs)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint, after what is being written; where that failed, the older one is kept.

        The error is left for :func:`settle_together`: one rank removes, and all are to hear of it.
        """
        if self._pending is None or self._pending.exception() is None:
            super().remove_checkpoint(path)

    def settle(self) -> None:
        """Wait until all is written; if the waiting is interrupted, the next call waits on.

        Raises:
            OSError: or what else writing ended with.
        """
        if self._pending is None:
            return
        error = self._pending.exception()
        self._pending = None
        if error is not None:
            raise error

    def teardown(self) -> None:
        """Wait, and end the thread."""
        try:
            self.settle()
        finally:
            if self._writer is not None:
                self._writer.shutdown()
                self._writer = None
            if self._pending is None:
                atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        # Threads have ended by now. Only in a forked process, which has none, something is not done, and never will be.
        if self._pending is not None and self._pending.done():
            self.settle()


def begin_writing(trainer: Any) -> None:
    """From here to the trainer's teardown checkpoints may be written in the background.

    Not where a callback links to the last one, which has to be there at once.
    """
    writer = trainer.strategy.checkpoint_io
    linked = any(getattr(callback, "save_last", None) == "link" for callback in trainer.callbacks)
    if isinstance(writer, BackgroundCheckpointIO) and not linked:
        writer.start()


def settle_together(plugin: Any, ranks: Ranks) -> None:
    """Wait for the checkpoint that is being written: the first rank writes, and all hear how it ended.

    Args:
        plugin: a trainer's for checkpoints; if it wraps another, that one is asked too.
        ranks: of the run.

    Raises:
        OSError: or what else writing ended with.
        PersoflError: the same with several ranks, on every one.
    """
    while plugin is not None and not isinstance(plugin, BackgroundCheckpointIO):
        plugin = getattr(plugin, "checkpoint_io", None)
    if plugin is not None:
        ranks.agree(
            plugin.settle,
            "The last checkpoint could not be written; the one before is whole: go on from it with --resume.",
        )


def on_host(value: Any) -> Any:
    """The same dictionaries and lists with every tensor on the host."""
    if isinstance(value, Tensor):
        return value.to(HOST)
    if isinstance(value, dict):
        return {key: on_host(part) for key, part in value.items()}
    return [on_host(part) for part in value] if isinstance(value, list) else value


def plain(params: dict[str, Any]) -> dict[str, Any]:
    """Values that ``torch.load(weights_only=True)`` reads back."""
    return {
        name: value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
        for name, value in params.items()
    }
