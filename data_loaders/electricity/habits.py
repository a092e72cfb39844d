"""What a simulated household is like: its habits, the archetypes, and the dial between one law and many."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from ..dial import Array, Law


@dataclass(frozen=True)
class Habits:
    """Parameters of one household's load.

    Args:
        base: kW that are always on.
        morning: kW of the morning peak on top.
        evening: kW of the evening peak on top.
        midday: kW around noon on days off.
        morning_hour: when the morning peak is, on workdays.
        evening_hour: when the evening peak is.
        heating: kW per degree below 15.5 C outside.
        night: share of the heating that runs from 0 to 7 o'clock, in [0, 1].
        pv: kW of solar panels; the net load is negative when they give more than the house takes.
        charger: kW of the car's charger, in use on three days of five.
        charge_hour: when charging begins.
        shift: hours by which the routine moves forth and back in a rota of three weeks.
        away: share of weeks with nobody at home, in [0, 1].
        noise: standard deviation of the logarithm of the load.
        jitter: standard deviation of the day's routine, hours.
    """

    base: float = 0.15
    morning: float = 0.45
    evening: float = 0.9
    midday: float = 0.3
    morning_hour: float = 7.5
    evening_hour: float = 19.0
    heating: float = 0.02
    night: float = 0.0
    pv: float = 0.0
    charger: float = 0.0
    charge_hour: float = 21.0
    shift: float = 0.0
    away: float = 0.03
    noise: float = 0.35
    jitter: float = 0.5


FAMILY = Habits()
ARCHETYPES: Mapping[str, Habits] = {
    "family": FAMILY,
    "night_heating": replace(FAMILY, heating=0.22, night=0.9, evening=0.6),
    "pv": replace(FAMILY, pv=2.0, midday=0.5),
    "ev": replace(FAMILY, charger=7.0, charge_hour=22.5, evening=1.0),
    "shift_work": replace(FAMILY, shift=7.0, jitter=1.2, morning=0.35),
    "vacancy": replace(FAMILY, away=0.45, base=0.08, evening=0.6),
}
NAMES = tuple(field.name for field in fields(Habits))
HOURS = np.array([name.endswith("_hour") for name in NAMES])
SPREAD = 0.25  # of the logarithm of a household's own kW and shares around its archetype
HOUR_SPREAD = 1.0  # of its hours


def as_row(habits: Habits) -> Array:
    """Return the parameters in the order of ``NAMES``, ``(parameters,)``."""
    return np.array([getattr(habits, name) for name in NAMES])


LAW = Law(
    names=NAMES,
    base=as_row(FAMILY),
    archetypes={name: as_row(habits) for name, habits in ARCHETYPES.items()},
    spread=np.where(HOURS, HOUR_SPREAD, SPREAD),
    additive=HOURS,
    upper=np.array([1.0 if name in ("night", "away") else np.inf for name in NAMES]),
)
