"""Labelled examples, split and scaled: what a classifier or a regression trains on."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from .errors import DataError
from .moments import Moments, guarded, moments_of, pooled
from .samples import ClientSamples
from .series import Dropped, count_reasons
from .spec import SPANS, SampleSpec, Span
from .splits import split_samples

_NAMED_CLIENTS = 5  # an error names this many clients and counts the rest
_PLAIN_FEATURES = 64  # inputs of at most this many values are compared as they are


@dataclass(frozen=True, eq=False)
class SpanRows:
    """The samples of one span, numbered client by client.

    Args:
        rows: ``(samples of the span,)`` int64, rows of the buffer.
        base: ``(clients + 1,)`` int64, samples of the span before each client.
    """

    rows: Tensor
    base: Tensor

    def positions(self, clients: Tensor, ranks: Tensor) -> Tensor:
        """Return rows ``(c, n)`` of ranks ``(c, n)`` of clients ``(c,)``.

        Raises:
            DataError: a rank outside ``0 .. count - 1`` of its client.
        """
        low, high = self.base[clients].unsqueeze(1), self.base[clients + 1].unsqueeze(1)
        number = low + ranks
        bad = (ranks < 0) | (number >= high)
        if bool(bad.any()):
            row, column = (int(i) for i in bad.nonzero()[0])
            raise DataError(
                f"Client number {int(clients[row])} has {int(high[row] - low[row])} samples in this span, "
                f"rank {int(ranks[row, column])} was asked for. Draw ranks below count(span)[client]."
            )
        return self.rows[number]

    def to(self, device: torch.device | str) -> "SpanRows":
        """Return the same rows on another device."""
        return SpanRows(self.rows.to(device), self.base.to(device))


@dataclass(frozen=True, eq=False)
class ClientExamples:
    """The examples of a population; immutable, built by :func:`make_examples`.

    The inputs stay as they are and are scaled when a batch is gathered: the buffer is held once.

    Args:
        samples: of the clients that are left, in the original units.
        spec: how they were split and scaled.
        spans: the rows of each span.
        mean: ``(clients, channels)`` subtracted from inputs.
        std: ``(clients, channels)`` they are divided by, > 0 always: 1 for a constant channel.
        target_mean: ``(clients, outputs)`` of float targets; no column for classes.
        target_std: likewise, > 0 always.
        common: mean and std ``(2, channels + outputs)`` of inputs and float targets over all clients that take part, the
            scale of :meth:`inputs` and :meth:`features`.
    """

    samples: ClientSamples
    spec: SampleSpec
    spans: Mapping[Span, SpanRows]
    mean: Tensor
    std: Tensor
    target_mean: Tensor
    target_std: Tensor
    common: Tensor

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def clients(self) -> tuple[str, ...]:
        """Names of the clients."""
        return self.samples.clients

    @property
    def attributes(self) -> pd.DataFrame:
        """What is known of each client, in the order of ``clients``."""
        return self.samples.attributes

    @property
    def task(self) -> Literal["classify", "regress"]:
        """What is to be predicted: a class, or numbers."""
        return "classify" if self.samples.classes else "regress"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; none for a regression."""
        return self.samples.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(lookback, horizon, channels)`` of inputs and targets; a class is a horizon of 1."""
        steps, channels = self.samples.inputs.shape[1:]
        return int(steps), 1 if self.classes else int(self.samples.targets.shape[1]), int(channels)

    def count(self, span: Span) -> Tensor:
        """Return the samples of each client in the span, ``(clients,)`` int64."""
        return self.spans[span].base.diff()

    def positions(self, span: Span, clients: Tensor, ranks: Tensor) -> Tensor:
        """Return where samples lie.

        Args:
            span: ``"train"``, ``"validation"`` or ``"test"``.
            clients: ``(c,)`` int64.
            ranks: ``(c, n)`` int64, ``0 .. count(span)[client] - 1`` of each client, in time order where there are times.

        Returns:
            ``(c, n)`` int64 rows for :meth:`gather`.

        Raises:
            DataError: a rank its client does not have.
        """
        return self.spans[span].positions(clients, ranks)

    def gather(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled inputs and targets of rows ``(...)``.

        Returns:
            ``(..., steps, channels)`` float32; ``(..., 1)`` int64 classes or ``(..., outputs)`` float32, scaled.
        """
        inputs, targets = self.samples.inputs, self.samples.targets
        flat = positions.reshape(-1)
        x = inputs.index_select(0, flat).view(*positions.shape, *inputs.shape[1:])
        y = targets.index_select(0, flat).view(*positions.shape, -1)
        if self.spec.scale == "none":
            return x, y
        who = self._owners(positions)
        x.sub_(self.mean[who].unsqueeze(-2)).div_(self.std[who].unsqueeze(-2))
        return x, y if self.classes else y.sub_(self.target_mean[who]).div_(self.target_std[who])

    def _owners(self, positions: Tensor) -> Tensor:
        """Return whose scales apply: the sample's client, or the first one where all share them."""
        if self.spec.scale == "population":
            return positions.new_zeros(())
        return torch.searchsorted(self.samples.offsets, positions.contiguous(), right=True) - 1

    def unscale(self, clients: Tensor, y: Tensor) -> Tensor:
        """Return scaled float targets ``(c, ..., outputs)`` of ``clients`` ``(c,)`` in their unit; classes as they are."""
        if self.classes:
            return y
        shape = (len(clients),) + (1,) * (y.dim() - 2) + (y.shape[-1],)
        return y * self.target_std[clients].view(shape) + self.target_mean[clients].view(shape)

    def features(self, client: int) -> Tensor:
        """Return what distances compare: a client's training :meth:`inputs` and float targets side by side, ``(n, F)``."""
        x = self.inputs(client)
        if self.classes:
            return x
        first = self.samples.inputs.shape[2]
        y = self.samples.targets.index_select(0, self._training(client))
        return torch.cat([x, (y - self.common[0, first:]) / self.common[1, first:]], 1)

    def inputs(self, client: int) -> Tensor:
        """Return a client's training inputs as feature vectors, ``(n, F)``.

        On the population's scale whatever the training's: on a scale of its own, no client lies far from the others.
        Inputs of at most 64 values are flattened; of longer ones each channel's mean and standard deviation over the
        steps are taken, since distances need few features beside the samples of a client.
        """
        x, channels = (
            self.samples.inputs.index_select(0, self._training(client)),
            self.samples.inputs.shape[2],
        )
        x.sub_(self.common[0, :channels]).div_(self.common[1, :channels])
        if x[0].numel() <= _PLAIN_FEATURES or x.shape[1] == 1:
            return x.flatten(1)
        std, mean = torch.std_mean(x, dim=1, correction=0)
        return torch.cat([mean, std], 1)

    def _training(self, client: int) -> Tensor:
        """Return the rows of a client's training samples, ``(n,)``."""
        span = self.spans["train"]
        return span.rows[int(span.base[client]) : int(span.base[client + 1])]

    def to(self, device: torch.device | str) -> "ClientExamples":
        """Return the same examples with buffers, scales and rows on another device."""
        names = ("mean", "std", "target_mean", "target_std", "common")
        moved = {name: getattr(self, name).to(device) for name in names}
        samples = replace(self.samples.to(device), offsets=self.samples.offsets.to(device))
        spans = {span: rows.to(device) for span, rows in self.spans.items()}
        return replace(self, samples=samples, spans=spans, **moved)


