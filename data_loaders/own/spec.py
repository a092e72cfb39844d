"""Read the YAML file that says what is what; every problem in one message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..units import find_unit
from .options import SERIES, OwnSpec
from .schema import build, plain, problems_of

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)")
_ONLY = {  # keys that say something in these layouts only
    "value": SERIES,
    "covariates": ("long", "folder"),
    "known": ("long", "folder"),
    "duplicates": SERIES,
    "labels": ("samples", "wav"),
    "audio": ("wav",),
}


def read_spec(file: str | Path) -> OwnSpec:
    """Read and check a YAML file; see :class:`OwnSpec` for its keys.

    Raises:
        DataError: the file is not there, is no YAML, or says what cannot be, all in one message.
    """
    path = Path(file).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"File {path} is not UTF-8 text: {error.reason}. Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(
            f"File {path} cannot be read: {error.strerror}. Give the YAML file that describes your data; "
            "`persofl data check some.csv --write mine.yaml` makes one."
        ) from error
    return spec_of(parse(text, str(path)), str(path))


def spec_of(raw: dict[str, Any], source: str = "") -> OwnSpec:
    """Return checked keys and values as a spec.

    Args:
        raw: what the YAML file holds.
        source: names it in errors.

    Raises:
        DataError: all problems, one to a line.
    """
    found = problems_of(OwnSpec, raw)
    if not found:
        spec = build(OwnSpec, raw)
        found = list(_contradictions(spec))
        if not found:
            return _normal(spec)
    title = f"{source or 'The description'}: {len(found)} problem{'s' if len(found) > 1 else ''}"
    raise DataError(title, *(f"  - {problem}" for problem in found))


def parse(text: str, source: str) -> dict[str, Any]:
    """Parse YAML of keys and values.

    Raises:
        DataError: it is not that, or holds a key twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML keeps the last of two equal keys, which loses what a user meant."""

    def mapping(loader: Loader, node: yaml.MappingNode) -> dict[str, Any]:
        keys = [str(key.value) for key, _ in node.value]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            mark = node.value[keys.index(twice)][0].start_mark
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is there twice", mark)
        return {str(key): value for key, value in loader.construct_mapping(node, deep=True).items()}

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        raw = yaml.load(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DataError(f"{source} is not valid YAML{where}: {error.problem}.") from error
    except yaml.YAMLError as error:
        raise DataError(f"{source} is not valid YAML: {error}.") from error
    if not isinstance(raw, dict):
        raise DataError(f"{source} must hold keys and values, such as 'layout: long'; it holds {raw!r:.60}.")
    return raw


def write_spec(spec: OwnSpec) -> str:
    """Return a spec as YAML text, without what has its default value."""
    import yaml

    return yaml.safe_dump(
        plain(spec), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )


def seconds_of(duration: str) -> float | None:
    """Return ``"15min"`` as 900.0; None for text that is no duration."""
    match = _DURATION.fullmatch(duration.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    return seconds if seconds > 0 else None


def _normal(spec: OwnSpec) -> OwnSpec:
    return replace(spec, attributes=_attributes(spec)) if spec.attributes else spec


def _attributes(spec: OwnSpec) -> Any:
    """Return the attributes' options with those of the data where they have none of their own."""
    said = spec.attributes
    assert said is not None
    own = {
        name: getattr(said, name) or getattr(spec.csv, name) for name in ("delimiter", "decimal", "encoding")
    }
    return replace(said, **own)


def _contradictions(spec: OwnSpec) -> Iterator[str]:
    yield from _of_text(spec)
    yield from _of_time(spec)
    yield from _of_units(spec)
    for key, layouts in _ONLY.items():
        default = next(item.default for item in fields(OwnSpec) if item.name == key)
        if spec.layout not in layouts and getattr(spec, key) != default:
            yield f"{key}: says nothing about layout {spec.layout!r}, only about {', '.join(layouts)}. Remove it."
    if not spec.files:
        yield "files: name at least one file or pattern."
    strangers = [name for name in spec.known if name not in spec.covariates]
    if strangers:
        yield f"known: {', '.join(strangers)} are not among the covariates {list(spec.covariates)}."
    if spec.client.pattern is not None and "{client}" not in spec.client.pattern:
        yield f"client.pattern: {spec.client.pattern!r} must hold {{client}} where the client's name stands."
    if spec.layout in ("samples", "wav"):
        yield from _of_labels(spec)


def _of_text(spec: OwnSpec) -> Iterator[str]:
    csv = spec.csv
    if len(csv.delimiter) != 1:
        yield f'csv.delimiter: must be one character, got {csv.delimiter!r}; a tab is "\\t" in double quotes.'
    if csv.decimal not in (".", ","):
        yield f"csv.decimal: must be '.' or ',', got {csv.decimal!r}."
    if csv.thousands not in ("", ".", ",", "'", " "):
        yield f"""csv.thousands: must be '', '.', ',', ' ' or "'", got {csv.thousands!r}."""
    if csv.thousands == csv.decimal:
        yield f"csv.thousands: is {csv.thousands!r} as csv.decimal is; one of them is wrong."
    if len(set(csv.columns)) != len(csv.columns):
        yield "csv.columns: names are not unique."
    try:
        "".encode(csv.encoding)
    except LookupError:
        yield f"csv.encoding: there is no encoding {csv.encoding!r}. Common ones: utf-8, latin-1, cp1252, utf-16."


def _of_time(spec: OwnSpec) -> Iterator[str]:
    from zoneinfo import ZoneInfo

    time = spec.time
    for name, text in {"step": time.step, "new_run_after": time.new_run_after}.items():
        if text not in ("auto" if name == "step" else None, None) and seconds_of(str(text)) is None:
            yield f"time.{name}: {text!r} is no duration; write 15min, 1h, 30s or 100ms."
    try:
        ZoneInfo(time.timezone)
    except (ValueError, OSError, KeyError):
        yield f"time.timezone: there is no time zone {time.timezone!r}; use a name like Europe/Madrid, or UTC."
    if time.format not in ("auto", "unix", "unix_ms") and "%" not in time.format:
        yield (
            f"time.format: {time.format!r} has no % in it; use 'auto', 'unix', 'unix_ms' or a form such as "
            "'%d.%m.%Y %H:%M'."
        )


def _of_units(spec: OwnSpec) -> Iterator[str]:
    value = spec.value
    if value.to is None or value.to == value.unit or spec.layout not in SERIES:
        return
    for name, unit in {"unit": value.unit, "to": value.to}.items():
        try:
            find_unit(unit)
        except DataError as error:
            yield f"value.{name}: {error}"


def _of_labels(spec: OwnSpec) -> Iterator[str]:
    labels = spec.labels
    if (labels.label is None) == (not labels.targets):
        yield "labels: name either label (a class) or targets (numbers to predict)."
    if spec.layout == "wav" and (labels.targets or labels.features or labels.categories):
        yield "labels: clips have a label; targets, features and categories are for layout samples."
    both = sorted(set(labels.features) & {*labels.targets, labels.label, spec.client.column})
    if both:
        yield f"labels.features: {', '.join(both)} are named as features and as something else."
