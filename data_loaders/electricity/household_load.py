"""The load of simulated households, for many at once: habits, weather and draws in, energy per step out."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

import numpy as np

from ..dial import Array
from ..runs import Floats
from .habits import NAMES

LATITUDE = np.radians(51.5)  # London's
CHARGING_DAYS = 0.6
MEAN_GAP = 4  # steps
AWAY_LOAD = 0.1  # of the routine while nobody is at home: fridge, timers
FUSE = 18.0  # kW, more a connection does not give
_AR_PER_HOUR = 0.7
_SPIKES_PER_DAY = 0.6


@dataclass(frozen=True, eq=False)
class Clock:
    """The calendar all clients share, from Tuesday, 1 January 2013, 0:00.

    Args:
        days: how many.
        step_minutes: divides a day.
    """

    days: int
    step_minutes: int

    @property
    def steps_per_day(self) -> int:
        """Steps from midnight to midnight."""
        return 24 * 60 // self.step_minutes

    @property
    def hours(self) -> Array:
        """Hour of the day at the middle of each step, ``(steps per day,)``."""
        return np.asarray((np.arange(self.steps_per_day) + 0.5) * self.step_minutes / 60, np.float64)

    @property
    def day_off(self) -> Array:
        """1 on Saturdays and Sundays, else 0, ``(days,)``."""
        return ((np.arange(self.days) + 1) % 7 >= 5).astype(np.float64)

    @property
    def season(self) -> Array:
        """Angle of the year, 0 at the winter solstice, ``(days,)``."""
        return np.asarray(2 * np.pi * (np.arange(self.days) + 11) / 365.25, np.float64)


class Recording(Protocol):
    """What decides which readings of several clients were recorded."""

    @property
    def length(self) -> Array:
        """``(clients,)`` uniform: how long a series is."""

    @property
    def gaps(self) -> Array:
        """``(clients, steps)`` uniform: where gaps begin."""


@dataclass(frozen=True, eq=False)
class Draws:
    """Everything random about one client, or about several once stacked (one more leading axis)."""

    own: Array  # (parameters,) standard normal: how it differs from its archetype
    length: Array  # () uniform: how long its series is
    routine: Array  # (days,) standard normal
    clouds: Array  # (days,) uniform
    away: Array  # (weeks,) uniform
    charging: Array  # (days, 3) uniform: whether, when, how much
    noise: Array  # (steps,) standard normal
    spikes: Array  # (steps,) uniform
    spike_size: Array  # (steps,) exponential
    gaps: Array  # (steps,) uniform


AnyDraws = TypeVar("AnyDraws")


def draw_client(seed: int, client: int, clock: Clock) -> Draws:
    """Return one client's draws, a function of ``(seed, client)`` and the clock alone."""
    random = np.random.default_rng([seed, client])
    days, steps = clock.days, clock.days * clock.steps_per_day
    return Draws(
        own=random.standard_normal(len(NAMES)),
        length=random.random(()),
        routine=random.standard_normal(days),
        clouds=random.random(days),
        away=random.random(days // 7 + 1),
        charging=random.random((days, 3)),
        noise=random.standard_normal(steps),
        spikes=random.random(steps),
        spike_size=random.standard_exponential(steps),
        gaps=random.random(steps),
    )


def stack_draws(draws: Sequence[AnyDraws]) -> AnyDraws:
    """Return the draws of several clients, dataclasses of arrays, with a leading client axis."""
    names = [item.name for item in fields(draws[0])]  # type: ignore[arg-type]
    return type(draws[0])(**{name: np.stack([getattr(draw, name) for draw in draws]) for name in names})


def temperature(seed: int, clock: Clock) -> Array:
    """Return the weather all clients share, degrees Celsius, ``(days, steps per day)``."""
    random = np.random.default_rng([seed, 2**31])
    spell = _autoregressive(random.standard_normal((1, clock.days)), 0.8)[0]
    daily = 10.5 - 7 * np.cos(clock.season) + 3 * spell
    return np.asarray(daily[:, None] - 3 * np.cos(2 * np.pi * (clock.hours - 3) / 24))


def net_load(parameters: Array, draws: Draws, weather: Array, clock: Clock) -> Array:
    """Return energy taken from the grid, kWh per step, ``(clients, days, steps per day)``.

    Args:
        parameters: ``(clients, parameters)``, see :class:`~data_loaders.electricity.habits.Habits`.
        draws: of these clients, stacked.
        weather: ``(days, steps per day)`` degrees.
        clock: the calendar.
    """
    # each parameter as (clients, 1, 1), to go with days and steps
    habit = {name: column[:, None, None] for name, column in zip(NAMES, parameters.T, strict=True)}
    week = np.arange(clock.days) // 7
    home = np.where(draws.away[:, week, None] < habit["away"], AWAY_LOAD, 1.0)
    used = (habit["base"] + home * _routine(habit, draws, clock)) * _spikes(draws, clock)
    used = (used + home * _heating(habit, weather, clock)) * load_noise(habit["noise"], draws.noise, clock)
    power = np.minimum(used + home * _charging(habit, draws, clock), FUSE)
    return np.asarray((power - _solar(habit, draws, clock)) * clock.step_minutes / 60)


def recorded(energy: Floats, draws: Recording, clock: Clock, missing: float, shortest: int) -> list[Floats]:
    """Return what the meters recorded: gaps are NaN, a series ends when its client left, ``(steps,)`` each.

    Args:
        energy: ``(clients, steps)``.
        draws: of these clients, stacked.
        clock: the calendar.
        missing: share of missing readings, in gaps of ``MEAN_GAP`` steps on average.
        shortest: days of the shortest series; lengths are uniform from there to the clock's days.
    """
    begins, left = draws.gaps < missing / MEAN_GAP, draws.gaps / max(missing / MEAN_GAP, 1e-12)
    # a gap's own draw, uniform below the threshold, says how long it is: 1 to 2 MEAN_GAP - 1 steps
    steps = 1 + (left * (2 * MEAN_GAP - 1)).astype(np.int64).clip(0, 2 * MEAN_GAP - 2)
    ends = np.maximum.accumulate(
        np.where(begins, np.arange(energy.shape[1]) + np.where(begins, steps, 0), 0), axis=1
    )
    seen = np.where(np.arange(energy.shape[1]) < ends, np.float32(np.nan), energy)
    days = shortest + (draws.length * (clock.days - shortest + 1)).astype(np.int64)
    return [row[: count * clock.steps_per_day] for row, count in zip(seen, days, strict=True)]


def _routine(habit: dict[str, Array], draws: Draws, clock: Clock) -> Array:
    """Return kW of morning, noon and evening; the rota and each day's jitter move them along the clock."""
    rota = np.array([0.0, 1.0, -1.0])[np.arange(clock.days) // 7 % 3][None, :, None]
    moved = clock.hours - habit["shift"] * rota - habit["jitter"] * draws.routine[..., None]
    off = clock.day_off[None, :, None]
    morning = (1 - 0.3 * off) * habit["morning"] * _bump(moved - habit["morning_hour"] - 1.5 * off, 1.0)
    midday = off * habit["midday"] * _bump(moved - 13, 2.5)
    evening = habit["evening"] * _bump(moved - habit["evening_hour"], 2.0)
    return np.asarray(morning + midday + evening)


def _heating(habit: dict[str, Array], weather: Array, clock: Clock) -> Array:
    at_night = clock.hours < 7
    waking = np.where((clock.hours >= 6) & (clock.hours < 22), 0.6, 0.2)
    schedule = habit["night"] * at_night + (1 - habit["night"]) * waking
    return np.asarray(habit["heating"] * np.maximum(0, 15.5 - weather) * schedule)


def _solar(habit: dict[str, Array], draws: Draws, clock: Clock) -> Array:
    """Return kW from the panels: the sun's height over London, dimmed by each day's clouds."""
    declination = np.radians(-23.4) * np.cos(clock.season)[:, None]
    angle = np.radians(15 * (clock.hours - 12))
    height = np.sin(LATITUDE) * np.sin(declination) + np.cos(LATITUDE) * np.cos(declination) * np.cos(angle)
    return np.asarray(habit["pv"] * np.maximum(0, height) * (0.2 + 0.8 * draws.clouds[..., None]))


def _charging(habit: dict[str, Array], draws: Draws, clock: Clock) -> Array:
    """Return kW of sessions of one to four hours, which may run past midnight."""
    plugged, delay, amount = np.moveaxis(draws.charging[..., None], -2, 0)
    start = habit["charge_hour"] + 3 * (delay - 0.5)
    duration = (1 + 3 * amount) * (plugged < CHARGING_DAYS)
    today = (clock.hours >= start) & (clock.hours < start + duration)
    late = clock.hours + 24 < start + duration
    after_midnight = np.concatenate((np.zeros_like(late[:, :1]), late[:, :-1]), axis=1)
    return np.asarray(habit["charger"] * (today | after_midnight))


def load_noise(spread: Array, innovations: Array, clock: Clock) -> Array:
    """Return a factor of mean 1, autoregressive in its logarithm, ``(clients, days, steps per day)``.

    Args:
        spread: ``(clients, 1, 1)`` standard deviation of the logarithm.
        innovations: ``(clients, steps)`` standard normal.
        clock: the calendar.
    """
    hours = clock.step_minutes / 60
    log_factor = _autoregressive(innovations, _AR_PER_HOUR**hours).reshape(len(innovations), clock.days, -1)
    return np.asarray(np.exp(spread * log_factor - spread**2 / 2))


def _spikes(draws: Draws, clock: Clock) -> Array:
    """Return a factor of 1, or more in the few steps when something big runs."""
    rare = draws.spikes < _SPIKES_PER_DAY * clock.step_minutes / 1440
    return np.asarray(1 + (2 * rare * draws.spike_size).reshape(len(rare), clock.days, -1))


def _autoregressive(innovations: Array, memory: float) -> Array:
    """Return the stationary AR(1) series of unit variance driven by ``(clients, steps)`` normals."""
    series = np.ascontiguousarray(innovations.T)
    series[1:] *= np.sqrt(1 - memory**2)
    for step in range(1, len(series)):
        series[step] += memory * series[step - 1]
    return np.ascontiguousarray(series.T)


def _bump(hours: Array, width: float) -> Array:
    """Return a bell of height 1 around 0 on the 24-hour circle."""
    around = (hours + 12) % 24 - 12
    return np.asarray(np.exp(-0.5 * (around / width) ** 2))
