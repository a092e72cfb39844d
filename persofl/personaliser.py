"""From distances to the plan of a round."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from personalization import Distances, Modulator, distance_to_population
from personalization.errors import check_draws, check_gate
from personalization.population import build_kind, check_null

from .algorithms import Algorithm
from .controls import given_distances, is_given
from .data import ClientData, facts_of
from .errors import PersoflError, unknown_name
from .features import FEATURES, MODEL_FEATURES, Snapshot
from .oracles import Oracle
from .pairwise import Between, measure_pairwise, named
from .placed import HOST, placed
from .plan import Plan
from .wire import OF_SUMS, TO_POPULATION, ProtocolConfig, Toll, check_sums, measure_by_protocol


@dataclass(frozen=True)
class DistanceConfig:
    """How far clients are from the population is measured.

    Attributes:
        kind: a name in ``personalization.DISTANCES``, such as ``"sliced"`` or ``"gaussian"``.
        features: what is compared, a name in ``FEATURES``: ``"auto"`` (what the data name their own: daily profiles of a
            load, means of a clip), ``"profiles"`` (daily load profiles), ``"conditional"`` (these without the
            population's mean for the weekday), ``"windows"`` (pairs of past and next values), ``"inputs"`` (mean and
            spread over time of every channel) or ``"labels"`` (classes, or targets); a name in ``MODEL_FEATURES``, which
            are read off the current global model: ``"residuals"`` (its errors) or ``"embeddings"`` (what reaches its head);
            or a control, for which nothing is measured (:mod:`persofl.controls`): ``"size"`` or ``"attribute:NAME"``.
        refresh: measure again every so many rounds, the first time in round 0; for features of the model, and only these.
        permute: the control: deal the distances to other clients at random.
        deal: which deal; None deals anew for every seed of the run, so that a mean over seeds is one over deals.
        seed: of projections and of the null's draws.
        options: of the kind, such as ``projections``, and of the comparison: ``draws``, ``gate``, ``null_from``.
        protocol: how they are measured without sharing samples, the fields of :class:`persofl.wire.ProtocolConfig`, such
            as ``{"name": "summed_reference", "epsilon": 2}``; empty computes them here, with the same result as
            ``summed_reference`` without noise.
    """

    kind: str = "sliced"
    features: str = "auto"
    permute: bool = False
    deal: int | None = None
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    refresh: int = 0
    protocol: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        moving = self.features in MODEL_FEATURES
        problems = [
            problem
            for broken, problem in (
                (
                    moving and self.refresh < 1,
                    f"features={self.features!r} change with the model: give refresh, every how many rounds they are read",
                ),
                (
                    not moving and self.refresh != 0,
                    f"refresh={self.refresh}: features={self.features!r} never change; leave it out, or choose one of "
                    f"{', '.join(MODEL_FEATURES)}",
                ),
                (
                    is_given(self.features) and bool(self.protocol),
                    f"features={self.features!r} are given, so that no protocol measures them; leave it out",
                ),
                (
                    self.deal is not None and not self.permute,
                    f"deal={self.deal} deals nothing without permute",
                ),
                (
                    self.features == "conditional" and bool(self.protocol),
                    "features='conditional' take sums over all clients before a protocol starts, which it neither counts "
                    "nor protects; choose others, or leave the protocol out",
                ),
                (
                    is_given(self.features) and (self.kind != "sliced" or bool(self.options)),
                    f"features={self.features!r} are given, so that kind and options have no effect; leave them out",
                ),
            )
            if broken
        ]
        if problems:
            raise PersoflError("; ".join(problems) + ".")
        known = [*FEATURES, *MODEL_FEATURES, "size", "attribute:NAME"]
        if self.features not in known and not is_given(self.features):
            raise unknown_name("features", self.features, known)
        protocol = ProtocolConfig.of(self.protocol) if self.protocol else None
        if protocol is not None and protocol.name not in TO_POPULATION:
            if self.kind != "sliced" or self.options:
                raise PersoflError(
                    f"protocol {protocol.name!r} has a distance of its own, so that kind and options have no effect; leave "
                    "them out, and give the protocol's own in protocol.options."
                )
            return
        options = {name: value for name, value in self.options.items() if name not in OF_SUMS}
        built = build_kind(self.kind, self.seed, options)
        check_null(self.options.get("null_from"), built)
        check_gate(self.options.get("gate", 1.0))
        if self.options.get("draws") is not None:
            check_draws(self.options["draws"])
        if protocol is not None:
            check_sums(protocol.name, self.kind, built)
            protocol.check_null(self.options.get("null_from"))

    def dealt(self, seed: int) -> DistanceConfig:
        """The same with the deal of a run's seed, where none is chosen."""
        if not self.permute or self.deal is not None:
            return self
        return dataclasses.replace(self, deal=seed)

    @property
    def number(self) -> int:
        """Of the deal."""
        return self.seed if self.deal is None else self.deal


