"""The Norwegian charging sessions' offline twin: users of charge points, with a dial for how far they differ."""

from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from ..dial import Array
from ..errors import did_you_mean, raise_if_any
from ..registry import About, register_source
from ..samples import ClientSamples
from ..series import ClientSeries
from .charging_habits import ARCHETYPES, LAW, NAMES, as_table, sessions_of
from .sessions import SessionOptions, Task, population


@register_source("chargers")
@dataclass(frozen=True)
class SimulatedChargers:
    """Commuters, night chargers, weekenders and users of shared charge points, session by session.

    Client ``k`` is of archetype ``archetypes[k % len(archetypes)]``; it is the same user in a population of any size.
    Tasks, features and rules are those of ``ev_norway``, of which this is the twin.

    Args:
        clients: how many.
        days: from 1 January 2019.
        heterogeneity: the dial, 0 (all are commuters) to 1 (archetypes and own habits in full); every parameter lies on the
            straight line between.
        seed: of everything random, together with the client's number.
        missing: share of sessions whose plug-out is lost; about.
        archetypes: which, in turn.
        task: ``"hourly"`` kWh, or a session's ``"energy"`` or ``"duration"`` from what is known at plug-in.
        min_sessions: drop users with fewer.
        previous: sessions of the user's past that a sample sees.
        log: targets of samples as ``log(1 + x)``.
        charging_kw: of hourly energy: this power from plug-in until the energy is delivered.
        plugged_in: whether the hourly series has the plugged-in share of the hour as second channel.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="EV charging",
        what="simulated charging sessions, with a dial for how far users differ",
        clients="any number",
        licence="Apache-2.0",
        attributes=("archetype", "true_distance", *NAMES, "garage", "user_type", "n_sessions"),
        task="forecast or regress",
    )
    duplicates: ClassVar[Literal["keep"]] = "keep"
    max_hours: ClassVar[float] = 336.0

    clients: int = 24
    days: int = 365
    heterogeneity: float = 0.5
    seed: int = 0
    missing: float = 0.005
    archetypes: tuple[str, ...] = tuple(ARCHETYPES)
    task: Task = "hourly"
    min_sessions: int = 5
    previous: int = 3
    log: bool = False
    charging_kw: float = 7.2
    plugged_in: bool = False

    def __post_init__(self) -> None:
        raise_if_any(_problems(self) + self.options().problems())

    def options(self) -> SessionOptions:
        """Return what is to be made of the sessions."""
        return SessionOptions(**{field.name: getattr(self, field.name) for field in fields(SessionOptions)})

    def load(self) -> ClientSeries | ClientSamples:
        """Return the population; ``attributes`` holds each user's true habits and distance from the law.

        Raises:
            DataError: no user has enough sessions.
        """
        kinds = [self.archetypes[client % len(self.archetypes)] for client in range(self.clients)]
        own = np.stack([self._random(k).standard_normal(len(NAMES)) for k in range(self.clients)])
        habits = LAW.parameters(kinds, own, self.heterogeneity)
        made = population("chargers", self._sessions(habits), self.options())
        known = self._known(kinds, habits).reindex(list(made.clients))
        rule = f"simulated with heterogeneity {self.heterogeneity:g} and seed {self.seed}"
        attributes = pd.concat([known, made.attributes], axis=1)
        return replace(made, attributes=attributes, rules=(rule, *made.rules))

    def _random(self, client: int, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, client, *purpose])

    def _sessions(self, habits: Array) -> pd.DataFrame:
        tables = []
        for client, row in enumerate(habits):
            sessions = sessions_of(row, self._random(client, 1), self.days)
            lost = self._random(client, 2).random(len(sessions["plugin"])) < self.missing
            tables.append(as_table(_name(client), sessions, lost))
        table = pd.concat(tables, ignore_index=True)
        table["session_id"] = np.arange(len(table))
        return table

    def _known(self, kinds: list[str], habits: Array) -> pd.DataFrame:
        distance = LAW.distance(habits, self.archetypes, self.heterogeneity)
        known = {"archetype": kinds, "true_distance": distance, **dict(zip(NAMES, habits.T, strict=True))}
        return pd.DataFrame(known, index=pd.Index([_name(k) for k in range(self.clients)], name="client"))


def _name(client: int) -> str:
    return f"user{client:05d}"


def _problems(source: SimulatedChargers) -> list[str]:
    problems = [
        f"{name} must be at least {low}, got {getattr(source, name)}."
        for name, low in (("clients", 1), ("days", 1), ("seed", 0))
        if getattr(source, name) < low
    ]
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
