"""Distances that are given instead of measured: the controls that a measured one has to beat.

``size`` steers by a client's number of training examples alone: ``u = n_k / median(n)``, so that, as with a distance, a
larger u means a client that can do with more of its own. ``attribute:NAME`` takes u from what is known of a client, such as
``attribute:true_distance`` of the simulators, the oracle: ``u = value / median(value)``.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from personalization import Distances
from personalization.calibration import relative_scale

from .data import ClientData, attributes_of, facts_of
from .errors import PersoflError, unknown_name

SIZE = "size"
ATTRIBUTE = "attribute:"


def is_given(features: str) -> bool:
    """Whether features name a control, for which nothing is measured."""
    return features == SIZE or features.startswith(ATTRIBUTE)


def given_distances(data: ClientData, features: str) -> Distances:
    """The distances that a control stands for.

    Args:
        data: the population.
        features: ``"size"`` or ``"attribute:NAME"``.

    Returns:
        ``value`` and ``calibrated`` are the numbers as they are, ``relative`` in units of their median. There is no null:
        its moments and ``z`` are 0, ``p_value`` 1.

    Raises:
        PersoflError: the clients have no such attribute, or one that is no finite number of at least 0.
    """
    counts = data.count("train")
    if features == SIZE:
        return _as_distances(counts.to(torch.float32), counts)
    return _as_distances(_attribute(data, features.removeprefix(ATTRIBUTE)), counts)


def _as_distances(value: Tensor, counts: Tensor) -> Distances:
    none = torch.zeros_like(value)
    return Distances(value, none, none, none, none + 1, counts, value, relative_scale(value, none))


def _attribute(data: ClientData, name: str) -> Tensor:
    """A numeric attribute of every client, ``(clients,)``."""
    known = attributes_of(data)
    names = [] if known is None else [str(column) for column in known.columns]
    if known is None or name not in names:
        raise unknown_name("attribute of the clients", name, names)
    values = torch.tensor(pd.to_numeric(known[name], errors="coerce").to_numpy(float), dtype=torch.float32)
    bad = ~(values.isfinite() & (values >= 0))
    if bad.any():
        first = int(bad.nonzero()[0])
        raise PersoflError(
            f"features='{ATTRIBUTE}{name}': client {facts_of(data).clients[first]!r} has {known[name].iloc[first]!r}; a "
            "distance is a finite number of at least 0 for every client."
        )
    return values
