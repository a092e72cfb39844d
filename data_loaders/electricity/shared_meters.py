"""Buildings on one meter: those whose readings are the same in every calendar year that both have."""

import hashlib
from collections.abc import Iterator

import numpy as np

from ..runs import Floats
from ..series import Dropped
from .households import Household

_VALUES = 24  # a year with no more different readings says nothing


def own_meters(buildings: Iterator[Household], shared: list[Dropped]) -> Iterator[Household]:
    """Yield buildings with a meter of their own, by the rule above.

    Args:
        buildings: in order; of several on one meter the first is kept.
        shared: the others are appended to it, with the building that is kept in the reason.
    """
    known = dict[str, dict[int, str]]()
    for building in buildings:
        years = _digests(building)
        twin = next((name for name, other in known.items() if _same(years, other)), None)
        if twin:
            reason = f"shared meter: the same readings as {twin!r} in every year both have"
            shared.append(Dropped(building.client, reason))
            continue
        known[building.client] = years
        yield building


def _digests(building: Household) -> dict[int, str]:
    """Return a hash of each year's readings; years with next to none say nothing and are left out."""
    seconds = building.start + building.step_seconds * np.arange(len(building.values))
    years = seconds.astype("datetime64[s]").astype("datetime64[Y]").astype(int) + 1970
    cuts = np.flatnonzero(np.diff(years)) + 1
    parts: list[tuple[int, Floats]] = [
        (int(years[0] + place), part) for place, part in enumerate(np.split(building.values, cuts))
    ]
    return {
        year: hashlib.blake2b(part.tobytes(), digest_size=16).hexdigest()
        for year, part in parts
        if len(np.unique(part[~np.isnan(part)])) > _VALUES
    }


def _same(one: dict[int, str], other: dict[int, str]) -> bool:
    common = one.keys() & other.keys()
    return bool(common) and all(one[year] == other[year] for year in common)
