"""Read a study's YAML: numbers as YAML 1.2 writes them, no key twice, shipped studies by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from .errors import StudyError, nearest


class _Loader(yaml.SafeLoader):
    """PyYAML reads ``1e-3`` as text and keeps the last of two equal keys; both lose what a user meant."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                problem=f"key {key.value!r} is here twice (first in line {seen[key.value]})",
                problem_mark=key.start_mark,
            )
        seen[key.value] = key.start_mark.line + 1
    return {str(key): value for key, value in loader.construct_mapping(node, deep=True).items()}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def builtin_studies() -> dict[str, str]:
    """Names of the studies shipped in the package, with their text."""
    folder = resources.files("studies")
    return {f.name.removesuffix(".yaml"): f.read_text() for f in folder.iterdir() if f.name.endswith(".yaml")}


def read_study(file: str) -> dict[str, Any]:
    """Read a YAML file, or a shipped study by its name, with what it ``extends``.

    Raises:
        StudyError: neither exists, the text is not YAML of keys and values, or a file extends itself.
    """
    return _read(file, ())


def _read(file: str, above: tuple[str, ...]) -> dict[str, Any]:
    shipped = builtin_studies()
    if Path(file).is_file():
        raw, here = parse_yaml(Path(file).read_text(), file), str(Path(file).resolve())
    elif file in shipped:
        raw, here = parse_yaml(shipped[file], file), file
    else:
        hint = f" ({above[-1]} extends it)" if above else ""
        raise StudyError(
            f"There is no study file {file!r}{hint}, nor a shipped study of that name. {nearest(file, shipped)}"
        )
    if here in above:
        chain = " extends ".join([*above[above.index(here) :], here])
        raise StudyError(f"{chain}: a study cannot extend itself.")
    base = raw.pop("extends", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise StudyError(f"{file}: extends must name one study or file, got {base!r}.")
    beside = Path(file).parent / base  # a path is meant from where the file lies
    return overlaid(_read(str(beside) if beside.is_file() else base, (*above, here)), raw)


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Parse YAML text; ``source`` names it in errors.

    Raises:
        StudyError: the text is not YAML, holds a key twice, or is not keys and values.
    """
    try:
        raw = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise StudyError(f"{source} is not valid YAML{where}: {error.problem}.") from error
    if raw is None:
        raise StudyError(
            f"{source} is empty; it must hold keys and values, such as 'name: mine' and 'methods: [local, fedavg]'."
        )
    if not isinstance(raw, dict):
        raise StudyError(f"{source} must hold keys and values, such as 'name: ...'; it holds {raw!r:.80}.")
    return raw


def overlaid(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A study with another's values on top; options of a source or model go with it when ``over`` names another."""
    kept = dict(base)
    for part, key in (("data", "source"), ("model", "name")):
        old, new = base.get(part), over.get(part)
        if (
            isinstance(old, Mapping)
            and isinstance(new, Mapping)
            and new.get(key, old.get(key)) != old.get(key)
        ):
            kept[part] = {name: value for name, value in old.items() if name != "options"}
    return merged(kept, over)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over`` on top; nested keys are merged, lists replaced."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result
