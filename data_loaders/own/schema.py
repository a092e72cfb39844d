"""What a YAML file holds against frozen dataclasses: every problem at once, each with its path."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import did_you_mean

T = TypeVar("T")
_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


def problems_of(cls: type, raw: object, path: str = "") -> list[str]:
    """Return every problem of ``raw`` as the content of the dataclass ``cls``, each led by its dotted path."""
    if not isinstance(raw, Mapping):
        return [f"{path or 'file'}: expected keys and values, got {_shown(raw)}."]
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    found = [
        f"{_join(path, key)}: unknown key. {did_you_mean(str(key), fields)}"
        for key in raw
        if str(key) not in fields
    ]
    for name, field in fields.items():
        if name in raw:
            bounds = field.metadata.get("bounds")
            found += _of_value(hints[name], raw[name], _join(path, name), bounds)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            found.append(f"{_join(path, name)}: is missing.")
    return found


def build(cls: type[T], raw: Mapping[str, Any]) -> T:
    """Return checked ``raw`` content as an object of the dataclass ``cls``; one text stands for a list of one."""
    hints = get_type_hints(cls)
    return cls(**{name: _converted(hints[name], value) for name, value in raw.items()})


def plain(value: object) -> Any:
    """Return an object of nested dataclasses as dicts and lists, without what has its default value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {f.name: (getattr(value, f.name), _default(f)) for f in dataclasses.fields(value)}
        return {name: plain(item) for name, (item, default) in items.items() if item != default}
    return list(value) if isinstance(value, tuple) else value


def _default(field: dataclasses.Field[Any]) -> object:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _shown(value: object) -> str:
    return f"{value!r:.60} ({type(value).__name__})"


def _members(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for member in get_args(hint) if member is not type(None))
    return (hint,)


def _optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _of_value(hint: Any, value: object, path: str, bounds: tuple[float, float] | None) -> list[str]:
    if value is None and _optional(hint):
        return []
    (member,) = _members(hint)
    origin = get_origin(member)
    if dataclasses.is_dataclass(member):
        return problems_of(member, value, path)  # type: ignore[arg-type]
    if origin is Literal:
        known = [str(choice) for choice in get_args(member)]
        wrong = value not in get_args(member)
        return [f"{path}: unknown value {value!r:.60}. {did_you_mean(str(value), known)}"] if wrong else []
    if origin is tuple:
        return _of_list(value, path)
    return _of_scalar(member, value, path, bounds)


def _of_list(value: object, path: str) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        return [f"{path}: expected text or a list of texts, got {_shown(value)}."]
    return [
        f"{path}[{i}]: expected text, got {_shown(item)}; put it in quotes."
        for i, item in enumerate(items)
        if not isinstance(item, str)
    ]


def _of_scalar(hint: type, value: object, path: str, bounds: tuple[float, float] | None) -> list[str]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    whole = number and float(value).is_integer()  # type: ignore[arg-type]
    fits = {int: whole, float: number, bool: isinstance(value, bool), str: isinstance(value, str)}
    if not fits[hint]:
        quotes = "; put it in quotes" if hint is str else ""
        return [f"{path}: expected {_WORDS[hint]}, got {_shown(value)}{quotes}."]
    if bounds and not bounds[0] <= float(value) <= bounds[1]:  # type: ignore[arg-type]
        most = "" if bounds[1] == float("inf") else f" and at most {bounds[1]:g}"
        return [f"{path}: {value:g} is out of range, must be at least {bounds[0]:g}{most}."]
    return []


def _converted(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    (member,) = _members(hint)
    if dataclasses.is_dataclass(member):
        return build(member, value)  # type: ignore[arg-type]
    if get_origin(member) is tuple:
        return (value,) if isinstance(value, str) else tuple(value)
    return member(value) if member in (int, float) else value
