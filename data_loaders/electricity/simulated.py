"""Simulated households: real enough to try methods on, with a dial for how far the clients differ."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from ..errors import did_you_mean, raise_if_any
from ..registry import About, register_source
from ..runs import Floats
from ..series import ClientSeries, offsets_of
from .forecast_law import forecast_distance
from .habits import ARCHETYPES, LAW, NAMES
from .household_load import Clock, draw_client, net_load, recorded, stack_draws, temperature

_CLIENTS_AT_ONCE = 64


@register_source("simulated")
@dataclass(frozen=True)
class SimulatedHouseholds:
    """Households with base load, morning and evening peaks, weekends, seasons, weather and noise.

    Client ``k`` is of archetype ``archetypes[k % len(archetypes)]``; it is the same household in a population of any
    size. Net load of a household with panels is negative when they give more than it takes, and its mean may be small:
    an error over the mean load says little there.

    Args:
        clients: how many.
        days: of the longest series, from 1 January 2013.
        step_minutes: divides a day.
        heterogeneity: the dial, 0 (all clients drawn from one law) to 1 (archetypes and own habits in full);
            every parameter lies on the straight line between.
        seed: of everything random, together with the client's number.
        missing: share of missing readings, in short gaps; about.
        min_days: shortest series, lengths uniform up to ``days``; None makes all equally long.
        archetypes: which, in turn.
        oracle: give each client the attribute ``forecast_distance``, how far its own rule of forecasting lies from that
            of all; some milliseconds a client, see :mod:`data_loaders.electricity.forecast_law`.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="household electricity",
        what="simulated households, kWh per step, with a dial for how far they differ",
        clients="any number",
        licence="Apache-2.0",
        attributes=("archetype", "true_distance", *NAMES),
        needs="nothing",
    )

    clients: int = 24
    days: int = 120
    step_minutes: int = 60
    heterogeneity: float = 0.5
    seed: int = 0
    missing: float = 0.0
    min_days: int | None = None
    archetypes: tuple[str, ...] = tuple(ARCHETYPES)
    oracle: bool = False

    def __post_init__(self) -> None:
        raise_if_any(_problems(self))

    def load(self) -> ClientSeries:
        """Return the population; ``attributes`` holds each client's true habits and distance from the law."""
        clock = Clock(self.days, self.step_minutes)
        weather = temperature(self.seed, clock)
        names = tuple(f"house{client:05d}" for client in range(self.clients))
        kinds = [self.archetypes[client % len(self.archetypes)] for client in range(self.clients)]
        loads, parameters = list[Floats](), list[np.ndarray]()
        for begin in range(0, self.clients, _CLIENTS_AT_ONCE):
            chunk = range(begin, min(begin + _CLIENTS_AT_ONCE, self.clients))
            draws = stack_draws([draw_client(self.seed, client, clock) for client in chunk])
            habits = LAW.parameters(kinds[chunk.start : chunk.stop], draws.own, self.heterogeneity)
            energy = net_load(habits, draws, weather, clock).astype(np.float32)
            shortest = self.days if self.min_days is None else self.min_days
            loads += recorded(energy.reshape(len(chunk), -1), draws, clock, self.missing, shortest)
            parameters.append(habits)
        return ClientSeries(
            name="simulated",
            values=torch.from_numpy(np.concatenate(loads)[:, None]),
            offsets=offsets_of([len(load) for load in loads]),
            clients=names,
            attributes=self._attributes(names, kinds, np.concatenate(parameters)),
            starts=np.full(self.clients, np.datetime64("2013-01-01", "s")),
            step_seconds=60 * self.step_minutes,
            unit="kWh",
            rules=(f"simulated with heterogeneity {self.heterogeneity:g} and seed {self.seed}",),
        )

    def _attributes(self, names: tuple[str, ...], kinds: list[str], parameters: np.ndarray) -> pd.DataFrame:
        distance = LAW.distance(parameters, self.archetypes, self.heterogeneity)
        known = {"archetype": kinds, "true_distance": distance, **dict(zip(NAMES, parameters.T, strict=True))}
        if self.oracle:
            known["forecast_distance"] = forecast_distance(parameters, self.seed)
        return pd.DataFrame(known, index=pd.Index(names, name="client"))


def _problems(source: SimulatedHouseholds) -> list[str]:
    values = {
        name: getattr(source, name)
        for name in ("clients", "days", "min_days")
        if getattr(source, name) is not None
    }
    problems = [f"{name} must be at least 1, got {value}." for name, value in values.items() if value < 1]
    if source.seed < 0:
        problems.append(f"seed must not be negative, got {source.seed}.")
    if source.min_days is not None and source.min_days > source.days:
        problems.append(f"min_days must be at most days={source.days}, got {source.min_days}.")
    if source.step_minutes < 1 or 1440 % source.step_minutes:
        problems.append(f"step_minutes must divide a day of 1440 minutes, got {source.step_minutes}.")
    if not 0 <= source.heterogeneity <= 1:
        problems.append(f"heterogeneity must lie between 0 and 1, got {source.heterogeneity}.")
    if not 0 <= source.missing < 1:
        problems.append(f"missing must be a fraction in [0, 1), got {source.missing}.")
    if not source.archetypes:
        problems.append(f"archetypes must name at least one of {', '.join(ARCHETYPES)}.")
    unknown = [name for name in source.archetypes if name not in ARCHETYPES]
    return problems + [
        f"There is no archetype {name!r}. {did_you_mean(name, ARCHETYPES)}" for name in unknown
    ]
