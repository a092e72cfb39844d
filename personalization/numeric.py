"""Small numerical helpers: roots with a gradient at zero, sorting, double precision, grouping by size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor


def safe_root(x: Tensor, order: float = 2.0) -> Tensor:
    """``max(x, 0) ** (1 / order)`` whose gradient at zero is zero instead of infinite.

    Args:
        x: any shape.
        order: which root, at least 1.

    Returns:
        The shape of ``x``.
    """
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0) ** (1 / order), 0.0)


def wide(x: Tensor) -> Tensor:
    """The tensor in float64 where its device has that, so that subtracting a sum's own part loses nothing."""
    return x if x.device.type == "mps" else x.double()


def sort_last(x: Tensor) -> Tensor:
    """Sort along the last axis; differentiable where asked for.

    NumPy's vectorised sort takes a fifteenth of torch's time on a CPU (71 million float32 in rows of 200: .24
    s against 3.5 s), so it is used where no gradient is needed.
    """
    if x.device.type != "cpu" or (x.requires_grad and torch.is_grad_enabled()):
        return x.sort(dim=-1).values
    if x.dtype not in (torch.float32, torch.float64):
        return x.sort(dim=-1).values
    return torch.from_numpy(np.sort(x.detach().numpy(), axis=-1))


def size_groups(features: Sequence[Tensor], limit: int) -> Iterator[tuple[list[int], Tensor]]:
    """Stack clients that have the same number of samples, so that a batch is never padded.

    Args:
        features: one tensor ``(n_k, F)`` per client.
        limit: most values a stack may hold (a larger client comes alone).

    Yields:
        Positions of the clients, and their samples ``(clients, n, F)``.
    """
    sizes: dict[int, list[int]] = defaultdict(list)
    for k, x in enumerate(features):
        sizes[len(x)].append(k)
    for n, members in sizes.items():
        step = max(1, limit // (n * features[0].shape[1]))
        for start in range(0, len(members), step):
            part = members[start : start + step]
            yield part, torch.stack([features[k] for k in part])
