"""Choose an oracle for a module, or say why none fits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import PersoflError, unknown_name
from ..layout import Layout, changing_buffers
from ..losses import Loss
from .base import Oracle
from .batched import BatchedOracle
from .loop import LoopOracle
from .vmap import VmapOracle

ORACLES: dict[str, type[Oracle]] = {oracle.name: oracle for oracle in (LoopOracle, VmapOracle, BatchedOracle)}


def build_oracle(module: nn.Module, loss: Loss, example: tuple[Tensor, Tensor], name: str = "auto") -> Oracle:
    """Check a module against the data, lay it out, and choose how it runs.

    Args:
        module: ``(batch, lookback, channels)`` to ``(batch, horizon[, outputs])``.
        loss: says how many outputs a forecast step has.
        example: at least two inputs ``(batch, lookback, channels)`` and targets ``(batch, horizon)``.
        name: ``"loop"``, ``"vmap"``, ``"batched"``, or ``"auto"`` for the fastest that the module allows.

    Raises:
        PersoflError: no such oracle; a module without parameters or with another output shape; one that keeps state in
            place, which only the loop can run.
    """
    if name not in {*ORACLES, "auto"}:
        raise unknown_name("oracle", name, {*ORACLES, "auto"})
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise PersoflError(
            f"{type(module).__name__} has no parameters that require a gradient; there is nothing to train."
        )
    statistics = _probe(module, loss, example)
    batched = bool(getattr(module, "batched", False))
    if name == "auto":
        name = "batched" if batched else "vmap"
    if name == "batched" and not batched:
        raise PersoflError(
            f"{type(module).__name__} is not marked as running with stacked parameters. Use oracle='vmap', or build it "
            "from persofl.models' layers and set the class attribute `batched = True`."
        )
    if name != "loop" and statistics:
        raise PersoflError(_in_place_state(module, statistics[0], name))
    return ORACLES[name](module, Layout.of(module, statistics), loss)


def _probe(module: nn.Module, loss: Loss, example: tuple[Tensor, Tensor]) -> tuple[str, ...]:
    """Run the module once: its output must fit; what it changed in place is returned."""
    x, y = example
    expected = (*y.shape, loss.outputs) if loss.outputs > 1 else tuple(y.shape)
    statistics = changing_buffers(module, x)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        was_training = module.training
        got = tuple(module.eval()(x).shape)
        module.train(was_training)
    if got != expected:
        axes = "(batch, horizon, outputs)" if loss.outputs > 1 else "(batch, horizon)"
        raise PersoflError(
            f"{type(module).__name__} maps an input of shape {tuple(x.shape)} = (batch, lookback, channels) to {got}; "
            f"with {type(loss).__name__} it must give {axes} = {expected}."
        )
    return statistics


def _in_place_state(module: nn.Module, buffer: str, oracle: str) -> str:
    """Name the layer that keeps state, and what to put in its place."""
    path = buffer.rpartition(".")[0]
    layer = module.get_submodule(path)
    kind = type(layer).__name__
    where = f"Layer {path!r} ({kind})" if path else f"The module {kind}"
    replacement = "keep the state out of the forward pass"
    if isinstance(layer, nn.modules.batchnorm._NormBase):
        affine = layer.num_features
        replacement = (
            f"replace it by nn.GroupNorm(1, {affine}), or by {kind}({affine}, track_running_stats=False)"
        )
    return (
        f"{where} changes its buffer {buffer.rpartition('.')[2]!r} in place while it trains, which the {oracle!r} oracle "
        f"cannot run for many clients at once. Either {replacement}, or choose oracle='loop', which is slower."
    )
