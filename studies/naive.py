"""Forecasts without training, which a method must beat: the same hour yesterday, the same hour last week."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from data_loaders import ForecastWindows
    from persofl.metrics import ErrorSums

DAY = 86_400


def naive_scores(windows: ForecastWindows) -> dict[str, pd.DataFrame]:
    """Per-client scores on the test span of the daily and weekly lags that fit into the lookback.

    Returns:
        ``"lag-24"``, ``"lag-168"`` (steps of the series) -> index client, columns ``nmae, mae, rmse, mase``.
    """
    steps = int(DAY // windows.series.step_seconds)
    lags = [lag for lag in (steps, 7 * steps) if 0 < lag <= windows.spec.lookback]
    return {f"lag-{lag}": _scores(windows, lag) for lag in lags}


def lag_places(lag: int, horizon: int) -> Tensor:
    """Where the forecast of each step repeats, in steps from the first one forecast; shape ``(horizon,)``, below 0."""
    import torch

    return torch.arange(horizon) % lag - lag


def _scores(windows: ForecastWindows, lag: int) -> pd.DataFrame:
    import pandas as pd
    import torch

    from persofl.metrics import PER_CLIENT, ErrorSums, client_metrics

    clients = [torch.tensor([k]) for k in range(len(windows.series))]
    sums = ErrorSums.scatter(clients, [_sums(windows, k, lag) for k in clients], len(clients))
    metrics = client_metrics(sums, windows.naive_error)
    names = pd.Index(windows.series.clients, name="client")
    return pd.DataFrame({name: metrics[name].numpy() for name in PER_CLIENT}, index=names)


def _sums(windows: ForecastWindows, client: Tensor, lag: int) -> ErrorSums:
    """Reads the buffer itself: gathering whole lookbacks to use one day of each took ten times as long."""
    import torch

    from persofl.metrics import ErrorSums

    spec, target = windows.spec, windows.series.values[:, 0]
    ranks = torch.arange(int(windows.count("test")[client])).unsqueeze(0)
    first = windows.positions("test", client, ranks).unsqueeze(-1) + spec.lookback
    forecast = windows.unscale(client, target[first + lag_places(lag, spec.horizon)])
    truth = windows.unscale(client, target[first + torch.arange(spec.horizon)])
    return ErrorSums.of(forecast, truth, torch.zeros(ranks.shape), torch.ones(ranks.shape, dtype=torch.bool))
