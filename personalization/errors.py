"""What is wrong, the value received, where, and what to do: the errors every part of the package shares."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real

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
    nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return ValueError(f"Unknown {kind} {name!r}; {hint}known: {', '.join(names) or 'none'}.")


def check_order(order: float) -> None:
    """Refuse an order below 1, for which the Wasserstein cost is no metric.

    Raises:
        ValueError: ``order`` is below 1, infinite or not a number.
    """
    check_number("order", order, "an order of at least 1")
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
        ValueError: names the first client at fault, the value received, and what to do; values beyond
            :func:`value_limit`, or none that comes up to its inverse where they differ.
    """
    if not isinstance(features, Iterable) or isinstance(features, str | set | frozenset):
        raise ValueError(
            f"features is of type {type(features).__name__}; give one (n_k, F) tensor per client, in a list."
        )
    named = isinstance(features, Mapping)
    items = list(features.items() if isinstance(features, Mapping) else enumerate(features))
    if not items:
        raise ValueError("features is empty; give one (n_k, F) tensor per client, at least one.")
    largest = max(
        _check_client(x, items[0][1], f"Client {name!r}" if named else f"Client {name}") for name, x in items
    )
    clients = [x for _, x in items]
    least = 1 / value_limit(clients[0].dtype)
    if 0 < largest < least and any(bool((x != clients[0][0]).any()) for x in clients):
        raise ValueError(
            f"features are at most {largest:.3g}, too small for distances in {clients[0].dtype}; scale them to above "
            f"{least:.0e}."
        )
    return clients


def value_limit(dtype: torch.dtype) -> float:
    """How large features may be: their squares stay finite, and 1e30 where samples of their law are drawn in float32.

    Half precision is computed in float32. Below the inverse, squares vanish.
    """
    return min(1e30, float(torch.finfo(torch.promote_types(dtype, torch.float32)).max ** 0.5 / 100))


def _check_client(x: object, first: Tensor, who: str) -> float:
    """The client's largest value."""
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
    most, limit = largest_of(x), value_limit(x.dtype)
    if not math.isfinite(most):
        row = int((~torch.isfinite(x)).any(1).nonzero()[0, 0])
        bad = int((~torch.isfinite(x)).sum())
        raise ValueError(
            f"{who} has {bad} NaN or infinite value(s), the first in row {row}; drop or fill such rows beforehand."
        )
    if most > limit:
        raise ValueError(
            f"{who} has values up to {most:.3g}, too large for distances in {x.dtype}; scale them to below {limit:.0e}."
        )
    return most


def largest_of(x: Tensor) -> float:
    """The largest absolute value, NaN or infinite where one is; in a single pass."""
    low, high = x.detach().aminmax()
    return float(torch.maximum(-low, high))


def check_batches(**given: tuple[Tensor, int]) -> None:
    """Refuse tensors whose leading axes do not broadcast.

    Args:
        given: by name the tensor, and how many trailing axes are its own.

    Raises:
        ValueError: names them and their shapes.
    """
    try:
        torch.broadcast_shapes(*(x.shape[: x.ndim - own] for x, own in given.values()))
    except RuntimeError as error:
        shapes = ", ".join(f"{name} has shape {tuple(x.shape)}" for name, (x, _) in given.items())
        raise ValueError(f"{shapes}, whose batches do not fit; give as many of each, or one.") from error


def check_tensors(**given: object) -> None:
    """Refuse lists and arrays where tensors belong.

    Raises:
        ValueError: names the argument, its type, and how to convert it.
    """
    for name, x in given.items():
        if not isinstance(x, Tensor):
            raise ValueError(
                f"{name} is of type {type(x).__name__}; give a tensor, such as torch.as_tensor makes of arrays."
            )


def check_floating(**given: object) -> None:
    """Refuse what is no tensor of floating-point numbers.

    Raises:
        ValueError: names the argument and its type.
    """
    check_tensors(**given)
    for name, x in given.items():
        if isinstance(x, Tensor) and not x.is_floating_point():
            raise ValueError(f"{name} is of type {x.dtype}; convert it to a floating-point tensor.")


def check_finite(**tensors: Tensor) -> None:
    """Refuse NaN and infinity in what a function is given by name, and what is no tensor.

    Raises:
        ValueError: names the argument, and where its first such number is.
    """
    check_tensors(**tensors)
    for name, x in tensors.items():
        broken = ~torch.isfinite(x)
        try:
            found = bool(broken.any())
        except RuntimeError:  # under torch.func.vmap nothing can be asked
            return
        if found:
            place = broken.nonzero()[0].tolist()
            raise ValueError(
                f"{name} has {int(broken.sum())} NaN or infinite value(s), the first at {place}; fill or drop them."
            )