def make_examples(samples: ClientSamples, spec: SampleSpec) -> ClientExamples:
    """Split every client's samples and take the scales of the training ones.

    Memory: the buffer as it is; a copy only where clients are dropped.

    Args:
        samples: in the original units; left as they are.
        spec: shares, kind of split, scales, and what to do with clients of few samples.

    Raises:
        DataError: a client with too few samples in a span (``on_short="error"``), no client left, or samples that
            lack what the split needs.
    """
    which, rules = split_samples(samples, spec)
    kept, dropped = _enough(samples, spec, which)
    if dropped:
        which = torch.cat([which[samples.rows(client)] for client in kept])
        samples = samples.select(kept)
    samples = replace(
        samples, dropped=samples.dropped + dropped, rules=(*samples.rules, *rules, _scale_in_words(spec))
    )
    spans = _spans(samples, which)
    seen = _seen(samples)
    mean, std, common = _scales(samples.inputs, spans["train"], spec.scale, seen)
    targets = samples.targets.unsqueeze(1) if not samples.classes else samples.inputs[:, :1, :0]
    target_mean, target_std, common_target = _scales(targets, spans["train"], spec.scale, seen)
    both = torch.cat([common, common_target], 1)
    return ClientExamples(samples, spec, spans, mean, std, target_mean, target_std, both)


