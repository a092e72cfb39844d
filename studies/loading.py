"""A study's data in memory: read, partitioned, cut into examples, kept for the process's next jobs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from .config import DataConfig, StudyConfig
from .errors import StudyError, listed, nearest
from .names import build_data_source, build_partitions, sample_spec, window_spec

if TYPE_CHECKING:
    from data_loaders import ClientExamples, ForecastWindows
    from data_loaders.partition import Population as Clients
    from persofl import FederatedModule
    from persofl.data import ClientData
    from persofl.losses import Loss
    from persofl.wire import Toll
    from personalization import Distances


@dataclass
class _Loaded:
    """The data this process works on, and the distances measured on them, which take seconds."""

    config: DataConfig
    data: ForecastWindows | ClientExamples
    distances: dict[str, tuple[Distances, tuple[Toll, ...]]] = field(default_factory=dict)


_loaded: list[_Loaded] = []


def load_data(data: DataConfig) -> ForecastWindows | ClientExamples:
    """Read the source and make examples of it; the last one stays in memory for the process's next jobs.

    Raises:
        DataError: a missing file, no client left, a client too short.
    """
    if not _loaded or _loaded[0].config != data:
        _loaded.clear()
        _loaded.append(_Loaded(data, _examples(_population(data), data)))
    return _loaded[0].data


def _population(data: DataConfig) -> Clients:
    """The source's clients, changed by the study's partitions, with the calendar's channels."""
    from data_loaders import ClientSeries, DataError
    from data_loaders.calendar import add_calendar
    from data_loaders.partition import apply_partitions

    population = apply_partitions(build_data_source(data).load(), build_partitions(data))
    if not data.calendar:
        return population
    if not isinstance(population, ClientSeries):
        raise DataError(
            f"data.calendar: source {data.source!r} has samples, whose inputs are as they are. Leave it out."
        )
    return add_calendar(population, data.calendar, data.timezone, data.holidays)


def _examples(population: Clients, data: DataConfig) -> ForecastWindows | ClientExamples:
    from data_loaders import ClientSeries, make_examples, make_windows

    if isinstance(population, ClientSeries):
        return make_windows(population, window_spec(data))
    return make_examples(population, sample_spec(data))


def forget_data() -> None:
    """Free what :func:`load_data` keeps."""
    _loaded.clear()


def settled(config: StudyConfig, data: ClientData) -> StudyConfig:
    """The study with the metric and the loss that the data's task has where the file names none.

    Raises:
        StudyError: a metric, a loss or a normalisation that does not fit the task.
    """
    from persofl.errors import PersoflError
    from persofl.tasks import task_of

    task, found = task_of(data), []
    metric = config.metric or task.objective
    if metric not in task.metrics:
        found.append(f"metric: task {task.name!r} has no {metric!r}. {nearest(metric, task.metrics)}")
    if config.model.instance_norm and task.name != "forecast":
        found.append(
            f"model.instance_norm: the targets of task {task.name!r} have no level to go back to; leave it out."
        )
    training = replace(config.training, loss=config.training.loss or cast(Any, task.loss))
    done = replace(config, metric=cast(Any, metric), training=training)
    try:
        build_data_loss(done, data)
    except PersoflError as error:
        found.append(f"training.loss: {error}")
    if found:
        raise StudyError(listed(f"Study {config.name!r} and source {config.data.source!r}", found))
    return done


def build_data_loss(config: StudyConfig, data: ClientData) -> Loss:
    """The study's loss, for as many classes as the data have.

    Raises:
        PersoflError: they do not fit.
    """
    from persofl.losses import build_loss
    from persofl.tasks import task_of

    training = config.training
    options: dict[str, Any] = {"quantiles": tuple(training.quantiles)} if training.quantiles else {}
    if training.smoothing:
        options["smoothing"] = training.smoothing
    return build_loss(training.loss or task_of(data).loss, classes=len(data.classes), **options)


def flat_distances(module: FederatedModule, label: str) -> str:
    """A warning where all clients lie equally far, so that a method's modulators treat all alike; else nothing.

    Args:
        module: whose distances are measured now, unless they have been.
        label: of the method, for the text.
    """
    if not module.federation.method.modulators:
        return ""
    found = module.federation.personaliser.distances.relative
    if bool((found != found[0]).any()):
        return ""
    return (
        f"Distances of method {label!r} are all {float(found[0]):g}: its modulators steer nothing; "
        "look at data.scale or distance.features."
    )


def share_distances(module: FederatedModule) -> None:
    """Give the module the distances that an earlier job of this process measured in the same way."""
    personaliser, method = module.federation.personaliser, module.federation.method
    if not method.modulators or not _loaded or cast(Any, module.federation.data) is not _loaded[0].data:
        return
    if method.distance.refresh:  # they follow the model, which is another in every job
        return
    known, key = _loaded[0].distances, repr(method.distance)
    if key not in known:
        known[key] = (personaliser.distances, tuple(personaliser.tolls))
    personaliser.distances, tolls = known[key]
    personaliser.tolls = list(tolls)
