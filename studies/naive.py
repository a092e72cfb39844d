"""Predictions without training, which a method must beat: yesterday's load, the commonest class, the mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from data_loaders import ForecastWindows
    from persofl.data import ClientData
    from persofl.losses import Loss
    from persofl.metrics import ErrorSums
    from persofl.tasks import Task

DAY = 86_400


def naive_scores(data: ClientData) -> dict[str, pd.DataFrame]:
    """Per-client scores on the test span of predictions without training.

    Returns:
        Name -> index client, columns the task's metrics. Forecasts: ``"lag-24"``, ``"lag-168"`` (a day and a week in
        steps of the series) as far as they fit into the lookback, and ``"persistence"``, the last value, where neither
        does. Classes: ``"majority"``, the client's commonest in training, with the classes' shares (one added to each
        count) as probabilities. Other numbers: ``"mean"`` of the client's training targets.
    """
    from persofl.losses import CrossEntropy, SquaredError
    from persofl.tasks import task_of

    task = task_of(data)
    if task.name == "forecast":
        return _lags(data, task)  # type: ignore[arg-type]
    targets = list(_training_targets(data))
    if task.name == "classify":
        classes = len(data.classes)
        return {
            "majority": _constant(data, task, CrossEntropy(classes), class_shares(targets, classes).log())
        }
    return {"mean": _constant(data, task, SquaredError(), _means(targets))}


def class_shares(targets: list[Tensor], classes: int) -> Tensor:
    """Shares of the classes among each client's targets, one added to each count, ``(clients, 1, classes)``."""
    import torch

    counts = torch.stack([torch.bincount(own.flatten(), minlength=classes) for own in targets]) + 1.0
    return (counts / counts.sum(1, keepdim=True)).unsqueeze(1)


def lag_places(lag: int, horizon: int) -> Tensor:
    """Where the forecast of each step repeats, in steps from the first one forecast; shape ``(horizon,)``, below 0."""
    import torch

    return torch.arange(horizon) % lag - lag


def _means(targets: list[Tensor]) -> Tensor:
    import torch

    return torch.stack([own.mean(0) for own in targets])


def _training_targets(data: ClientData) -> Any:
    """Targets of each client's training examples, ``(n, horizon)``."""
    import torch

    for client, count in enumerate(data.count("train").tolist()):
        ranks = torch.arange(count).unsqueeze(0)
        yield data.gather(data.positions("train", torch.tensor([client]), ranks)[0])[1]


def _constant(data: ClientData, task: Task, loss: Loss, outputs: Tensor) -> pd.DataFrame:
    """Scores of one output for all of a client's examples, ``outputs`` ``(clients, horizon[, classes])``."""
    import torch

    from persofl.evaluation import Judge

    def repeat(places: Tensor, x: Tensor) -> Tensor:
        own = outputs[places].unsqueeze(1)
        return own.expand(-1, x.shape[1], *own.shape[2:])

    return _table(data, task, Judge(data, task, loss, "test")(torch.arange(len(data)), repeat))


def _lags(windows: ForecastWindows, task: Task) -> dict[str, pd.DataFrame]:
    steps = int(DAY // windows.series.step_seconds)
    lags = {f"lag-{lag}": lag for lag in (steps, 7 * steps) if 0 < lag <= windows.spec.lookback}
    return {name: _lag_scores(windows, task, lag) for name, lag in (lags or {"persistence": 1}).items()}


def _lag_scores(windows: ForecastWindows, task: Task, lag: int) -> pd.DataFrame:
    import torch

    clients = [torch.tensor([k]) for k in range(len(windows))]
    sums = [_sums(windows, k, lag) for k in clients]
    return _table(windows, task, task.together(clients, sums, len(clients)))


def _table(data: ClientData, task: Task, sums: Any) -> pd.DataFrame:
    import pandas as pd

    from persofl.tasks import unknown_naive_error

    metrics = task.metrics_of(sums, unknown_naive_error(data))
    index = pd.Index(data.clients, name="client")
    return pd.DataFrame({name: metrics[name].numpy() for name in task.metrics}, index=index)


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
