"""Clients that are held out of training: who they are, and means that keep them apart.

Their models were never trained, or by nobody but themselves in an adaptation, so that a mean over them and the others
says nothing of either.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

UNSEEN = "unseen"
"""The attribute that says who is held out, see the partition ``hold_out``."""


def unseen_clients(attributes: pd.DataFrame) -> frozenset[str]:
    """Names of the clients held out of training; none without the attribute.

    Args:
        attributes: index client; a client that the attribute says nothing of is not held out.
    """
    if UNSEEN not in attributes.columns:
        return frozenset()
    return frozenset(str(name) for name, out in attributes[UNSEEN].items() if out == True)  # noqa: E712 - NaN is not


def without(table: pd.DataFrame, clients: Collection[str]) -> pd.DataFrame:
    """A table with a column or an index ``client``, without the rows of some clients."""
    names = table["client"] if "client" in table.columns else table.index.to_series()
    return table[~names.astype(str).isin(list(clients)).to_numpy()]


def mean_metrics(table: pd.DataFrame, unseen: Collection[str]) -> list[tuple[str, float, int]]:
    """Means over the clients for MLflow: ``test/nmae`` of those that train, ``test/unseen_nmae`` of the others.

    Args:
        table: per-client scores on the test span, index client.
        unseen: names of the clients held out.
    """
    seen = without(table, unseen)
    parts = {"test/": seen, "test/unseen_": table.drop(index=seen.index)}
    means = {f"{p}{k}": float(v) for p, own in parts.items() for k, v in own.mean(numeric_only=True).items()}
    return [(name, mean, 0) for name, mean in means.items() if math.isfinite(mean)]
