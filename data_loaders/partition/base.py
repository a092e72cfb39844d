"""What a partition is, and the registry of those there are."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd

from ..errors import DataError, did_you_mean, raise_if_any
from ..samples import ClientSamples
from ..series import ClientSeries
from ..splits import client_rng

Population = ClientSeries | ClientSamples


class Partition(Protocol):
    """A frozen dataclass whose fields are its options: a pure function from a population to a population."""

    def __call__(self, population: Population) -> Population:
        """Return the population dealt anew or changed; the one given stays as it is."""
        ...


PartitionType = TypeVar("PartitionType", bound=type[Any])
PARTITIONS: dict[str, type[Any]] = {}


def register_partition(name: str) -> Callable[[PartitionType], PartitionType]:
    """Register a partition class under ``name``.

    Raises:
        DataError: the name is taken, or the class is no dataclass that can be called.
    """

    def register(partition: PartitionType) -> PartitionType:
        if name in PARTITIONS and PARTITIONS[name].__qualname__ != partition.__qualname__:
            raise DataError(
                f"Partition name {name!r} is taken by {PARTITIONS[name].__qualname__}. Choose another."
            )
        if not is_dataclass(partition) or "__call__" not in dir(partition):
            raise DataError(
                f"{partition.__qualname__} cannot be partition {name!r}: it must be a dataclass with __call__."
            )
        PARTITIONS[name] = partition
        return partition

    return register


def build_partition(name: str, **options: Any) -> Partition:
    """Return the partition ``name`` with these options.

    Raises:
        DataError: no such partition, options it does not have, required ones missing, or values out of range.
    """
    if name not in PARTITIONS:
        raise DataError(f"There is no partition {name!r}. {did_you_mean(name, PARTITIONS)}")
    known = {field.name: field for field in fields(PARTITIONS[name])}
    required = [f.name for f in known.values() if f.default is MISSING and f.default_factory is MISSING]
    raise_if_any(
        [
            f"Partition {name!r} has no option {option!r}. {did_you_mean(option, known)}"
            for option in options
            if option not in known
        ]
        + [f"Partition {name!r} needs {option}=..." for option in required if option not in options]
    )
    partition: Partition = PARTITIONS[name](**options)
    return partition


def apply_partitions(population: Population, partitions: Sequence[Partition]) -> Population:
    """Return the population after one partition and the next; each adds what it did to ``rules``."""
    for partition in partitions:
        population = partition(population)
    return population


def check(partition: Any, **bounds: tuple[float, float]) -> list[str]:
    """Return the options that are no number within ``[low, high]``, in sentences.

    Whether a whole number is asked for is read off the default or the annotation, ``int``.
    """
    kinds = {field.name: field.type for field in fields(partition)}
    problems = []
    for name, (low, high) in {**bounds, "seed": (0, 2**63)}.items():
        value = getattr(partition, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if kinds[name] in (int, int | None) and not (number and value == int(value)):
            problems.append(f"{name} must be a whole number, got {value!r}.")
        elif not number or not low <= value <= high:
            limit = f"at least {low:g}" if high >= 2**63 else f"between {low:g} and {high:g}"
            problems.append(f"{name} must be {limit}, got {value!r}.")
    return problems


def generator(seed: int, purpose: str, client: str = "") -> np.random.Generator:
    """Return random numbers that depend on the seed, the partition and, where given, the client's name alone."""
    return client_rng(seed, client, purpose)


def only_samples(population: Population, name: str) -> ClientSamples:
    """Return the population if it is one of samples.

    Raises:
        DataError: it is one of series, which have no pooled examples to deal.
    """
    if not isinstance(population, ClientSamples):
        raise DataError(
            f"Partition {name!r} deals labelled samples; source {population.name!r} holds series, whose clients are "
            "natural. Use feature_shift, concept_shift, drift, group, hold_out or subset."
        )
    return population


def column(population: Population, name: str) -> pd.Series:
    """Return an attribute of the clients.

    Raises:
        DataError: there is no such attribute, or a client lacks it.
    """
    table = population.attributes
    if name not in table.columns:
        raise DataError(
            f"Source {population.name!r} has no attribute {name!r}. {did_you_mean(name, map(str, table.columns))}"
        )
    values: pd.Series = table[name]
    if values.isna().any():
        missing = values.index[values.isna()]
        raise DataError(
            f"{len(missing)} clients of source {population.name!r} have no {name!r}, the first is {missing[0]!r}. "
            "Leave them out or fill it in."
        )
    return values


def say(population: Population, rule: str, **attributes: Any) -> Population:
    """Return the population with one more rule and further attributes, one value a client."""
    return replace(
        population,
        rules=(*population.rules, rule),
        attributes=population.attributes.assign(**attributes),
    )
