"""What is wrong, the value received, where, and what to do: the errors every part of the package shares."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is not registered, with the nearest one that is.

    Args:
        kind: what was looked up, "distance" or "parameter of 'sliced'".
        name: the name received.
        known: the names there are.
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return ValueError(f"Unknown {kind} {name!r}; {hint}known: {', '.join(names) or 'none'}.")


def check_order(order: float) -> None:
    """Refuse an order below 1, for which the Wasserstein cost is no metric.

    Raises:
        ValueError: ``order`` is below 1, infinite or not a number.
    """
    if not 1 <= order < math.inf:
        raise ValueError(f"order={order} is no Wasserstein order; use 1 <= order < inf (1 or 2 are usual).")


Features = Iterable[Tensor] | Mapping[str, Tensor]
"""Samples of clients, one tensor ``(n_k, F)`` for each; a mapping names them."""


def check_features(features: Features) -> list[Tensor]:
    """Refuse anything but finite floating ``(n_k, F)`` tensors with one F, dtype and device, and at least two rows.

    Args:
        features: one tensor per client; errors call them by the mapping's names, or else by their position.

    Returns:
        The tensors as a list.

    Raises:
        ValueError: names the first client at fault, the value received, and what to do.
    """
    if not isinstance(features, Iterable):
        raise ValueError(
            f"features is of type {type(features).__name__}; give one (n_k, F) tensor per client, in a list."
        )
    named = isinstance(features, Mapping)
    items = list(features.items() if isinstance(features, Mapping) else enumerate(features))
    if not items:
        raise ValueError("features is empty; give one (n_k, F) tensor per client, at least one.")
    for name, x in items:
        _check_client(x, items[0][1], f"Client {name!r}" if named else f"Client {name}")
    return [x for _, x in items]


def _check_client(x: object, first: Tensor, who: str) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{who} has features of type {found}; convert them to a floating-point tensor.")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{who} has features of shape {tuple(x.shape)}; give a matrix (samples, features).")
    if len(x) < 2:
        raise ValueError(
            f"{who} has {len(x)} sample(s); a distribution needs at least two. Leave such clients out."
        )
    if first.ndim == 2 and x.shape[1] != first.shape[1]:
        raise ValueError(
            f"{who} has {x.shape[1]} features, the first client {first.shape[1]}; all clients must describe "
            "their samples by the same features."
        )
    if x.dtype != first.dtype or x.device != first.device:
        raise ValueError(
            f"{who} has features in {x.dtype} on {x.device}, the first client in {first.dtype} on {first.device}; "
            "bring all to one dtype and device."
        )
    if not torch.isfinite(x).all():
        row = int((~torch.isfinite(x)).any(1).nonzero()[0, 0])
        bad = int((~torch.isfinite(x)).sum())
        raise ValueError(
            f"{who} has {bad} NaN or infinite value(s), the first in row {row}; drop or fill such rows beforehand."
        )
    most, limit = float(x.detach().abs().max()), torch.finfo(x.dtype).max ** 0.5 / 100
    if x.dtype != torch.float16 and most > limit:  # whose squares are taken in float64
        raise ValueError(
            f"{who} has values up to {most:.3g}, whose squares {x.dtype} cannot hold; scale them to below {limit:.0e}."
        )


def check_gate(gate: float) -> None:
    """Refuse a gate that is no number.

    Raises:
        ValueError: it is NaN.
    """
    if math.isnan(gate):
        raise ValueError("gate=nan is no z-score; 1 is usual, 0 only takes off the null's mean.")
