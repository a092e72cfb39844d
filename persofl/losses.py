"""Training losses: one number per example, so that the engine can average them per client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .errors import PersoflError, unknown_name


class Loss(ABC):
    """A loss on multi-horizon forecasts.

    ``outputs`` is how many numbers the model gives per step; with one the model's output is ``(..., horizon)``, with
    more it is ``(..., horizon, outputs)``. ``of_classes`` says whether targets are class numbers (int64) or floats.
    """

    outputs: int = 1
    of_classes: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Loss of each example: prediction ``(..., horizon[, outputs])``, target ``(..., horizon)`` to ``(...)``."""

    def vjp(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of each client over its batch, ``(clients,)``, and its gradient, shaped like the prediction.

        Args:
            prediction: ``(clients, batch, horizon[, outputs])``.
            target: ``(clients, batch, horizon)``.
        """
        leaf = prediction.detach().requires_grad_()
        with torch.enable_grad():
            losses = self(leaf, target).mean(1)
            total = losses.sum()
        return losses.detach(), torch.autograd.grad(total, leaf)[0]

    def point(self, prediction: Tensor) -> Tensor:
        """The point forecast ``(..., horizon)`` within a prediction."""
        return prediction


@dataclass(frozen=True)
class SquaredError(Loss):
    """Mean squared error over the horizon, in squared units of the target."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See :class:`Loss`."""
        return (prediction - target).square().mean(-1)

    def vjp(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Loss`; autograd would cost as much as a small model's products."""
        error = prediction - target
        losses = error.square().mean((1, 2))
        return losses, error.mul_(2 / error[0].numel())


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


@dataclass(frozen=True)
class CrossEntropy(Loss):
    r"""Negative log-likelihood of the true class under the softmax of the outputs, in nats.

    .. math:: -\sum_c q_c \log p_c, \quad q_c = (1 - s) [c = y] + s / C

    Attributes:
        classes: ``C``, at least two; the model gives one output each.
        smoothing: ``s`` in [0, 1); the share of the target spread over all classes.

    References:
        Szegedy et al., Rethinking the Inception architecture for computer vision, CVPR 2016, section 7 (smoothing).
    """

    of_classes: ClassVar[bool] = True

    classes: int
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise PersoflError(f"classes={self.classes}: the cross-entropy needs at least two classes.")
        if not 0 <= self.smoothing < 1:
            raise PersoflError(f"smoothing={self.smoothing}: give a share of at least 0 and below 1.")

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """One output per class."""
        return self.classes

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See :class:`Loss`; prediction ``(..., horizon, classes)``, target int64."""
        flat = torch.nn.functional.cross_entropy(
            prediction.flatten(0, -2),
            target.flatten(),
            reduction="none",
            label_smoothing=self.smoothing,
        )
        return flat.view(target.shape).mean(-1)

    def point(self, prediction: Tensor) -> Tensor:
        """The likeliest class, ``(..., horizon)`` int64."""
        return prediction.argmax(-1)


LOSSES: dict[str, type[Loss]] = {
    "mse": SquaredError,
    "mae": AbsoluteError,
    "pinball": Pinball,
    "cross_entropy": CrossEntropy,
}


def build_loss(name: str, *, classes: int = 0, **options: object) -> Loss:
    """Build a loss by name.

    Args:
        name: ``"mse"``, ``"mae"``, ``"pinball"`` (option ``quantiles``) or ``"cross_entropy"`` (option ``smoothing``).
        classes: of the data, for losses of classes; 0 where targets are floats.
        options: of the loss.

    Raises:
        PersoflError: no such loss, or one of classes where the data have none, or the other way round.
    """
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    kind = LOSSES[name]
    refuse_mismatch(kind, classes)
    return kind(**({"classes": classes} if kind.of_classes else {}), **options)


def refuse_mismatch(loss: Loss | type[Loss], classes: int) -> None:
    """Check that a loss and the data's targets are of one kind.

    Args:
        loss: or its class.
        classes: of the data, 0 where targets are floats.

    Raises:
        PersoflError: they are not; or the loss is of another number of classes.
    """
    kind = loss if isinstance(loss, type) else type(loss)
    name = next((name for name, known in LOSSES.items() if known is kind), kind.__name__)
    if kind.of_classes and not classes:
        raise PersoflError(f"Loss {name!r} needs classes, and the targets are floats. Use 'mse' or 'mae'.")
    if classes and not kind.of_classes:
        raise PersoflError(
            f"Loss {name!r} compares floats, and the targets are numbers of {classes} classes. Use 'cross_entropy'."
        )
    if classes and isinstance(loss, Loss) and loss.outputs != classes:
        raise PersoflError(f"Loss {name!r} is of {loss.outputs} classes, and the data have {classes}.")
