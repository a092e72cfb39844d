"""How and how much the clients of a data set differ: labels, sizes, features, targets, each against its null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data_loaders import SPANS
from personalization import Distances, distance_to_population

from .data import ClientData, facts_of
from .placed import HOST, placed
from .skew import LabelSkew, gini, label_skew, principal, scores

_PLAIN_INPUTS = 512  # inputs of at most this many values go into the linear model as they are
_COMPONENTS = 16
_EXAMPLES = 200_000
_LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Heterogeneity:
    """What clients differ in; built by :func:`heterogeneity`. A client with fewer than two examples has NaN.

    Attributes:
        clients: their names.
        task: ``"forecast"``, ``"classify"`` or ``"regress"``.
        samples: ``(clients,)`` int64, training examples.
        labels: distances of the label laws of all spans; None without classes.
        features: distances of inputs (of a load series: of daily profiles), None where there are none to compare.
        targets: distances of float targets; None for classes, whose marginal law ``labels`` compares.
        conditional: distances of the scores of one linear model from inputs to targets, see ``skew.scores``: what
            differs in the relation of the two.

    Distances are sliced Wasserstein distances in standard deviations of the population, calibrated at the client's size.
    Examples count as independent; where they are not (days in a row, frames of one drive), p-values are too small.
    """

    clients: tuple[str, ...]
    task: str
    samples: Tensor
    labels: LabelSkew | None
    features: Distances | None
    targets: Distances | None
    conditional: Distances | None

    def table(self) -> pd.DataFrame:
        """Return one row a client: sizes, distances, what they would be without a difference, p-values."""
        columns: dict[str, Any] = {"samples": self.samples.numpy()}
        if self.labels is not None:
            columns |= {f"label_{f.name}": getattr(self.labels, f.name) for f in fields(LabelSkew)}
        for name, distances in self._distances().items():
            columns[f"{name}_distance"] = distances.calibrated.numpy()
            columns[f"{name}_raw"] = distances.value.numpy()
            columns[f"{name}_p_value"] = distances.p_value.numpy()
        return pd.DataFrame(columns, index=pd.Index(self.clients, name="client"))

    def summary(self) -> dict[str, float]:
        """Return the population's figures.

        ``..._told_apart`` is the share of clients with a p-value below 0.05; without any difference it is about 0.05.
        """
        sizes, table = self.samples.numpy(), self.table()
        median = float(np.median(sizes))
        figures = {
            "clients": float(len(sizes)),
            "samples": float(sizes.sum()),
            "samples_gini": gini(sizes),
            "samples_max_over_median": float(sizes.max() / median) if median else float("inf"),
        }
        names = [str(column) for column in table.columns]
        means = [c for c in names if c.startswith("label_") and c != "label_p_value"]
        means += [f"{name}_distance" for name in self._distances()]
        figures |= {column: float(table[column].mean()) for column in means}
        for column in (c for c in names if c.endswith("_p_value")):
            known = table[column].dropna()
            figures[column.replace("p_value", "told_apart")] = (
                float((known < _LEVEL).mean()) if len(known) else float("nan")
            )
        return figures

    def text(self) -> str:
        """Return the summary in a few lines."""
        s = self.summary()
        lines = [
            f"{int(s['clients'])} clients, {int(s['samples'])} training examples ({self.task})",
            f"quantity     Gini {s['samples_gini']:.2f}, largest {s['samples_max_over_median']:.1f} x the median",
        ]
        if self.labels is not None:
            lines.append(
                f"labels       total variation {s['label_tv']:.2f} ({s['label_tv_null']:.2f} by chance), Jensen-Shannon "
                f"{s['label_js']:.2f} ({s['label_js_null']:.2f} by chance), {s['label_told_apart']:.0%} told apart"
            )
        for name in self._distances():
            distance, apart = s[f"{name}_distance"], s[f"{name}_told_apart"]
            lines.append(f"{name:<12} distance {distance:.2f} standard deviations, {apart:.0%} told apart")
        if self.task == "forecast":
            lines.append("neighbouring windows are alike: p-values are too small, the order of clients holds")
        return "\n".join(lines)

    def _distances(self) -> dict[str, Distances]:
        named = {"feature": self.features, "target": self.targets, "conditional": self.conditional}
        return {name: distances for name, distances in named.items() if distances is not None}


def heterogeneity(data: ClientData, seed: int = 0) -> Heterogeneity:
    """Measure how the clients' training examples differ; of labels all spans count.

    Of many clients with many examples, evenly spaced ones are compared, 200,000 in all but 32 to 512 a client; of
    forecast windows about one per horizon. Counts are of all.

    Args:
        data: forecast windows or labelled examples.
        seed: of projections and of the nulls' draws.
    """
    data = placed(data, HOST)
    facts = facts_of(data)
    samples = data.count("train")
    inputs, targets = _examples(data)
    enough = [client for client, x in enumerate(inputs) if len(x) >= 2]
    labels = relation = None
    if facts.classes:
        labels = label_skew(_class_counts(data, len(facts.classes)), seed=seed)
        targets = [torch.nn.functional.one_hot(y[:, 0], len(facts.classes)).float() for y in targets]
    if enough:
        few = principal([inputs[client] for client in enough], _COMPONENTS)
        relation = scores(few, [targets[client] for client in enough])
    return Heterogeneity(
        clients=facts.clients,
        task=facts.task,
        samples=samples,
        labels=labels,
        features=_measure(_features(data) or inputs, seed),
        targets=None if facts.classes else _measure(targets, seed),
        conditional=_measure(relation, seed, enough, len(samples)) if relation else None,
    )


def _examples(data: ClientData) -> tuple[list[Tensor], list[Tensor]]:
    """Evenly spaced training inputs ``(n, p)`` and targets ``(n, outputs)`` of each client."""
    counts = data.count("train").tolist()
    spec = getattr(data, "spec", None)
    stride = max(1, getattr(spec, "horizon", 1) // getattr(spec, "train_stride", 1))
    most = min(512, max(32, _EXAMPLES // max(1, len(counts))))
    inputs, targets = [], []
    for client, count in enumerate(counts):
        number = min(most, -(-count // stride))
        ranks = torch.linspace(0, max(0, count - 1), number).long().unsqueeze(0)
        x, y = data.gather(data.positions("train", torch.tensor([client]), ranks)[0])
        inputs.append(_compact(x))
        targets.append(y)
    return inputs, targets


def _compact(x: Tensor) -> Tensor:
    """Inputs ``(n, steps, channels)`` as they are, or each channel's mean and spread over the steps of long ones."""
    if x.shape[1] * x.shape[2] <= _PLAIN_INPUTS or x.shape[1] == 1:
        return x.flatten(1)
    return torch.cat([x.mean(1), x.std(1, correction=0)], 1)