def measure_distances(
    data: ClientData,
    config: DistanceConfig,
    names: Sequence[str] | None = None,
    model: Snapshot | None = None,
) -> Distances:
    """Distance of every client's training span to all other clients'.

    Args:
        data: the population.
        config: what is compared and how.
        names: of the clients, for error messages.
        model: the global model, for features that are read off it.

    Raises:
        ValueError: unknown kind, features or attribute; features of a model and no model; a client with too few samples.
    """
    return _measure(data, config, names, model, _plainly)


Measure = Callable[[list[Tensor], DistanceConfig, Sequence[str] | None], Distances]


def _measure(
    data: ClientData,
    config: DistanceConfig,
    names: Sequence[str] | None,
    model: Snapshot | None,
    measure: Measure,
) -> Distances:
    if is_given(config.features):
        distances = given_distances(data, config.features)
    else:
        distances = measure(_features(data, config.features, model), config, names)
    return distances.permuted(config.number) if config.permute else distances


def _plainly(features: list[Tensor], config: DistanceConfig, names: Sequence[str] | None) -> Distances:
    return distance_to_population(named(features, names), config.kind, seed=config.seed, **config.options)


def _features(data: ClientData, name: str, model: Snapshot | None) -> list[Tensor]:
    if name in FEATURES:
        return FEATURES[name](placed(data, HOST))
    if name not in MODEL_FEATURES:
        raise unknown_name("features", name, [*FEATURES, *MODEL_FEATURES, "size", "attribute:NAME"])
    if model is None:
        raise PersoflError(f"features={name!r} are read off a model; give its Snapshot.")
    return MODEL_FEATURES[name](data, model)


