"""Residential EV charging in Risvollan, Trondheim, Norway: 6,878 sessions of 97 users, 2018 to 2020."""

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from ..cache import cached
from ..errors import raise_if_any
from ..home import find_root
from ..registry import About, register_source
from ..samples import ClientSamples
from ..series import ClientSeries
from .ev_files import OFFICIAL, read_sessions
from .sessions import ATTRIBUTES, SessionOptions, Task, population


@register_source("ev_norway")
@dataclass(frozen=True)
class EVNorway:
    """Users of charge points in apartment buildings.

    Reads the official CSV, or the prepared ``sessions.parquet``. Stamps are local Norwegian time; ``Duration_hours``
    is the length that counts, also where the clock changes.

    Args:
        root: the CSV or its folder; None for what was fetched or prepared.
        task: ``"hourly"``: hourly kWh a user, to forecast the next 24 h; ``"energy"``: a session's kWh, and
            ``"duration"``: its hours, from what is known at plug-in.
        min_sessions: drop users with fewer.
        previous: sessions of the user's past that a sample sees.
        log: targets of samples as ``log(1 + x)``.
        charging_kw: of the derived hourly energy: this power from plug-in until the energy is delivered.
        plugged_in: whether the hourly series has the plugged-in share of the hour as second channel.
        duplicates: ``"keep"`` or ``"drop"`` sessions that repeat another's user, plug-in and energy.
        max_hours: a longer session's duration is taken as missing, and one not above 0.

    Raises:
        DataError: all options out of range, in one message.

    References:
        Sørensen, Lindberg, Sartori, Andresen, Residential electric vehicle charging datasets from apartment buildings,
        Data in Brief 36:107105, 2021.
    """

    about: ClassVar[About] = About(
        kind="EV charging",
        what="charging sessions of apartment buildings; hourly kWh, or a session's energy or duration",
        clients="97",
        licence="CC BY 4.0",
        attributes=ATTRIBUTES,
        needs=f"root=FOLDER (download {OFFICIAL!r}, doi 10.17632/jbks2rcwyj.1, by hand)",
        task="forecast or regress",
        size="0.7 MB",
        attribution="Sørensen, Lindberg, Sartori, Andresen (2021), Data in Brief 36:107105; "
        "Mendeley Data, doi 10.17632/jbks2rcwyj.1",
    )

    root: str | None = None
    task: Task = "hourly"
    min_sessions: int = 20
    previous: int = 3
    log: bool = False
    charging_kw: float = 7.2
    plugged_in: bool = False
    duplicates: Literal["keep", "drop"] = "keep"
    max_hours: float = 336.0

    def __post_init__(self) -> None:
        raise_if_any(self.options().problems())

    def options(self) -> SessionOptions:
        """Return what is to be made of the sessions."""
        return SessionOptions(**{field.name: getattr(self, field.name) for field in fields(SessionOptions)})

    def load(self) -> ClientSeries | ClientSamples:
        """Return hourly kWh (``task="hourly"``), or one sample a session.

        Raises:
            DataError: nothing to read at ``root``, a file that was saved anew or is broken, or no user left.
        """
        root = find_root("ev_norway", self.root)

        def read() -> ClientSeries | ClientSamples:
            return population("ev_norway", read_sessions(root), self.options())

        # which of the two it is depends on the task, that the type variable cannot know
        return cached(self, "ev_norway", root, read)  # type: ignore[type-var]
