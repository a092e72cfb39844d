"""A study from its configuration to its comparison."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .config import StudyConfig, TrainerConfig
from .errors import StoppedError, StudyError
from .heldout import unseen_clients
from .loading import forget_data, load_data, settled
from .locks import exclusive, slug
from .plots import write_plots
from .pool import Inline, Pool, Processes
from .population import Population
from .report import Comparison, as_json, as_markdown, chosen_group, compare
from .results import read_results
from .runner import Runner, method_states, run_study, work_of
from .session import Session, open_session
from .signals import stop_on_signals
from .tracking import Store, open_store
from .training import run_job, warm_up
from .view import make_view

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Finished:
    """What a study leaves: the comparison, and the folder of its report and plots."""

    comparison: Comparison
    folder: Path


def run(config: StudyConfig, console: Console, *, fresh: bool = False) -> Finished:
    """Run a study, or what is left of it, and compare its methods.

    Args:
        config: the study.
        console: shows the clients, the progress and what went wrong on the way.
        fresh: start over, moving the runs of an earlier start to MLflow's bin.

    Raises:
        StudyError: the study exists with other settings, is running elsewhere, or a job failed.
        StoppedError: Ctrl-C or SIGTERM; all runs are closed, and running it again goes on.
        ValueError: the data cannot be used.
    """
    _refuse_elsewhere(config.trainer)
    lock = Path(config.tracking.dir) / "locks" / f"{slug(config.name)}.lock"
    with ExitStack() as stack:
        store = open_store(config.tracking.dir)
        stack.enter_context(exclusive(lock, f"Study {config.name!r}"))
        stack.enter_context(stop_on_signals())
        pool = stack.enter_context(make_pool(config.workers, config.trainer.devices))
        session, population = _begin(config, store, console, fresh=fresh)
        _run_jobs(session, population, pool, console)
        comparison = compare(read_results(store, config.name))
        return Finished(comparison, publish(comparison, session))


def _refuse_elsewhere(trainer: TrainerConfig) -> None:
    if trainer.num_nodes > 1 or trainer.accelerator != "cpu":
        raise StudyError(
            f"trainer: a study's runs train on this machine's processors, each in up to trainer.devices processes; got "
            f"num_nodes={trainer.num_nodes}, accelerator={trainer.accelerator!r}. `persofl train` takes these."
        )


def make_pool(workers: int, together: int = 1) -> Pool:
    """One worker computes here, several in processes of their own, each with its copy of the data.

    Args:
        workers: jobs side by side.
        together: processes that train one job.
    """
    alone = workers == together == 1
    return Inline(run_job) if alone else Processes(run_job, workers, warm_up, together)


def _begin(config: StudyConfig, store: Store, console: Console, *, fresh: bool) -> tuple[Session, Population]:
    data = load_data(config.data)
    config = settled(config, data)
    population = Population.of(data, config.data)
    chosen_group(population.attributes, config.group_by)
    if config.workers * config.trainer.devices > 1:
        forget_data()
    console.print(population.summary(), highlight=False, markup=False, soft_wrap=True)
    return open_session(config, store, population, fresh=fresh), population


def _run_jobs(session: Session, population: Population, pool: Pool, console: Console) -> None:
    states = method_states(session, population)
    work = work_of(session, states)
    if work.before:
        console.print(f"Going on: {work.before} of {work.total} jobs are done.", highlight=False)
    unseen = unseen_clients(population.attributes)
    try:
        run_study(Runner(session, states, make_view(console, work), unseen), pool)
    except StoppedError as stop:
        raise StoppedError(
            f"Stopped ({stop}). All runs are closed; run the same command again to go on where it stopped."
        ) from stop


def publish(comparison: Comparison, session: Session) -> Path:
    """Write report, JSON and plots to ``<folder>/reports/<study>`` and to the study's comparison run."""
    folder = session.folder / "reports" / slug(session.config.name)
    files = write_plots(comparison.results.seen(), folder)
    for name, text in (("report.md", as_markdown(comparison)), ("comparison.json", as_json(comparison))):
        (folder / name).write_text(text)
        files.append(folder / name)
    _log_comparison(comparison, session, files)
    return folder


def _log_comparison(comparison: Comparison, session: Session, files: list[Path]) -> None:
    store: Store = session.store
    run_id = session.begin("comparison", "", "comparison", {})
    rows = [
        (f"{name}/{column}", float(value), 0)
        for name, row in comparison.summary.iterrows()
        for column, value in row.dropna().items()
    ]
    store.metrics(run_id, [(_metric_name(name), value, step) for name, value, step in rows])
    for file in files:
        store.artifact_file(run_id, file)
    store.end(run_id)


def _metric_name(name: str) -> str:
    """MLflow takes no ``+`` in the names of metrics."""
    return name.replace("+", " ")
