"""From distances to the plan of a round."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from personalization import Distances, Modulator, distance_to_population

from .algorithms import Algorithm
from .data import ClientData
from .errors import unknown_name
from .plan import Plan


@dataclass(frozen=True)
class DistanceConfig:
    """How far clients are from the population is measured.

    Attributes:
        kind: a name in ``personalization.DISTANCES``, ``"sliced"`` or ``"gaussian"``.
        features: what is compared, a name in ``FEATURES``: ``"profiles"`` (daily load profiles) or ``"windows"`` (pairs
            of past and next values).
        permute: the control: deal the distances to other clients at random.
        seed: of projections, of the null's draws and of the permutation.
        options: of the kind, such as ``projections``.
    """

    kind: str = "sliced"
    features: str = "profiles"
    permute: bool = False
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)


def daily_profiles(data: Any) -> list[Tensor]:
    """Each client's complete training days, scaled, ``(days, steps per day)``."""
    return [data.profiles(client) for client in range(len(data))]


def training_windows(data: Any) -> list[Tensor]:
    """Each client's training windows, past and next values side by side, about one per horizon."""
    counts = data.count("train")
    stride = max(1, data.spec.horizon // data.spec.train_stride)
    return [_windows_of(data, client, int(counts[client]), stride) for client in range(len(data))]


def _windows_of(data: Any, client: int, count: int, stride: int) -> Tensor:
    ranks = torch.arange(0, count, stride).unsqueeze(0)
    x, y = data.gather(data.positions("train", torch.tensor([client]), ranks)[0])
    return torch.cat([x.flatten(1), y], 1)


FEATURES: dict[str, Callable[[Any], list[Tensor]]] = {"profiles": daily_profiles, "windows": training_windows}


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
        series = getattr(self._data, "series", None)
        return measure_distances(self._data, self._config, getattr(series, "clients", None))

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
