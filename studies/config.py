"""One YAML file is one study: frozen dataclasses whose fields are the YAML keys, the flags, the MLflow params."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from .schema import limits


@dataclass(frozen=True)
class DataConfig:
    """Which clients, and how their series become windows, or their samples are split.

    The fields after ``options`` are those of ``data_loaders.WindowSpec`` for series and of ``SampleSpec`` for samples.

    Args:
        source: a registered source, see `persofl data list`.
        root: folder or file the source reads; none for simulated data.
        options: the source's further fields, such as `{clients: 40}`.
        lookback: input steps of a window.
        horizon: steps to forecast.
        train: share of each client's series that is the training span.
        validation: share of the validation span; the rest is the test span.
        train_stride: steps between two training windows.
        validation_stride: steps between two validation windows.
        test_stride: steps between two test windows.
        max_gap: input gaps up to this many steps take the last observed value.
        min_windows: windows a client needs in every span.
        on_short: what happens to a client with fewer: "drop" (reported) or "error".
        split: of samples: "official", by "time", "stratified" by class, or "auto", the first of these that there is.
        scale: of samples: moments of the "population", of each "client", or "none".
        min_samples: samples a client needs in every span.
        split_seed: seed of the stratified split.
        partition: changes made to the clients in turn, such as `[{name: dirichlet, clients: 50, alpha: 0.3}]`.
        calendar: calendar channels that a series gets, known in advance: `[hour, weekday, weekend, yearday, holiday]`.
        timezone: of the clock that the calendar is read on.
        holidays: local dates of the calendar's holidays.
    """

    source: str = "simulated"
    root: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    lookback: int = field(default=168, metadata=limits(1))
    horizon: int = field(default=24, metadata=limits(1))
    train: float = field(default=0.6, metadata=limits(0, 1, opened="low high"))
    validation: float = field(default=0.2, metadata=limits(0, 1, opened="low high"))
    train_stride: int = field(default=1, metadata=limits(1))
    validation_stride: int = field(default=7, metadata=limits(1))
    test_stride: int = field(default=1, metadata=limits(1))
    max_gap: int = field(default=3, metadata=limits(0))
    min_windows: int = field(default=1, metadata=limits(1))
    on_short: Literal["error", "drop"] = "drop"
    split: Literal["auto", "time", "stratified", "official"] = "auto"
    scale: Literal["client", "population", "none"] = "population"
    min_samples: int = field(default=1, metadata=limits(1))
    split_seed: int = field(default=0, metadata=limits(0))
    partition: list[dict[str, Any]] = field(default_factory=list)
    calendar: list[str] = field(default_factory=list)
    timezone: str = "Europe/London"
    holidays: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ModelConfig:
    """The network every client trains.

    Args:
        name: a registered model, such as "mlp".
        options: the model's own fields, such as `{hidden: 64}`.
        instance_norm: normalise each window by its own mean and spread (RevIN).
    """

    name: str = "mlp"
    options: dict[str, Any] = field(default_factory=dict)
    instance_norm: bool = False


@dataclass(frozen=True)
class TrainingConfig:
    """What every method gets alike (the fields of ``persofl.RoundConfig`` and the loss).

    Args:
        rounds: server rounds of every trial and every final seed.
        local_steps: optimiser steps of a client in a round, for all methods; none keeps each method's own.
        cohort: share of the clients that a round trains.
        batch_size: windows or samples in a local step.
        loss: "mse", "mae", "pinball" or "cross_entropy"; by default the task's, "cross_entropy" for classes, "mse" else.
        quantiles: quantiles to forecast when the loss is "pinball".
        smoothing: share of the target spread over all classes when the loss is "cross_entropy".
        eval_every: rounds between two looks at the validation span.
        oracle: how gradients are computed: "auto", "loop", "vmap" or "batched".
        chunk: clients computed at once; none asks the model.
        weighting: the server's mean over clients, by "samples" or "uniform".
        clip: largest norm of a client's update; none for no limit.
        precision: of the gradients, "float32" or "bfloat16".
        store: where clients keep their state between rounds: in "memory", or on "disk" beside the run's checkpoint, so that
            memory does not grow with the population.
    """

    rounds: int = field(default=50, metadata=limits(1))
    local_steps: int | None = field(default=None, metadata=limits(1))
    cohort: float = field(default=1.0, metadata=limits(0, 1, opened="low"))
    batch_size: int = field(default=32, metadata=limits(1))
    loss: Literal["mse", "mae", "pinball", "cross_entropy"] | None = None
    quantiles: list[float] = field(default_factory=list, metadata=limits(0, 1, opened="low high"))
    smoothing: float = field(default=0.0, metadata=limits(0, 1, opened="high"))
    eval_every: int = field(default=5, metadata=limits(1))
    oracle: Literal["auto", "loop", "vmap", "batched"] = "auto"
    chunk: int | None = field(default=None, metadata=limits(1))
    weighting: Literal["samples", "uniform"] = "samples"
    clip: float | None = field(default=None, metadata=limits(0, opened="low"))
    precision: Literal["float32", "bfloat16"] = "float32"
    store: Literal["memory", "disk"] = "memory"


@dataclass(frozen=True)
class MethodConfig:
    """One method of the comparison; in YAML its name alone will do.

    Args:
        name: an algorithm, with modulators joined by "+", such as "ditto+prox_by_distance".
        label: the name in tables, when one method takes part twice; the name by default.
        fixed: hyperparameters that are not tuned, with their values.
        distance: the fields of ``persofl.DistanceConfig`` for the modulators, such as `{kind: gaussian}`.
        inherit: hyperparameters that are not tuned but taken from another method's chosen trial, such as
            `{lr: fedavg.lr}`.
        controls: labels of the methods that this one is to beat; the report sets it against each.
    """

    name: str
    label: str = ""
    fixed: dict[str, Any] = field(default_factory=dict)
    distance: dict[str, Any] = field(default_factory=dict)
    inherit: dict[str, str] = field(default_factory=dict)
    controls: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SearchConfig:
    """How hyperparameters are chosen: the same budget for every method.

    Args:
        trials: trials of each method; the first tries the method's defaults.
        seed: seed of the sampler, and of the training inside the trials.
        pruning: stop a trial whose validation metric is worse than the median at the same round.
        startup: trials spread over the ranges before the sampler models the results.
        prune_after: finished trials before any trial is pruned.
        warmup: share of the rounds during which no trial is pruned.
        ranges: search ranges that replace the methods' own, such as `{lr: {low: 0.01, high: 1, log: true}}`.
    """

    trials: int = field(default=10, metadata=limits(1))
    seed: int = field(default=0, metadata=limits(0))
    pruning: bool = True
    startup: int = field(default=4, metadata=limits(1))
    prune_after: int = field(default=3, metadata=limits(1))
    warmup: float = field(default=0.2, metadata=limits(0, 1))
    ranges: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainerConfig:
    """Processes that train one federation together; the fields are those of Lightning's ``Trainer``.

    Args:
        strategy: "auto" for one process, "ddp" for several: each trains its share of every cohort.
        devices: processes on this machine (GPUs, where there are any).
        num_nodes: machines; on each the same command, with NODE_RANK, MASTER_ADDR and MASTER_PORT set.
        accelerator: "cpu", "gpu" or "auto".
    """

    strategy: Literal["auto", "ddp"] = "auto"
    devices: int = field(default=1, metadata=limits(1))
    num_nodes: int = field(default=1, metadata=limits(1))
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"


@dataclass(frozen=True)
class TrackingConfig:
    """Where the study is kept.

    Args:
        dir: folder of mlflow.db, optuna.db, the artifacts and the checkpoints.
    """

    dir: str = "mlruns"


@dataclass(frozen=True)
class StudyConfig:
    """A whole study.

    Args:
        name: its name: the MLflow experiment, and what `persofl study show` takes.
        data: the clients and their windows.
        model: the network.
        training: what every method gets alike.
        methods: the methods to compare.
        search: the search for hyperparameters.
        seeds: seeds of the final runs, with the hyperparameters chosen.
        metric: what is optimised, by default "nmae", of classes "error"; else "mae", "rmse", of forecasts "mase", of other
            numbers "r2", of classes "accuracy", "macro_f1" or "cross_entropy".
        summary: of the clients' metrics on the validation span: "mean", "median" or "worst_decile".
        group_by: client attribute to break the result down by; the source's first text attribute by default.
        workers: runs side by side; each computes on one thread, or on one of each of its trainer's devices.
        tracking: where the study is kept.
        plugins: Python files or modules that register methods, sources or distances of your own.
        leave_out: patterns of labels that take no part, such as `["* oracle"]`.
        trainer: processes that train one run together.
    """

    name: str
    methods: list[str | MethodConfig]
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    search: SearchConfig = SearchConfig()
    seeds: list[int] = field(default_factory=lambda: list(range(5)), metadata=limits(0))
    metric: (
        Literal["nmae", "mae", "rmse", "mase", "r2", "error", "accuracy", "macro_f1", "cross_entropy"] | None
    ) = None
    summary: Literal["mean", "median", "worst_decile"] = "mean"
    group_by: str | None = None
    workers: int = field(default=2, metadata=limits(1))
    tracking: TrackingConfig = TrackingConfig()
    plugins: list[str] = field(default_factory=list)
    leave_out: list[str] = field(default_factory=list)
    trainer: TrainerConfig = TrainerConfig()

    @property
    def objective(self) -> str:
        """Name of the logged metric that is optimised, such as ``validation/nmae``; the metric must be settled."""
        return f"validation/{self.metric}" + ("" if self.summary == "mean" else f"_{self.summary}")

    def method_configs(self) -> tuple[MethodConfig, ...]:
        """The methods that take part, each with a label that is its own, and controls that take part."""
        kept = [method for method in self.labelled() if not self.is_left_out(method.label)]
        labels = {method.label for method in kept}
        return tuple(replace(m, controls=[c for c in m.controls if c in labels]) for m in kept)

    def labelled(self) -> tuple[MethodConfig, ...]:
        """All methods, those left out too, each with its label."""
        return tuple(_labelled(method) for method in self.methods)

    def is_left_out(self, label: str) -> bool:
        """Whether a pattern of ``leave_out`` fits the label."""
        return any(fnmatchcase(label, pattern) for pattern in self.leave_out)


def _labelled(method: str | MethodConfig) -> MethodConfig:
    if isinstance(method, str):
        return MethodConfig(name=method, label=method)
    return replace(method, label=method.label or method.name)
