"""What a distance must be able to do, and the registry that makes adding one a matter of one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

import torch
from torch import Tensor

from .errors import unknown_name

Statistics = dict[str, Tensor]
"""Named statistics of one client or, with a leading axis, of many; a reference is their weighted mean."""


class DistanceKind(ABC):
    """A distance to a population that is known only by the mean of its clients' statistics.

    A kind is a frozen dataclass whose fields are its options. Summing, leaving a client out, calibration and
    the relative scale are the same for every kind, see :mod:`personalization.population`.
    """

    @abstractmethod
    def statistics(self, samples: Tensor) -> Statistics:
        """What a client computes from its samples ``(..., n, F)`` and adds, weighted, to the population's sum."""

    @abstractmethod
    def squared(self, own: Statistics, reference: Statistics) -> Tensor:
        """Squared distance ``(...)`` of statistics to a reference; both may have leading axes."""

    @abstractmethod
    def draw(self, reference: Statistics, n: int, draws: int, generator: torch.Generator) -> Statistics:
        """Statistics, leading axis ``draws``, of samples of size n from the law that the reference describes."""


DISTANCES: dict[str, type[DistanceKind]] = {}

K = TypeVar("K", bound=type[DistanceKind])


def register_distance(name: str) -> Callable[[K], K]:
    """Class decorator that makes a kind known to :func:`build_distance` under ``name``.

    Raises:
        ValueError: another class has the name already.
    """

    def register(cls: K) -> K:
        known = DISTANCES.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(
                f"The distance name {name!r} belongs to {known.__qualname__}; choose another name."
            )
        DISTANCES[name] = cls
        return cls

    return register


def build_distance(name: str, **options: object) -> DistanceKind:
    """Build a registered kind of distance.

    Args:
        name: a key of :data:`DISTANCES`, "sliced" or "gaussian".
        options: the kind's fields.

    Raises:
        ValueError: unknown name or option, with the nearest known one; or an option out of range.
    """
    if name not in DISTANCES:
        raise unknown_name("distance", name, DISTANCES)
    known = {f.name for f in fields(DISTANCES[name])}  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of distance {name!r}", option, known)
    return DISTANCES[name](**options)
