"""What is known of a charging session when the car is plugged in."""

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]
LONGEST = 168.0  # hours since the last plug-out are cut at a week; so long too where there was none
_ALWAYS = (
    "hour_sin",
    "hour_cos",
    "weekday_sin",
    "weekday_cos",
    "month_sin",
    "month_cos",
    "hours_since_plugout",
    "first_session",
    "shared",
)
_PAST = ("energy", "duration", "gap", "missing")


def channel_names(previous: int) -> tuple[str, ...]:
    """Return the features' names, in order: the clock's, then those of the last session, the one before, ..."""
    return (*_ALWAYS, *(f"{name}_{lag}" for lag in range(1, previous + 1) for name in _PAST))


def history(previous: int) -> tuple[str, ...]:
    """Return in words how the past becomes features."""
    return (
        f"a sample sees its plug-in's clock and calendar, the hours since the user's last plug-out (at most "
        f"{LONGEST:g}), whether the charge point is shared, and the user's {previous} sessions before",
        "of a session before, kWh, hours and the gap before it are 0 and flagged missing where there is none, where "
        "it has no plug-out, or where it had not ended at plug-in",
    )


def features(table: pd.DataFrame, previous: int) -> Array:
    """Return what is known of each session at plug-in, ``(sessions, features)``; see :func:`channel_names`.

    Args:
        table: sessions sorted by client and plug-in, see ``sessions.COLUMNS``.
        previous: how many of the user's earlier sessions to show.
    """
    plugin = pd.DatetimeIndex(table["plugin_local"])
    clock = [
        _circle(plugin.hour.to_numpy() + plugin.minute.to_numpy() / 60, 24),
        _circle(plugin.day_of_week.to_numpy(), 7),
        _circle(plugin.month.to_numpy() - 1, 12),
    ]
    begin = plugin.to_numpy().astype("datetime64[s]").astype(np.int64) / 3600
    ended = table["plugout_local"].to_numpy().astype("datetime64[s]")
    end = np.where(np.isnat(ended), np.inf, ended.astype(np.int64) / 3600)
    _, client = np.unique(table["client"].to_numpy(str), return_inverse=True)
    since = _since_plugout(client, begin, end)
    shared = (table["user_type"].to_numpy(str) == "Shared").astype(np.float64)
    gap = np.minimum(since, LONGEST)
    now = np.stack([gap, np.isinf(since).astype(np.float64), shared], axis=1)
    own = np.stack(
        [table["energy_kwh"].to_numpy(np.float64), table["duration_h"].to_numpy(np.float64), gap], axis=1
    )
    past = [_earlier(client, begin, end, own, lag) for lag in range(1, previous + 1)]
    return np.concatenate([*clock, now, *past], axis=1)


def _circle(value: npt.ArrayLike, period: float) -> Array:
    angle = 2 * np.pi * np.asarray(value, np.float64) / period
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _since_plugout(client: np.ndarray, begin: Array, end: Array) -> Array:
    """Return hours since the latest plug-out among the client's earlier sessions that had ended; inf if none."""
    since = np.full(len(begin), np.inf)
    for number in np.unique(client):
        rows = np.flatnonzero(client == number)
        waiting, latest = list[float](), -np.inf
        for row in rows:
            over = [stop for stop in waiting if stop <= begin[row]]
            waiting = [stop for stop in waiting if stop > begin[row]]
            latest = max([latest, *over])
            since[row] = begin[row] - latest
            waiting.append(end[row])
    return since


def _earlier(client: np.ndarray, begin: Array, end: Array, own: Array, lag: int) -> Array:
    """Return energy, duration, gap and missing of the client's session ``lag`` before, ``(sessions, 4)``."""
    before = np.arange(len(client)) - lag
    row = before.clip(0)
    seen = (before >= 0) & (client[row] == client) & (end[row] <= begin) & ~np.isnan(own[row]).any(axis=1)
    return np.concatenate([np.where(seen[:, None], own[row], 0), ~seen[:, None]], axis=1)
