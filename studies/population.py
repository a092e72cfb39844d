"""What a study records about its clients: who they are, who was left out and why, and what no training scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from data_loaders import ClientExamples, ClientSamples, ClientSeries, ForecastWindows

    from .config import DataConfig
    from .tracking import Store


@dataclass(frozen=True)
class Population:
    """The clients of a study, without their data.

    Args:
        name: of the source.
        fingerprint: of the values, offsets and names.
        attributes: index client, one column per attribute.
        facts: counts, units, rules, dropped clients; JSON-able.
        naive: name of a naive prediction -> per-client scores on the test span.
    """

    name: str
    fingerprint: str
    attributes: pd.DataFrame
    facts: Mapping[str, Any]
    naive: Mapping[str, pd.DataFrame]

    @classmethod
    def of(cls, examples: ForecastWindows | ClientExamples, data: DataConfig) -> Population:
        """Read what is to be recorded off the windows or samples."""
        from persofl.data import unseen_of

        from .naive import naive_scores

        whole = _population(examples)
        naive = naive_scores(examples)
        facts = {
            "source": data.source,
            "root": data.root,
            "task": examples.task,
            "clients": len(examples),
            **_sizes(examples),
            "unit": whole.unit,
            "windows": {s: int(examples.count(s).sum()) for s in ("train", "validation", "test")},
            "unseen": int(unseen_of(examples).sum()),
            "rules": list(whole.rules),
            "dropped": [{"client": d.client, "reason": d.reason} for d in whole.dropped],
            "naive": list(naive),
        }
        return cls(whole.name, _fingerprint(examples), whole.attributes, facts, naive)

    def log(self, store: Store, run: str) -> None:
        """Record the data set with a run: as an MLflow data set, ``data.json`` and ``attributes.csv``."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        kept = ("task", "clients", "steps", "step_seconds", "samples", "classes", "unit")
        profile = {key: self.facts[key] for key in kept if key in self.facts}
        profile["dropped"] = len(self.facts["dropped"])
        source = json.dumps({"source": self.facts["source"], "root": self.facts["root"]})
        data = Dataset(self.name, self.fingerprint[:36], "local", source, profile=json.dumps(profile))
        entry = DatasetInput(data, [InputTag("mlflow.data.context", "training")])
        store.inputs(run, [entry])
        store.artifact(run, "data.json", json.dumps(self.facts, indent=2))
        store.table(run, "attributes.csv", self.attributes)
        for name, scores in self.naive.items():
            store.table(run, f"naive/{name}.csv", scores)

    def summary(self) -> str:
        """The clients in a few lines: how many, what rules, who was left out and why."""
        facts = self.facts
        held_out = f" ({facts['unseen']} held out)" if facts.get("unseen") else ""
        lines = [f"{self.name}: {facts['clients']} clients{held_out}, {_size_line(facts)}"]
        lines += [f"  rule: {rule}" for rule in facts["rules"]]
        lines += [f"  left out {d['client']}: {d['reason']}" for d in facts["dropped"][:20]]
        more = len(facts["dropped"]) - 20
        return "\n".join(
            lines + ([f"  and {more} more left out, see data.json in MLflow"] if more > 0 else [])
        )


def _population(examples: ForecastWindows | ClientExamples) -> ClientSeries | ClientSamples:
    from data_loaders import ForecastWindows

    return examples.series if isinstance(examples, ForecastWindows) else examples.samples


def _sizes(examples: ForecastWindows | ClientExamples) -> dict[str, Any]:
    """How much there is: steps of series; samples, their inputs and classes."""
    from data_loaders import ForecastWindows

    if isinstance(examples, ForecastWindows):
        series = examples.series
        return {"steps": int(series.offsets[-1]), "step_seconds": series.step_seconds}
    lookback, _, channels = examples.shape
    sizes = {"samples": int(examples.samples.offsets[-1]), "inputs": [lookback, channels]}
    return {**sizes, "classes": list(examples.classes)}


def _fingerprint(examples: ForecastWindows | ClientExamples) -> str:
    """Of what is trained on. Who is held out belongs to it; a held-out client's data look like any other's."""
    import hashlib

    from persofl.data import unseen_of

    whole, unseen = _population(examples).fingerprint(), unseen_of(examples)
    if not unseen.any():
        return whole
    return hashlib.blake2b(f"{whole} {unseen.tolist()}".encode(), digest_size=8).hexdigest()


def _size_line(facts: Mapping[str, Any]) -> str:
    spans = ", ".join(f"{count:,} {span}" for span, count in facts["windows"].items())
    if "steps" in facts:
        return f"{facts['steps']:,} steps of {_duration(facts['step_seconds'])} ({facts['unit']}), windows: {spans}"
    inputs = " x ".join(map(str, facts["inputs"]))
    what = (
        f"{len(facts['classes'])} classes" if facts["classes"] else f"targets in {facts['unit'] or 'no unit'}"
    )
    return f"{facts['samples']:,} samples of {inputs}, {what}: {spans}"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 900 else f"{seconds:g} s"
