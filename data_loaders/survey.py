"""What one client contributes to a population of windows: its scale, its runs, its days."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import DataError
from .runs import Booleans, Floats, Ints, all_clear, fill_gaps, find_runs, run_edges, uncut
from .series import ClientSeries
from .spec import SPANS, Span, WindowSpec

DAY_SECONDS = 86400
_SEASON_SECONDS = (
    60  # steps below a minute are signals of machines, whose last value says more than yesterday's
)


@dataclass(frozen=True, eq=False)
class Survey:
    """What one client contributes; ``few`` says why it cannot, ``zeros`` which share of its training readings is 0."""

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    naive_error: float
    runs: Mapping[Span, tuple[Ints, Ints]]
    days: tuple[Ints, Ints]
    few: str | None
    zeros: float


def survey_client(series: ClientSeries, client: int, spec: WindowSpec) -> Survey:
    """Return one client's scale, runs and days, and why it is too short if it is.

    Raises:
        DataError: infinite values.
    """
    values: Floats = series.of(client).numpy()
    breaks: Ints = series.breaks_of(client).numpy()
    _refuse_infinite(values, series, client)
    training = values[: spec.bounds(len(values))["train"][1]]
    mean, std = _moments(training)
    runs = _client_runs(values, spec, breaks, channels_ahead(series))
    few = {span: int(count.sum()) for span, (_, count) in runs.items() if count.sum() < spec.min_windows}
    reason = f"too few windows: {len(values)} steps give {_listed(few)}, min_windows={spec.min_windows}"
    return Survey(
        mean=mean,
        std=std,
        naive_error=_naive_error(training[:, 0], season_steps(series), breaks[breaks < len(training)]),
        runs=runs,
        days=_client_days(training[: breaks[0] if len(breaks) else None, 0], series, client),
        few=reason if few else None,
        zeros=float((training[:, 0] == 0).sum() / max(1, (~np.isnan(training[:, 0])).sum())),
    )


def channels_ahead(series: ClientSeries) -> Booleans:
    """Return which channels are known in advance, ``(channels,)``."""
    names = series.channel_names or ("",) * series.channels
    return np.array([name in series.known for name in names], np.bool_)


def _refuse_infinite(values: Floats, series: ClientSeries, client: int) -> None:
    infinite = np.isinf(values)
    if infinite.any():
        row = int(infinite.any(axis=1).argmax())
        stamp = series.starts[client] + np.timedelta64(round(row * series.step_seconds * 1e6), "us")
        within = not bool((series.breaks_of(client) <= row).any())
        raise DataError(
            f"Client {series.clients[client]!r} has infinite values, the first at step {row}"
            f"{f' ({stamp})' if within else ''}. Mark missing readings as NaN."
        )


def _client_runs(
    values: Floats, spec: WindowSpec, breaks: Ints, ahead: Booleans
) -> dict[Span, tuple[Ints, Ints]]:
    """Return the runs of valid windows in each span, rows counted from the client's start."""
    starts = max(0, len(values) - spec.width + 1)
    filled = fill_gaps(values, spec.max_gap, breaks)
    # with no channel known in advance this copies nothing
    inputs = all_clear(_any_missing(filled[:, ~ahead] if ahead.any() else filled), spec.lookback)
    targets = all_clear(np.isnan(values[:, 0]), spec.horizon)[spec.lookback :]
    valid = inputs[:starts] & targets[:starts]
    if ahead.any():  # what a window sees of these lies a horizon later
        valid &= all_clear(_any_missing(filled[:, ahead]), spec.lookback)[spec.horizon :][:starts]
    if len(breaks):
        valid &= uncut(starts, spec.width, breaks)
    bounds = spec.bounds(len(values))
    # only a training window's inputs have to stay in the span: the past is known when one forecasts
    lows = {span: 0 if span == "train" else max(0, bounds[span][0] - spec.lookback) for span in SPANS}
    return {s: find_runs(valid, lows[s], bounds[s][1] - spec.width + 1, spec.stride(s)) for s in SPANS}


def _client_days(target: Floats, series: ClientSeries, client: int) -> tuple[Ints, Ints]:
    """Return the runs of complete observed days from the first midnight on; none if steps split a day.

    Args:
        target: ``(steps,)`` of the client's first run, the only one whose midnights are known.
        series: for stamps.
        client: its number.
    """
    day = day_steps(series)
    if day == 0:
        return find_runs(np.zeros(0, np.bool_), 0, 0, 1)
    since_midnight = int(series.starts[client].astype("datetime64[s]").astype(np.int64)) % DAY_SECONDS
    first = int(np.ceil((-since_midnight % DAY_SECONDS) / series.step_seconds - 1e-9))
    return find_runs(all_clear(np.isnan(target), day), first, len(target) - day + 1, day)


def _any_missing(values: Floats) -> Booleans:
    """Return the rows with a missing channel, ``(rows,)``."""
    return np.asarray(np.isnan(values).any(axis=1), dtype=np.bool_)


def _moments(training: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and guarded standard deviation of each channel's observed values, ``(channels,)``."""
    observed = ~np.isnan(training)
    count = np.maximum(observed.sum(axis=0), 1)
    mean = np.where(observed, training, 0).sum(axis=0, dtype=np.float64) / count
    std = np.sqrt((np.where(observed, training - mean, 0) ** 2).sum(axis=0) / count)
    # a spread below float32's resolution of the mean is a constant channel
    return mean, np.where(std > 1e-6 * np.abs(mean) + 1e-12, std, 1.0)


def _naive_error(target: Floats, lag: int, breaks: Ints) -> float:
    """Return the MAE of the forecast "as ``lag`` steps ago" over observed pairs; NaN if none, or if 0."""
    errors = np.abs(target[lag:].astype(np.float64) - target[:-lag])
    if len(breaks):
        first, _ = run_edges(len(target), breaks)
        errors = errors[(np.arange(len(target)) - lag >= first)[lag:]]
    errors = errors[~np.isnan(errors)]
    return float(errors.mean()) if errors.any() else float("nan")


def day_steps(series: ClientSeries) -> int:
    """Return the steps of a day, 0 when they do not divide it; 864,000 at 10 Hz."""
    steps = round(DAY_SECONDS / series.step_seconds)
    return steps if abs(steps * series.step_seconds - DAY_SECONDS) < 1e-6 else 0


def season_steps(series: ClientSeries) -> int:
    """Return the lag of the naive forecast: a day, or the last value where steps do not divide a day or are short."""
    return (day_steps(series) if series.step_seconds >= _SEASON_SECONDS else 0) or 1


def _listed(counts: Mapping[Span, int]) -> str:
    return ", ".join(f"{count} in {span}" for span, count in counts.items())
