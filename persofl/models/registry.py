"""Models by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from ..errors import PersoflError, unknown_name

if TYPE_CHECKING:
    from .forecast import Shape

M = TypeVar("M", bound=type[nn.Module])
MODELS: dict[str, type[nn.Module]] = {}


def register_model(name: str) -> Callable[[M], M]:
    """Make a model available by name; its constructor takes a :class:`Shape` and options with defaults."""

    def add(model: M) -> M:
        MODELS[name] = model
        return model

    return add


def model_options(name: str) -> dict[str, object]:
    """The options of a model with their defaults.

    Raises:
        PersoflError: no such model.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    parameters = list(inspect.signature(MODELS[name]).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}


def build_model(
    name: str, shape: Shape, *, instance_norm: bool = False, seed: int = 0, **options: object
) -> nn.Module:
    """Build a model by name, with initial weights that depend on ``seed`` only.

    Args:
        name: a key of ``MODELS``.
        shape: sizes from the data and the loss.
        instance_norm: wrap the model in :class:`~persofl.models.normalise.InstanceNormalised`.
        seed: of the initial weights; the global generator is left as it was.
        options: of the model, see :func:`model_options`.

    Raises:
        PersoflError: unknown model or option, or a size below 1.
    """
    from .normalise import InstanceNormalised

    known = model_options(name)
    for option in options:
        if option not in known:
            raise unknown_name(f"option of model {name!r}:", option, known)
    for size in ("lookback", "horizon", "channels", "outputs"):
        if getattr(shape, size) < 1:
            raise PersoflError(f"{size}={getattr(shape, size)} for model {name!r}: give at least 1.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[name](shape, **options)
        return InstanceNormalised(model, shape.channels) if instance_norm else model
