"""One training run: a Lightning trainer around the engine's module, with the study's callbacks."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .config import DataConfig, StudyConfig
from .events import Done, Emit, Job, State
from .names import build_data_source, make_method, window_spec
from .plugins import load_plugins
from .search import Pruner

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from data_loaders import ForecastWindows
    from persofl import FederatedModule, Method
    from personalization import Distances

    from .callbacks import Keep

LAST = "last.ckpt"


@dataclass
class _Loaded:
    """The data this process works on, and the distances measured on them, which take seconds."""

    config: DataConfig
    windows: ForecastWindows
    distances: dict[str, Distances] = field(default_factory=dict)


_loaded: list[_Loaded] = []


def load_windows(data: DataConfig) -> ForecastWindows:
    """Read the source and cut it into windows; the last one stays in memory for the process's next jobs.

    Raises:
        DataError: a missing file, no client left, a client too short.
    """
    if not _loaded or _loaded[0].config != data:
        from data_loaders import ClientSeries, DataError, make_windows

        population = build_data_source(data).load()
        if not isinstance(population, ClientSeries):
            raise DataError(f"Source {data.source!r} has no series to forecast.")
        windows = make_windows(population, window_spec(data))
        _loaded[:] = [_Loaded(data, windows)]
    return _loaded[0].windows


def forget_windows() -> None:
    """Free what :func:`load_windows` keeps."""
    _loaded.clear()


def share_distances(module: FederatedModule) -> None:
    """Give the module the distances that an earlier job of this process measured in the same way."""
    personaliser, method = module.federation.personaliser, module.federation.method
    if not method.modulators or not _loaded or cast(Any, module.federation.data) is not _loaded[0].windows:
        return
    known, key = _loaded[0].distances, repr(method.distance)
    if key not in known:
        known[key] = personaliser.distances
    personaliser.distances = known[key]


def warm_up() -> None:
    """What a process does before its first job: the slow imports, and one thread for torch, several times as fast."""
    import torch

    import persofl.module  # noqa: F401

    torch.set_num_threads(1)


def build_module(windows: ForecastWindows, config: StudyConfig, method: Method, seed: int) -> FederatedModule:
    """The engine's module for one method and one seed, with the study's model, loss and round settings."""
    from persofl import FederatedModule, RoundConfig
    from persofl.losses import build_loss
    from persofl.models import Shape, build_model

    training = config.training
    options: dict[str, Any] = {"quantiles": tuple(training.quantiles)} if training.quantiles else {}
    loss = build_loss(training.loss, **options)
    shape = Shape(config.data.lookback, config.data.horizon, windows.series.values.shape[1], loss.outputs)
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
        seed=seed,
    )
    module = FederatedModule(windows, model, method, loss=loss, config=rounds)
    share_distances(module)
    return module


def run_job(job: Job, emit: Emit) -> Done:
    """Train one job to its end: a trial up to its pruning, a final seed up to its scores on the test span."""
    from persofl.errors import DivergedError

    from .callbacks import Reporter

    began = time.perf_counter()
    config = job.config
    warm_up()
    load_plugins(config.plugins)
    module = build_module(
        load_windows(config.data), config, make_method(job.method, config, job.params), job.seed
    )
    pruner = Pruner.of(job.history, config.search, config.training.rounds) if job.kind == "trial" else None
    keep = keep_in(Path(job.checkpoint), config) if job.checkpoint else None
    watch = Reporter(job.key, config.objective, emit, pruner, keep)
    with quiet():
        trainer = make_trainer(config, [watch])
        try:
            trainer.fit(module, ckpt_path=resume_from(job.checkpoint))
            table = module.client_table("test") if job.kind == "seed" else None
        except DivergedError as error:
            return Done(job.key, "diverged", str(error), watch.curve, time.perf_counter() - began)
    state: State = "pruned" if watch.pruned_at is not None else "complete"
    return Done(job.key, state, watch.reason, watch.curve, time.perf_counter() - began, table)


def resume_from(folder: str) -> str | None:
    """The checkpoint to go on from, or ``None`` to start at round 0."""
    path = Path(folder) / LAST
    return str(path) if folder and path.is_file() else None


def keep_in(folder: Path, config: StudyConfig) -> Keep:
    """Keep a run's state in ``folder``, ten times in a run and at least every 50 rounds."""
    from .callbacks import Keep

    return Keep(folder / LAST, max(1, min(50, config.training.rounds // 10)))


def make_trainer(config: StudyConfig, callbacks: list[pl.Callback], **options: Any) -> pl.Trainer:
    """A trainer whose steps are rounds; silent unless ``options`` say otherwise.

    Args:
        config: the study; gives the rounds and how often to look at the validation span.
        callbacks: called each round.
        options: further arguments of ``Trainer``.
    """
    import pytorch_lightning as pl

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
    }
    return pl.Trainer(callbacks=callbacks, **{**defaults, **options})


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
