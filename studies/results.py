"""A study read back from MLflow, and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .confusion import CONFUSION
from .errors import StudyError, nearest
from .heldout import unseen_clients, without
from .names import is_higher_better
from .session import CONTROLS_TAG, WARNING_TAG
from .tracking import Run, Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class MethodResult:
    """What one method did in a study.

    Args:
        label: its label.
        status: of its MLflow run.
        params: the hyperparameters chosen.
        trials: how many trials ended ``complete``, ``pruned``, ``diverged``.
        seconds: wall time of its trials and final seeds, summed.
        reason: why it failed, if it did.
        curves: seed -> round -> objective on the validation span.
        warning: what takes the sense out of it, such as distances that are all alike.
        controls: labels of the methods that it is to beat.
    """

    label: str
    status: str
    params: Mapping[str, str]
    trials: Mapping[str, int]
    seconds: float
    reason: str
    curves: Mapping[int, Mapping[int, float]]
    warning: str = ""
    controls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Results:
    """A whole study.

    Args:
        study: its name.
        settings: the methods' runs' params: the data, model, training and search settings.
        facts: the clients, rules and dropped clients.
        methods: what each did, in the study's order.
        scores: per-client scores on the test span, see :mod:`studies.compare`; no rows before the first seed ends.
        attributes: index client.
        naive: predictions without training -> per-client scores.
        group_by: the client attribute that the study breaks its result down by; empty to choose one.
        confusion: of classes: every final seed's, see :func:`studies.confusion.confusion_table`, with the columns
            ``method``, ``seed`` and ``client``; ``None`` without classes.
    """

    study: str
    settings: Mapping[str, str]
    facts: Mapping[str, Any]
    methods: tuple[MethodResult, ...]
    scores: pd.DataFrame
    attributes: pd.DataFrame
    naive: Mapping[str, pd.DataFrame]
    group_by: str = ""
    confusion: pd.DataFrame | None = None

    @property
    def metric(self) -> str:
        """The metric that the study optimises, such as ``"nmae"``."""
        return self.settings.get("metric", "nmae")

    @property
    def higher(self) -> bool:
        """Whether more of the metric is better."""
        return is_higher_better(self.metric)

    @property
    def classes(self) -> list[str]:
        """Names of the classes; none of other targets."""
        return [str(name) for name in self.facts.get("classes", [])]

    def seen(self) -> Results:
        """The same without the clients held out of training, whom no table or plot mixes with the others."""
        unseen = unseen_clients(self.attributes)
        if not unseen:
            return self
        return replace(
            self,
            scores=without(self.scores, unseen),
            attributes=without(self.attributes, unseen),
            naive={name: without(table, unseen) for name, table in self.naive.items()},
            confusion=None if self.confusion is None else without(self.confusion, unseen),
        )

    def held_out(self) -> pd.DataFrame:
        """Scores of the clients held out of training alone."""
        unseen = unseen_clients(self.attributes)
        return self.scores[self.scores["client"].astype(str).isin(unseen)]

    @property
    def objective(self) -> str:
        """Name of the logged metric that the study optimises."""
        return objective_name(self.settings)


def objective_name(settings: Mapping[str, str]) -> str:
    """``"validation/nmae"``, with the summary appended unless it is the mean."""
    summary = settings.get("summary", "mean")
    return f"validation/{settings.get('metric', 'nmae')}" + ("" if summary == "mean" else f"_{summary}")


def _is_study(store: Store, name: str) -> bool:
    experiment = store.experiment(name)
    return experiment is not None and any(tag.startswith("persofl.config") for tag in store.tags(experiment))


def read_results(store: Store, study: str) -> Results:
    """Read everything a comparison needs.

    Raises:
        StudyError: no such study, or no method of it has begun.
    """
    experiment = store.experiment(study)
    if experiment is None:
        known = [name for name in store.experiments() if _is_study(store, name)]
        raise StudyError(f"There is no study {study!r} in {store.uri}. {nearest(study, known)}")
    runs = store.runs(experiment)
    parents = [run for run in runs if run.kind == "method"]
    if not parents:
        raise StudyError(f"Study {study!r} has no results yet: none of its methods has begun.")
    seeds = [run for run in runs if run.kind == "seed" and run.status == "FINISHED"]
    first = parents[0]
    facts = store.read_json(first.id, "data.json")
    return Results(
        study,
        first.params,
        facts,
        tuple(_method(store, parent, runs) for parent in parents),
        _scores(store, parents, seeds),
        store.read_table(first.id, "attributes.csv"),
        {name: store.read_table(first.id, f"naive/{name}.csv") for name in facts.get("naive", [])},
        store.tags(experiment).get("persofl.group_by", ""),
        _of_seeds(store, parents, seeds, CONFUSION) if facts.get("classes") else None,
    )


def _method(store: Store, parent: Run, runs: list[Run]) -> MethodResult:
    own = [run for run in runs if run.method == parent.method and run.kind in ("trial", "seed")]
    trials = [run.tags.get("persofl.state", run.status.lower()) for run in own if run.kind == "trial"]
    seeds = [run for run in own if run.kind == "seed"]
    chosen = dict(seeds[0].params) if seeds else {}
    chosen.pop("seed", None)
    metric = objective_name(parent.params)
    return MethodResult(
        parent.method,
        parent.status,
        chosen,
        {state: trials.count(state) for state in dict.fromkeys(trials)},
        sum(run.metrics.get("seconds", 0.0) for run in own),
        parent.tags.get("persofl.reason", "") if parent.status == "FAILED" else "",
        {int(run.tags["persofl.seed"]): store.curve(run.id, metric) for run in seeds},
        parent.tags.get(WARNING_TAG, ""),
        tuple(json.loads(parent.tags.get(CONTROLS_TAG, "[]"))),
    )


def _scores(store: Store, parents: list[Run], seeds: list[Run]) -> pd.DataFrame:
    import pandas as pd

    scores = _of_seeds(store, parents, seeds, "clients.csv")
    return pd.DataFrame(columns=["method", "seed", "client", "nmae"]) if scores is None else scores


def _of_seeds(store: Store, parents: list[Run], seeds: list[Run], name: str) -> pd.DataFrame | None:
    """A table that every final seed leaves, one below the other; ``None`` before the first one ends."""
    import pandas as pd

    tables = []
    for parent in parents:
        for run in (run for run in seeds if run.method == parent.method):
            table = store.read_table(run.id, name)
            rows = table.rename_axis("client").reset_index()
            tables.append(rows.assign(method=parent.method, seed=int(run.tags["persofl.seed"])))
    return pd.concat(tables, ignore_index=True) if tables else None