class Personaliser:
    """Makes plans: the algorithm's own columns, steered by the modulators.

    Distances are measured once; those of features that change with the model again every ``config.refresh`` rounds, see
    :meth:`refresh`.

    Args:
        data: the population.
        oracle: lays out the model that features may be read off.
        algorithm: gives the base columns.
        modulators: applied in order, on the whole population.
        config: how distances are measured.
        batch_size: turns epochs into steps.
        weighting: clients weigh by their ``"samples"``, or all the same (``"uniform"``), before a modulator.
    """

    def __init__(
        self,
        data: ClientData,
        oracle: Oracle,
        algorithm: Algorithm,
        modulators: tuple[Modulator, ...],
        config: DistanceConfig,
        batch_size: int,
        weighting: str = "samples",
    ) -> None:
        self._data, self._oracle = data, oracle
        self._algorithm, self._modulators = algorithm, modulators
        self._config, self._batch_size, self._weighting = config, batch_size, weighting
        self._protocol = ProtocolConfig.of(config.protocol) if config.protocol else None
        self._budget = self._protocol.budget() if self._protocol else None
        self.tolls: list[Toll] = []
        self._device = torch.device("cpu")

    def to(self, data: ClientData, oracle: Oracle, device: torch.device) -> Personaliser:
        """The same with plans on a device, and features of the model read there.

        Args:
            data: the population, placed there.
            oracle: with the model's constants there.
            device: of the rows.
        """
        moved = copy.copy(self)
        moved._data, moved._oracle, moved._device = data, oracle, device
        moved.__dict__.pop("_there", None)
        return moved

    @cached_property
    def distances(self) -> Distances:
        """The population's distances, measured when first asked for, if need be on the model as it was built."""
        return self._measured(self._oracle.layout.row(self._oracle.module))

    @cached_property
    def pairwise(self) -> Between:
        """Distances between all clients, measured when first asked for, once."""
        found = measure_pairwise(self._data, self._config)
        self.tolls += [found.toll] if found.toll else []
        return found

    def afford(self, rounds: int) -> None:
        """Refuse so many rounds if the noise of their refreshes exceeds the protocol's limit.

        Raises:
            BudgetExhaustedError: it does.
        """
        if self._protocol is None or not (self._modulators and self._config.refresh):
            return
        budget, noise = self._protocol.budget(), self._protocol.noise(1, 0)
        if budget is not None and noise is not None:
            times = -(-rounds // self._config.refresh)
            budget.spend(self._protocol.name, noise.multiplier, times=times, unit=noise.unit)

    def _measured(self, row: Tensor) -> Distances:
        model = Snapshot.of(self._oracle, row) if self._config.refresh else None
        return _measure(self._data, self._config, facts_of(self._data).clients, model, self._ask).to("cpu")

    def _ask(self, features: list[Tensor], config: DistanceConfig, names: Sequence[str] | None) -> Distances:
        """Measure by the protocol that the configuration names, and keep what it cost."""
        if self._protocol is None:
            return _plainly(features, config, names)
        distances, toll = measure_by_protocol(
            features,
            self._protocol,
            config.kind,
            config.options,
            seed=config.seed,
            release=len(self.tolls),
            budget=self._budget,
        )
        self.tolls.append(toll)
        return distances

    @cached_property
    def whole(self) -> Plan:
        """The plan of the whole population."""
        plan = self._algorithm.plan(self._data.count("train"), self._batch_size)
        plan = dataclasses.replace(plan, layers=self._oracle.layout.layers)
        if self._weighting == "uniform":
            plan = dataclasses.replace(plan, weight=torch.ones_like(plan.weight))
        for modulator in self._modulators:
            plan = plan.steer(modulator.knob, modulator(getattr(plan, modulator.knob), self.distances))
        return plan

    def plan(self, cohort: Tensor) -> Plan:
        """The plan of a round's cohort."""
        return self._there.take(cohort)

    @cached_property
    def _there(self) -> Plan:
        """The whole plan where the rows are."""
        return self.whole.to(self._device)

    def refresh(self, round_: int, server: Tensor) -> None:
        """Measure again if that is due this round, and plan anew; a function of the round's number and the server's row.

        Args:
            round_: from 0.
            server: the server's rows ``(R, parameters)``; features are read off their mean.
        """
        if self._modulators and self._config.refresh and round_ % self._config.refresh == 0:
            self._take(self._measured(server.mean(0)))

    def _take(self, distances: Distances) -> None:
        self.distances = distances
        for stale in ("whole", "_there"):
            self.__dict__.pop(stale, None)

    def state_dict(self) -> dict[str, Tensor]:
        """What a resumed run needs and could not measure again: the distances, where they follow the model."""
        if not (self._modulators and self._config.refresh):
            return {}
        kept = {item.name: getattr(self.distances, item.name) for item in dataclasses.fields(Distances)}
        return {**kept, "tolls": torch.tensor([self._spent(toll) for toll in self.tolls]).reshape(-1, 3)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` gave."""
        if state:
            spent = state.get("tolls", torch.zeros(0, 3))
            kept = Distances(**{name: value for name, value in state.items() if name != "tolls"})
            self._take(kept.to("cpu"))
            self._remember(spent)

    @staticmethod
    def _spent(toll: Toll) -> tuple[float, float, float]:
        return toll.up, toll.down, toll.epsilon

    def _remember(self, spent: Tensor) -> None:
        """What an interrupted run has sent and spent counts for the one that goes on."""
        if self._protocol is None:
            return
        self._budget = self._protocol.budget()
        noise = self._protocol.noise(1, 0)
        if self._budget is not None and noise is not None and len(spent):
            self._budget.spend(self._protocol.name, noise.multiplier, times=len(spent), unit=noise.unit)
        self.tolls = [Toll(self._protocol.name, up, down, 0, eps, "", "") for up, down, eps in spent.tolist()]
