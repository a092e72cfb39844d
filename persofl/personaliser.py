"""From distances to the plan of a round."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from personalization import Distances, Modulator, distance_to_population

from .algorithms import Algorithm
from .data import ClientData, facts_of
from .errors import PersoflError, unknown_name
from .plan import Plan


@dataclass(frozen=True)
class DistanceConfig:
    """How far clients are from the population is measured.

    Attributes:
        kind: a name in ``personalization.DISTANCES``, ``"sliced"`` or ``"gaussian"``.
        features: what is compared, a name in ``FEATURES``: ``"auto"`` (what the data name their own: daily profiles of a
            load, means of a clip), ``"profiles"`` (daily load profiles), ``"windows"`` (pairs of past and next values),
            ``"inputs"`` (mean and spread over time of every channel) or ``"labels"`` (classes, or targets).
        permute: the control: deal the distances to other clients at random.
        seed: of projections, of the null's draws and of the permutation.
        options: of the kind, such as ``projections``.
    """

    kind: str = "sliced"
    features: str = "auto"
    permute: bool = False
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)


def own_features(data: Any) -> list[Tensor]:
    """What the data themselves compare clients by; daily profiles where they do not say."""
    own = getattr(data, "features", None) or data.profiles
    return [own(client) for client in range(len(data))]


def daily_profiles(data: Any) -> list[Tensor]:
    """Each client's complete training days, scaled, ``(days, steps per day)``.

    Raises:
        PersoflError: the data have no days.
    """
    if not hasattr(data, "profiles"):
        raise PersoflError(
            "features='profiles' needs a load series, and these data have no days. Use 'auto'."
        )
    return [data.profiles(client) for client in range(len(data))]


def training_windows(data: Any) -> list[Tensor]:
    """Each client's training inputs and targets side by side; of windows about one per horizon.

    Raises:
        PersoflError: the targets are classes.
    """
    if facts_of(data).classes:
        raise PersoflError("features='windows' puts classes beside inputs. Use 'inputs', 'labels' or 'auto'.")
    spec = getattr(data, "spec", None)
    stride = max(1, spec.horizon // spec.train_stride) if hasattr(spec, "horizon") else 1
    return [torch.cat([x.flatten(1), y], 1) for x, y in _training_examples(data, stride)]


def input_moments(data: Any) -> list[Tensor]:
    """Mean and standard deviation over the steps of every channel of each training input, ``(n, 2 * channels)``.

    Of inputs of one step, which have no spread, the values themselves, ``(n, channels)``.
    """
    return [_moments(x) for x, _ in _training_examples(data)]


def _moments(x: Tensor) -> Tensor:
    mean = x.mean(1)
    return mean if x.shape[1] == 1 else torch.cat([mean, x.std(1, correction=0)], 1)


def training_targets(data: Any) -> list[Tensor]:
    """Training targets: classes as ``(n, classes)`` of zeros and ones, floats as they are, ``(n, horizon)``."""
    classes = len(facts_of(data).classes)
    targets = [y for _, y in _training_examples(data)]
    if not classes:
        return targets
    return [torch.nn.functional.one_hot(y[:, 0], classes).float() for y in targets]


def _training_examples(data: Any, stride: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """Every ``stride``-th training example, client by client."""
    for client, count in enumerate(data.count("train").tolist()):
        ranks = torch.arange(0, count, stride).unsqueeze(0)
        yield data.gather(data.positions("train", torch.tensor([client]), ranks)[0])


FEATURES: dict[str, Callable[[Any], list[Tensor]]] = {
    "auto": own_features,
    "profiles": daily_profiles,
    "windows": training_windows,
    "inputs": input_moments,
    "labels": training_targets,
}


def measure_distances(
    data: ClientData, config: DistanceConfig, names: Sequence[str] | None = None
) -> Distances:
    """Distance of every client's training span to all other clients'.

    Args:
        data: the population.
        config: what is compared and how.
        names: of the clients, for error messages.

    Raises:
        ValueError: unknown kind or features; a client with too few samples.
    """
    if config.features not in FEATURES:
        raise unknown_name("features", config.features, FEATURES)
    features = FEATURES[config.features](data)
    distances = distance_to_population(features, config.kind, seed=config.seed, names=names, **config.options)
    return distances.permuted(config.seed) if config.permute else distances


class Personaliser:
    """Makes plans: the algorithm's own columns, steered by the modulators.

    Args:
        data: the population.
        algorithm: gives the base columns.
        modulators: applied in order, on the whole population.
        config: how distances are measured.
        batch_size: turns epochs into steps.
        weighting: clients weigh by their ``"samples"``, or all the same (``"uniform"``), before a modulator.
    """

    def __init__(
        self,
        data: ClientData,
        algorithm: Algorithm,
        modulators: tuple[Modulator, ...],
        config: DistanceConfig,
        batch_size: int,
        weighting: str = "samples",
    ) -> None:
        self._data, self._algorithm, self._modulators = data, algorithm, modulators
        self._config, self._batch_size, self._weighting = config, batch_size, weighting

    @cached_property
    def distances(self) -> Distances:
        """The population's distances, measured when first asked for."""
        return measure_distances(self._data, self._config, facts_of(self._data).clients)

    @cached_property
    def whole(self) -> Plan:
        """The plan of the whole population."""
        plan = self._algorithm.plan(self._data.count("train"), self._batch_size)
        if self._weighting == "uniform":
            plan = dataclasses.replace(plan, weight=torch.ones_like(plan.weight))
        for modulator in self._modulators:
            plan = plan.steer(modulator.knob, modulator(getattr(plan, modulator.knob), self.distances))
        return plan

    def plan(self, cohort: Tensor) -> Plan:
        """The plan of a round's cohort."""
        return self.whole.take(cohort)
