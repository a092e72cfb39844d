"""Simulated buildings: Building Data Genome 2's offline twin, with a dial for how far the clients differ."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from ..dial import Array
from ..errors import did_you_mean, raise_if_any
from ..registry import About, register_source
from ..runs import Floats
from ..series import ClientSeries, offsets_of
from .building_habits import ARCHETYPES, LAW, NAMES, USAGES
from .building_load import FIRST_DAY, consumption, draw_building, site_offsets
from .household_load import Clock, recorded, stack_draws, temperature

_CLIENTS_AT_ONCE = 32


@register_source("buildings")
@dataclass(frozen=True)
class SimulatedBuildings:
    """Offices, schools, hospitals, shops and laboratories with opening hours, weekends, holidays and weather.

    Client ``k`` is of archetype ``archetypes[k % len(archetypes)]`` and at site ``(k // len(archetypes)) % sites``; it is
    the same building in a population of any size. Sites share spells of weather, and differ in how warm they are.

    Args:
        clients: how many.
        days: of the longest series, from 1 January 2013.
        step_minutes: divides a day.
        heterogeneity: the dial, 0 (all clients drawn from one law) to 1 (archetypes, own parameters and climates in
            full); every parameter lies on the straight line between.
        seed: of everything random, together with the client's number.
        sites: how many.
        weather: add the site's temperature as a channel ``airTemperature``.
        missing: share of missing readings, in short gaps; about.
        min_days: shortest series, lengths uniform up to ``days``; None makes all equally long.
        archetypes: which, in turn.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="building electricity",
        what="simulated buildings, kWh per step, with a dial for how far they differ",
        clients="any number",
        licence="Apache-2.0",
        attributes=(
            "site_id",
            "primaryspaceusage",
            "sub_primaryspaceusage",
            "timezone",
            "true_distance",
            *NAMES,
        ),
        needs="nothing",
    )

    clients: int = 24
    days: int = 120
    step_minutes: int = 60
    heterogeneity: float = 0.5
    seed: int = 0
    sites: int = 3
    weather: bool = False
    missing: float = 0.0
    min_days: int | None = None
    archetypes: tuple[str, ...] = tuple(ARCHETYPES)

    def __post_init__(self) -> None:
        raise_if_any(_problems(self))

    def load(self) -> ClientSeries:
        """Return the population; ``attributes`` are those of ``bdg2``, each client's parameters and distance."""
        clock = Clock(self.days, self.step_minutes)
        kinds = [self.archetypes[client % len(self.archetypes)] for client in range(self.clients)]
        sites = np.arange(self.clients) // len(self.archetypes) % self.sites
        outside = temperature(self.seed, clock) + site_offsets(
            self.seed, self.sites, self.heterogeneity
        ).reshape(-1, 1, 1)
        values, parameters = list[Floats](), list[Array]()
        for begin in range(0, self.clients, _CLIENTS_AT_ONCE):
            chunk = slice(begin, min(begin + _CLIENTS_AT_ONCE, self.clients))
            loads, habits = self._simulate(chunk, kinds[chunk], outside[sites[chunk]], clock)
            parameters.append(habits)
            values += [
                np.column_stack([load, outside[site].ravel()[: len(load)]] if self.weather else [load])
                for load, site in zip(loads, sites[chunk], strict=True)
            ]
        names = tuple(
            f"Site{site}_{kind}_{k:05d}" for k, (site, kind) in enumerate(zip(sites, kinds, strict=True))
        )
        return ClientSeries(
            name="buildings",
            values=torch.from_numpy(np.concatenate(values).astype(np.float32, copy=False)),
            offsets=offsets_of([len(part) for part in values]),
            clients=names,
            attributes=self._attributes(names, kinds, sites, np.concatenate(parameters)),
            starts=np.full(self.clients, FIRST_DAY.astype("datetime64[s]")),
            step_seconds=60 * self.step_minutes,
            unit="kWh",
            rules=(f"simulated with heterogeneity {self.heterogeneity:g} and seed {self.seed}",),
            channel_names=("load", "airTemperature") if self.weather else (),
        )

    def _simulate(
        self, chunk: slice, kinds: list[str], outside: Array, clock: Clock
    ) -> tuple[list[Floats], Array]:
        """Return the recorded load ``(steps,)`` of each client of a chunk, and their parameters."""
        draws = stack_draws(
            [draw_building(self.seed, client, clock) for client in range(chunk.start, chunk.stop)]
        )
        habits = LAW.parameters(kinds, draws.own, self.heterogeneity)
        energy = consumption(habits, draws, outside, clock).astype(np.float32).reshape(len(kinds), -1)
        shortest = self.days if self.min_days is None else self.min_days
        return recorded(energy, draws, clock, self.missing, shortest), habits

    def _attributes(
        self, names: tuple[str, ...], kinds: list[str], sites: np.ndarray, parameters: Array
    ) -> pd.DataFrame:
        known = {
            "site_id": [f"Site{site}" for site in sites],
            "primaryspaceusage": [USAGES[kind] for kind in kinds],
            "sub_primaryspaceusage": kinds,
            "timezone": "UTC",
            "true_distance": LAW.distance(parameters, self.archetypes, self.heterogeneity),
            **dict(zip(NAMES, parameters.T, strict=True)),
        }
        return pd.DataFrame(known, index=pd.Index(names, name="client"))


def _problems(source: SimulatedBuildings) -> list[str]:
    values = {name: getattr(source, name) for name in ("clients", "days", "sites", "min_days")}
    problems = [
        f"{name} must be at least 1, got {value}."
        for name, value in values.items()
        if value is not None and value < 1
    ]
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
