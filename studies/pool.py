"""Run jobs one after the other here, or side by side in processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from .errors import StoppedError, WorkerError
from .events import Done, Emit, Event, Execute, Failed, Job
from .signals import check_stop, hear_interrupts, stop_on_signals

GRACE = 10.0
NextJob = Callable[[], Job | None]


class Pool(Protocol):
    """Takes jobs while there are any and hands over what they tell, in the calling thread."""

    def run(self, next_job: NextJob, handle: Emit) -> None:
        """Run until no job is left and none is running; :class:`StoppedError` ends it early."""

    def __enter__(self) -> Pool:
        """Get ready, without waiting for it."""

    def __exit__(self, *exception: object) -> None:
        """End whatever still runs."""


@dataclass(frozen=True)
class Inline:
    """Jobs in this process, one after the other."""

    execute: Execute

    def run(self, next_job: NextJob, handle: Emit) -> None:
        """See :class:`Pool`."""
        check_stop()
        while (job := next_job()) is not None:
            handle(_attempt(self.execute, job, handle))
            check_stop()

    def __enter__(self) -> Inline:
        """See :class:`Pool`."""
        return self

    def __exit__(self, *exception: object) -> None:
        """See :class:`Pool`."""


@dataclass
class Processes:
    """Jobs in ``count`` spawned processes; they end when this one does, however it ends.

    Args:
        execute: does a job; a function at the top of a module.
        count: how many processes.
        prepare: what each does first; slow imports, which so overlap with the caller's own.
    """

    execute: Execute
    count: int
    prepare: Callable[[], None] | None = None
    workers: list[_Worker] = field(default_factory=list)

    def run(self, next_job: NextJob, handle: Emit) -> None:
        """See :class:`Pool`."""
        while True:
            check_stop()
            self._feed(next_job)
            busy = [worker for worker in self.workers if worker.job is not None]
            if not busy:
                return
            self._listen(busy, handle)

    def __enter__(self) -> Processes:
        """Start the processes."""
        self.workers = [_start(self.execute, self.prepare) for _ in range(self.count)]
        return self

    def _feed(self, next_job: NextJob) -> None:
        """Give idle workers something to do."""
        for worker in self.workers:
            if worker.job is None and (job := next_job()) is not None:
                try:
                    worker.pipe.send(job)
                except OSError as error:
                    raise self._died(worker) from error
                worker.job = job

    def _listen(self, busy: list[_Worker], handle: Emit) -> None:
        by_pipe = {worker.pipe: worker for worker in busy}
        for pipe in wait(list(by_pipe), timeout=0.2):
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                event: Event = worker.pipe.recv()
            except (EOFError, ConnectionResetError) as error:
                raise self._died(worker) from error
            if isinstance(event, (Done, Failed)):
                worker.job = None
            handle(event)

    def _died(self, worker: _Worker) -> Exception:
        worker.process.join(GRACE)
        key = worker.job.key if worker.job else "no job"
        return WorkerError(
            f"The process that computed {key} ended without a result (exit code {worker.process.exitcode}). "
            "Exit code -9 usually means that memory ran out: use fewer --workers or a smaller "
            "--training.chunk. Run the same command again to go on."
        )

    def __exit__(self, *exception: object) -> None:
        """End the processes: idle ones have nothing to lose, busy ones stop after the round they are in."""
        for worker in self.workers:
            if worker.job is None:
                worker.process.kill()
            else:
                worker.process.terminate()
            worker.pipe.close()
        deadline = time.monotonic() + GRACE
        for worker in self.workers:
            worker.process.join(max(0.1, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self.workers.clear()


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job | None = None


def _start(execute: Execute, prepare: Callable[[], None] | None) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, execute, prepare, os.getpid()), daemon=True)
    with _inherited():
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _inherited() -> Iterator[None]:
    """What a child has from its first instruction: one thread, and no ear for the terminal's Ctrl-C.

    Its parent hears that and tells it; a child that hears it too would print a traceback while it still imports.
    """
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    heard = hear_interrupts(on=False)
    try:
        yield
    finally:
        hear_interrupts(on=True, handler=heard)
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads


def _serve(pipe: Connection, execute: Execute, prepare: Callable[[], None] | None, parent: int) -> None:
    """The life of a worker: jobs in, events out, until the pipe closes."""
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    with stop_on_signals(interrupt=False):
        if prepare is not None:
            prepare()
        try:
            while True:
                job: Job = pipe.recv()
                pipe.send(_attempt(execute, job, pipe.send))
        except (EOFError, OSError, StoppedError):
            return


def _die_with(parent: int) -> None:
    """A parent killed outright cannot tell its children; they look."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _attempt(execute: Execute, job: Job, emit: Emit) -> Event:
    try:
        return execute(job, emit)
    except StoppedError:
        raise
    except Exception as error:
        mendable = isinstance(error, (ValueError, OSError))
        return Failed(job.key, str(error), traceback.format_exc(), mendable)
