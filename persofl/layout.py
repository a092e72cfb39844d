"""The border between an ``nn.Module`` and a row of the client-by-parameter matrix."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

NORMALISATION = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


@dataclass(frozen=True)
class Slot:
    """Where one tensor of the module lies in a row."""

    name: str
    shape: torch.Size
    start: int
    trainable: bool

    @property
    def stop(self) -> int:
        """One past the slot's last column."""
        return self.start + self.shape.numel()


@dataclass(frozen=True)
class Layout:
    """Names, shapes and offsets of a module's tensors in a row.

    Parameters that are not frozen come first, in the module's order; then the *statistics*: floating buffers that a
    forward pass in training mode changes (BatchNorm's running moments). They are columns like any other, so the server
    averages them too.
    """

    slots: tuple[Slot, ...]
    normalisation: frozenset[str]

    @staticmethod
    def of(module: nn.Module, statistics: tuple[str, ...] = ()) -> Layout:
        """Lay out a module's parameters and the named buffers."""
        buffers = dict(module.named_buffers())
        parameters = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
        tensors = [(name, value.shape, True) for name, value in parameters]
        tensors += [(name, buffers[name].shape, False) for name in statistics]
        slots, start = [], 0
        for name, shape, trainable in tensors:
            slots.append(Slot(name, shape, start, trainable))
            start = slots[-1].stop
        return Layout(tuple(slots), frozenset(_normalisation_names(module)))

    @cached_property
    def size(self) -> int:
        """Columns of a row."""
        return self.slots[-1].stop

    @cached_property
    def trainable(self) -> int:
        """How many leading columns are parameters; the rest are statistics."""
        return max((slot.stop for slot in self.slots if slot.trainable), default=0)

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """Name the parts of rows: ``(..., size)`` to ``{name: (..., *shape)}``, no copy."""
        parts = rows.split([slot.shape.numel() for slot in self.slots], dim=-1)
        return {
            slot.name: part.unflatten(-1, slot.shape) if slot.shape else part.squeeze(-1)
            for slot, part in zip(self.slots, parts, strict=True)
        }

    def row(self, module: nn.Module) -> Tensor:
        """Read a module into a new row ``(size,)``."""
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        return torch.cat([tensors[slot.name].detach().reshape(-1) for slot in self.slots])

    def load(self, module: nn.Module, row: Tensor) -> nn.Module:
        """Write a row ``(size,)`` into a module in place, and return the module."""
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        with torch.no_grad():
            for name, value in self.views(row).items():
                tensors[name].copy_(value)
        return module

    def mask(self, chosen: Callable[[str], bool]) -> Tensor:
        """Columns whose tensor's name is chosen, ``(size,)`` bool."""
        return torch.cat([torch.full((slot.shape.numel(),), chosen(slot.name)) for slot in self.slots])

    @cached_property
    def layers(self) -> Tensor:
        """Which layer each column belongs to, counted from the last, ``(size,)`` int64; 0 is the last layer, the head.

        A layer is a module with parameters of its own, in the order of the model. The parts of a ``head`` are one layer,
        and a normalisation belongs to the layer before it.
        """
        numbers: dict[str, int] = {}  # of module paths, counted from the first
        last = ""
        for slot in self.slots:
            path = _layer_of(slot.name)
            if (
                path not in numbers
            ):  # statistics come last, when their module is known unless it has no parameters
                joins = slot.name in self.normalisation and last in numbers
                numbers[path] = numbers[last] if joins else max(numbers.values(), default=-1) + 1
            last = path
        most = max(numbers.values())
        counted = [(most - numbers[_layer_of(slot.name)], slot.shape.numel()) for slot in self.slots]
        return torch.cat([torch.full((columns,), number) for number, columns in counted])

    def head_mask(self, prefix: str = "head") -> Tensor:
        """Columns of the model's head; the body is the complement."""
        return self.mask(lambda name: prefix in name.split("."))

    def normalisation_mask(self) -> Tensor:
        """Columns of normalisation layers, statistics included."""
        return self.mask(lambda name: name in self.normalisation)


def _layer_of(name: str) -> str:
    """Path of the layer that a tensor belongs to: its module's, or the head's where it is a part of one."""
    path = name.split(".")[:-1]
    return ".".join(path[: path.index("head") + 1] if "head" in path else path)


def _normalisation_names(module: nn.Module) -> Iterator[str]:
    for prefix, child in module.named_modules():
        if isinstance(child, NORMALISATION) or getattr(child, "normalises", False):
            tensors = [*child.named_parameters(recurse=False), *child.named_buffers(recurse=False)]
            yield from (f"{prefix}.{name}" if prefix else name for name, _ in tensors)


def changing_buffers(module: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Names of the floating buffers that a training-mode forward changes.

    Args:
        module: left as it was; a copy is probed.
        example: an input of the module, ``(batch, lookback, channels)`` with at least two rows.
    """
    probe = copy.deepcopy(module).train()
    before = {name: value.clone() for name, value in probe.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        probe(example)
    return tuple(
        name
        for name, value in probe.named_buffers()
        if value.is_floating_point() and not torch.equal(value, before[name])
    )
