"""How simulated users charge their cars: habits, archetypes, and a session process day by day."""

from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd

from ..dial import Array, Law

BATTERY = 75.0  # kWh, more a session does not take
CHARGER = 7.2  # kW: nobody leaves before the energy is in
LONGEST = 120.0  # hours plugged in
SHORTEST = 0.05
FIRST_DAY = np.datetime64("2019-01-01", "s")  # a Tuesday
DAYS_PER_YEAR = 365.25


@dataclass(frozen=True)
class Charging:
    """Habits of one user.

    Args:
        workdays: chance of plugging in on a workday.
        weekends: chance on a Saturday or Sunday.
        hour: of the day when the car is plugged in.
        hour_spread: standard deviation of that hour.
        energy: kWh a session, the median.
        energy_spread: standard deviation of its logarithm.
        stay: hours plugged in, the median.
        stay_spread: standard deviation of its logarithm.
        shared: chance that a session is at a shared charge point.
        winter: share by which energy is larger in midwinter, and smaller in midsummer.
    """

    workdays: float = 0.55
    weekends: float = 0.4
    hour: float = 17.0
    hour_spread: float = 2.0
    energy: float = 9.0
    energy_spread: float = 0.5
    stay: float = 12.0
    stay_spread: float = 0.4
    shared: float = 0.1
    winter: float = 0.25


COMMUTER = Charging()
ARCHETYPES = {
    "commuter": COMMUTER,
    "night": replace(
        COMMUTER, hour=22.0, hour_spread=1.0, stay=8.5, stay_spread=0.2, workdays=0.7, energy=12.0
    ),
    "weekender": replace(COMMUTER, workdays=0.1, weekends=0.75, hour=14.0, energy=22.0, stay=20.0),
    "shared": replace(COMMUTER, hour=12.0, hour_spread=4.0, stay=3.0, energy=7.0, shared=0.95, workdays=0.35),
}
NAMES = tuple(field.name for field in fields(Charging))
_CHANCES = ("workdays", "weekends", "shared", "winter")


def _row(habits: Charging) -> Array:
    return np.array([getattr(habits, name) for name in NAMES], np.float64)


LAW = Law(
    names=NAMES,
    base=_row(COMMUTER),
    archetypes={name: _row(habits) for name, habits in ARCHETYPES.items()},
    spread=np.array([1.0 if name == "hour" else 0.2 for name in NAMES]),
    additive=np.array([name == "hour" for name in NAMES]),
    upper=np.array([1.0 if name in _CHANCES else np.inf for name in NAMES]),
)


def sessions_of(habits: Array, random: np.random.Generator, days: int) -> dict[str, np.ndarray]:
    """Return one user's sessions in order of time, ``(sessions,)`` each.

    ``plugin`` and ``plugout`` are seconds since the first day, ``energy`` kWh, ``duration`` hours, ``shared`` bool. At
    most one begins a day, and none while the car is still plugged in. Everything is drawn day by day beforehand, so
    that a longer simulation begins like a shorter one.

    Args:
        habits: ``(parameters,)`` in the order of ``NAMES``.
        random: the user's own.
        days: how many.
    """
    uniform, normal = np.empty((days, 2)), np.empty((days, 3))
    for day in range(days):
        uniform[day], normal[day] = random.random(2), random.standard_normal(3)
    it = dict(zip(NAMES, habits, strict=True))
    weekend = (np.arange(days) + 1) % 7 >= 5
    comes = uniform[:, 0] < np.where(weekend, it["weekends"], it["workdays"])
    begin = np.arange(days) + (it["hour"] + it["hour_spread"] * normal[:, 0]).clip(0, 47.9) / 24
    season = 1 + it["winter"] * np.cos(2 * np.pi * (np.arange(days) + 10) / DAYS_PER_YEAR)
    energy = np.minimum(season * it["energy"] * np.exp(it["energy_spread"] * normal[:, 1]), BATTERY)
    stay = (it["stay"] * np.exp(it["stay_spread"] * normal[:, 2])).clip(SHORTEST, LONGEST)
    stay = np.maximum(stay, energy / CHARGER)
    kept, free = list[int](), -np.inf
    for day in np.flatnonzero(comes).tolist():
        if begin[day] >= free:
            kept.append(day)
            free = begin[day] + stay[day] / 24
    plugin = np.round(begin[kept] * 1440) * 60
    return {
        "plugin": plugin.astype(np.int64),
        "plugout": (plugin + np.ceil(stay[kept] * 60) * 60).astype(np.int64),
        "energy": np.maximum(np.round(energy[kept], 2), 0.01),
        "duration": stay[kept],
        "shared": uniform[kept, 1] < it["shared"],
    }


def as_table(client: str, sessions: dict[str, np.ndarray], missing: np.ndarray) -> pd.DataFrame:
    """Return a user's sessions with the columns of the original; plug-outs in ``missing`` ``(sessions,)`` were lost."""
    stamps = {name: FIRST_DAY + sessions[name].astype("timedelta64[s]") for name in ("plugin", "plugout")}
    return pd.DataFrame(
        {
            "client": client,
            "garage": f"G{int(client[4:]) // 4:04d}",  # four neighbours share one
            "user_type": np.where(sessions["shared"], "Shared", "Private"),
            "plugin_local": stamps["plugin"],
            "plugout_local": np.where(missing, np.datetime64("NaT", "s"), stamps["plugout"]),
            "energy_kwh": sessions["energy"],
            "duration_h": np.where(missing, np.nan, sessions["duration"]),
        }
    )
