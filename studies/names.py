"""Names in a study against the registries, and the study's parts as the engine takes them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from .config import DataConfig, MethodConfig, StudyConfig
from .errors import StudyError, listed, nearest
from .inheritance import inheritance_problems
from .plugins import load_plugins
from .schema import build, check
from .search import Space

if TYPE_CHECKING:
    from data_loaders import SampleSpec, WindowSpec
    from data_loaders.partition import Partition
    from data_loaders.registry import Source
    from persofl import Method


def study_config(raw: Mapping[str, Any], source: str) -> StudyConfig:
    """The study that ``raw`` describes; ``source`` names the file in the error.

    Raises:
        StudyError: all problems of the file, in one message.
    """
    load_plugins(_plugins(raw))
    found = problems(raw)
    if found:
        raise StudyError(listed(source, found))
    return build(StudyConfig, raw)


def _plugins(raw: Mapping[str, Any]) -> list[str]:
    """The plug-ins named in a raw study, as far as they are names; what else is there the schema refuses."""
    named = raw.get("plugins") or []
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def problems(raw: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a study's raw content, each with its path in the file.

    What the schema refuses is taken out before names are looked up, so that one bad value hides no bad name.
    """
    found = check(StudyConfig, raw)
    sound = copy.deepcopy(dict(raw))
    for problem in found:
        _take_out(sound, problem.split(":")[0])
    methods = sound.pop("methods", None) or []
    config = build(StudyConfig, {"name": "study", "methods": [], **sound})
    named = {
        place: build(StudyConfig, {"name": "study", "methods": [method]}).methods[0]
        for place, method in enumerate(methods)
        if method is not None
    }
    labels = {place: StudyConfig("study", [method]).labelled()[0] for place, method in named.items()}
    entries = {place: method for place, method in labels.items() if not config.is_left_out(method.label)}
    found += _left_out_problems(config, [method.label for method in labels.values()])
    if "methods" in raw and raw["methods"] == []:
        found.append("methods: is empty; name at least one.")
    everyone = [method.label for method in labels.values()]
    found += _control_problems(entries, everyone)
    return found + _data_problems(config.data) + _model_problems(config) + _of_methods(entries, config)


def _take_out(tree: Any, path: str) -> None:
    """Remove what lies at ``path``; an element of a list leaves ``None``, so that the others keep their places."""
    head, _, rest = path.partition(".")
    name, _, place = head.partition("[")
    if not isinstance(tree, dict) or name not in tree:
        return
    if rest and not place:
        _take_out(tree[name], rest)
    elif place and name == "methods":
        tree[name][int(place.rstrip("]"))] = None
    else:
        del tree[name]


def _of_methods(entries: Mapping[int, MethodConfig], config: StudyConfig) -> list[str]:
    found = [
        f"methods[{place}]: {text}"
        for place, method in entries.items()
        for text in _method_problems(method, config)
    ]
    found += inheritance_problems(entries, config)
    twice = _twice([method.label for method in entries.values()])
    found += [f"methods: {label!r} is there twice; give one of them a label of its own." for label in twice]
    return found + _search_problems(config) + _list_problems(config)


def _data_problems(data: DataConfig) -> list[str]:
    from data_loaders import DataError
    from data_loaders.registry import SOURCES

    if data.source not in SOURCES:
        return [f"data.source: unknown source {data.source!r}. {nearest(data.source, SOURCES)}"]
    found = []
    parts = {
        "data.options": build_data_source,
        "data": window_spec,
        "data.": sample_spec,
        "data.partition": build_partitions,
        "data.calendar": check_calendar,
    }
    for path, make in parts.items():
        try:
            make(data)
        except DataError as error:
            found += [f"{path.rstrip('.')}: {text}" for text in error.problems]
        except (TypeError, ValueError) as error:
            found.append(f"{path.rstrip('.')}: {error}")
    return list(dict.fromkeys(found))  # both kinds of spans refuse the same shares


def _model_problems(config: StudyConfig) -> list[str]:
    from persofl.models import MODELS, model_options

    name = config.model.name
    if name not in MODELS:
        return [f"model.name: unknown model {name!r}. {nearest(name, MODELS)}"]
    known = model_options(name)
    unknown = [
        f"model.options.{key}: unknown option of model {name!r}. {nearest(key, known)}"
        for key in config.model.options
        if key not in known
    ]
    return unknown or _unbuildable(config)


def _unbuildable(config: StudyConfig) -> list[str]:
    """Options of the right name and the wrong value show when the model is built."""
    from persofl.models import Shape, build_model

    model = config.model
    try:
        build_model(model.name, Shape(config.data.lookback, config.data.horizon), **model.options)
    except (TypeError, ValueError, RuntimeError) as error:
        return [f"model.options: {model.name!r} cannot be built with {dict(model.options)}: {error}"]
    return []


def _method_problems(method: MethodConfig, config: StudyConfig) -> list[str]:
    try:
        make_method(method, config)
    except (ValueError, TypeError) as error:
        return str(error).splitlines()
    return []


def _left_out_problems(config: StudyConfig, labels: list[str]) -> list[str]:
    """Patterns that fit nothing, or everything."""
    found = [
        f"leave_out: {pattern!r} fits none of the methods {', '.join(labels)}."
        for pattern in config.leave_out
        if labels and not any(fnmatchcase(label, pattern) for label in labels)
    ]
    if labels and all(map(config.is_left_out, labels)):
        found.append("leave_out: leaves no method.")
    return found


def _control_problems(entries: Mapping[int, MethodConfig], everyone: Iterable[str]) -> list[str]:
    known = list(everyone)
    return [
        f"methods[{place}].controls: there is no method {label!r}. {nearest(label, known)}"
        if label != method.label
        else f"methods[{place}].controls: {label!r} is the method itself."
        for place, method in entries.items()
        for label in method.controls
        if label not in known or label == method.label
    ]


