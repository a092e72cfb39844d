"""A study's place in MLflow: created or found again, its settings compared, what was cut off closed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import DataConfig, MethodConfig, StudyConfig, TrainingConfig
from .environment import environment, origin
from .errors import StudyError, listed
from .locks import slug
from .population import Population
from .schema import plain
from .tracking import Run, Store
from .trialstore import TrialStore

CONFIG_TAG, DATA_TAG, GROUP_TAG = "persofl.config", "persofl.data", "persofl.group_by"
WARNING_TAG, CONTROLS_TAG = "persofl.warning", "persofl.controls"
SETTINGS = ("data", "model", "training", "search", "metric", "summary")
CUT_OFF = "the session that ran it ended without closing it"


@dataclass(frozen=True)
class Session:
    """An opened study: its experiment, its trials, and the runs an earlier session left, by (kind, method, name)."""

    config: StudyConfig
    store: Store
    trials: TrialStore
    experiment: str
    runs: Mapping[tuple[str, str, str], Run]

    @property
    def folder(self) -> Path:
        """The tracking folder."""
        return Path(self.config.tracking.dir)

    def checkpoint(self, label: str, run: str, name: str) -> Path:
        """Where a final seed of a method keeps its state."""
        return checkpoint_folder(self.folder, self.config.name, label, run) / name

    def begin(
        self, kind: str, label: str, name: str, params: Mapping[str, Any], parent: str = "", **tags: str
    ) -> str:
        """Start the run of this kind, method and name, or go on with the one an earlier session left."""
        left = self.runs.get((kind, label, name))
        if left is not None:
            self.store.reopen(left.id)
            return left.id
        own = {"persofl.kind": kind, "persofl.method": label, **tags}
        return self.store.start(self.experiment, name, own, params, parent)


def checkpoint_folder(folder: Path, study: str, label: str, name: str) -> Path:
    """``<folder>/checkpoints/<study>/<method>/<name>``."""
    return folder / "checkpoints" / slug(study) / slug(label) / name


def open_session(
    config: StudyConfig, store: Store, population: Population, *, fresh: bool = False
) -> Session:
    """Find or create the study's experiment.

    Args:
        config: the study.
        store: the tracking store.
        population: the clients, whose fingerprint must be the one the study began with.
        fresh: forget what an earlier run of the study left.

    Raises:
        StudyError: the study exists with other settings or other data.
    """
    trials = TrialStore.open(Path(config.tracking.dir), config.name)
    experiment = store.experiment(config.name)
    if experiment is None:
        _refuse_orphans(trials, config, fresh=fresh)
        experiment = store.create_experiment(config.name)
    elif fresh:
        _forget(config, store, trials, experiment)
    else:
        _refuse_changes(config, store, population, experiment)
    known = (
        json.loads(store.tags(experiment).get(CONFIG_TAG, '{"methods": {}}'))
        if not fresh
        else {"methods": {}}
    )
    now = settings(config)
    now["methods"] = {**known["methods"], **now["methods"]}
    store.tag(experiment, CONFIG_TAG, json.dumps(now))
    store.tag(experiment, DATA_TAG, population.fingerprint)
    store.tag(experiment, GROUP_TAG, config.group_by or "")
    runs = {(r.kind, r.method, r.name): r for r in close_cut_off(store, experiment, trials)}
    return Session(config, store, trials, experiment, runs)


def settings(config: StudyConfig) -> dict[str, Any]:
    """What must not change within a study. Methods and seeds may be added; where the data lie may change."""
    kept = {key: plain(getattr(config, key)) for key in SETTINGS}
    kept["data"] = {key: value for key, value in kept["data"].items() if key != "root"}
    kept["methods"] = {m.label: _method_settings(m) for m in config.method_configs()}
    return kept


def _method_settings(method: MethodConfig) -> dict[str, Any]:
    """What changes a method's numbers; whom it is compared with does not, and a study may be older than ``inherit``."""
    idle = {"controls"} if method.inherit else {"controls", "inherit"}
    return {key: value for key, value in plain(method).items() if key not in idle}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two settings, as ``"training.rounds: 30 then, 40 now"``; new methods do not count.

    A setting that there was not yet when the study began counts as having been at its default.
    """
    after = dict(flat(now))
    before = {**{k: v for k, v in _defaults().items() if k in after}, **dict(flat(then))}
    gone = [label for label in then["methods"] if label not in now["methods"]]
    added = [label for label in now["methods"] if label not in then["methods"]]
    skipped = tuple(f"methods.{label}." for label in [*gone, *added])
    keys = [key for key in {**before, **after} if not key.startswith(skipped)]
    return [
        f"{key}: {before.get(key, 'unset')} then, {after.get(key, 'unset')} now"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _defaults() -> dict[str, Any]:
    """Every setting of data and training at its default, under its dotted path."""
    return dict(flat({"data": plain(DataConfig()), "training": plain(TrainingConfig())}))


def close_cut_off(store: Store, experiment: str, trials: TrialStore | None = None) -> list[Run]:
    """End every run that an earlier session left RUNNING; return all runs of the experiment.

    The caller holds the study's lock, so that no such run is alive on this machine. On a shared server, runs of other
    hosts are left alone.
    """
    host = origin()["persofl.host"]
    for run in store.runs(experiment):
        ours = store.local or run.tags.get("persofl.host") == host
        if run.status == "RUNNING" and ours:
            stored = trials is not None and _is_stored(run, trials)
            store.end(run.id, "FINISHED" if stored else "KILLED", "" if stored else CUT_OFF)
    return store.runs(experiment)


def start_method(session: Session, method: MethodConfig, population: Population) -> str:
    """Begin the parent run of a method: the settings as params, the data set, the clients, the environment."""
    config, store = session.config, session.store
    known = session.runs.get(("method", method.label, method.label))
    params = {"method": method.name, "seeds": config.seeds, **dict(flat(settings(config), skip="methods"))}
    params |= {f"fixed.{key}": value for key, value in method.fixed.items()}
    params |= {f"inherit.{key}": value for key, value in method.inherit.items()}
    run = session.begin("method", method.label, method.label, {} if known else params)
    if known is None:
        population.log(store, run)
        store.artifact(run, "environment.json", json.dumps(environment(), indent=2))
    store.set_tag(run, CONTROLS_TAG, json.dumps(method.controls))
    return run


def _is_stored(run: Run, trials: TrialStore) -> bool:
    """Whether a trial's result was stored before its run could be closed."""
    if run.kind != "trial":
        return False
    return any(trial.user_attrs.get("run") == run.id for trial in trials.history(run.method))


