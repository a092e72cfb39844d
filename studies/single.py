"""`persofl train`: one method, one seed, with a progress bar, a checkpoint, and a table of every client's errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import MethodConfig, StudyConfig
from .confusion import CONFUSION, confusion_table
from .environment import environment
from .errors import StoppedError, StudyError
from .heldout import mean_metrics, unseen_clients, without
from .loading import flat_distances, load_data, settled
from .locks import exclusive
from .names import is_higher_better, make_method
from .population import Population
from .schema import plain
from .session import CONFIG_TAG, CUT_OFF, WARNING_TAG, checkpoint_folder, flat
from .signals import end_at_signals, stop_on_signals
from .together import helped, is_helper, refuse_unmet
from .tracking import Store, open_store
from .training import (
    CLIENTS,
    LAST,
    build_module,
    fit,
    keep_in,
    make_trainer,
    quiet,
    resume_from,
    trainer_options,
    warm_up,
)
from .wire import TRANSCRIPT, wire_line, wire_metrics, wire_text

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from persofl import FederatedModule


def train_once(config: StudyConfig, console: Console, *, resume: bool = False) -> None:
    """Train the one method of ``config`` with its one seed.

    Args:
        config: a study with one method and one seed.
        console: shows the clients and the result.
        resume: go on from the checkpoint that an earlier run left, in the same MLflow run.

    Raises:
        StudyError: nothing to resume, the same run is under way, or another of its processes ended.
        StoppedError: Ctrl-C or SIGTERM; the last checkpoint is kept.
    """
    method, seed = config.method_configs()[0], config.seeds[0]
    folder = checkpoint_folder(Path(config.tracking.dir), config.name, method.label, f"train-seed-{seed}")
    refuse_unmet(config.trainer)
    if is_helper():
        _help(config, folder, resume=resume)
        return
    warm_up()
    with ExitStack() as stack:
        store = open_store(config.tracking.dir)
        stack.enter_context(exclusive(folder / "lock", f"Training {method.label!r} with seed {seed}"))
        stack.enter_context(stop_on_signals())
        if resume and not (folder / LAST).is_file():
            raise StudyError(
                f"There is no checkpoint to resume from: {folder / LAST}. Leave out --resume to start."
            )
        data = load_data(config.data)
        config = settled(config, data)
        population = Population.of(data, config.data)
        console.print(population.summary(), highlight=False, markup=False, soft_wrap=True)
        module = build_module(data, config, make_method(method, config), seed, _clients(config, folder))
        run = _begin(store, config, population, resume=resume)
        if resume:
            console.print(f"Going on from {folder / LAST}.", highlight=False, soft_wrap=True)
        if config.trainer.num_nodes > 1:
            console.print(
                f"Waiting for {config.trainer.num_nodes} machines; Ctrl-C ends it.", highlight=False
            )
        with _closing(store, run), helped(config.trainer):
            _fit(module, config, (store, run), folder, resume=resume)
            if warning := flat_distances(module, method.label):
                store.set_tag(run, WARNING_TAG, warning)
                console.print(warning, highlight=False, markup=False, soft_wrap=True)
            table = module.client_table("test")
            unseen = unseen_clients(population.attributes)
            _log_tables(store, run, module, table, unseen)
            _log_wire(store, run, module)
        if line := wire_line(module.federation.personaliser.tolls):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        _print(config, table, unseen, console, folder)


def _help(config: StudyConfig, folder: Path, *, resume: bool) -> None:
    """Train this process's clients, from the checkpoint that the first process goes on from.

    Asked to stop it ends as if it had done all: the first has the run to close and says what happened.
    """
    with stop_on_signals(), suppress(StoppedError, KeyboardInterrupt), helped(config.trainer):
        warm_up()
        data = load_data(config.data)
        config = settled(config, data)
        method = make_method(config.method_configs()[0], config)
        module = build_module(data, config, method, config.seeds[0], _clients(config, folder))
        _fit(module, config, None, folder, resume=resume)
        module.client_table("test")
        confusion_table(module)


def _fit(
    module: FederatedModule,
    config: StudyConfig,
    tracked: tuple[Store, str] | None,
    folder: Path,
    *,
    resume: bool,
) -> None:
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from pytorch_lightning.loggers import MLFlowLogger

    from .callbacks import Reporter, RoundBar

    logger: Any = False
    if tracked is not None:
        logger = MLFlowLogger(config.name, tracking_uri=tracked[0].uri, run_id=tracked[1])
    watch = Reporter(
        "train", config.objective, lambda event: None, keep=keep_in(folder, config, fresh=not resume)
    )
    options: dict[str, Any] = {
        "logger": logger,
        "enable_progress_bar": True,
        **trainer_options(config.trainer),
    }
    with quiet():
        try:
            trainer = make_trainer(config, [watch, RoundBar()], **options)
        except MisconfigurationException as error:  # such as a GPU where there is none
            raise StudyError(f"trainer: {error}") from error
        if config.trainer.num_nodes > 1:
            end_at_signals()  # while it waits for the other machines, in a call that hears none
        fit(trainer, module, resume_from(str(folder)) if resume else None)


def _begin(store: Store, config: StudyConfig, population: Population, *, resume: bool) -> str:
    method, seed = config.method_configs()[0], config.seeds[0]
    experiment = store.experiment(config.name) or store.create_experiment(config.name)
    if CONFIG_TAG in store.tags(experiment):
        raise StudyError(f"{config.name!r} is a study; give this training another --name.")
    name = f"{method.label} seed-{seed}"
    same = [run for run in store.runs(experiment) if run.kind == "train" and run.name == name]
    for left in same:
        if left.status == "RUNNING":
            store.end(left.id, "KILLED", CUT_OFF)
    if resume and same:
        store.reopen(same[-1].id)
        return same[-1].id
    tags = {"persofl.kind": "train", "persofl.method": method.label, "persofl.seed": str(seed)}
    run = store.start(experiment, name, tags, _params(config, method))
    population.log(store, run)
    store.artifact(run, "environment.json", json.dumps(environment(), indent=2))
    return run


def _params(config: StudyConfig, method: MethodConfig) -> dict[str, Any]:
    """Settings and hyperparameters under the names that flags and files use."""
    from persofl import method_params

    parts = {key: plain(getattr(config, key)) for key in ("data", "model", "training")}
    own = method_params(make_method(method, config))
    return {"method": method.name, "seed": config.seeds[0], **dict(flat(parts)), **own}


@contextmanager
def _closing(store: Store, run: str) -> Iterator[None]:
    """End the run as what the block turns out to be."""
    try:
        yield
    except (StoppedError, KeyboardInterrupt) as stop:
        store.end(run, "KILLED", "stopped by a signal")
        raise StoppedError(
            f"Stopped ({stop}). The last checkpoint is kept: --resume goes on from it."
        ) from stop
    except BaseException as error:
        store.end(run, "FAILED", f"{type(error).__name__}: {error}")
        raise
    store.end(run)


def _clients(config: StudyConfig, folder: Path) -> Path | None:
    """Where the clients are kept, if on disk."""
    return folder / CLIENTS if config.training.store == "disk" else None


def _log_tables(
    store: Store, run: str, module: FederatedModule, table: pd.DataFrame, unseen: frozenset[str]
) -> None:
    store.table(run, "clients.csv", table)
    confusion = confusion_table(module)
    if confusion is not None:
        store.table(run, CONFUSION, confusion)
    store.metrics(run, mean_metrics(table, unseen))


def _log_wire(store: Store, run: str, module: FederatedModule) -> None:
    """What measuring distances sent and spent."""
    tolls = module.federation.personaliser.tolls
    store.metrics(run, [(name, value, 0) for name, value in wire_metrics(tolls).items()])
    if text := wire_text(tolls):
        store.artifact(run, TRANSCRIPT, text)


def _print(
    config: StudyConfig, table: pd.DataFrame, unseen: frozenset[str], console: Console, folder: Path
) -> None:
    from persofl.metrics import summarise

    metric = str(config.metric)
    seen = without(table, unseen)
    errors = summarise(seen[metric].to_numpy(), higher=is_higher_better(metric))
    held_out = table.drop(index=seen.index)[metric].mean()
    words = ", ".join(
        f"{name.replace('_', ' ')} {errors[name]:.4f}" for name in ("mean", "median", "worst_decile")
    )
    lines = [
        f"{metric} on the test span over {int(errors['clients'])} clients: {words}",
        *(
            [f"{metric} of the {len(unseen)} clients held out of training: mean {held_out:.4f}"]
            if unseen
            else []
        ),
        f"Every client's errors: clients.csv of the run in MLflow (experiment {config.name!r})",
        f"Checkpoint: {folder / LAST}",
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
