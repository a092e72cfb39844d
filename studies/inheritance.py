"""Hyperparameters that a method takes from another's chosen trial instead of tuning them itself.

So a steered method, its constant and its controls differ by the knob alone, and not by the search's luck with a
learning rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .config import MethodConfig, StudyConfig
from .errors import nearest

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def parents(method: MethodConfig, labels: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Parameter -> (label, parameter) it is taken from; labels may hold dots, so the longest that fits is meant."""
    known = sorted(labels, key=len, reverse=True)
    found = {}
    for param, source in method.inherit.items():
        label = next((name for name in known if str(source).startswith(f"{name}.")), None)
        found[param] = ("", str(source)) if label is None else (label, str(source)[len(label) + 1 :])
    return found


def inheritance_problems(entries: Mapping[int, MethodConfig], config: StudyConfig) -> list[str]:
    """What is wrong with the entries' ``inherit``, each with its path."""
    labels = {method.label: method for method in entries.values()}
    found = []
    for place, method in entries.items():
        for param, (label, theirs) in parents(method, labels).items():
            path = f"methods[{place}].inherit.{param}"
            found += [
                f"{path}: {text}" for text in _problem(method, param, labels.get(label), theirs, config)
            ]
    return found + ([] if found else _cycles(labels))


def _problem(
    method: MethodConfig, param: str, parent: MethodConfig | None, theirs: str, config: StudyConfig
) -> list[str]:
    if parent is None:
        return [f"{theirs!r} names no method; write 'label.parameter', such as 'fedavg.lr'."]
    own, other = _params(method, config), _params(parent, config)
    if param in method.fixed:
        return ["is fixed too; keep one of fixed and inherit."]
    if own and param not in own:
        return [f"method {method.label!r} has no such parameter. {nearest(param, own)}"]
    if other and theirs not in other:
        return [f"method {parent.label!r} has no parameter {theirs!r}. {nearest(theirs, other)}"]
    if own and other and _is_whole(own[param]) and not _is_whole(other[theirs]):
        return [
            f"needs a whole number, and {theirs!r} of method {parent.label!r} is none ({other[theirs]!r})."
        ]
    return []


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _params(method: MethodConfig, config: StudyConfig) -> dict[str, Any]:
    """Every parameter of a method; none where it cannot be built, which is another problem's business."""
    from persofl import method_params

    from .names import make_method

    try:
        return method_params(make_method(method, config))
    except (ValueError, TypeError):
        return {}


def _cycles(labels: Mapping[str, MethodConfig]) -> list[str]:
    above = {label: {p for p, _ in parents(m, labels).values()} for label, m in labels.items()}
    for start in above:
        reached, todo = set[str](), set(above[start])
        while todo:
            reached |= todo
            todo = {p for label in todo for p in above[label]} - reached
        if start in reached:
            return [f"methods: {start!r} inherits from itself, directly or by way of others."]
    return []


def chosen_values(
    method: MethodConfig, config: StudyConfig, given: Mapping[str, Any], best: FrozenTrial
) -> dict[str, Any]:
    """Every parameter that a method's final seeds have: tuned, inherited, fixed or by default."""
    from persofl import method_params

    from .names import make_method

    return method_params(make_method(method, config, {**given, **best.params}))
