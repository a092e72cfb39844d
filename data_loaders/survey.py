"""What one client contributes to a population of windows: its scale, its runs, its days."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import DataError
from .runs import Booleans, Floats, Ints, all_clear, fill_gaps, find_runs
from .series import ClientSeries
from .spec import SPANS, Span, WindowSpec

DAY_SECONDS = 86400


@dataclass(frozen=True, eq=False)
class Survey:
    """What one client contributes; ``few`` says why it cannot."""

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    naive_error: float
    runs: Mapping[Span, tuple[Ints, Ints]]
    days: tuple[Ints, Ints]
    few: str | None


def survey_client(series: ClientSeries, client: int, spec: WindowSpec) -> Survey:
    """Return one client's scale, runs and days, and why it is too short if it is.

    Raises:
        DataError: infinite values.
    """
    values: Floats = series.of(client).numpy()
    if np.isinf(values).any():
        raise DataError(
            f"Client {series.clients[client]!r} has infinite values. Mark missing readings as NaN."
        )
    training = values[: spec.bounds(len(values))["train"][1]]
    mean, std = _moments(training)
    runs = _client_runs(values, spec)
    few = {span: int(count.sum()) for span, (_, count) in runs.items() if count.sum() < spec.min_windows}
    reason = f"too few windows: {len(values)} steps give {_listed(few)}, min_windows={spec.min_windows}"
    return Survey(
        mean=mean,
        std=std,
        naive_error=_naive_error(training[:, 0], day_steps(series) or 1),
        runs=runs,
        days=_client_days(training[:, 0], series, client),
        few=reason if few else None,
    )


def _client_runs(values: Floats, spec: WindowSpec) -> dict[Span, tuple[Ints, Ints]]:
    """Return the runs of valid windows in each span, rows counted from the client's start."""
    starts = max(0, len(values) - spec.width + 1)
    inputs = all_clear(_any_missing(fill_gaps(values, spec.max_gap)), spec.lookback)
    targets = all_clear(np.isnan(values[:, 0]), spec.horizon)[spec.lookback :]
    valid = inputs[:starts] & targets[:starts]
    bounds = spec.bounds(len(values))
    # only a training window's inputs have to stay in the span: the past is known when one forecasts
    lows = {span: 0 if span == "train" else max(0, bounds[span][0] - spec.lookback) for span in SPANS}
    return {s: find_runs(valid, lows[s], bounds[s][1] - spec.width + 1, spec.stride(s)) for s in SPANS}


def _client_days(target: Floats, series: ClientSeries, client: int) -> tuple[Ints, Ints]:
    """Return the runs of complete observed days from the first midnight on; none if steps split a day."""
    day = day_steps(series)
    if day == 0:
        return find_runs(np.zeros(0, np.bool_), 0, 0, 1)
    since_midnight = int(series.starts[client].astype("datetime64[s]").astype(np.int64)) % DAY_SECONDS
    first = -(-(-since_midnight % DAY_SECONDS) // int(series.step_seconds))
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


def _naive_error(target: Floats, lag: int) -> float:
    """Return the MAE of the forecast "as ``lag`` steps ago" over observed pairs; NaN if none, or if 0."""
    errors = np.abs(target[lag:].astype(np.float64) - target[:-lag])
    errors = errors[~np.isnan(errors)]
    return float(errors.mean()) if errors.any() else float("nan")


def day_steps(series: ClientSeries) -> int:
    """Return the steps of a day, 0 when they do not divide it."""
    return 0 if DAY_SECONDS % series.step_seconds else int(DAY_SECONDS // series.step_seconds)


def _listed(counts: Mapping[Span, int]) -> str:
    return ", ".join(f"{count} in {span}" for span, count in counts.items())
