"""The embedding of an example: what reaches a model's last layer, the one called ``head``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .errors import PersoflError


def head_layers(module: nn.Module) -> list[nn.Module]:
    """The layers called ``head``; of a container that is not itself called, its members.

    Raises:
        PersoflError: there is none.
    """
    heads = [layer for name, layer in module.named_modules() if name.rpartition(".")[2] == "head"]
    if not heads:
        raise PersoflError(
            f"{type(module).__name__} has no layer called 'head', whose input is the embedding. Give the last layer this "
            "name: self.head = ..."
        )
    containers = (nn.ModuleDict, nn.ModuleList)
    return [part for head in heads for part in (head.children() if isinstance(head, containers) else [head])]


@contextmanager
def watch_head(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what reaches the head while the module runs; the list is filled by each forward pass.

    Raises:
        PersoflError: the module has no head.
    """
    seen: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        for layer in head_layers(module)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def joined(seen: list[Tensor], lead: int = 1) -> Tensor:
    """What :func:`watch_head` collected in one forward pass as one embedding, ``(..., width)`` behind ``lead`` axes."""
    return torch.cat([part.flatten(lead) for part in seen], -1)
