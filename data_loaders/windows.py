"""Forecast windows gathered from the flat buffer when a batch is drawn, never materialised."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import DataError
from .mapped import MappedFile
from .runs import Runs, fill_gaps, join_runs
from .series import ClientSeries, Dropped, count_reasons, offsets_of
from .spec import SPANS, Span, WindowSpec
from .survey import channels_ahead, day_steps, survey_client

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
            MASE's scale; "as the step before" where steps do not divide a day or are shorter than a minute.
            NaN where no pair was observed or the error is zero.
        runs: the valid windows of each span.
        days: the complete observed days of the training span, of a client's first run.
        ahead: ``(channels,)`` bool, the channels that are known in advance; None when there are none.
        idle: whether most training readings of most clients are zero, as a charger's are.
    """

    series: ClientSeries
    spec: WindowSpec
    mean: Tensor
    std: Tensor
    naive_error: Tensor
    runs: Mapping[Span, Runs]
    days: Runs
    ahead: Tensor | None = None
    idle: bool = False

    def __len__(self) -> int:
        return len(self.series)

    @property
    def clients(self) -> tuple[str, ...]:
        """Names of the clients that have windows."""
        return self.series.clients

    @property
    def task(self) -> Literal["forecast"]:
        """What is learnt."""
        return "forecast"

    @property
    def classes(self) -> tuple[str, ...]:
        """No classes: a forecast is a number."""
        return ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Lookback, horizon and channels."""
        return self.spec.lookback, self.spec.horizon, self.series.channels

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

        Row ``t`` of an input is the step ``position + t``; of a channel that is known in advance the step
        ``position + horizon + t``, so that its last ``horizon`` rows are the forecast hours' own. Both are views of one
        copied block; call ``contiguous()`` where a kernel needs it.
        """
        block = _rows(self.series.values, positions, self.spec.width)
        x, y = block[..., : self.spec.lookback, :], block[..., self.spec.lookback :, 0]
        return (
            x if self.ahead is None else torch.where(self.ahead, block[..., self.spec.horizon :, :], x)
        ), y

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

    def features(self, client: int) -> Tensor:
        """Return what distances compare: a client's training data, ``(n, F)``; F is the same for all.

        Daily profiles, see :meth:`profiles`, where the step divides a day and every client has two complete days; otherwise
        the inputs and targets of training windows side by side, about one every ``horizon`` steps, ``F = lookback *
        channels + horizon``. Windows are on the population's scale, since on its own no client lies far from the others.
        So are profiles of readings that are mostly zero: a client's own mean would move its zeros, and every idle hour
        of two clients of one habit would differ by the same amount.
        """
        if self.days.stride and bool((self.days.count() >= 2).all()):
            days = self.profiles(client)
            return self._common(client, days[..., None])[..., 0] if self.idle else days
        count = int(self.count("train")[client])
        every = max(1, min(self.spec.horizon // self.spec.train_stride, count - 1))
        ranks = torch.arange(0, count, every, device=self.days.base.device)
        positions = self.positions("train", torch.tensor([client], device=ranks.device), ranks[None])[0]
        x, y = self.gather(positions)
        return torch.cat([self._common(client, x).flatten(1), self._common(client, y[..., None])[..., 0]], 1)

    def _common(self, client: int, values: Tensor) -> Tensor:
        """Return scaled values ``(..., first channels)`` on the population's scale, to which clients count alike."""
        mean, std = self.mean[:, : values.shape[-1]], self.std[:, : values.shape[-1]]
        spread = (std.square().mean(0) + mean.var(0, correction=0)).sqrt()
        return (values * std[client] + (mean[client] - mean.mean(0))) / spread

    def unscale(self, clients: Tensor, y: Tensor) -> Tensor:
        """Return scaled targets ``(c, ...)`` of ``clients`` ``(c,)`` in the original unit."""
        shape = (-1,) + (1,) * (y.dim() - 1)
        return y * self.std[clients, 0].view(shape) + self.mean[clients, 0].view(shape)

    def to(self, device: torch.device | str) -> "ForecastWindows":
        """Return the same windows with buffer, scales and runs on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("mean", "std", "naive_error", "days")}
        moved["ahead"] = None if self.ahead is None else self.ahead.to(device)
        series = replace(self.series, values=self.series.values.to(device))
        return replace(
            self, series=series, runs={span: runs.to(device) for span, runs in self.runs.items()}, **moved
        )


def make_windows(
    series: ClientSeries, spec: WindowSpec, folder: str | PathLike[str] | None = None
) -> ForecastWindows:
    """Scale every client by its training span, fill short gaps, and find the valid windows of each span.

    Memory: one scaled copy of the buffer; everything else is small. With a folder the copy lies in its file
    ``scaled.f32``, mapped into memory where it is read.

    Args:
        series: in the original unit; left as it is.
        spec: lengths, spans, strides, and what to do with clients that are too short.
        folder: for populations larger than memory, see :func:`data_loaders.map_series`.

    Raises:
        DataError: a client with too few windows (``on_short="error"``), no client left, or infinite values.
        OSError: the folder's file cannot be written; an earlier one is as it was.

    No window crosses a break of the series, and channels that are ``known`` must be observed where a window sees them,
    ``horizon`` steps ahead.
    """
    surveys = [survey_client(series, client, spec) for client in range(len(series))]
    kept = [index for index, survey in enumerate(surveys) if survey.few is None]
    dropped = tuple(Dropped(series.clients[i], survey.few) for i, survey in enumerate(surveys) if survey.few)
    _complain(series, spec, dropped, kept)
    chosen = [surveys[index] for index in kept]
    mean, std = (np.stack([getattr(survey, name) for survey in chosen]) for name in ("mean", "std"))
    scaled = series.select_as(kept, _scaled(series, kept, (mean, std), spec.max_gap, folder))
    scaled = replace(scaled, dropped=series.dropped + dropped)
    ahead = torch.from_numpy(channels_ahead(series))
    return ForecastWindows(
        series=scaled,
        spec=spec,
        mean=torch.from_numpy(mean.astype(np.float32)),
        std=torch.from_numpy(std.astype(np.float32)),
        naive_error=torch.tensor([survey.naive_error for survey in chosen], dtype=torch.float32),
        runs={
            s: join_runs([survey.runs[s] for survey in chosen], scaled.offsets, spec.stride(s)) for s in SPANS
        },
        days=join_runs([survey.days for survey in chosen], scaled.offsets, day_steps(series)),
        ahead=ahead if bool(ahead.any()) else None,
        idle=float(np.median([survey.zeros for survey in chosen])) > 0.5,
    )


def _scaled(
    series: ClientSeries,
    kept: list[int],
    moments: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    max_gap: int,
    folder: str | PathLike[str] | None,
) -> Tensor:
    """Return the kept clients' values, filled and scaled one by one so that no second buffer arises."""

    def parts() -> Iterator[npt.NDArray[np.float32]]:
        for client, mean, std in zip(kept, *moments, strict=True):
            filled = fill_gaps(series.of(client).numpy(), max_gap, series.breaks_of(client).numpy())
            yield ((filled - mean) / std).astype(np.float32)

    if folder is not None:
        with MappedFile(folder, "scaled.f32") as file:
            for part in parts():
                file.append(part)
            return file.finish(series.channels)
    offsets = offsets_of([int(series.lengths[client]) for client in kept])
    values = torch.empty((int(offsets[-1]), series.channels), dtype=torch.float32)
    for place, part in enumerate(parts()):
        values.numpy()[int(offsets[place]) : int(offsets[place + 1])] = part
    return values


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
            " ".join(f"Client {item.client!r} has {item.reason}." for item in seen)
            + more
            + _remedy(series, spec)
        )
    if not kept:
        everyone = series.dropped + dropped
        counted = f": {count_reasons(everyone)}" if everyone else ""
        first = f" (first: {everyone[0].client!r}, {everyone[0].reason})" if everyone else ""
        raise DataError(
            f"No client of source {series.name!r} is left{counted}{first}.{_remedy(series, spec)}"
        )


def _remedy(series: ClientSeries, spec: WindowSpec) -> str:
    return (
        f" lookback={spec.lookback} and horizon={spec.horizon} need {spec.width} steps in the training span "
        f"and {spec.horizon} target steps in each other span, without gaps beyond max_gap={spec.max_gap}"
        f"{' and within one run' if len(series.breaks) else ''}. "
        + ("Drop such clients with on_short='drop', or shorten lookback." if spec.on_short == "error" else "")
        + ("Shorten lookback or horizon, or use longer series." if spec.on_short == "drop" else "")
    )
