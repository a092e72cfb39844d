"""Mixed precision: products in bfloat16, everything that adds up in float32."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import PersoflError
from ..losses import Loss
from .base import Batch, Oracle, Penalty

LOW = torch.bfloat16


@dataclass(frozen=True)
class _InFull(Loss):
    """A loss of rounded predictions, in float32; what its oracle asks of a loss, and no more."""

    loss: Loss

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """Of the loss."""
        return self.loss.outputs

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See :class:`Loss`."""
        return self.loss(prediction.float(), target)

    def vjp(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Loss`; the gradient is rounded as the prediction is."""
        losses, grad = self.loss.vjp(prediction.float(), target)
        return losses, grad.to(prediction.dtype)


def build_rounded(oracle: Oracle, example: tuple[Tensor, Tensor]) -> RoundedOracle:
    """Another oracle with gradients of bfloat16, tried on an example.

    Args:
        oracle: what runs the model.
        example: inputs ``(batch, lookback, channels)`` and targets ``(batch, horizon)``.

    Raises:
        PersoflError: a model with running moments, or one that makes float32 tensors of its own.
    """
    rounded = RoundedOracle(oracle)
    x, y = (part.unsqueeze(0) for part in example)
    try:
        with torch.random.fork_rng(devices=[]):  # dropout draws
            rounded.grad(oracle.layout.row(oracle.module).unsqueeze(0), Batch(x, y))
    except RuntimeError as error:
        raise PersoflError(
            f"precision='bfloat16': {type(oracle.module).__name__} does not run in it ({error}). Where it makes tensors of "
            "its own, let them follow the inputs, such as x.new_zeros(...), or register them as buffers; or leave "
            "precision at 'float32'."
        ) from error
    return rounded


class RoundedOracle(Oracle):
    """Another oracle, whose gradients are of weights and inputs rounded to bfloat16.

    Rows, losses, steps and averages stay float32, so that no step is lost for being small, and so do forecasts. bfloat16
    has float32's range, hence no loss is scaled. Whole numbers up to 256 survive rounding: indices that are written as
    floats should be given as integers, which are left as they are.

    Args:
        oracle: what runs the model.

    Raises:
        PersoflError: a model with running moments, whose slow averages rounding would stop.

    References:
        Micikevicius et al., Mixed precision training, ICLR 2018, section 3.1 (a float32 master copy of weights);
        Kalamkar et al., A study of bfloat16 for deep learning training, 2019.
    """

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(oracle.module, oracle.layout, oracle.loss)
        if oracle.layout.trainable < oracle.layout.size:
            raise PersoflError(
                "precision='bfloat16' would stop the running moments of this model's normalisation, which move by "
                "less than its digits. Use layers without them, such as nn.GroupNorm, or precision='float32'."
            )
        self.name, self._full = oracle.name, oracle
        self._low = type(oracle)(copy.deepcopy(oracle.module).to(LOW), oracle.layout, _InFull(oracle.loss))

    def to(self, device: torch.device) -> RoundedOracle:
        """See :meth:`Oracle.to`."""
        return RoundedOracle(self._full.to(device))

    def grad(self, rows: Tensor, batch: Batch, penalty: Penalty | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Oracle.grad`."""
        if penalty is not None:
            gap = penalty.gap
            penalty = replace(penalty, gap=lambda embedding, target: gap(embedding.float(), target))
        losses, grads = self._low.grad(rows.to(LOW), Batch(_rounded(batch.x), batch.y), penalty)
        return losses.float(), grads.float()

    def embed(self, rows: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Oracle.embed`; rounded as in training."""
        return self._low.embed(rows.to(LOW), _rounded(x)).float()

    def predict(self, rows: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Oracle.predict`; in float32."""
        return self._full.predict(rows, x)


def _rounded(x: Tensor) -> Tensor:
    """Measurements rounded, indices as they are."""
    return x.to(LOW) if x.is_floating_point() else x
