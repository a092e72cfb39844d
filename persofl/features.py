"""What clients are compared by: features of their training spans, some of them as the current global model sees them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .data import facts_of
from .embedding import joined, watch_head
from .errors import PersoflError
from .losses import Loss
from .oracles import Oracle

_NUMBERS_AT_ONCE = 2**21
"""Numbers in the inputs that the global model reads at once."""


# --- of the data alone -------------------------------------------------------------------------------------


def own_features(data: Any) -> list[Tensor]:
    """What the data themselves compare clients by; daily profiles where they do not say."""
    own = getattr(data, "features", None) or data.profiles
    return [own(client) for client in range(len(data))]


def daily_profiles(data: Any) -> list[Tensor]:
    """Each client's complete training days, scaled, ``(days, steps per day)``.

    Raises:
        PersoflError: the data have no days.
    """
    _refuse_without_days(data, "profiles")
    return [data.profiles(client) for client in range(len(data))]


def conditional_profiles(data: Any) -> list[Tensor]:
    """Each client's training days without what the calendar explains, ``(days, steps per day)``.

    A day loses the population's mean for its weekday, so that two clients do not differ by the weekdays that they were
    observed on. The means are built from sums: a client sends the sum and the number of its days for each weekday, and
    gets back the population's, the same for all; on a weekday that nobody was observed on nothing is taken off.

    Raises:
        PersoflError: the data have no days.
    """
    _refuse_without_days(data, "conditional")
    days = [data.profiles(client) for client in range(len(data))]
    weekdays = [weekdays_of(data, client) for client in range(len(data))]
    total = days[0].new_zeros(7, days[0].shape[1], dtype=torch.float64)
    count = total.new_zeros(7, 1)
    for own, on in zip(days, weekdays, strict=True):
        total.index_add_(0, on, own.double())
        count.index_add_(0, on, count.new_ones(len(on), 1))
    mean = (total / count.clamp_min(1)).to(days[0].dtype)
    return [own - mean[on] for own, on in zip(days, weekdays, strict=True)]


def weekdays_of(data: Any, client: int) -> Tensor:
    """Weekday of each of a client's daily profiles in the clock of its stamps, 0 for Monday, ``(days,)`` int64."""
    series, ranks = data.series, torch.arange(int(data.days.count()[client]))
    first = data.days.positions(torch.tensor([client]), ranks[None])[0] - series.offsets[client]
    seconds = np.rint(first.numpy() * series.step_seconds).astype("timedelta64[s]")
    day = (series.starts[client] + seconds).astype("datetime64[D]").astype(np.int64)
    return torch.from_numpy((day + 3) % 7)  # day 0 was a Thursday


def _refuse_without_days(data: Any, features: str) -> None:
    if not hasattr(data, "profiles"):
        raise PersoflError(
            f"features={features!r} needs a load series, and these data have no days. Use 'auto'."
        )


def training_windows(data: Any) -> list[Tensor]:
    """Each client's training inputs and targets side by side; of windows about one per horizon.

    Raises:
        PersoflError: the targets are classes.
    """
    if facts_of(data).classes:
        raise PersoflError("features='windows' puts classes beside inputs. Use 'inputs', 'labels' or 'auto'.")
    return [torch.cat([x.flatten(1), y], 1) for x, y in _training_examples(data, _apart(data))]


def input_moments(data: Any) -> list[Tensor]:
    """Mean and standard deviation over the steps of every channel of each training input, ``(n, 2 * channels)``.

    Of inputs of one step, which have no spread, the values themselves, ``(n, channels)``.
    """
    return [_moments(x) for x, _ in _training_examples(data)]


def _moments(x: Tensor) -> Tensor:
    mean = x.mean(1)
    return mean if x.shape[1] == 1 else torch.cat([mean, x.std(1, correction=0)], 1)


def training_targets(data: Any) -> list[Tensor]:
    """Training targets: classes as ``(n, classes)`` of zeros and ones, floats as they are, ``(n, horizon)``."""
    classes = len(facts_of(data).classes)
    return [_as_floats(y, classes) for _, y in _training_examples(data)]


def _as_floats(y: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(y[:, 0], classes).float() if classes else y


def _apart(data: Any) -> int:
    """Windows from one to the next that shares no target with it; 1 of examples that are no windows."""
    spec: Any = getattr(data, "spec", None)
    return max(1, spec.horizon // spec.train_stride) if hasattr(spec, "horizon") else 1


def _ranks(count: int, stride: int) -> Tensor:
    return torch.arange(0, count, stride).unsqueeze(0)


def _training_examples(data: Any, stride: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """Every ``stride``-th training example, client by client."""
    for client, count in enumerate(data.count("train").tolist()):
        x, y = data.gather(data.positions("train", torch.tensor([client]), _ranks(count, stride))[0])
        yield x.cpu(), y.cpu()


FEATURES: dict[str, Callable[[Any], list[Tensor]]] = {
    "auto": own_features,
    "profiles": daily_profiles,
    "conditional": conditional_profiles,
    "windows": training_windows,
    "inputs": input_moments,
    "labels": training_targets,
}


# --- as the current global model sees them -----------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """The global model at one moment.

    Attributes:
        module: a plain module in evaluation mode.
        loss: says what of its output is the point forecast.
    """

    module: nn.Module
    loss: Loss

    @staticmethod
    def of(oracle: Oracle, row: Tensor) -> Snapshot:
        """The model whose weights are ``row`` ``(parameters,)``."""
        module = copy.deepcopy(oracle.module)  # where the rows are
        return Snapshot(oracle.layout.load(module, row).eval(), oracle.loss)


def residuals(data: Any, model: Snapshot) -> list[Tensor]:
    """Errors of the global model on each client's training examples, target minus forecast, ``(n, horizon)``.

    Of classes, zeros and a one minus the probabilities, ``(n, classes)``. Of windows, about one per horizon.
    """
    classes = len(facts_of(data).classes)

    def errors(x: Tensor, y: Tensor) -> Tensor:
        output = model.module(x)
        point = output[:, 0].softmax(-1) if classes else model.loss.point(output)
        return _as_floats(y, classes) - point

    return _over_training(data, errors)


def embeddings(data: Any, model: Snapshot) -> list[Tensor]:
    """What reaches the global model's last layer, its ``head``, of each client's training examples, ``(n, width)``.

    Of windows, about one per horizon.

    Raises:
        PersoflError: the model has no layer of that name.
    """

    def read(x: Tensor, _: Tensor) -> Tensor:
        with watch_head(model.module) as seen:
            model.module(x)
        return joined(seen)

    return _over_training(data, read)


def _over_training(data: Any, read: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """Read all clients' training examples in blocks of even size, where they are, and part them by client on the host."""
    stride, counts = _apart(data), data.count("train").tolist()
    # Two examples at least, where a client has them: one makes no distribution.
    ranks = [_ranks(count, max(1, min(stride, count - 1))) for count in counts]
    rows = [data.positions("train", torch.tensor([client]), own)[0] for client, own in enumerate(ranks)]
    lookback, _, channels = facts_of(data).shape
    at_once = max(1, _NUMBERS_AT_ONCE // (lookback * channels))
    with torch.no_grad():
        parts = [read(*data.gather(block)) for block in torch.cat(rows).split(at_once)]
    return list(torch.cat(parts).cpu().split([len(own) for own in rows]))


MODEL_FEATURES: dict[str, Callable[[Any, Snapshot], list[Tensor]]] = {
    "residuals": residuals,
    "embeddings": embeddings,
}