def check_gate(gate: float) -> None:
    """Refuse a gate that is no number.

    Raises:
        ValueError: it is NaN, or no number at all.
    """
    check_number("gate", gate, "a z-score; 1 is usual, 0 only takes off the null's mean")


def check_draws(draws: int) -> None:
    """Refuse a number of draws that makes no null.

    Raises:
        ValueError: it is no whole number, or below two.
    """
    check_whole("draws", draws, "a null needs some hundred to be of use", least=2)


def check_whole(name: str, value: object, hint: str, *, least: int = 1) -> None:
    """Refuse what is no whole number of at least ``least``.

    Raises:
        ValueError: names the value, and what it should be.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}={value!r} is no whole number of at least {least}: {hint}.")


def check_number(name: str, value: object, hint: str) -> None:
    """Refuse what is no real number.

    Raises:
        ValueError: names the value, and what it should be.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
        raise ValueError(f"{name}={value!r} is no number: give {hint}.")


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False: a word would count as True.

    Raises:
        ValueError: names the value.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: give True or False.")


def check_positions(index: Tensor | Sequence[int] | Sequence[bool], clients: int) -> Tensor:
    """Positions of some clients, or a mask over all, as a tensor.

    Raises:
        ValueError: neither of these, or a position beyond the clients.
    """
    try:
        chosen = torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"index of type {type(index).__name__}; give positions of clients, or a mask."
        ) from error
    if chosen.numel() == 0 and chosen.dtype != torch.bool:
        chosen = chosen.long()
    if chosen.dtype == torch.bool:
        fits = chosen.shape == (clients,)
    else:
        whole = chosen.ndim == 1 and not chosen.is_floating_point() and not chosen.is_complex()
        fits = whole and bool(((chosen >= -clients) & (chosen < clients)).all())
    if not fits:
        raise ValueError(
            f"index={str(chosen.tolist())[:80]} of {clients} clients; give positions below {clients}, or a mask of shape "
            f"({clients},)."
        )
    return chosen if chosen.dtype == torch.bool else chosen.long()


def check_counts(n: Tensor | Sequence[int], clients: int, least: int = 1) -> Tensor:
    """The samples of each client, int64 ``(clients,)``.

    Raises:
        ValueError: not one whole number a client, or too few.
    """
    try:
        counts = torch.as_tensor(n)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"n of type {type(n).__name__}; give {clients} whole numbers of samples.") from error
    whole = not counts.is_floating_point() and counts.dtype != torch.bool
    if counts.shape != (clients,) or not whole or not bool((counts >= least).all()):
        raise ValueError(
            f"n={counts.tolist()}; give {clients} whole numbers of samples, at least {least}, one a client."
        )
    return counts.long()


_SORTS: dict[str, tuple[type, str]] = {
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
    "bool": (bool, "true or false"),
    "str": (str, "a name"),
}


def check_options(cls: type, what: str, options: Mapping[str, object]) -> None:
    """Refuse options that a dataclass does not have, and values of another sort than its fields'.

    Args:
        cls: the dataclass, its annotations strings.
        what: what an option is, "option of distance 'sliced'".
        options: by name.

    Raises:
        ValueError: names the option, the value, and what it should be, or the nearest name.
    """
    known = {f.name: str(f.type).split(" | ") for f in fields(cls)}
    for name, value in options.items():
        if name not in known:
            raise unknown_name(what, name, known)
        sorts = [_SORTS[part] for part in known[name] if part in _SORTS]
        if sorts and not (value is None and "None" in known[name]) and not _is_of(value, sorts):
            wanted = " or ".join(words for _, words in sorts)
            raise ValueError(f"{what[0].upper()}{what[1:]} {name}={value!r}: give {wanted}.")


def check_fields(built: object) -> None:
    """Refuse fields of a dataclass that are of another sort than their annotations, strings, say.

    Raises:
        ValueError: as :func:`check_options`.
    """
    cls = type(built)
    check_options(cls, f"option of {cls.__name__}", {f.name: getattr(built, f.name) for f in fields(cls)})  # type: ignore[arg-type]


def _is_of(value: object, sorts: Iterable[tuple[type, str]]) -> bool:
    """A bool is no number, though Python counts it as one."""
    return any(isinstance(value, sort) and isinstance(value, bool) == (sort is bool) for sort, _ in sorts)
