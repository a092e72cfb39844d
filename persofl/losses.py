"""Training losses: one number per example, so that the engine can average them per client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import PersoflError, unknown_name


class Loss(ABC):
    """A loss on multi-horizon forecasts.

    ``outputs`` is how many numbers the model gives per step; with one the model's output is ``(..., horizon)``, with
    more it is ``(..., horizon, outputs)``.
    """

    outputs: int = 1

    @abstractmethod
    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Loss of each example: prediction ``(..., horizon[, outputs])``, target ``(..., horizon)`` to ``(...)``."""

    def point(self, prediction: Tensor) -> Tensor:
        """The point forecast ``(..., horizon)`` within a prediction."""
        return prediction


@dataclass(frozen=True)
class SquaredError(Loss):
    """Mean squared error over the horizon, in squared units of the target."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See :class:`Loss`."""
        return (prediction - target).square().mean(-1)


@dataclass(frozen=True)
class AbsoluteError(Loss):
    """Mean absolute error over the horizon, in units of the target."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See :class:`Loss`."""
        return (prediction - target).abs().mean(-1)


@dataclass(frozen=True)
class Pinball(Loss):
    r"""Mean quantile loss over the horizon and the levels.

    .. math:: \rho_q(e) = \max(q e, (q - 1) e), \quad e = y - \hat y_q

    The point forecast is the level nearest to one half.

    References:
        Koenker and Bassett, Regression quantiles, Econometrica 46(1), 1978.
    """

    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)

    def __post_init__(self) -> None:
        if len(self.quantiles) < 2 or any(not 0 < q < 1 for q in self.quantiles):
            raise PersoflError(f"quantiles={self.quantiles}: give at least two levels, each between 0 and 1.")
        if list(self.quantiles) != sorted(set(self.quantiles)):
            raise PersoflError(f"quantiles={self.quantiles}: the levels must increase.")

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """One output per level."""
        return len(self.quantiles)

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See :class:`Loss`; prediction ``(..., horizon, levels)``."""
        levels = prediction.new_tensor(self.quantiles)
        error = target.unsqueeze(-1) - prediction
        return torch.maximum(levels * error, (levels - 1) * error).mean((-2, -1))

    def point(self, prediction: Tensor) -> Tensor:
        """The level nearest to the median."""
        return prediction[..., min(range(self.outputs), key=lambda i: abs(self.quantiles[i] - 0.5))]


LOSSES: dict[str, type[Loss]] = {"mse": SquaredError, "mae": AbsoluteError, "pinball": Pinball}


def build_loss(name: str, **options: object) -> Loss:
    """Build a loss by name: ``"mse"``, ``"mae"`` or ``"pinball"`` (option ``quantiles``)."""
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return LOSSES[name](**options)
