"""Charging sessions into populations: hourly energy to forecast, or one labelled sample a session."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch

from ..errors import DataError
from ..samples import ClientSamples
from ..series import ClientSeries, Dropped, count_reasons, offsets_of
from .session_features import Array, channel_names, features, history

Task = Literal["hourly", "energy", "duration"]
TASKS = ("hourly", "energy", "duration")
COLUMNS = (
    "session_id",
    "client",
    "garage",
    "user_type",
    "plugin_local",
    "plugout_local",
    "energy_kwh",
    "duration_h",
)
ATTRIBUTES = ("garage", "user_type", "n_sessions")
HOUR, DAY = 3600, 86400


@dataclass(frozen=True)
class SessionOptions:
    """What is made of sessions, and which are left out.

    Args:
        task: ``"hourly"`` energy, or a session's ``"energy"`` or ``"duration"`` at plug-in.
        min_sessions: drop users with fewer.
        previous: sessions of the user's past that a sample sees.
        log: targets of samples as ``log(1 + x)``.
        charging_kw: power from plug-in until the energy is delivered.
        plugged_in: whether the hourly series has the plugged-in share as second channel.
        duplicates: ``"keep"`` or ``"drop"`` all but the first of sessions of one user, plug-in and energy.
        max_hours: a longer session's duration is taken as missing.
    """

    task: Task = "hourly"
    min_sessions: int = 20
    previous: int = 3
    log: bool = False
    charging_kw: float = 7.2
    plugged_in: bool = False
    duplicates: Literal["keep", "drop"] = "keep"
    max_hours: float = 336.0

    def problems(self) -> list[str]:
        """Return what is out of range, one sentence each."""
        found = [
            f"{name} must be at least {low}, got {value}."
            for name, low, value in (
                ("min_sessions", 1, self.min_sessions),
                ("previous", 0, self.previous),
            )
            if value < low
        ]
        found += [
            f"{name} must be positive and finite, got {value}."
            for name, value in (("charging_kw", self.charging_kw), ("max_hours", self.max_hours))
            if not (0 < value < float("inf"))
        ]
        if self.task not in TASKS:
            found.append(f"task must be one of {', '.join(TASKS)}, got {self.task!r}.")
        if self.duplicates not in ("keep", "drop"):
            found.append(f"duplicates must be 'keep' or 'drop', got {self.duplicates!r}.")
        return found


def population(name: str, table: pd.DataFrame, options: SessionOptions) -> ClientSeries | ClientSamples:
    """Return the population that the options ask for.

    Args:
        name: of the source.
        table: one row a session with ``COLUMNS``; stamps local, a missing plug-out NaT, its duration NaN.
        options: the task and the rules.

    Raises:
        DataError: no user is left.
    """
    kept, said, dropped = _by_the_rules(name, table, options)
    if options.task == "hourly":
        made: ClientSeries | ClientSamples = hourly_series(name, kept, options)
    else:
        made = session_samples(name, kept, options)
    return replace(made, rules=said + made.rules, dropped=dropped + made.dropped)


def hourly_series(name: str, table: pd.DataFrame, options: SessionOptions) -> ClientSeries:
    """Return hourly kWh a user from the midnight before the first plug-in to the midnight after the last session.

    A session charges with ``charging_kw`` from plug-in until its energy is delivered (the data paper's own assumption),
    with more where it would not be delivered before plug-out; several plugs of one user add up. The second channel, if
    asked for, is the share of the hour plugged in.
    """
    series, starts = list[Array](), list[int]()
    for _, sessions in table.groupby("client", sort=True):
        begin = _seconds(sessions["plugin_local"])
        energy, plugged = (sessions[name].to_numpy(np.float64) for name in ("energy_kwh", "duration_h"))
        charging = np.fmin(energy / options.charging_kw, plugged)  # a missing duration decides nothing
        plugged = np.where(np.isnan(plugged), charging, plugged)
        first = int(begin.min()) // DAY * DAY
        last = float((begin + HOUR * np.maximum(plugged, charging)).max())
        hours = 24 * int(-(-(last - first) // DAY) or 1)
        after = (begin - first) / HOUR
        power = energy / np.where(charging > 0, charging, 1)
        channels = [covered(after, charging, hours, power)]
        if options.plugged_in:
            channels.append(covered(after, plugged, hours, np.ones(len(after))).clip(max=1))
        series.append(np.stack(channels, axis=1))
        starts.append(first)
    attributes = _attributes(table)
    return ClientSeries(
        name=name,
        values=torch.from_numpy(np.concatenate(series).astype(np.float32)),
        offsets=offsets_of([len(part) for part in series]),
        clients=tuple(attributes.index),
        attributes=attributes,
        starts=np.array(starts, "datetime64[s]"),
        step_seconds=HOUR,
        unit="kWh",
        channel_names=("energy", "plugged_in") if options.plugged_in else ("energy",),
        rules=(
            f"hourly energy is derived: {options.charging_kw:g} kW from plug-in until a session's energy is delivered, "
            "more where plug-out would come first",
            "a user's series runs from the midnight before the first plug-in to the midnight after the last session",
            "local time as it is: the hour that the clock skips is empty, the one it repeats holds both",
        ),
    )


def session_samples(name: str, table: pd.DataFrame, options: SessionOptions) -> ClientSamples:
    """Return one sample a session: what is known at plug-in, and the session's energy or duration."""
    table = table.sort_values(["client", "plugin_local", "session_id"], kind="stable")
    inputs = features(table, options.previous)
    target = table["energy_kwh" if options.task == "energy" else "duration_h"].to_numpy(np.float64)
    known = ~np.isnan(target)
    said = [*history(options.previous)]
    if not known.all():
        said.append(f"{int((~known).sum())} of {len(known)} sessions without a duration are no samples")
    target = np.log1p(target) if options.log else target
    attributes = _attributes(table)
    counts = table.loc[known, "client"].value_counts().reindex(attributes.index, fill_value=0)
    unit = {"energy": "kWh", "duration": "h"}[str(options.task)]
    return ClientSamples(
        name=name,
        inputs=torch.from_numpy(inputs[known].astype(np.float32)[:, None]),
        targets=torch.from_numpy(target[known].astype(np.float32)[:, None]),
        offsets=offsets_of(counts.tolist()),
        clients=tuple(attributes.index),
        attributes=attributes,
        times=torch.from_numpy(_seconds(table["plugin_local"])[known]),
        channel_names=channel_names(options.previous),
        target_names=(str(options.task),),
        unit=f"log(1 + {unit})" if options.log else unit,
        rules=tuple(said),
    )


def covered(begin: Array, length: Array, hours: int, rate: Array) -> Array:
    """Return how much of each hour lies in intervals, times their rates, summed over them, ``(hours,)``.

    Args:
        begin: ``(n,)`` hours after the start of the grid, not negative.
        length: ``(n,)`` hours.
        hours: of the grid; what reaches beyond is lost.
        rate: ``(n,)`` what an interval gives in an hour.
    """
    first = np.floor(begin).astype(np.int64)
    touched = np.maximum(np.ceil(begin + length).astype(np.int64) - first, 1)
    which = np.repeat(np.arange(len(begin)), touched)
    hour = first[which] + np.arange(len(which)) - np.repeat(np.cumsum(touched) - touched, touched)
    low = np.maximum(hour, begin[which])
    share = np.maximum(np.minimum(hour + 1, begin[which] + length[which]) - low, 0)
    return np.asarray(np.bincount(hour, rate[which] * share, hours)[:hours], np.float64)


def _by_the_rules(
    name: str, table: pd.DataFrame, options: SessionOptions
) -> tuple[pd.DataFrame, tuple[str, ...], tuple[Dropped, ...]]:
    table, said = table.loc[:, list(COLUMNS)].copy(), list[str]()
    again = table.duplicated(["client", "plugin_local", "energy_kwh"]).to_numpy()
    said.append(
        f"{int(again.sum())} sessions repeat another's user, plug-in and energy: "
        + ("kept as published" if options.duplicates == "keep" else "left out")
    )
    if options.duplicates == "drop":
        table = table[~again]
    hours = table["duration_h"].to_numpy(np.float64)
    absurd = (hours <= 0) | (hours > options.max_hours)
    table["duration_h"] = np.where(absurd, np.nan, hours)
    said.append(
        f"{int(np.isnan(hours).sum())} sessions have no duration (no plug-out), of {int(absurd.sum())} more it is "
        f"not in (0, {options.max_hours:g}] h and taken as missing; they keep their energy"
    )
    said.append(f"min_sessions: a user with fewer than {options.min_sessions} sessions is dropped")
    counts = table["client"].value_counts()
    few = counts[counts < options.min_sessions].sort_index()
    dropped = tuple(
        Dropped(str(client), f"min_sessions: {count} sessions, {options.min_sessions} asked for")
        for client, count in few.items()
    )
    table = table[~table["client"].isin(few.index)]
    if table.empty:
        raise DataError(
            f"No user of source {name!r} is left: {count_reasons(dropped) or 'there are no sessions'}. "
            f"Lower min_sessions={options.min_sessions}."
        )
    return table, tuple(said), dropped


def _attributes(table: pd.DataFrame) -> pd.DataFrame:
    """Return garage (of the first session), kind of charge point (both where a user has both) and sessions."""
    users = table.sort_values("plugin_local", kind="stable").groupby("client", sort=True)
    known = pd.DataFrame(
        {
            "garage": users["garage"].first().astype(str),
            "user_type": users["user_type"].agg(lambda kinds: "/".join(sorted(set(kinds)))),
            "n_sessions": users.size(),
        }
    )
    return known.rename_axis(index="client")


def _seconds(stamps: "pd.Series[pd.Timestamp]") -> np.ndarray:
    return stamps.to_numpy().astype("datetime64[s]").astype(np.int64)
