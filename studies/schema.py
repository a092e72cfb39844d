"""Raw YAML against frozen dataclasses: every problem at once, each with its path, then the objects."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import nearest

T = TypeVar("T")

WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


def limits(low: float | None = None, high: float | None = None, *, opened: str = "") -> dict[str, Any]:
    """Field metadata: the field's number, or every number of its list, lies between ``low`` and ``high``.

    Args:
        low: smallest value allowed, ``None`` for no limit.
        high: largest value allowed, ``None`` for no limit.
        opened: the limits that are themselves refused: ``""``, ``"low"`` or ``"low high"``.
    """
    return {"bounds": (low, high, opened)}


def check(cls: type, raw: object, path: str = "") -> list[str]:
    """Every problem of ``raw`` as the content of the dataclass ``cls``, each led by its dotted path.

    Args:
        cls: a dataclass.
        raw: what the YAML file holds at ``path``.
        path: dotted path of ``raw`` in the file, empty at the top.
    """
    if not isinstance(raw, Mapping):
        return [f"{path or 'file'}: expected keys and values, got {_shown(raw)}."]
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    found = [
        f"{_join(path, key)}: unknown key. {nearest(key, fields)}" for key in raw if str(key) not in fields
    ]
    for name, field in fields.items():
        if name in raw:
            found += _check_value(hints[name], raw[name], _join(path, name), field.metadata.get("bounds"))
        elif _required(field):
            found.append(f"{_join(path, name)}: is missing.")
    return found


def build(cls: type[T], raw: Mapping[str, Any]) -> T:
    """Turn checked ``raw`` content into an object of the dataclass ``cls``."""
    hints = get_type_hints(cls)
    return cls(**{name: _convert(hints[name], value) for name, value in raw.items()})


def plain(value: object) -> Any:
    """Turn an object of nested dataclasses into dicts and lists: the inverse of :func:`build`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _shown(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"


def _check_value(hint: Any, value: object, path: str, bounds: tuple[Any, ...] | None) -> list[str]:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _check_union(get_args(hint), value, path, bounds)
    if dataclasses.is_dataclass(hint):
        return check(hint, value, path)  # type: ignore[arg-type]
    if origin is Literal:
        known = [str(choice) for choice in get_args(hint)]
        return (
            [] if value in get_args(hint) else [f"{path}: unknown value {value!r}. {nearest(value, known)}"]
        )
    if origin is list:
        if not isinstance(value, list):
            return [f"{path}: expected a list, got {_shown(value)}."]
        (item,) = get_args(hint)
        return [p for i, v in enumerate(value) for p in _check_value(item, v, f"{path}[{i}]", bounds)]
    if hint is dict or origin is dict:
        return (
            [] if isinstance(value, Mapping) else [f"{path}: expected keys and values, got {_shown(value)}."]
        )
    return _check_scalar(hint, value, path, bounds)


def _check_union(
    hints: tuple[Any, ...], value: object, path: str, bounds: tuple[Any, ...] | None
) -> list[str]:
    """Check against the member that the value looks like, so that its problems are the ones reported."""
    if value is None and type(None) in hints:
        return []
    members = [hint for hint in hints if hint is not type(None)]
    for hint in members:
        if not _check_value(hint, value, path, bounds):
            return []
    likely = [h for h in members if dataclasses.is_dataclass(h) == isinstance(value, Mapping)]
    return _check_value((likely or members)[0], value, path, bounds)


def _check_scalar(hint: type, value: object, path: str, bounds: tuple[Any, ...] | None) -> list[str]:
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        int: (isinstance(value, int) and numeric) or (isinstance(value, float) and value.is_integer()),
        float: numeric,
        bool: isinstance(value, bool),
        str: isinstance(value, str),
    }
    if not fits.get(hint, True):
        return [f"{path}: expected {WORDS[hint]}, got {_shown(value)}."]
    return _check_bounds(float(value), path, bounds) if numeric and bounds else []  # type: ignore[arg-type]


def _check_bounds(value: float, path: str, bounds: tuple[Any, ...]) -> list[str]:
    low, high, opened = bounds
    too_low = low is not None and (value < low or (value == low and "low" in opened))
    too_high = high is not None and (value > high or (value == high and "high" in opened))
    if not (too_low or too_high or math.isnan(value)):
        return []
    words = [f"{'above' if 'low' in opened else 'at least'} {low:g}"] if low is not None else []
    words += [f"{'below' if 'high' in opened else 'at most'} {high:g}"] if high is not None else []
    return [f"{path}: {value:g} is out of range, must be {' and '.join(words)}."]


def _convert(hint: Any, value: Any) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        members = [h for h in get_args(hint) if h is not type(None)]
        fitting = [h for h in members if not _check_value(h, value, "", None)]
        return _convert((fitting or members)[0], value)
    if dataclasses.is_dataclass(hint):
        return build(hint, value)  # type: ignore[arg-type]
    if origin is list:
        return [_convert(get_args(hint)[0], item) for item in value]
    return hint(value) if hint in (int, float) else value
