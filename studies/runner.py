"""Run a study: every method's trials, then its final seeds; methods side by side, all of it tracked."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .config import MethodConfig
from .confusion import CONFUSION
from .errors import StoppedError, StudyError
from .events import Done, Event, Failed, Job, Logged, Warned
from .heldout import mean_metrics
from .inheritance import chosen_values, parents
from .names import space_of
from .pool import Pool
from .population import Population
from .search import Outcome, Space, frozen, propose, selected
from .session import WARNING_TAG, Session, start_method
from .view import View, Work
from .wire import TRANSCRIPT

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FLUSH_SECONDS = 5.0
OVER = ("FINISHED", "FAILED")


@dataclass
class MethodState:
    """How far a method has come."""

    method: MethodConfig
    space: Space
    run: str
    trials: int
    history: list[FrozenTrial]
    seeds: list[int]
    trial_runs: bool = False
    running: int = 0
    given: dict[str, Any] | None = None
    failed: str = ""
    warned: str = ""
    closed: bool = False

    @property
    def trials_left(self) -> int:
        """Trials that are not finished; none once the method has failed."""
        return 0 if self.failed else self.trials - len(self.history)

    def with_given(self) -> MethodConfig:
        """The method with what it inherited fixed."""
        return replace(self.method, fixed={**self.method.fixed, **(self.given or {})})

    @property
    def best(self) -> float:
        """Best objective of the finished trials, NaN without one."""
        values = [t.value for t in self.history if t.state.name == "COMPLETE" and t.value is not None]
        return (max if self.space.higher else min)(values, default=math.nan)


@dataclass
class Runner:
    """Hands out jobs and files what comes back; the only writer of both databases."""

    session: Session
    states: dict[str, MethodState]
    view: View
    unseen: frozenset[str] = frozenset()
    runs: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    buffer: dict[str, list[tuple[str, float, int]]] = field(default_factory=dict)
    flushed: float = field(default_factory=time.monotonic)

    def next_job(self) -> Job | None:
        """The next trial of the method that has most of them left, else the next final seed, else nothing."""
        while any(self._inherit(state) for state in self.states.values()):
            pass  # again: children may be listed before their parents
        ready = [state for state in self.states.values() if state.given is not None]
        waiting = [s for s in ready if s.trials_left > 0 and not s.trial_runs]
        if waiting:
            return self._start_trial(max(waiting, key=lambda state: state.trials_left))
        for state in ready:
            if state.trials_left == 0 and state.seeds and not state.failed:
                job = self._start_seed(state)
                if job is not None:
                    return job
        return None

    def handle(self, event: Event) -> None:
        """File an event.

        Raises:
            StudyError: a job failed for a reason that its user can mend.
            RuntimeError: it failed otherwise.
        """
        if isinstance(event, Logged):
            rows = [
                (name, value, event.round) for name, value in event.metrics.items() if math.isfinite(value)
            ]
            self.buffer.setdefault(event.key, []).extend(rows)
            self.view.advanced(event.key, event.round)
            if time.monotonic() - self.flushed > FLUSH_SECONDS:
                self.flush()
        elif isinstance(event, Warned):
            self._warn(event)
        elif isinstance(event, Failed):
            self._fail(event)
        else:
            self._end(event)

    def flush(self) -> None:
        """Write the metrics gathered since the last time."""
        for key, rows in self.buffer.items():
            self.session.store.metrics(self.runs[key], rows)
        self.buffer.clear()
        self.flushed = time.monotonic()

    def close(self, status: str, reason: str) -> None:
        """End everything that is still open, as KILLED or FAILED."""
        self.flush()
        for key in list(self.jobs):
            self.session.store.end(self.runs[key], status, reason)
        for state in self.states.values():
            self._close_method(state, status, reason)
        self.jobs.clear()

    def _inherit(self, state: MethodState) -> bool:
        """Take what a method inherits, once the trials of all whom it inherits from are over; whether that was now."""
        if state.given is not None or state.failed:
            return False
        sources = parents(state.method, self.states)
        above = {label: self.states[label] for label, _ in sources.values()}
        if any(
            parent.trials_left or (parent.given is None and not parent.failed) for parent in above.values()
        ):
            return False
        try:
            values = {label: self._chosen(label, parent) for label, parent in above.items()}
        except StudyError as error:
            state.failed = f"{state.method.label} inherits from a method that failed. {error}"
            self._close_method(state, "FAILED", state.failed)
            self.view.say(state.failed)
            return True
        state.given = {param: values[label][theirs] for param, (label, theirs) in sources.items()}
        return True

    def _chosen(self, label: str, parent: MethodState) -> dict[str, Any]:
        if parent.failed:
            raise StudyError(parent.failed)
        best = selected(label, parent.history, higher=parent.space.higher)
        return chosen_values(parent.method, self.session.config, parent.given or {}, best)

    def _start_trial(self, state: MethodState) -> Job:
        number = len(state.history)
        params = propose(state.space, state.history, self.session.config.search)
        job = Job("trial", number, self.session.config, state.with_given(), params, tuple(state.history))
        state.trial_runs = True
        return self._start(job, state)

    def _start_seed(self, state: MethodState) -> Job | None:
        label = state.method.label
        try:
            best = selected(label, state.history, higher=state.space.higher)
        except StudyError as error:
            state.failed = str(error)
            self._close_method(state, "FAILED", state.failed)
            self.view.say(state.failed)
            return None
        seed = state.seeds.pop(0)
        job = Job("seed", seed, self.session.config, state.with_given(), dict(best.params))
        return self._start(
            replace(job, checkpoint=str(self.session.checkpoint(label, state.run, job.name))), state
        )

    def _start(self, job: Job, state: MethodState) -> Job:
        tags = {f"persofl.{job.kind}": str(job.number)}
        params = {"seed": job.seed, **(state.given or {}), **job.params}
        self.runs[job.key] = self.session.begin(
            job.kind, state.method.label, job.name, params, state.run, **tags
        )
        state.running += 1
        self.jobs[job.key] = job
        self.view.started(job)
        return job

    def _end(self, done: Done) -> None:
        """File a result, in an order that loses nothing when this process dies in between.

        The run's metrics and tables first, then a trial into the search, which is what counts as done; last the run's
        status, which the next session sets if this one cannot.
        """
        job = self.jobs[done.key]
        state = self.states[job.method.label]
        self._log_result(done)
        if job.kind == "trial":
            self._store_trial(state, job, done)
        diverged = done.state == "diverged"
        self.session.store.end(self.runs[done.key], "FAILED" if diverged else "FINISHED", done.reason)
        del self.jobs[done.key]
        state.running -= 1
        self.view.finished(job, done, state.best)
        if not (state.trials_left or state.seeds or state.running):
            self._close_method(state, "FINISHED", "")

    def _log_result(self, done: Done) -> None:
        store, run = self.session.store, self.runs[done.key]
        rows = [*self.buffer.pop(done.key, []), ("seconds", done.seconds, 0)]
        if done.table is not None:
            store.table(run, "clients.csv", done.table)
            rows += mean_metrics(done.table, self.unseen)
        if done.confusion is not None:
            store.table(run, CONFUSION, done.confusion)
        rows += [(name, value, 0) for name, value in done.wire.items()]
        if done.transcript:
            store.artifact(run, TRANSCRIPT, done.transcript)
        store.metrics(run, rows)
        store.set_tag(run, "persofl.state", done.state)

    def _warn(self, warned: Warned) -> None:
        """Say and record it once a method, not once a job."""
        state = self.states[self.jobs[warned.key].method.label]
        if warned.text != state.warned:
            state.warned = warned.text
            self.session.store.set_tag(state.run, WARNING_TAG, warned.text)
            self.view.say(warned.text)

    def _close_method(self, state: MethodState, status: str, reason: str) -> None:
        if not state.closed:
            self.session.store.end(state.run, status, reason)
            state.closed = True

    def _store_trial(self, state: MethodState, job: Job, done: Done) -> None:
        outcome = Outcome(job.params, done.curve, done.state, done.reason, self.runs[done.key])
        self.session.trials.add(job.method.label, frozen(outcome, state.space), higher=state.space.higher)
        state.history = self.session.trials.history(job.method.label)
        state.trial_runs = False

    def _fail(self, failed: Failed) -> None:
        self.flush()
        job = self.jobs.pop(failed.key)
        self.session.store.end(self.runs[failed.key], "FAILED", failed.message)
        self.states[job.method.label].running -= 1
        if failed.mendable:
            raise StudyError(f"{failed.key} failed. {failed.message}")
        raise RuntimeError(f"{failed.key} failed:\n{failed.traceback}")


def method_states(session: Session, population: Population) -> dict[str, MethodState]:
    """Where each method stands: trials from the trials' database, final seeds from MLflow."""
    states = {}
    for method in session.config.method_configs():
        space = space_of(method, session.config)
        # identical trials would tell nothing: with nothing to tune, one stands for all
        trials = session.config.search.trials if space.ranges else 1
        history = session.trials.history(method.label)[:trials]
        seeds = [seed for seed in session.config.seeds if not _over(session, method.label, seed)]
        given: dict[str, Any] | None = None if method.inherit else {}
        state = MethodState(method, space, "", trials, history, seeds, given=given)
        known = session.runs.get(("method", method.label, method.label))
        state.run = start_method(session, method, population)
        if known is not None and not (state.trials_left or seeds):
            state.failed = known.tags.get("persofl.reason", "") if known.status == "FAILED" else ""
            session.store.end(state.run, "FAILED" if state.failed else "FINISHED")
            state.closed = True
        states[method.label] = state
    return states


def work_of(session: Session, states: dict[str, MethodState]) -> Work:
    """How much there is to do, for the progress display."""
    seeds = len(session.config.seeds)
    jobs = {
        label: (state.trials + seeds, len(state.history) + seeds - len(state.seeds))
        for label, state in states.items()
    }
    return Work(jobs, session.config.training.rounds, session.config.objective)


def run_study(runner: Runner, pool: Pool) -> None:
    """Run all jobs; whatever ends them early, no run stays RUNNING.

    Raises:
        StoppedError: Ctrl-C or SIGTERM.
        StudyError: a job failed for a reason that its user can mend.
    """
    try:
        with runner.view:
            pool.run(runner.next_job, runner.handle)
        runner.flush()
    except (StoppedError, KeyboardInterrupt) as stop:
        runner.close("KILLED", "stopped by a signal")
        raise StoppedError(str(stop) or "SIGINT") from stop
    except Exception as error:
        runner.close("FAILED", f"{type(error).__name__}: {error}")
        raise


def _over(session: Session, label: str, seed: int) -> bool:
    run = session.runs.get(("seed", label, f"seed-{seed}"))
    return (
        run is not None and run.status in OVER and run.tags.get("persofl.state") in ("complete", "diverged")
    )
