"""What a simulated building is like: its parameters, the archetypes, and the law they are drawn from."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from ..dial import Array, Law


@dataclass(frozen=True)
class Building:
    """Parameters of one building's load; powers are watts per square metre.

    Args:
        sqm: floor area.
        base: always on: ventilation, servers, cold rooms.
        occupied: lights and plugs on top, when everyone is there.
        open_hour: when half of the people are there, on workdays.
        close_hour: when half of them are gone.
        saturday: share of a workday's people on Saturdays, in [0, 1].
        sunday: the same on Sundays and public holidays.
        vacation: share of people in school vacations, in [0, 1].
        cooling: per degree above 16 C outside; a third of it runs when nobody is there.
        heating: per degree below 14 C outside, electric, the same.
        noise: standard deviation of the logarithm of the load.
        jitter: standard deviation of the day's hours, hours.
    """

    sqm: float = 5000.0
    base: float = 7.0
    occupied: float = 11.0
    open_hour: float = 8.0
    close_hour: float = 18.0
    saturday: float = 0.3
    sunday: float = 0.2
    vacation: float = 0.8
    cooling: float = 0.6
    heating: float = 0.3
    noise: float = 0.1
    jitter: float = 0.3


MIXED = Building()
ARCHETYPES: Mapping[str, Building] = {
    "office": replace(MIXED, base=5.0, occupied=14.0, saturday=0.1, sunday=0.03, cooling=0.8, vacation=0.85),
    "school": replace(
        MIXED, base=3.0, occupied=9.0, close_hour=15.5, saturday=0.05, sunday=0.0, vacation=0.12, cooling=0.2
    ),
    "hospital": replace(
        MIXED, sqm=20000.0, base=20.0, occupied=12.0, open_hour=6.5, close_hour=20.5, saturday=0.8, sunday=0.75,
        vacation=1.0, cooling=1.2, noise=0.06,
    ),
    "shop": replace(
        MIXED, sqm=2500.0, base=6.0, occupied=25.0, open_hour=9.0, close_hour=20.0, saturday=1.0, sunday=0.5,
        vacation=1.0, cooling=0.7,
    ),
    "lab": replace(MIXED, base=32.0, occupied=9.0, close_hour=19.0, cooling=1.5, vacation=0.95, noise=0.05),
}  # fmt: skip
USAGES: Mapping[str, str] = {
    "office": "Office",
    "school": "Education",
    "hospital": "Healthcare",
    "shop": "Retail",
    "lab": "Technology/science",
}
NAMES = tuple(field.name for field in fields(Building))
_HOURS = np.array([name.endswith("_hour") for name in NAMES])
_SHARES = ("saturday", "sunday", "vacation")
_SPREADS = {
    "sqm": 0.7,
    "noise": 0.2,
    "open_hour": 0.8,
    "close_hour": 1.0,
}  # hours themselves, else the logarithm


def as_row(building: Building) -> Array:
    """Return the parameters in the order of ``NAMES``, ``(parameters,)``."""
    return np.array([getattr(building, name) for name in NAMES])


LAW = Law(
    names=NAMES,
    base=as_row(MIXED),
    archetypes={name: as_row(building) for name, building in ARCHETYPES.items()},
    spread=np.array([_SPREADS.get(name, 0.25) for name in NAMES]),
    additive=_HOURS,
    upper=np.array([1.0 if name in _SHARES else np.inf for name in NAMES]),
)
