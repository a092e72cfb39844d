"""Series at longer steps: sums, means or last values of whole groups of steps."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from .errors import raise_if_any
from .runs import Floats
from .series import ClientSeries, Dropped, offsets_of

Reduction = Literal["sum", "mean", "last"]
_HOWS = ("sum", "mean", "last")


def resample_series(
    series: ClientSeries,
    step_seconds: float,
    how: Reduction | Sequence[Reduction] = "mean",
    *,
    min_share: float = 1.0,
) -> ClientSeries:
    """Return a series at a longer step; energy per step wants ``"sum"``, power and speed ``"mean"``.

    Groups begin at multiples of ``step_seconds`` since 1970 UTC, in a client's later runs with the run. Incomplete groups
    at either end of a run are left out (of a first run without a complete one, one missing step stays), and clients
    without a complete one dropped. The unit stays.

    Args:
        series: left as it is.
        step_seconds: a multiple of the series' own.
        how: of all channels, or one a channel: ``"sum"`` (missing where one is), ``"mean"`` of those observed, or the
            ``"last"`` observed.
        min_share: share of a group's steps that must be observed for a mean or a last value, else it is missing.

    Raises:
        DataError: a step that is no multiple, or options out of range.
    """
    size = round(step_seconds / series.step_seconds)
    hows = tuple([how] * series.channels if isinstance(how, str) else how)
    raise_if_any(_problems(series, step_seconds, size, hows, min_share))
    if size == 1:
        return series
    parts = [_runs_of(series, client, size, hows, min_share) for client in range(len(series))]
    lengths = [[len(run) for run in runs if len(run)] for runs, _ in parts]
    kept = [client for client, runs in enumerate(lengths) if runs]
    none = f"resampling: no {size} steps in a row make a whole step of {step_seconds:g} s"
    offsets = offsets_of([sum(lengths[client]) for client in kept])
    edges = [np.cumsum(lengths[client])[:-1] + int(offsets[place]) for place, client in enumerate(kept)]
    empty = np.zeros((0, series.channels), np.float32)
    return replace(
        series,
        values=torch.from_numpy(
            np.concatenate([empty, *(run for client in kept for run in parts[client][0])])
        ),
        offsets=offsets,
        clients=tuple(series.clients[client] for client in kept),
        attributes=series.attributes.iloc[kept],
        starts=np.array([parts[client][1] for client in kept], "datetime64[s]"),
        step_seconds=step_seconds,
        breaks=torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *edges])),
        rules=(*series.rules, _in_words(series, step_seconds, size, hows)),
        dropped=series.dropped
        + tuple(Dropped(series.clients[client], none) for client, runs in enumerate(lengths) if not runs),
    )


def _runs_of(
    series: ClientSeries, client: int, size: int, hows: Sequence[str], min_share: float
) -> tuple[list[Floats], np.datetime64]:
    """Return a client's reduced runs and the stamp of the first one that is left."""
    values: Floats = series.of(client).numpy()
    own, step = series.step_seconds, series.step_seconds * size
    since = int(series.starts[client].astype("datetime64[s]").astype(np.int64)) % step
    lead = int(np.ceil(((step - since) % step) / own - 1e-6)) % size
    first, *later = np.split(values, series.breaks_of(client).numpy())
    runs = [_reduced(run, size, hows, min_share) for run in (first[lead:], *later)]
    if not len(runs[0]) and any(len(run) for run in runs):
        # the only stamp is the first run's: it stays as one missing step, so that no later run takes that stamp
        runs[0] = np.full((1, series.channels), np.nan, np.float32)
    return runs, series.starts[client] + np.timedelta64(round(lead * own), "s")


def _reduced(run: Floats, size: int, hows: Sequence[str], min_share: float) -> Floats:
    """Return ``(rows // size, channels)``."""
    groups = run[: len(run) // size * size].reshape(-1, size, run.shape[1])
    result = np.empty((len(groups), run.shape[1]), np.float32)
    for channel, how in enumerate(hows):
        part: npt.NDArray[np.float64] = groups[:, :, channel].astype(np.float64)
        seen = ~np.isnan(part)
        count = seen.sum(axis=1)
        if how == "sum":
            result[:, channel] = part.sum(axis=1)
            continue
        if how == "mean":
            found = np.where(seen, part, 0).sum(axis=1) / np.where(count, count, np.nan)
        else:
            place = size - 1 - seen[:, ::-1].argmax(axis=1)
            found = part[np.arange(len(part)), place]
        result[:, channel] = np.where(count >= max(1, min_share * size - 1e-9), found, np.nan)
    return result


def _in_words(series: ClientSeries, step_seconds: float, size: int, hows: Sequence[str]) -> str:
    each = hows[0] if len(set(hows)) == 1 else ", ".join(hows)
    return f"{size} steps of {series.step_seconds:g} s make one of {step_seconds:g} s: {each}"


def _problems(
    series: ClientSeries, step_seconds: float, size: int, hows: Sequence[str], min_share: float
) -> list[str]:
    problems = []
    if size < 1 or abs(size * series.step_seconds - step_seconds) > 1e-6 * step_seconds:
        problems.append(
            f"step_seconds must be a multiple of the {series.step_seconds:g} s of source {series.name!r}, got "
            f"{step_seconds:g}. Series are made coarser, not finer."
        )
    if len(hows) != series.channels or not set(hows) <= set(_HOWS):
        problems.append(
            f"how must be one of {', '.join(_HOWS)}, or one for each channel, got {', '.join(hows)}."
        )
    if not 0 < min_share <= 1:
        problems.append(f"min_share must be a share above 0 and up to 1, got {min_share}.")
    return problems