def _search_problems(config: StudyConfig) -> list[str]:
    found = []
    for name, spec in config.search.ranges.items():
        path = f"search.ranges.{name}"
        if not isinstance(spec, Mapping):
            found.append(
                f"{path}: expected keys and values such as {{low: 0.01, high: 1, log: true}}, got {spec!r}."
            )
        elif "choices" not in spec and not {"low", "high"} <= set(spec):
            found.append(f"{path}: needs low and high, or choices.")
        elif "choices" not in spec and not spec["low"] < spec["high"]:
            found.append(f"{path}: low={spec['low']} must be less than high={spec['high']}.")
        elif spec.get("log") and spec["low"] <= 0:
            found.append(f"{path}: a log range needs low above 0, got {spec['low']}.")
    return found


def _list_problems(config: StudyConfig) -> list[str]:
    found = [f"seeds: {seed} is there twice." for seed in _twice(config.seeds)]
    if not config.seeds:
        found.append("seeds: is empty; name at least one.")
    if config.training.quantiles and config.training.loss != "pinball":
        found.append("training.quantiles: belongs with loss: pinball, and only with it.")
    if config.trainer.strategy == "auto" and config.trainer.devices * config.trainer.num_nodes > 1:
        found.append("trainer.strategy: several devices need ddp.")
    if config.trainer.num_nodes > 1 and config.training.store == "disk":
        found.append(
            "training.store: clients on disk are for one machine; leave it out, or give num_nodes: 1."
        )
    if config.training.smoothing and config.training.loss not in (None, "cross_entropy"):
        found.append("training.smoothing: belongs with loss: cross_entropy, and only with it.")
    return found


def _twice(items: Iterable[Any]) -> list[Any]:
    seen: set[Any] = set()
    return sorted({item for item in items if item in seen or seen.add(item)})  # type: ignore[func-returns-value]


def build_data_source(data: DataConfig) -> Source:
    """The data source with its options, before anything is read."""
    from data_loaders.registry import build_source

    root = {} if data.root is None else {"root": data.root}
    return build_source(data.source, **root, **data.options)


def window_spec(data: DataConfig) -> WindowSpec:
    """The windows' part of the data settings."""
    from data_loaders import WindowSpec

    return WindowSpec(**{field.name: getattr(data, field.name) for field in fields(WindowSpec)})


def sample_spec(data: DataConfig) -> SampleSpec:
    """The samples' part of the data settings."""
    from data_loaders import SampleSpec

    named = {field.name: getattr(data, field.name) for field in fields(SampleSpec) if field.name != "seed"}
    return SampleSpec(**named, seed=data.split_seed)


def build_partitions(data: DataConfig) -> list[Partition]:
    """What changes the clients before they are split, in order.

    Raises:
        DataError: unknown partitions or options, all in one message, each with its place.
    """
    from data_loaders import DataError
    from data_loaders.partition import PARTITIONS, build_partition

    built, found = [], []
    for place, entry in enumerate(data.partition):
        if not isinstance(entry.get("name"), str):
            found.append(f"[{place}] needs a name. {nearest('', PARTITIONS)}")
            continue
        try:
            built.append(build_partition(**entry))
        except DataError as error:
            found += [f"[{place}] {text}" for text in error.problems]
    if found:
        raise DataError(*found)
    return built


def check_calendar(data: DataConfig) -> None:
    """Refuse features, a zone or dates that are none.

    Raises:
        DataError: they are.
    """
    import numpy as np

    from data_loaders.calendar import calendar_features

    if data.calendar:
        calendar_features(np.zeros(0, "datetime64[us]"), data.calendar, data.timezone, data.holidays)


def fixed_params(method: MethodConfig, config: StudyConfig) -> dict[str, Any]:
    """Hyperparameters that are not tuned: the study's ``local_steps``, then the method's own."""
    steps = config.training.local_steps
    return {**({} if steps is None else {"local_steps": steps}), **method.fixed}


def make_method(method: MethodConfig, config: StudyConfig, params: Mapping[str, Any] | None = None) -> Method:
    """The engine's method with these hyperparameters; what is not given keeps its default.

    Raises:
        ValueError: unknown algorithm, modulator or hyperparameter; a modulator on a knob the algorithm lacks.
    """
    from persofl import parse_method

    given = {**fixed_params(method, config), **(params or {})}
    return parse_method(method.name, given, **distance_options(method))


def distance_options(method: MethodConfig) -> dict[str, Any]:
    """The distance settings of a method as ``parse_method`` takes them, empty for the defaults."""
    if not method.distance:
        return {}
    from persofl import DistanceConfig

    known = {field.name for field in fields(DistanceConfig)}
    for key in method.distance:
        if key not in known:
            raise StudyError(f"Unknown key {key!r} of distance. {nearest(key, known)}")
    return {"distance": DistanceConfig(**method.distance)}


def space_of(method: MethodConfig, config: StudyConfig) -> Space:
    """What the study tunes of a method: its search space less what is fixed, with the study's own ranges."""
    from persofl import method_params, search_space

    made = make_method(method, config)
    fixed = fixed_params(method, config)
    ranges = {k: v for k, v in search_space(made).items() if k not in fixed and k not in method.inherit}
    ranges.update({k: v for k, v in config.search.ranges.items() if k in ranges})
    return Space(method.label, ranges, method_params(made), is_higher_better(config.metric))


def is_higher_better(metric: str | None) -> bool:
    """Whether more of a metric is better; of one that is not settled yet, no."""
    from persofl.tasks import higher_is_better

    return metric is not None and higher_is_better(metric)
