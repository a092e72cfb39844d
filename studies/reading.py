"""The comparison in a few plain sentences, which claim no more than the intervals hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from persofl.metrics import HIGHER

from .compare import control_table, paired_table, summary_table


def reading(
    scores: pd.DataFrame, metric: str, controls: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Who is best, who harms the fewest clients, and whether steering by distance beat not steering.

    A difference counts as shown where its interval over seeds and that over clients both exclude 0.

    Args:
        scores: per-client scores of the clients that train, see :mod:`studies.compare`.
        metric: what is compared.
        controls: method -> the methods that it is to beat; of one that names none, its algorithm without modulators.
    """
    table = summary_table(scores, metric)
    if len(table) < 2:
        return []
    return [_best(scores, table, metric), *_harm(table), *_steered(scores, table, metric, controls or {})]


def is_shown(row: pd.Series) -> bool:
    """Whether both intervals of a row of :func:`studies.compare.paired_table` lie on one side of 0."""
    spans = [(row[f"{name}_low"], row[f"{name}_high"]) for name in ("mean", "clients")]
    return all(low > 0 for low, _ in spans) or all(high < 0 for _, high in spans)


def _best(scores: pd.DataFrame, table: pd.DataFrame, metric: str) -> str:
    higher = metric in HIGHER
    means = table["mean"].rename(index=str)
    best = str(means.idxmax() if higher else means.idxmin())
    gaps = paired_table(scores, metric, best)
    level = [str(name) for name, row in gaps.iterrows() if not is_shown(row)]
    claim = f"{'Highest' if higher else 'Lowest'} mean {metric}: {best} ({means[best]:.4f})"
    if not level:
        return f"{claim}; both intervals of every other method's difference to it exclude 0."
    return f"{claim}; within the intervals, not told apart from it: {', '.join(level)}."


def _harm(table: pd.DataFrame) -> list[str]:
    parts = []
    for reference in ("local", "fedavg"):
        shares = table[f"worse_than_{reference}"].drop(["local", "fedavg"], errors="ignore").dropna()
        if len(shares):
            least = shares[np.isclose(shares, shares.min())]
            parts.append(
                f"than with {reference}, {' and '.join(map(str, least.index))} ({least.iloc[0]:.0%})"
            )
    return [f"Personalised methods with the fewest clients worse off: {'; '.join(parts)}."] if parts else []


def _steered(
    scores: pd.DataFrame, table: pd.DataFrame, metric: str, controls: Mapping[str, Sequence[str]]
) -> list[str]:
    """Each steered method against its controls; one sentence a method."""
    found = []
    for label in map(str, table.index):
        others = [c for c in controls.get(label) or _guessed(label, controls) if c in table.index]
        if others:
            rows = control_table(scores, metric, {label: others})
            verdicts = [_verdict(row, metric) for _, row in rows.iterrows()]
            said = [f"{control} {verdict}" for control, verdict in zip(others, verdicts, strict=True)]
            found.append(f"{label} against {'; against '.join(said)}.")
    return found


def _guessed(label: str, controls: Mapping[str, Sequence[str]]) -> list[str]:
    """The algorithm of a method with modulators, unless the label is somebody's control itself."""
    base = label.partition("+")[0]
    return [base] if base != label and all(label not in others for others in controls.values()) else []


def _verdict(row: pd.Series, metric: str) -> str:
    better = row["mean"] > 0 if metric in HIGHER else row["mean"] < 0
    said = ("better" if better else "worse") if is_shown(row) else "within the intervals, no difference shown"
    return f"{row['mean']:+.4f} ({said})"
