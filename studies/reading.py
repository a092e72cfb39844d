"""The comparison in a few plain sentences, which claim no more than the intervals hold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from persofl.metrics import HIGHER

from .compare import paired_table, summary_table


def reading(scores: pd.DataFrame, metric: str) -> list[str]:
    """Who is best, who harms the fewest clients, and whether steering by distance beat not steering.

    A difference counts as shown where its interval over seeds and that over clients both exclude 0.

    Args:
        scores: per-client scores of the clients that train, see :mod:`studies.compare`.
        metric: what is compared.
    """
    table = summary_table(scores, metric)
    if len(table) < 2:
        return []
    return [_best(scores, table, metric), *_harm(table), *_steered(scores, table, metric)]


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


def _steered(scores: pd.DataFrame, table: pd.DataFrame, metric: str) -> list[str]:
    """Each method with modulators against the algorithm without, which is its control."""
    found = []
    for label in map(str, table.index):
        base = label.partition("+")[0]
        if base == label or base not in table.index:
            continue
        row = paired_table(scores[scores["method"].isin([label, base])], metric, base).loc[[label]].iloc[0]
        better = row["mean"] > 0 if metric in HIGHER else row["mean"] < 0
        said = (
            ("better" if better else "worse")
            if is_shown(row)
            else "within the intervals, no difference shown"
        )
        found.append(f"{label} against its control {base}: {row['mean']:+.4f} ({said}).")
    return found