def _refuse_changes(config: StudyConfig, store: Store, population: Population, experiment: str) -> None:
    tags = store.tags(experiment)
    if CONFIG_TAG not in tags:
        raise StudyError(
            f"MLflow has an experiment {config.name!r} that is no study. Give the study another --name."
        )
    changed = differences(json.loads(tags[CONFIG_TAG]), settings(config))
    if tags.get(DATA_TAG, population.fingerprint) != population.fingerprint:
        changed.append("the data: other values or other clients than then")
    if changed:
        raise StudyError(
            listed(f"Study {config.name!r} was started with other settings", changed)
            + "\nUse the old settings to go on with it, give this one another --name, or start over with --fresh "
            "(the old runs move to MLflow's bin)."
        )


def _refuse_orphans(trials: TrialStore, config: StudyConfig, *, fresh: bool) -> None:
    """Trials without their experiment (deleted in MLflow) would silently stand in for new ones."""
    if fresh:
        trials.clear()
    elif any(trials.history(method.label) for method in config.method_configs()):
        raise StudyError(
            f"Study {config.name!r} has trials in {trials.folder / 'optuna.db'} but no experiment in MLflow. "
            "Start over with --fresh, or give it another --name."
        )


def _forget(config: StudyConfig, store: Store, trials: TrialStore, experiment: str) -> None:
    for run in store.runs(experiment):
        store.delete(run.id)
    trials.clear()
    shutil.rmtree(Path(config.tracking.dir) / "checkpoints" / slug(config.name), ignore_errors=True)


def flat(tree: Mapping[str, Any], path: str = "", skip: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings with their dotted paths: ``("data.lookback", 168)``; ``skip`` leaves out a key."""
    for key, value in tree.items():
        if key == skip:
            continue
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
