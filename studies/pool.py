"""Run jobs one after the other here, or side by side in processes of one thread each, or in teams of processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
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
        count: how many jobs run side by side.
        prepare: what each process does first; slow imports, which so overlap with the caller's own.
        size: processes that train one job together, see :func:`meet`.
    """

    execute: Execute
    count: int
    prepare: Callable[[], None] | None = None
    size: int = 1
    teams: list[_Team] = field(default_factory=list)

    def run(self, next_job: NextJob, handle: Emit) -> None:
        """See :class:`Pool`."""
        while True:
            check_stop()
            self._feed(next_job)
            busy = [team for team in self.teams if team.job is not None]
            if not busy:
                return
            self._listen(busy, handle)

    def __enter__(self) -> Processes:
        """Start the processes."""
        self.teams = [self._team() for _ in range(self.count)]
        return self

    def _team(self) -> _Team:
        """A team of new processes; several meet before the first job."""
        if self.size == 1:
            return _Team([_start(self.execute, self.prepare)])
        prepares = meetings(self.size, self.prepare)
        return _Team([_start(self.execute, prepare) for prepare in prepares])

    def _feed(self, next_job: NextJob) -> None:
        """Give idle teams something to do."""
        for team in self.teams:
            if team.job is None and (job := next_job()) is not None:
                for worker in team.workers:
                    try:
                        worker.pipe.send(job)
                    except OSError as error:
                        raise self._died(worker, job) from error
                team.job = job

    def _listen(self, busy: list[_Team], handle: Emit) -> None:
        by_pipe = {worker.pipe: (team, worker) for team in busy for worker in team.workers}
        for pipe in wait(list(by_pipe), timeout=0.2):
            team, worker = by_pipe[pipe]  # type: ignore[index]
            try:
                event: Event = worker.pipe.recv()
            except (EOFError, ConnectionResetError) as error:
                raise self._died(worker, team.job) from error
            if isinstance(event, (Done, Failed)):
                worker.answer = event
            elif worker is team.workers[0]:  # the others see the same
                handle(event)
        for place, team in enumerate(self.teams):
            if team.job is None or (answer := team.answer()) is None:
                continue
            if any(worker.answer is None for worker in team.workers):  # they wait for one that failed
                team.end(at_once=True)
                self.teams[place] = self._team()
            else:
                team.rest()
            handle(answer)

    def _died(self, worker: _Worker, job: Job | None) -> Exception:
        worker.process.join(GRACE)
        key = job.key if job else "no job"
        return WorkerError(
            f"The process that computed {key} ended without a result (exit code {worker.process.exitcode}). "
            "Exit code -9 usually means that memory ran out: use fewer --workers or a smaller "
            "--training.chunk. Run the same command again to go on."
        )

    def __exit__(self, *exception: object) -> None:
        """End the processes: idle ones have nothing to lose, busy ones stop after the round they are in."""
        for team in self.teams:
            team.ask_to_end()
        deadline = time.monotonic() + GRACE
        for team in self.teams:
            team.end(deadline)
        self.teams.clear()


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    answer: Done | Failed | None = None


@dataclass
class _Team:
    """Processes that have the same job, each its share of it; the first speaks for all."""

    workers: list[_Worker]
    job: Job | None = None
    failed_at: float | None = None

    def answer(self) -> Done | Failed | None:
        """What came of the job, when all have answered or one failed and the others had time to."""
        answers = [worker.answer for worker in self.workers]
        failed = next((answer for answer in answers if isinstance(answer, Failed)), None)
        if None not in answers:
            return failed or answers[0]
        if failed is None:
            return None
        if self.failed_at is None:
            self.failed_at = time.monotonic()
        return failed if time.monotonic() - self.failed_at > GRACE else None

    def rest(self) -> None:
        """Ready for the next job."""
        self.job = self.failed_at = None
        for worker in self.workers:
            worker.answer = None

    def ask_to_end(self) -> None:
        """Tell busy processes to stop after the round they are in, and kill idle ones."""
        for worker in self.workers:
            if self.job is None:
                worker.process.kill()
            else:
                worker.process.terminate()
            worker.pipe.close()

    def end(self, deadline: float = 0.0, *, at_once: bool = False) -> None:
        """Wait until they have ended, and kill what still runs at the deadline."""
        for worker in self.workers:
            if at_once:
                worker.process.kill()
                worker.pipe.close()
            worker.process.join(max(0.1, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def meetings(size: int, prepare: Callable[[], None] | None) -> list[Callable[[], None]]:
    """What each process of a team does first: all meet at a file of their own."""
    place = Path(tempfile.mkdtemp(prefix="persofl-team-")) / "meet"
    return [partial(meet, place, rank, size, prepare) for rank in range(size)]


def meet(place: Path, rank: int, size: int, prepare: Callable[[], None] | None) -> None:
    """Join the processes that train together, for this one's life; Lightning takes the group that it finds.

    Args:
        place: a file that there is not yet, in a folder of its own, the same for all.
        rank: this process's number.
        size: of the team.
        prepare: what to do beforehand.
    """
    import torch.distributed as dist

    if prepare is not None:
        prepare()
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")  # by which Lightning knows who is the first
    dist.init_process_group("gloo", init_method=place.as_uri(), rank=rank, world_size=size)
    dist.barrier()
    if rank == 0:
        shutil.rmtree(place.parent, ignore_errors=True)


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
