"""One training run: a Lightning trainer around the engine's module, with the study's callbacks."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import StudyConfig, TrainerConfig
from .confusion import confusion_table
from .events import Done, Emit, Job, State, Warned
from .loading import build_data_loss, flat_distances, load_data, share_distances
from .names import is_higher_better, make_method
from .plugins import load_plugins
from .schema import plain
from .search import Pruner
from .signals import check_stop
from .wire import wire_metrics, wire_text

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from persofl import FederatedModule, Method
    from persofl.data import ClientData

    from .callbacks import Keep

LAST, CLIENTS = "last.ckpt", "clients"


def warm_up() -> None:
    """What a process does before its first job: the slow imports, and one thread for torch, several times as fast."""
    import torch

    import persofl.module  # noqa: F401

    torch.set_num_threads(1)


def build_module(
    data: ClientData, config: StudyConfig, method: Method, seed: int, folder: Path | None = None
) -> FederatedModule:
    """The engine's module for one method and one seed, with the study's model, loss and round settings.

    Args:
        data: the population.
        config: the study.
        method: with its hyperparameters.
        seed: of the model, the cohorts and the batches.
        folder: where clients are kept; None keeps them in memory.
    """
    from persofl import FederatedModule, RoundConfig
    from persofl.diskstore import DiskStore
    from persofl.models import Shape, build_model

    training = config.training
    loss = build_data_loss(config, data)
    lookback, horizon, channels = data.shape
    shape = Shape(lookback, horizon, channels, loss.outputs)
    model = build_model(
        config.model.name, shape, instance_norm=config.model.instance_norm, seed=seed, **config.model.options
    )
    rounds = RoundConfig(
        cohort=training.cohort,
        batch_size=training.batch_size,
        oracle=training.oracle,
        chunk=training.chunk,
        weighting=training.weighting,
        clip=training.clip,
        precision=training.precision,
        seed=seed,
    )
    store = None if folder is None else DiskStore(len(data), folder)
    module = FederatedModule(data, model, method, loss=loss, config=rounds, store=store)
    share_distances(module)
    return module


def run_job(job: Job, emit: Emit) -> Done:
    """Train one job to its end: a trial up to its pruning, a final seed up to its scores on the test span."""
    with clients_folder(job.config, job.checkpoint) as folder:
        return _run(job, emit, folder)


def _run(job: Job, emit: Emit, folder: Path | None) -> Done:
    from persofl.errors import DivergedError

    from .callbacks import Reporter

    began = time.perf_counter()
    config = job.config
    warm_up()
    load_plugins(config.plugins)
    method = make_method(job.method, config, job.params)
    module = build_module(load_data(config.data), config, method, job.seed, folder)
    if (
        not module.federation.method.distance.refresh
    ):  # those that follow the model are equal before it has learnt
        _warn(job, module, emit)
    higher = is_higher_better(config.metric)
    rounds, history = config.training.rounds, job.history
    pruner = Pruner.of(history, config.search, rounds, higher=higher) if job.kind == "trial" else None
    keep = keep_in(Path(job.checkpoint), config) if job.checkpoint else None
    watch = Reporter(job.key, config.objective, emit, pruner, keep)
    with quiet():
        trainer = make_trainer(config, [watch], **trainer_options(config.trainer))
        try:
            fit(trainer, module, resume_from(job.checkpoint))
            if module.federation.method.distance.refresh:
                _warn(job, module, emit)
            final = job.kind == "seed"
            table = module.client_table("test") if final else None
            confusion = confusion_table(module) if final else None
        except DivergedError as error:
            return Done(job.key, "diverged", str(error), watch.curve, time.perf_counter() - began)
    state: State = "pruned" if watch.pruned_at is not None else "complete"
    tolls = module.federation.personaliser.tolls
    return Done(
        job.key,
        state,
        watch.reason,
        watch.curve,
        time.perf_counter() - began,
        table,
        confusion,
        wire_metrics(tolls),
        wire_text(tolls),
    )


def _warn(job: Job, module: FederatedModule, emit: Emit) -> None:
    text = flat_distances(module, job.method.label)
    if text:
        emit(Warned(job.key, text))


@contextmanager
def clients_folder(config: StudyConfig, checkpoint: str) -> Iterator[Path | None]:
    """Where a run keeps its clients, if on disk: beside its checkpoint; a trial's own place is gone when it ends.

    What a run left there that got to no checkpoint is removed. Processes that train together share it.
    """
    from persofl.ranks import Ranks

    ranks = Ranks.here()
    if config.training.store == "memory":
        yield None
    elif checkpoint:
        folder = Path(checkpoint) / CLIENTS
        if resume_from(checkpoint) is None:
            if ranks.rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
            ranks.first(None)  # nobody begins before it is gone
        yield folder
    else:
        with ExitStack() as stack:
            own = ""
            if ranks.rank == 0:
                place = tempfile.TemporaryDirectory(prefix="persofl-", ignore_cleanup_errors=True)
                own = stack.enter_context(place)
            yield Path(ranks.first(own))
            ranks.first(None)  # nor is it removed before all are done


def resume_from(folder: str) -> str | None:
    """The checkpoint to go on from, or ``None`` to start at round 0."""
    path = Path(folder) / LAST
    return str(path) if folder and path.is_file() else None


def keep_in(folder: Path, config: StudyConfig, *, fresh: bool = False) -> Keep:
    """Keep a run's state in ``folder``, ten times in a run, at least every 50 rounds; ``fresh`` without what is there."""
    from .callbacks import Keep

    stale = (folder / LAST, folder / CLIENTS) if fresh else ()
    return Keep(folder / LAST, max(1, min(50, config.training.rounds // 10)), stale)


def trainer_options(config: TrainerConfig) -> dict[str, Any]:
    """Arguments of ``Trainer`` for the processes that train one run together."""
    options: dict[str, Any] = dict(plain(config))
    if config.strategy == "ddp":
        options["use_distributed_sampler"] = False  # the module itself knows whose clients are whose
    return options


def make_trainer(config: StudyConfig, callbacks: list[pl.Callback], **options: Any) -> pl.Trainer:
    """A trainer whose steps are rounds; silent unless ``options`` say otherwise.

    Args:
        config: the study; gives the rounds and how often to look at the validation span.
        callbacks: called each round.
        options: further arguments of ``Trainer``.
    """
    import pytorch_lightning as pl

    from persofl.checkpoints import BackgroundCheckpointIO

    rounds = config.training.rounds
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_steps": rounds,
        "max_epochs": -1,
        "val_check_interval": min(config.training.eval_every, rounds),
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "plugins": [BackgroundCheckpointIO()],
    }
    return pl.Trainer(callbacks=callbacks, **{**defaults, **options})


def fit(trainer: pl.Trainer, module: FederatedModule, checkpoint: str | None) -> None:
    """Train, from a checkpoint if there is one.

    Raises:
        StoppedError: a signal asked to stop.
    """
    try:
        trainer.fit(module, ckpt_path=checkpoint)
    except SystemExit:  # Lightning makes one of a second Ctrl-C
        check_stop()
        raise


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's notes on devices, workers and loggers out of a study's output."""
    names = (
        "pytorch_lightning",
        "lightning.fabric",
        "lightning_fabric",
        "pytorch_lightning.utilities.rank_zero",
    )
    before: Mapping[str, int] = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning).*")
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