def _class_counts(data: ClientData, classes: int) -> np.ndarray:
    """Labels of each class in all spans, ``(clients, classes)``: a stratified part of them would look too alike."""
    known = getattr(getattr(data, "samples", None), "targets", None)  # spares gathering every input
    table = torch.zeros(len(data), classes, dtype=torch.int64)
    for span in SPANS:
        for client, count in enumerate(data.count(span).tolist()):
            at = data.positions(span, torch.tensor([client]), torch.arange(count).unsqueeze(0))[0]
            for part in at.split(len(at) if known is not None else 256):
                labels = known[part] if known is not None else data.gather(part)[1][:, 0]
                table[client] += torch.bincount(labels, minlength=classes)
    return table.numpy()


def _features(data: Any) -> list[Tensor] | None:
    """What the data compare clients by: their inputs or features, daily profiles where every client has two; else None."""
    if hasattr(data, "inputs"):
        return [data.inputs(client) for client in range(len(data))]
    if hasattr(data, "features"):
        return [data.features(client) for client in range(len(data))]
    days = getattr(data, "days", None)
    if days is None or days.stride == 0 or bool((days.count() < 2).any()):
        return None
    return [data.profiles(client) for client in range(len(data))]


def _measure(
    features: Sequence[Tensor], seed: int, clients: Sequence[int] | None = None, total: int | None = None
) -> Distances | None:
    """Distances of the clients with two samples or more, NaN for the others; None where nobody has.

    Args:
        features: ``(n_k, F)`` of ``clients``, of all without them.
        seed: of projections and null.
        clients: whose features these are.
        total: how many clients there are.
    """
    who = list(range(len(features)) if clients is None else clients)
    usable = [place for place, x in enumerate(features) if len(x) >= 2]
    if not usable:
        return None
    found = distance_to_population([features[place].float() for place in usable], seed=seed, standardise=True)
    index = torch.tensor([who[place] for place in usable])
    columns = {}
    for item in fields(Distances):
        values = getattr(found, item.name)
        blank = 0 if item.name == "n" else float("nan")
        whole = torch.full((len(features) if total is None else total,), blank, dtype=values.dtype)
        columns[item.name] = whole.index_copy_(0, index, values)
    return Distances(**columns)
