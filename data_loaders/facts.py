"""What there is to say of a population before anyone trains on it: counts, spans, gaps, classes, one row a client."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from .samples import OFFICIAL, ClientSamples
from .series import ClientSeries
from .tables import describe

_FEW = 12  # classes that get a column each


def facts(data: ClientSeries | ClientSamples) -> dict[str, Any]:
    """Return what holds of the whole population, in the order it should be read; values are text or numbers."""
    own = _series_facts(data) if isinstance(data, ClientSeries) else _sample_facts(data)
    lengths = data.lengths.numpy()
    each = {} if not len(lengths) else {
        "fewest": int(lengths.min()),
        "median": float(np.median(lengths)),
        "most": int(lengths.max()),
    }  # fmt: skip
    what = "steps" if isinstance(data, ClientSeries) else "samples"
    return {"clients": len(data), **own, f"{what} of a client": each, "fingerprint": data.fingerprint()}


def per_client(data: ClientSeries | ClientSamples) -> pd.DataFrame:
    """Return one row a client: statistics of its series, or of its samples.

    Series: as :func:`data_loaders.describe`, with ``gaps`` (runs of missing readings), ``longest_gap`` (steps), ``runs``.
    Samples: ``samples``; ``first`` and ``last`` where they have times; for classes the number of each, or beyond a dozen
    the number of classes, and ``entropy`` (0 one class, 1 all alike); for targets ``mean`` and ``std`` of each.
    """
    if isinstance(data, ClientSamples):
        return _samples_table(data)
    table = describe(data)
    gaps = [_gaps(data.of(client)[:, 0]) for client in range(len(data))]
    table["gaps"] = [count for count, _ in gaps]
    table["longest_gap"] = [longest for _, longest in gaps]
    if len(data.breaks):
        owner = torch.bucketize(data.breaks, data.offsets[1:], right=True)
        table["runs"] = (torch.bincount(owner, minlength=len(data)) + (data.lengths > 0)).numpy()
    return table


def class_counts(data: ClientSamples) -> pd.DataFrame:
    """Return one row a class: its samples, their share, and how many clients have any."""
    counts = _class_table(data)
    total = counts.sum(0)
    said = {"samples": total, "share": total / max(1, total.sum()), "clients": (counts > 0).sum(0)}
    return pd.DataFrame(said, index=pd.Index(data.classes, name="class"))


def _series_facts(data: ClientSeries) -> dict[str, Any]:
    target = data.values[:, 0]
    ends = data.starts + (data.lengths.numpy() * data.step_seconds * 1000).astype("timedelta64[ms]")
    known = ~np.isnat(data.starts)
    first, last = data.starts[known], ends[known].astype("datetime64[s]")
    span = {"from": str(first.min()), "to": str(last.max())} if len(first) else {}
    if len(data.breaks):  # runs lie end to end, so their lengths say nothing of when the last one ended
        span.pop("to", None)
    return {
        "step": f"{data.step_seconds:g} s",
        "unit": data.unit,
        "channels": list(data.channel_names) or data.channels,
        "known ahead": list(data.known),
        "steps": int(data.offsets[-1]),
        "missing": float(target.isnan().float().mean()) if len(target) else 0.0,
        "runs": int(len(data) + len(data.breaks)),
        "span": span,
    }


def _sample_facts(data: ClientSamples) -> dict[str, Any]:
    said: dict[str, Any] = {
        "samples": int(data.offsets[-1]),
        "shape": "x".join(str(side) for side in data.inputs.shape[1:]),
        "channels": list(data.channel_names) or int(data.inputs.shape[2]),
    }
    if data.classes:
        said["classes"] = len(data.classes)
    else:
        said |= {"targets": list(data.target_names) or int(data.targets.shape[1]), "unit": data.unit}
    if data.times is not None and len(data.times):
        ends = np.array([int(data.times.min()), int(data.times.max())]).astype("datetime64[s]")
        said["span"] = {"from": str(ends[0]), "to": str(ends[1])}
    if data.official is not None:
        said["official split"] = {name: int((data.official == code).sum()) for name, code in OFFICIAL.items()}
    if data.groups is not None:
        said["groups that stay together"] = _groups(data)
    return said


def _groups(data: ClientSamples) -> int:
    assert data.groups is not None
    owner = torch.repeat_interleave(torch.arange(len(data)), data.lengths)
    return int(torch.unique(torch.stack([owner, data.groups.long()]), dim=1).shape[1])


def _gaps(target: torch.Tensor) -> tuple[int, int]:
    """Return how many runs of missing readings a series has, and the longest, in steps."""
    edge = torch.zeros(1, dtype=torch.int8)
    steps = torch.cat([edge, target.isnan().to(torch.int8), edge]).diff()
    begins, ends = (steps == 1).nonzero(), (steps == -1).nonzero()
    return len(begins), int((ends - begins).max()) if len(begins) else 0


def _class_table(data: ClientSamples) -> np.ndarray:
    """Return how many samples of each class each client has, ``(clients, classes)``."""
    classes = len(data.classes)
    owner = torch.repeat_interleave(torch.arange(len(data)), data.lengths)
    cells = torch.bincount(owner * classes + data.targets, minlength=len(data) * classes)
    return cells.reshape(len(data), classes).numpy()


def _samples_table(data: ClientSamples) -> pd.DataFrame:
    columns: dict[str, Any] = {"samples": data.lengths.numpy()}
    if data.times is not None:
        columns |= _spans(data)
    if data.classes:
        counts = _class_table(data)
        few = len(data.classes) <= _FEW
        columns |= dict(zip(data.classes, counts.T, strict=True)) if few else {"classes": (counts > 0).sum(1)}
        columns["entropy"] = _entropy(counts)
    else:
        columns |= _moments(data)
    return pd.DataFrame(columns, index=pd.Index(data.clients, name="client"))


def _spans(data: ClientSamples) -> dict[str, np.ndarray]:
    assert data.times is not None
    times = [data.times[data.rows(client)].numpy() for client in range(len(data))]
    none = np.datetime64("NaT", "s")
    return {
        name: np.array([pick(t).astype("datetime64[s]") if len(t) else none for t in times], "datetime64[s]")
        for name, pick in (("first", np.min), ("last", np.max))
    }


def _entropy(counts: np.ndarray) -> np.ndarray:
    """Return the entropy of each client's classes over that of equal shares, between 0 and 1."""
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    logs = np.log(np.where(shares > 0, shares, 1))
    entropy: np.ndarray = -(shares * logs).sum(1) / max(np.log(counts.shape[1]), 1e-12) + 0.0
    return entropy


def _moments(data: ClientSamples) -> dict[str, np.ndarray]:
    names = data.target_names or tuple(f"target {number}" for number in range(data.targets.shape[1]))
    parts = [data.targets[data.rows(client)].double() for client in range(len(data))]
    mean = np.array([part.mean(0).numpy() for part in parts]).reshape(len(parts), -1)
    std = np.array([(part - part.mean(0)).square().mean(0).sqrt().numpy() for part in parts]).reshape(
        len(parts), -1
    )
    columns: dict[str, np.ndarray] = {}
    for number, name in enumerate(names):
        columns |= {f"{name} mean": mean[:, number], f"{name} std": std[:, number]}
    return columns