def _spans(samples: ClientSamples, which: Tensor) -> dict[Span, SpanRows]:
    """Return the rows of each span, client by client, in time order where there are times."""
    owners = torch.repeat_interleave(torch.arange(len(samples)), samples.lengths)
    rows = torch.arange(len(which))
    if samples.times is not None:
        rows = samples.times.argsort(stable=True)
        rows = rows[owners[rows].argsort(stable=True)]
    spans = {}
    for place, span in enumerate(SPANS):
        chosen = rows[which[rows] == place]
        counts = torch.bincount(owners[chosen], minlength=len(samples))
        spans[span] = SpanRows(chosen, torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
    return spans


def _seen(samples: ClientSamples) -> Tensor:
    """Return the numbers of the clients that take part in training: a population's scale is theirs."""
    held_out = samples.attributes.get("unseen")
    if held_out is None:
        return torch.arange(len(samples))
    seen = ~held_out.fillna(False).astype(bool).to_numpy()
    return torch.from_numpy(seen if seen.any() else ~seen).nonzero()[:, 0]


def _scales(values: Tensor, training: SpanRows, scale: str, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and guarded std ``(clients, channels)`` of ``values`` ``(samples, steps, channels)``.

    The third are mean and std ``(2, channels)`` over the clients that take part.
    """
    clients, channels = len(training.base) - 1, values.shape[2]
    if channels == 0:
        return torch.zeros(clients, 0), torch.ones(clients, 0), torch.zeros(2, 0)
    bounds = training.base.tolist()
    moments = moments_of(values, [training.rows[low:high] for low, high in pairwise(bounds)])
    taking_part = Moments(*(getattr(moments, item.name)[seen] for item in fields(Moments)))
    common_mean, common_std = guarded(pooled(taking_part))
    common = torch.cat([common_mean, common_std]).float()
    if scale == "none":
        return torch.zeros(clients, channels), torch.ones(clients, channels), common
    mean, std = (common_mean, common_std) if scale == "population" else guarded(moments)
    return mean.float().expand(clients, -1), std.float().expand(clients, -1), common


def _enough(samples: ClientSamples, spec: SampleSpec, which: Tensor) -> tuple[list[int], tuple[Dropped, ...]]:
    """Return the clients with enough samples in every span, and the others with the reason.

    Raises:
        DataError: a client has too few and may not be dropped, or nobody is left.
    """
    owners = torch.repeat_interleave(torch.arange(len(samples)), samples.lengths)
    counts = torch.stack(
        [torch.bincount(owners[which == place], minlength=len(samples)) for place in range(len(SPANS))], 1
    )
    short = (counts < spec.min_samples).any(1)
    dropped = []
    for client in short.nonzero()[:, 0].tolist():
        few = {s: n for s, n in zip(SPANS, counts[client].tolist(), strict=True) if n < spec.min_samples}
        listed = ", ".join(f"{count} in {span}" for span, count in few.items())
        reason = (
            f"too few samples: {int(samples.lengths[client])} give {listed}, min_samples={spec.min_samples}"
        )
        dropped.append(Dropped(samples.clients[client], reason))
    kept = (~short).nonzero()[:, 0].tolist()
    if dropped and spec.on_short == "error":
        named = " ".join(f"Client {item.client!r} has {item.reason}." for item in dropped[:_NAMED_CLIENTS])
        more = len(dropped) - _NAMED_CLIENTS
        raise DataError(
            named
            + (f" So have {more} more clients." if more > 0 else "")
            + " Drop such clients with on_short='drop', or change train, validation or split."
        )
    if not kept:
        everyone = samples.dropped + tuple(dropped)
        counted = f": {count_reasons(everyone)}" if everyone else ""
        first = f" (first: {everyone[0].client!r}, {everyone[0].reason})" if everyone else ""
        raise DataError(
            f"No client of source {samples.name!r} is left{counted}{first}. Lower min_samples, or use another split."
        )
    return kept, tuple(dropped)


def _scale_in_words(spec: SampleSpec) -> str:
    whose = {"population": "all clients' training samples", "client": "each client's own training samples"}
    if spec.scale == "none":
        return "scale: none"
    return f"scale: mean and standard deviation of {whose[spec.scale]}"
