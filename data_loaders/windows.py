"""Forecast windows gathered from the flat buffer when a batch is drawn, never materialised."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import DataError
from .runs import Runs, fill_gaps, join_runs
from .series import ClientSeries, Dropped, count_reasons, offsets_of
from .spec import SPANS, Span, WindowSpec
from .survey import day_steps, survey_client

__all__ = ["SPANS", "ForecastWindows", "Span", "WindowSpec", "make_windows"]

_NAMED_CLIENTS = 5  # an error names this many clients and counts the rest


@dataclass(frozen=True, eq=False)
class ForecastWindows:
    """The windows of a population; immutable, built by :func:`make_windows`.

    Args:
        series: values scaled per client, ``(x - mean) / std`` of the training span, short gaps filled.
        spec: how the windows were cut.
        mean: ``(clients, channels)`` of observed training values, original unit.
        std: ``(clients, channels)``, > 0 always: 1 for a constant channel.
        naive_error: ``(clients,)`` training MAE of the forecast "as a day ago" in the original unit,
            MASE's scale; NaN where no pair was observed or the error is zero.
        runs: the valid windows of each span.
        days: the complete observed days of the training span.
    """

    series: ClientSeries
    spec: WindowSpec
    mean: Tensor
    std: Tensor
    naive_error: Tensor
    runs: Mapping[Span, Runs]
    days: Runs

    def __len__(self) -> int:
        return len(self.series)

    def count(self, span: Span) -> Tensor:
        """Return the windows of each client in the span, ``(clients,)`` int64."""
        return self.runs[span].count()

    def positions(self, span: Span, clients: Tensor, ranks: Tensor) -> Tensor:
        """Return the rows where windows start.

        Args:
            span: ``"train"``, ``"validation"`` or ``"test"``.
            clients: ``(c,)`` int64.
            ranks: ``(c, n)`` int64, window ``0 .. count(span)[client] - 1`` of each client, in time order.

        Returns:
            ``(c, n)`` int64 rows for :meth:`gather`.

        Raises:
            DataError: a rank its client does not have.
        """
        return self.runs[span].positions(clients, ranks)

    def gather(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled inputs ``(..., lookback, channels)``, targets ``(..., horizon)`` of rows ``(...)``.

        Both are views of one copied block; call ``contiguous()`` where a kernel needs it.
        """
        block = _rows(self.series.values, positions, self.spec.width)
        return block[..., : self.spec.lookback, :], block[..., self.spec.lookback :, 0]

    def profiles(self, client: int) -> Tensor:
        """Return a client's complete observed training days, scaled, ``(days, steps per day)`` from midnight.

        Raises:
            DataError: the step does not divide a day.
        """
        if self.days.stride == 0:
            raise DataError(
                f"Profiles need a step that divides a day; source {self.series.name!r} has steps of "
                f"{self.series.step_seconds} s. Resample the series."
            )
        ranks = torch.arange(int(self.days.count()[client]), device=self.days.base.device)
        first = self.days.positions(torch.tensor([client], device=ranks.device), ranks[None])[0]
        return _rows(self.series.values, first, self.days.stride)[..., 0]

    def unscale(self, clients: Tensor, y: Tensor) -> Tensor:
        """Return scaled targets ``(c, ...)`` of ``clients`` ``(c,)`` in the original unit."""
        shape = (-1,) + (1,) * (y.dim() - 1)
        return y * self.std[clients, 0].view(shape) + self.mean[clients, 0].view(shape)

    def to(self, device: torch.device | str) -> "ForecastWindows":
        """Return the same windows with buffer, scales and runs on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("mean", "std", "naive_error", "days")}
        series = replace(self.series, values=self.series.values.to(device))
        return replace(
            self, series=series, runs={span: runs.to(device) for span, runs in self.runs.items()}, **moved
        )


def make_windows(series: ClientSeries, spec: WindowSpec) -> ForecastWindows:
    """Scale every client by its training span, fill short gaps, and find the valid windows of each span.

    Memory: one scaled copy of the buffer; everything else is small.

    Args:
        series: in the original unit; left as it is.
        spec: lengths, spans, strides, and what to do with clients that are too short.

    Raises:
        DataError: a client with too few windows (``on_short="error"``), no client left, or infinite values.
    """
    surveys = [survey_client(series, client, spec) for client in range(len(series))]
    kept = [index for index, survey in enumerate(surveys) if survey.few is None]
    dropped = tuple(Dropped(series.clients[i], survey.few) for i, survey in enumerate(surveys) if survey.few)
    _complain(series, spec, dropped, kept)
    chosen = [surveys[index] for index in kept]
    mean, std = (np.stack([getattr(survey, name) for survey in chosen]) for name in ("mean", "std"))
    scaled = _scaled(series, kept, mean, std, spec.max_gap)
    scaled = replace(scaled, dropped=series.dropped + dropped)
    day = day_steps(series)
    return ForecastWindows(
        series=scaled,
        spec=spec,
        mean=torch.from_numpy(mean.astype(np.float32)),
        std=torch.from_numpy(std.astype(np.float32)),
        naive_error=torch.tensor([survey.naive_error for survey in chosen], dtype=torch.float32),
        runs={
            s: join_runs([survey.runs[s] for survey in chosen], scaled.offsets, spec.stride(s)) for s in SPANS
        },
        days=join_runs([survey.days for survey in chosen], scaled.offsets, day),
    )


def _scaled(
    series: ClientSeries,
    kept: list[int],
    mean: npt.NDArray[np.float64],
    std: npt.NDArray[np.float64],
    max_gap: int,
) -> ClientSeries:
    """Return the kept clients, filled and scaled one by one so that no second buffer arises."""
    offsets = offsets_of([int(series.lengths[client]) for client in kept])
    values = torch.empty((int(offsets[-1]), series.channels), dtype=torch.float32)
    target = values.numpy()
    for place, client in enumerate(kept):
        filled = fill_gaps(series.of(client).numpy(), max_gap)
        target[int(offsets[place]) : int(offsets[place + 1])] = (filled - mean[place]) / std[place]
    return replace(
        series,
        values=values,
        offsets=offsets,
        clients=tuple(series.clients[client] for client in kept),
        attributes=series.attributes.iloc[kept],
        starts=series.starts[kept],
    )


def _rows(values: Tensor, positions: Tensor, width: int) -> Tensor:
    """Return ``(..., width, channels)``, the ``width`` rows from each position on.

    One ``index_select`` on a strided view in which row ``i`` is the whole window that starts at ``i``.
    """
    rows, channels = values.shape
    overlapping = values.as_strided((max(0, rows - width + 1), width * channels), (channels, 1))
    return overlapping.index_select(0, positions.reshape(-1)).view(*positions.shape, width, channels)


def _complain(series: ClientSeries, spec: WindowSpec, dropped: tuple[Dropped, ...], kept: list[int]) -> None:
    """Raise when a client is too short and may not be dropped, or when nobody is left."""
    if dropped and spec.on_short == "error":
        seen = dropped[:_NAMED_CLIENTS]
        more = f" So have {len(dropped) - len(seen)} more clients." if len(dropped) > len(seen) else ""
        raise DataError(
            " ".join(f"Client {item.client!r} has {item.reason}." for item in seen) + more + _remedy(spec)
        )
    if not kept:
        everyone = series.dropped + dropped
        counted = f": {count_reasons(everyone)}" if everyone else ""
        first = f" (first: {everyone[0].client!r}, {everyone[0].reason})" if everyone else ""
        raise DataError(f"No client of source {series.name!r} is left{counted}{first}.{_remedy(spec)}")


def _remedy(spec: WindowSpec) -> str:
    return (
        f" lookback={spec.lookback} and horizon={spec.horizon} need {spec.width} steps in the training span "
        f"and {spec.horizon} target steps in each other span, without gaps beyond max_gap={spec.max_gap}. "
        + ("Drop such clients with on_short='drop', or shorten lookback." if spec.on_short == "error" else "")
        + ("Shorten lookback or horizon, or use longer series." if spec.on_short == "drop" else "")
    )
