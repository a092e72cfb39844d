"""What a study records about its clients: who they are, who was left out and why, and the naive forecasts' scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from data_loaders import ForecastWindows

    from .config import DataConfig
    from .tracking import Store


@dataclass(frozen=True)
class Population:
    """The clients of a study, without their series.

    Args:
        name: of the source.
        fingerprint: of the values, offsets and names.
        attributes: index client, one column per attribute.
        facts: counts, units, rules, dropped clients; JSON-able.
        naive: name of a naive forecast -> per-client scores on the test span.
    """

    name: str
    fingerprint: str
    attributes: pd.DataFrame
    facts: Mapping[str, Any]
    naive: Mapping[str, pd.DataFrame]

    @classmethod
    def of(cls, windows: ForecastWindows, data: DataConfig) -> Population:
        """Read what is to be recorded off the windows."""
        from .naive import naive_scores

        series = windows.series
        facts = {
            "source": data.source,
            "root": data.root,
            "clients": len(series),
            "steps": int(series.offsets[-1]),
            "step_seconds": series.step_seconds,
            "unit": series.unit,
            "windows": {s: int(windows.count(s).sum()) for s in ("train", "validation", "test")},
            "rules": list(series.rules),
            "dropped": [{"client": d.client, "reason": d.reason} for d in series.dropped],
        }
        naive = naive_scores(windows)
        facts["naive"] = list(naive)
        return cls(series.name, series.fingerprint(), series.attributes, facts, naive)

    def log(self, store: Store, run: str) -> None:
        """Record the data set with a run: as an MLflow data set, ``data.json`` and ``attributes.csv``."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = {k: self.facts[k] for k in ("clients", "steps", "step_seconds", "unit")}
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
        hours = facts["step_seconds"] / 3600
        lines = [
            f"{self.name}: {facts['clients']} clients, {facts['steps']:,} steps of {hours:g} h "
            f"({facts['unit']}), windows: {', '.join(f'{n:,} {s}' for s, n in facts['windows'].items())}"
        ]
        lines += [f"  rule: {rule}" for rule in facts["rules"]]
        lines += [f"  left out {d['client']}: {d['reason']}" for d in facts["dropped"][:20]]
        more = len(facts["dropped"]) - 20
        return "\n".join(
            lines + ([f"  and {more} more left out, see data.json in MLflow"] if more > 0 else [])
        )
