"""Distances between what clients have learned, not what they have seen: the controls for distances between laws."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import check_flag
from .numeric import pairwise_squared, safe_root, wide


def cosine_distance(
    updates: Tensor, *, weights: Tensor | Sequence[float] | None = None, pairwise: bool = False
) -> Tensor:
    r"""One minus the cosine between clients' updates, :math:`1 - \langle u, v \rangle / (\|u\| \|v\|)`.

    Args:
        updates: parameters or ``anchor - local``, shape ``(clients, parameters)``, finite.
        weights: of the clients in the mean, non-negative, ``(clients,)``; equal where not given.
        pairwise: between all pairs, not to the others' mean.

    Returns:
        To the weighted mean of all others, ``(clients,)``, or between all, ``(clients, clients)`` with a zero diagonal;
        in [0, 2]. Without a direction there is no angle: 1 where one of two updates is zero, 0 where both are. One client
        alone has distance 0.

    Raises:
        ValueError: another shape, NaN, negative weights or none.

    References:
        Sattler, Mueller and Samek, Clustered federated learning, IEEE TNNLS 32(8), 2021 (cosine of updates).
    """
    updates = check_updates(updates)
    _check_alternatives(weights, pairwise)
    if pairwise:
        directions = _directions(updates)
        distance = _gap(directions @ directions.mT, directions.unsqueeze(1), directions).fill_diagonal_(0)
    elif len(updates) == 1:
        return updates.new_zeros(1)
    else:
        own, mean = _directions(updates), _directions(others(updates, weights))
        distance = _gap((own * mean).sum(1), own, mean)
    return distance.to(updates.dtype)


def l2_distance(
    updates: Tensor, *, weights: Tensor | Sequence[float] | None = None, pairwise: bool = False
) -> Tensor:
    """Euclidean distance between clients' updates, to the weighted mean of all others or between all.

    Args:
        updates: as in :func:`cosine_distance`.
        weights: as there.
        pairwise: as there.

    Returns:
        ``(clients,)``, or ``(clients, clients)`` with a zero diagonal; in the units of the parameters. One client alone
        has distance 0.

    Raises:
        ValueError: as :func:`cosine_distance`.
    """
    updates = check_updates(updates)
    _check_alternatives(weights, pairwise)
    if len(updates) == 1:
        return updates.new_zeros((1, 1) if pairwise else 1)
    rows, unit = of_order_one(updates)
    gap = rows - (rows.mean(0) if pairwise else others(rows, weights))
    squared = pairwise_squared(gap) if pairwise else gap.square().sum(1)
    return (safe_root(squared) * unit).to(updates.dtype)


def _check_alternatives(weights: object, pairwise: bool) -> None:
    check_flag("pairwise", pairwise)
    if pairwise and weights is not None:
        raise ValueError(
            "weights are of the mean of the others, which pairwise distances do not have; leave them out."
        )


def check_updates(updates: Tensor) -> Tensor:
    """Refuse anything but a finite floating matrix that is not empty."""
    if not isinstance(updates, Tensor):
        raise ValueError(f"updates of type {type(updates).__name__}; give a tensor (clients, parameters).")
    if updates.ndim != 2 or 0 in updates.shape or not updates.is_floating_point():
        raise ValueError(
            f"updates of type {updates.dtype} and shape {tuple(updates.shape)}; give a floating matrix "
            "(clients, parameters) that is not empty."
        )
    broken = ~torch.isfinite(updates).all(1)
    if broken.any():
        first = int(broken.nonzero()[0, 0])
        raise ValueError(
            f"Client {first} has NaN or infinite parameters ({int(broken.sum())} clients do); leave such clients out."
        )
    return updates


def of_order_one(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows over their largest number, float64, so that squares neither overflow nor vanish; and that number."""
    unit = wide(rows.detach().abs().max())
    unit = torch.where(unit > 0, unit, 1.0)
    return wide(rows) / unit, unit


def others(updates: Tensor, weights: Tensor | Sequence[float] | None) -> Tensor:
    """Weighted mean of all rows but the own, ``(clients, parameters)``, float64."""
    w = client_shares(updates, weights)
    rest = 1 - w
    if not bool((rest > 1e-12).all()):
        raise ValueError(
            "Only one client has a weight above 0, so it has no others; give at least two such clients."
        )
    weighted = w.unsqueeze(1) * wide(updates)
    return (weighted.sum(0) - weighted) / rest.unsqueeze(1)


def client_shares(updates: Tensor, weights: Tensor | Sequence[float] | None) -> Tensor:
    """Weights of the clients that sum to one, ``(clients,)``, float64."""
    if weights is None:
        return wide(updates).new_full((len(updates),), 1 / len(updates))
    try:
        weights = weights if isinstance(weights, Tensor) else torch.tensor(weights, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"weights={weights!r:.80}; give {len(updates)} numbers, at least 0.") from error
    if weights.is_complex():
        raise ValueError(f"weights of type {weights.dtype}; give {len(updates)} real numbers, at least 0.")
    w = wide(weights.to(updates.device))
    if w.shape != (len(updates),) or not bool(torch.isfinite(w).all()) or bool((w < 0).any()):
        raise ValueError(f"weights of shape {tuple(w.shape)}; give {len(updates)} finite ones, at least 0.")
    if not bool((w > 0).any()):
        raise ValueError("All weights are 0; give at least two clients one above 0.")
    w = w / w.max()
    return w / w.sum()


def _directions(rows: Tensor) -> Tensor:
    """Rows of length one; of length zero where there is no direction."""
    rows = wide(rows)
    largest = rows.abs().amax(1, keepdim=True)
    scaled = rows / torch.where(largest > 0, largest, 1.0)  # so that squares neither overflow nor vanish
    return torch.nn.functional.normalize(scaled, dim=1)


def _gap(cosine: Tensor, u: Tensor, v: Tensor) -> Tensor:
    nowhere = ~u.any(-1) & ~v.any(-1)
    return torch.where(nowhere, 0.0, (1 - cosine).clamp(0, 2))
