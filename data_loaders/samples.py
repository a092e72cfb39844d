"""Client samples: labelled examples of one shape, one flat buffer for a whole population."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .errors import DataError
from .series import Dropped, offsets_fit, offsets_of

OFFICIAL = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True, eq=False)
class ClientSamples:
    """The labelled examples of a population of clients: clips, sessions, feature vectors.

    Args:
        name: the source's name.
        inputs: ``(samples, steps, channels)`` float32, finite; a plain feature vector has one step.
        targets: ``(samples,)`` int64, numbers of ``classes``; or ``(samples, outputs)`` float32 in ``unit``.
        offsets: ``(clients + 1,)`` int64; client ``k`` owns samples ``offsets[k]`` to ``offsets[k + 1] - 1``.
        clients: one unique name a client.
        attributes: one row a client, indexed by ``clients`` in this order.
        classes: names of the classes; none for regression.
        groups: ``(samples,)`` int64; samples of a client that share a number (takes of one utterance) stay together in
            every split. None: each by itself.
        times: ``(samples,)`` int64, seconds since 1970, where samples have an order; None where they have none.
        official: ``(samples,)`` int8, the source's own split as in ``OFFICIAL``, -1 for none; None without one.
        channel_names: of the inputs' channels; none where they have no names.
        target_names: of the columns of float targets.
        unit: of float targets, ``""`` for classes.
        rules: the rules that made the population, in words.
        dropped: the clients left out by these rules.

    Raises:
        DataError: shapes, names, offsets or labels that contradict each other.
    """

    name: str
    inputs: Tensor
    targets: Tensor
    offsets: Tensor
    clients: tuple[str, ...]
    attributes: pd.DataFrame
    classes: tuple[str, ...] = ()
    groups: Tensor | None = None
    times: Tensor | None = None
    official: Tensor | None = None
    channel_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    unit: str = ""
    rules: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = field(default=())

    def __post_init__(self) -> None:
        problems = _contradictions(self)
        if problems:
            raise DataError(*problems)

    def __len__(self) -> int:
        return len(self.clients)

    @property
    def lengths(self) -> Tensor:
        """Samples of each client, ``(clients,)`` int64."""
        return self.offsets.diff()

    def rows(self, client: int) -> slice:
        """Return where a client's samples lie."""
        return slice(int(self.offsets[client]), int(self.offsets[client + 1]))

    def take(
        self, rows: Sequence[Tensor], clients: Sequence[str], attributes: pd.DataFrame
    ) -> "ClientSamples":
        """Return samples dealt anew: ``rows[k]`` ``(n_k,)`` int64 become those of ``clients[k]``; copies."""
        every = torch.cat([*rows, torch.zeros(0, dtype=torch.int64)])
        names = ("inputs", "targets", "groups", "times", "official")
        parts = {name: getattr(self, name) for name in names}
        moved: dict[str, Any] = {name: None if part is None else part[every] for name, part in parts.items()}
        return replace(
            self,
            **moved,
            offsets=offsets_of([len(part) for part in rows]),
            clients=tuple(clients),
            attributes=attributes,
        )

    def to(self, device: torch.device | str) -> "ClientSamples":
        """Return the same samples with inputs and targets on another device; what splits them stays here."""
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))

    def select(self, clients: Sequence[int]) -> "ClientSamples":
        """Return the samples of some clients, in the order given; copies."""
        chosen = [int(client) for client in clients]
        rows = [torch.arange(self.rows(k).start, self.rows(k).stop) for k in chosen]
        return self.take(rows, [self.clients[k] for k in chosen], self.attributes.iloc[chosen])

    def fingerprint(self) -> str:
        """Return a hash of names, samples and what splits them: the data set's identity, 16 hex digits."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update("\n".join((*self.clients, *self.classes, self.unit)).encode())
        parts = (self.offsets, self.inputs, self.targets, self.groups, self.times, self.official)
        for place, tensor in enumerate(parts):
            if tensor is not None:
                digest.update(bytes([place]))
                digest.update(np.ascontiguousarray(tensor.cpu().numpy()).view(np.uint8).data)
        return digest.hexdigest()


def _contradictions(samples: ClientSamples) -> list[str]:
    """Return what is wrong with the fields of samples, in sentences."""
    source, count = f"Source {samples.name!r}", len(samples.clients)
    inputs, targets = samples.inputs, samples.targets
    rows = int(inputs.shape[0]) if inputs.dim() else 0
    per_sample = {name: getattr(samples, name) for name in ("groups", "times", "official")}
    checks = {
        f"{source}: inputs must be (samples, steps, channels) float32, got {tuple(inputs.shape)} {inputs.dtype}.": (
            inputs.dim() == 3 and inputs.dtype == torch.float32
        ),
        f"{source}: inputs have values that are not finite; fill or drop them.": _finite(inputs),
        f"{source}: targets of {len(samples.classes)} classes and {rows} samples must be (samples,) int64 below "
        f"the number of classes, or (samples, outputs) float32 without classes, got {tuple(targets.shape)} "
        f"{targets.dtype}.": _targets_fit(targets, rows, len(samples.classes)),
        f"{source}: {count} clients need {count + 1} offsets from 0 to {rows}, got "
        f"{tuple(samples.offsets.shape)}.": offsets_fit(samples.offsets, count, rows),
        f"{source}: client names are not unique.": len(set(samples.clients)) == count,
        f"{source}: the index of attributes differs from the clients.": (
            tuple(samples.attributes.index) == samples.clients
        ),
    }
    for name, values in per_sample.items():
        fits = values is None or tuple(values.shape) == (rows,)
        checks[f"{source}: {name} must be ({rows},), one a sample."] = fits
    return [problem for problem, holds in checks.items() if not holds]


def _targets_fit(targets: Tensor, rows: int, classes: int) -> bool:
    if classes:
        right = tuple(targets.shape) == (rows,) and targets.dtype == torch.int64
        return right and (rows == 0 or bool(((targets >= 0) & (targets < classes)).all()))
    right = targets.dim() == 2 and targets.shape[0] == rows and targets.dtype == torch.float32
    return right and _finite(targets)


def _finite(values: Tensor) -> bool:
    """Return whether all values are finite; the extremes carry a NaN and need no second buffer."""
    return values.numel() == 0 or bool(torch.stack(values.aminmax()).isfinite().all())
