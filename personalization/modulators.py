"""What turns distances into one coefficient per client: the interface, and the registry that finds it by name.

A modulator belongs to one knob of a method. The engine hands it the knob's value for every client as a column
``(clients, 1)`` and takes back the column that training uses. Those that need the whole population
(shrinkage, aggregation weights) must see all clients at once; take a cohort's rows from the result.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from .distances import Distances
from .errors import check_options, unknown_name

KNOBS = ("lr", "local_steps", "personal_steps", "prox", "mix", "weight", "depth", "align")


class Modulator(ABC):
    """Maps a knob's base column and the clients' distances to the column that steers training.

    Final classes are frozen dataclasses with one ``knob``; those that ``replaces_base`` make the column from the
    distances alone, so that the knob's own value has no effect and is not tuned beside them. Their fields are
    hyperparameters, whose ``metadata`` holds the range that a study searches.
    """

    knob: ClassVar[str]
    replaces_base: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, base: Tensor, distances: Distances) -> Tensor:
        """The steered column.

        Args:
            base: the knob's value per client, ``(clients, 1)``; its dtype and device are the result's. Of whole numbers
                only steps and depths are whole, other columns are in torch's default dtype.
            distances: of the same clients in the same order.

        Returns:
            Shape ``(clients, 1)``.
        """


MODULATORS: dict[str, type[Modulator]] = {}

M = TypeVar("M", bound=type[Modulator])


def register_modulator(name: str) -> Callable[[M], M]:
    """Class decorator that makes a modulator known under ``name``, as studies write it: "ditto+prox_by_distance".

    Raises:
        ValueError: the class names no known knob, or another class has the name.
    """

    def register(cls: M) -> M:
        knob = getattr(cls, "knob", "")
        if knob not in KNOBS:
            raise unknown_name(f"knob of modulator {name!r}", str(knob), KNOBS)
        known = MODULATORS.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(
                f"The modulator name {name!r} belongs to {known.__qualname__}; choose another name."
            )
        MODULATORS[name] = cls
        return cls

    return register


def build_modulator(name: str, **params: object) -> Modulator:
    """Build a registered modulator.

    Args:
        name: a key of :data:`MODULATORS`.
        params: the class's fields.

    Raises:
        ValueError: unknown name or parameter, with the nearest known one; or a parameter out of range.
    """
    if name not in MODULATORS:
        raise unknown_name("modulator", name, MODULATORS)
    check_options(MODULATORS[name], f"parameter of modulator {name!r}", params)
    return MODULATORS[name](**params)


def modulator_name(modulator: Modulator) -> str:
    """The name a modulator is registered under.

    Raises:
        ValueError: its class is not registered.
    """
    for name, cls in MODULATORS.items():
        if type(modulator) is cls:
            return name
    raise ValueError(
        f"{type(modulator).__name__} is not registered; decorate it with @register_modulator(name)."
    )


def require(
    modulator: Modulator,
    name: str,
    *,
    above: float | None = None,
    least: float | None = None,
    finite: bool = False,
) -> None:
    """Refuse a parameter out of its range.

    Args:
        modulator: whose field is checked.
        name: of the field.
        above: the value must be greater than this.
        least: the value must be at least this.
        finite: infinity is no limit case of it: at u = 0 it would be NaN.

    Raises:
        ValueError: names the modulator, the field, its value and the range. NaN is always out of range.
    """
    value = getattr(modulator, name)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{type(modulator).__name__}: {name}={value!r} is no number.")
    number = float(value)
    if above is not None and not number > above:
        raise ValueError(f"{type(modulator).__name__}: {name}={value} must be greater than {above}.")
    if least is not None and not number >= least:
        raise ValueError(f"{type(modulator).__name__}: {name}={value} must be at least {least}.")
    if finite and not math.isfinite(value):
        raise ValueError(f"{type(modulator).__name__}: {name}={value} must be finite.")


def finite(x: Tensor) -> Tensor:
    """Infinity as the largest number of its dtype, which times 0 is 0 and not NaN."""
    return x.clamp_max(torch.finfo(x.dtype).max)


def relative(distances: Distances, base: Tensor) -> Tensor:
    """The relative distances as a :func:`finite` floating column ``(clients, 1)`` on the device of ``base``.

    Raises:
        ValueError: as :func:`column`; what is no :class:`Distances`, and a distance below 0.
    """
    if not isinstance(distances, Distances):
        raise ValueError(
            f"distances are of type {type(distances).__name__}; give those to a population, as distance_to_population(...) "
            "returns them."
        )
    u = column(distances.relative, base)
    if bool((u < 0).any()):
        raise ValueError(
            f"The distance of client {int((u < 0)[:, 0].nonzero()[0, 0])} is {float(u.min()):g}; none is below 0."
        )
    return finite(u)


def sample_counts(distances: Distances, base: Tensor) -> Tensor:
    """Samples of the clients as a floating column ``(clients, 1)`` on the device of ``base``.

    Raises:
        ValueError: as :func:`column`; a count below 0, or a median of 0, in whose units counts are.
    """
    n = column(distances.n, base)
    if len(n) and (bool((n < 0).any()) or not float(n.median()) > 0):
        raise ValueError(
            f"n goes down to {float(n.min()):g}, its median is {float(n.median()):g}; give the clients' numbers of samples."
        )
    return n


def column(x: Tensor, base: Tensor) -> Tensor:
    """A field of the distances as a floating column ``(clients, 1)`` on the device of ``base``.

    Raises:
        ValueError: ``base`` has another shape than ``(clients, 1)``, or is no number of at least 0; NaN in ``x``.
    """
    if not isinstance(base, Tensor) or base.is_complex():
        sort = base.dtype if isinstance(base, Tensor) else type(base).__name__
        raise ValueError(f"base is of type {sort}; give a tensor of real numbers, ({len(x)}, 1).")
    if base.shape != (len(x), 1):
        raise ValueError(
            f"base has shape {tuple(base.shape)}; give one column ({len(x)}, 1) for {len(x)} distances."
        )
    broken = ~((base >= 0) & torch.isfinite(base))
    if bool(broken.any()):
        k = int(broken[:, 0].nonzero()[0, 0])
        found = "NaN" if torch.isnan(base[k]).item() else f"{float(base[k]):g}"
        raise ValueError(f"base of client {k} is {found}; give finite numbers, at least 0.")
    if x.is_floating_point() and torch.isnan(x).any():
        raise ValueError(
            f"The distance of client {int(torch.isnan(x).nonzero()[0, 0])} is NaN; measure it, or leave the client out."
        )
    dtype = base.dtype if base.is_floating_point() else torch.get_default_dtype()
    return x.to(device=base.device, dtype=dtype).unsqueeze(1)
