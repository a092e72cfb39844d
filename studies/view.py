"""The progress of a study: bars on a terminal, one line per finished job elsewhere."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

    from .events import Done, Job


class View(Protocol):
    """What the runner tells whoever watches."""

    def started(self, job: Job) -> None:
        """A job began."""

    def advanced(self, key: str, round_: int) -> None:
        """A round of a job ended."""

    def finished(self, job: Job, done: Done, best: float) -> None:
        """A job ended; ``best`` is its method's best objective so far."""

    def say(self, text: str) -> None:
        """Show a message without tearing the bars."""

    def __enter__(self) -> View:
        """Begin to draw."""

    def __exit__(self, *exception: object) -> None:
        """Stop drawing, leaving the last state on the screen."""


@dataclass(frozen=True)
class Work:
    """How much there is to do: method label -> (jobs in all, jobs done before); rounds of a job; the objective."""

    jobs: dict[str, tuple[int, int]]
    rounds: int
    objective: str

    @property
    def total(self) -> int:
        """All jobs of the study."""
        return sum(total for total, _ in self.jobs.values())

    @property
    def before(self) -> int:
        """Jobs that an earlier session finished."""
        return sum(done for _, done in self.jobs.values())


def make_view(console: Console, work: Work) -> View:
    """Bars if the console is a terminal, lines otherwise."""
    return Bars(console, work) if console.is_terminal else Lines(console, work)


@dataclass
class Lines:
    """One line per finished job."""

    console: Console
    work: Work
    began: float = field(default_factory=time.monotonic)
    done: int = 0

    def __enter__(self) -> Lines:
        """See :class:`View`."""
        return self

    def __exit__(self, *exception: object) -> None:
        """See :class:`View`."""

    def started(self, job: Job) -> None:
        """See :class:`View`."""

    def advanced(self, key: str, round_: int) -> None:
        """See :class:`View`."""

    def say(self, text: str) -> None:
        """See :class:`View`."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def finished(self, job: Job, done: Done, best: float) -> None:
        """See :class:`View`."""
        self.done += 1
        count = self.work.before + self.done
        per_job = (time.monotonic() - self.began) / self.done
        left = _clock(per_job * (self.work.total - count))
        self.say(
            f"[{count}/{self.work.total}] {job.key}: {_outcome(done, self.work.objective)}"
            f"{_best(best)}, {done.seconds:.1f} s, about {left} left"
        )


class Bars:
    """A bar per method, a bar for the study with elapsed and remaining time."""

    def __init__(self, console: Console, work: Work) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.work = work
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[jobs]}", justify="right"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            speed_estimate_period=120,
        )
        self.rounds: dict[str, int] = {}
        self.counts = {label: done for label, (_, done) in work.jobs.items()}
        self.tasks = {label: self._bar(label, *jobs) for label, jobs in work.jobs.items()}
        self.all = self._bar("all methods", work.total, work.before)

    def _bar(self, name: str, total: int, done: int) -> Any:
        rounds = self.work.rounds
        return self.progress.add_task(
            name, total=total * rounds, completed=done * rounds, jobs=f"{done}/{total}", note=""
        )

    def __enter__(self) -> Bars:
        """See :class:`View`."""
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """See :class:`View`."""
        self.progress.stop()

    def say(self, text: str) -> None:
        """See :class:`View`."""
        self.progress.console.print(text, markup=False, highlight=False)

    def started(self, job: Job) -> None:
        """See :class:`View`."""
        self.rounds[job.key] = 0

    def advanced(self, key: str, round_: int) -> None:
        """See :class:`View`."""
        self._move(key, round_)

    def finished(self, job: Job, done: Done, best: float) -> None:
        """See :class:`View`."""
        self._move(job.key, self.work.rounds)
        label = job.method.label
        self.counts[label] += 1
        total = self.work.jobs[label][0]
        note = f"best {self.work.objective} {best:.4f}" if math.isfinite(best) else _outcome(done, "")
        self.progress.update(self.tasks[label], jobs=f"{self.counts[label]}/{total}", note=note)
        self.progress.update(self.all, jobs=f"{sum(self.counts.values())}/{self.work.total}")

    def _move(self, key: str, round_: int) -> None:
        step = max(0, round_ - self.rounds.get(key, 0))
        self.rounds[key] = max(round_, self.rounds.get(key, 0))
        self.progress.advance(self.tasks[key.rsplit("/", 1)[0]], step)
        self.progress.advance(self.all, step)


def _outcome(done: Done, objective: str) -> str:
    if done.state != "complete" or not done.curve:
        return done.reason or done.state
    return f"{objective} {done.curve[max(done.curve)]:.4f}"


def _best(best: float) -> str:
    return f" (best {best:.4f})" if math.isfinite(best) else ""


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
