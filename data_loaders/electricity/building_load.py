"""The load of simulated buildings, for many at once: parameters, calendar, weather and draws in, energy per step out."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..dial import Array
from .building_habits import NAMES
from .household_load import Clock, load_noise

FIRST_DAY = np.datetime64("2013-01-01")  # the clock's
BALANCE = {"cooling": 16.0, "heating": 14.0}  # C outside at which neither runs
NIGHT_SHARE = 1 / 3  # of heating and cooling while nobody is there
_RAMP = 0.6  # hours in which people come and go
_LEVEL = 0.06  # standard deviation of the logarithm of a day's people
_CLIMATE = 4.0  # degrees between sites, standard deviation


@dataclass(frozen=True, eq=False)
class BuildingDraws:
    """Everything random about one building, or about several once stacked (one more leading axis)."""

    own: Array  # (parameters,) standard normal: how it differs from its archetype
    length: Array  # () uniform: how long its series is
    shift: Array  # (days,) standard normal: the day's hours
    level: Array  # (days,) standard normal: the day's people
    noise: Array  # (steps,) standard normal
    gaps: Array  # (steps,) uniform


def draw_building(seed: int, client: int, clock: Clock) -> BuildingDraws:
    """Return one building's draws, a function of ``(seed, client)`` and the clock alone."""
    random = np.random.default_rng([seed, client, 1])
    steps = clock.days * clock.steps_per_day
    return BuildingDraws(
        own=random.standard_normal(len(NAMES)),
        length=random.random(()),
        shift=random.standard_normal(clock.days),
        level=random.standard_normal(clock.days),
        noise=random.standard_normal(steps),
        gaps=random.random(steps),
    )


def site_offsets(seed: int, sites: int, heterogeneity: float) -> Array:
    """Return by how many degrees each site is warmer than the common weather, ``(sites,)``."""
    draws = [np.random.default_rng([seed, 2**31, site]).standard_normal() for site in range(sites)]
    return heterogeneity * _CLIMATE * np.array(draws)


def consumption(parameters: Array, draws: BuildingDraws, weather: Array, clock: Clock) -> Array:
    """Return energy taken from the grid, kWh per step, ``(clients, days, steps per day)``.

    Args:
        parameters: ``(clients, parameters)``, see :class:`~data_loaders.electricity.building_habits.Building`.
        draws: of these clients, stacked.
        weather: ``(clients, days, steps per day)`` degrees outside.
        clock: the calendar.
    """
    # each parameter as (clients, 1, 1), to go with days and steps
    habit = {name: column[:, None, None] for name, column in zip(NAMES, parameters.T, strict=True)}
    people = _people(habit, draws, clock)
    running = NIGHT_SHARE + (1 - NIGHT_SHARE) * people
    thermal = habit["cooling"] * np.maximum(0, weather - BALANCE["cooling"])
    thermal = thermal + habit["heating"] * np.maximum(0, BALANCE["heating"] - weather)
    watts = habit["base"] + habit["occupied"] * people + thermal * running
    noisy = watts * load_noise(habit["noise"], draws.noise, clock)
    return np.asarray(noisy * habit["sqm"] / 1000 * clock.step_minutes / 60)


def holidays(clock: Clock) -> Array:
    """Return 1 on England's public holidays, else 0, ``(days,)``: those of fixed rules, without substitute days."""
    return _calendar(clock.days)[0]


def vacations(clock: Clock) -> Array:
    """Return 1 in school vacations, else 0, ``(days,)``: Christmas, two weeks around Easter, late July and August."""
    return _calendar(clock.days)[1]


def _people(habit: dict[str, Array], draws: BuildingDraws, clock: Clock) -> Array:
    """Return the share of people who are there, ``(clients, days, steps per day)``."""
    day = np.arange(clock.days)
    saturday, sunday = ((day + 1) % 7 == 5)[None, :, None], ((day + 1) % 7 == 6)[None, :, None]
    off = sunday | (holidays(clock) > 0)[None, :, None]
    share = np.where(off, habit["sunday"], np.where(saturday, habit["saturday"], 1.0))
    share = share * np.where(vacations(clock)[None, :, None] > 0, habit["vacation"], 1.0)
    share = share * np.exp(_LEVEL * draws.level[..., None] - _LEVEL**2 / 2)
    moved = clock.hours - habit["jitter"] * draws.shift[..., None]
    there = _soft_step(moved - habit["open_hour"]) * _soft_step(habit["close_hour"] - moved)
    return np.asarray(share * there)


def _soft_step(hours: Array) -> Array:
    """Return a step from 0 to 1 around hour 0."""
    return np.asarray(0.5 * (1 + np.tanh(hours / (2 * _RAMP))))


@lru_cache(maxsize=8)
def _calendar(days: int) -> tuple[Array, Array]:
    dates = FIRST_DAY + np.arange(days)
    public, school = np.zeros(days), np.zeros(days)
    for year in range(2013, int(str(dates[-1])[:4]) + 1):
        easter = _easter(year)
        first = {month: np.datetime64(f"{year}-{month:02d}-01") for month in (5, 6, 9)}
        mondays = [
            np.busday_offset(first[5], 0, "forward", weekmask="Mon"),
            np.busday_offset(first[6], -1, "forward", weekmask="Mon"),
            np.busday_offset(first[9], -1, "forward", weekmask="Mon"),
        ]
        fixed = [np.datetime64(f"{year}-{day}") for day in ("01-01", "12-25", "12-26")]
        public += np.isin(dates, [*fixed, easter - 2, easter + 1, *mondays])
        for low, high in (
            (np.datetime64(f"{year}-01-01"), np.datetime64(f"{year}-01-06")),
            (easter - 7, easter + 8),
            (np.datetime64(f"{year}-07-22"), np.datetime64(f"{year}-09-03")),
            (np.datetime64(f"{year}-12-21"), np.datetime64(f"{year + 1}-01-01")),
        ):
            school += (dates >= low) & (dates < high)
    return public.clip(max=1), school.clip(max=1)


def _easter(year: int) -> np.datetime64:
    from dateutil.easter import easter  # type: ignore[import-untyped]  # comes with pandas

    return np.datetime64(easter(year), "D")
