"""A method: an algorithm, and the modulators that steer its knobs by distance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from personalization import MODULATORS, Modulator, build_modulator, modulator_name

from .algorithms import ALGORITHMS, Algorithm
from .errors import PersoflError, unknown_name
from .personaliser import DistanceConfig
from .wire import BETWEEN, TO_POPULATION


@dataclass(frozen=True)
class Method:
    """An algorithm made distance-aware by zero or more modulators.

    Attributes:
        algorithm: with its hyperparameters.
        modulators: each on a knob that the algorithm has, no two on the same.
        distance: how the distances that they see are measured.
    """

    algorithm: Algorithm
    modulators: tuple[Modulator, ...] = ()
    distance: DistanceConfig = field(default_factory=DistanceConfig)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for modulator in self.modulators:
            name = modulator_name(modulator)
            if modulator.knob not in self.algorithm.knobs:
                able = sorted(key for key, known in ALGORITHMS.items() if modulator.knob in known.knobs)
                raise PersoflError(
                    f"Method {self.name!r}: {name!r} steers the knob {modulator.knob!r}, which {self.algorithm.name!r} "
                    f"does not have (it has {', '.join(sorted(self.algorithm.knobs))}). Methods that have it: "
                    f"{', '.join(able)}."
                )
            if modulator.knob in seen:
                raise PersoflError(
                    f"Method {self.name!r}: two modulators steer the knob {modulator.knob!r}; keep one."
                )
            seen.add(modulator.knob)
        self._check_protocol()

    def _check_protocol(self) -> None:
        """Refuse a protocol, or a null, that does not serve the distances that the method asks for."""
        if self.algorithm.compares() and self.distance.options.get("null_from") == "halves":
            raise PersoflError(
                f"Method {self.name!r}: its algorithm compares clients with each other, and null_from='halves' judges "
                "distances to the population only; take 'law' or 'pool', or leave it out."
            )
        protocol = self.distance.protocol.get("name")
        if protocol is None:
            return
        to_population = protocol in TO_POPULATION
        if self.modulators and not to_population:
            rest = (
                " Its algorithm compares clients with each other: no protocol serves both."
                * self.algorithm.compares()
            )
            raise PersoflError(
                f"Method {self.name!r}: its modulators ask how far each client is from the population, and protocol "
                f"{protocol!r} compares clients with each other; take {', '.join(TO_POPULATION)}.{rest}"
            )
        if self.algorithm.compares() and to_population:
            rest = " Its modulators need this one: no protocol serves both." * bool(self.modulators)
            raise PersoflError(
                f"Method {self.name!r}: its algorithm compares clients with each other, and protocol {protocol!r} compares "
                f"each with the population; take one of {', '.join(BETWEEN)}.{rest}"
            )

    @property
    def name(self) -> str:
        """As studies write it: ``"ditto+prox_by_distance"``."""
        return "+".join([self.algorithm.name, *map(modulator_name, self.modulators)])


def as_method(method: Method | Algorithm | str) -> Method:
    """A method from itself, from an algorithm, or from a name with default parameters."""
    if isinstance(method, str):
        return parse_method(method)
    return method if isinstance(method, Method) else Method(method)


def parse_method(
    name: str, params: Mapping[str, object] | None = None, distance: DistanceConfig | None = None
) -> Method:
    """Build a method from its name and parameters.

    Args:
        name: ``"algorithm"`` or ``"algorithm+modulator+..."``.
        params: hyperparameters; a modulator's are written ``"prox_by_distance.tau"``.
        distance: how distances are measured.

    Raises:
        ValueError: unknown algorithm, modulator or parameter, with the nearest known name; a knob the algorithm lacks;
            a value out of range.
    """
    first, *rest = [part.strip() for part in name.split("+")]
    if first not in ALGORITHMS:
        raise unknown_name("method", first, ALGORITHMS)
    for part in rest:
        if part not in MODULATORS:
            raise unknown_name("modulator", part, MODULATORS)
    own = _group(name, [first, *rest], params or {})
    algorithm = ALGORITHMS[first](**own[first])
    modulators = tuple(build_modulator(part, **own[part]) for part in rest)
    return Method(algorithm, modulators, distance or DistanceConfig())


def _group(name: str, parts: list[str], params: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Split parameters by the part they belong to, refusing unknown ones."""
    grouped: dict[str, dict[str, Any]] = {part: {} for part in parts}
    known = [key for part in parts for key in _fields(part, parts[0])]
    for key, value in params.items():
        if key not in known:
            raise unknown_name(f"parameter of method {name!r}:", key, known)
        part, _, own = key.rpartition(".")
        grouped[part or parts[0]][own] = value
    return grouped


def _fields(part: str, first: str) -> dict[str, dataclasses.Field[Any]]:
    """A part's fields under the names that configurations use."""
    cls: Any = ALGORITHMS[part] if part == first else MODULATORS[part]
    prefix = "" if part == first else f"{part}."
    return {prefix + item.name: item for item in dataclasses.fields(cls)}


def search_space(method: Method | str) -> dict[str, dict[str, Any]]:
    """Ranges of the method's tunable parameters: ``{"lr": {"low": .., "high": .., "log": True}, ...}``.

    A knob that a modulator sets from the distances alone is left out: its own value would have no effect.
    """
    method = as_method(method)
    parts = method.name.split("+")
    idle = {modulator.knob for modulator in method.modulators if modulator.replaces_base}
    named = {key: item for part in parts for key, item in _fields(part, parts[0]).items() if key not in idle}
    return {key: dict(item.metadata["search"]) for key, item in named.items() if "search" in item.metadata}


def method_params(method: Method) -> dict[str, Any]:
    """Every parameter of a method by the name that configurations, studies and MLflow use."""
    owners: list[Any] = [method.algorithm, *method.modulators]
    parts = method.name.split("+")
    return {
        key: getattr(owner, item.name)
        for part, owner in zip(parts, owners, strict=True)
        for key, item in _fields(part, parts[0]).items()
    }
