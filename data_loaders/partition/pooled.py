"""Pooled examples dealt to new clients; the samples of a group go as one unit."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ..errors import DataError
from ..runs import Ints
from ..samples import ClientSamples
from .base import Population, only_samples

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pool:
    """All samples of a population in one heap.

    Args:
        samples: the population, its groups numbered so that no two clients share a number.
        units: ``(samples,)`` the unit of each sample: its group, or itself.
        labels: ``(units,)`` the class of each unit's first sample, from 0 without holes.
        classes: how many classes occur.
    """

    samples: ClientSamples
    units: Ints
    labels: Ints
    classes: int

    def __len__(self) -> int:
        return len(self.labels)


def pool(population: Population, name: str, clients: int, bins: int = 1) -> Pool:
    """Pool a population's samples.

    Args:
        population: of samples.
        name: the partition's, for errors.
        clients: how many new ones are asked for.
        bins: equally filled bins of the first float target that stand for classes.

    Raises:
        DataError: a population of series, or more clients than units.
    """
    samples = apart(only_samples(population, name))
    if samples.groups is None:
        units = first = np.arange(len(samples.targets))
    else:
        _, first, units = np.unique(samples.groups.numpy(), return_index=True, return_inverse=True)
    if clients > len(first):
        raise DataError(
            f"Partition {name!r} cannot give {clients} clients one of {len(first)} samples each of source "
            f"{samples.name!r}. Ask for fewer clients."
        )
    found, labels = np.unique(_classes(samples, bins)[first], return_inverse=True)
    return Pool(samples, units, labels, len(found))


def apart(samples: ClientSamples) -> ClientSamples:
    """Return the samples with groups numbered so that clients may be merged: no two share a number."""
    if samples.groups is None:
        return samples
    owners = torch.repeat_interleave(torch.arange(len(samples)), samples.lengths)
    pairs = torch.stack([owners, samples.groups], 1)
    return replace(samples, groups=torch.unique(pairs, dim=0, return_inverse=True)[1])


def _classes(samples: ClientSamples, bins: int) -> Ints:
    """Return each sample's class, or the bin of its first float target."""
    if samples.classes:
        return samples.targets.numpy()
    first = samples.targets[:, 0].double().numpy()
    edges = np.quantile(first, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, first, side="right")


def deal_out(pooled: Pool, owners: Ints, clients: int, rule: str) -> ClientSamples:
    """Return a population in which unit ``u`` belongs to client ``owners[u]``, to none if -1.

    Attributes say how many samples a new client has and from how many natural clients they come.

    Raises:
        DataError: a client without a sample.
    """
    samples = pooled.samples
    owner = owners[pooled.units]
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(clients + 1))
    empty = np.flatnonzero(np.diff(bounds) == 0)
    if len(empty):
        raise DataError(
            f"{rule}: {len(empty)} of {clients} clients get no sample. Ask for fewer clients, or for less skew."
        )
    rows = [torch.from_numpy(order[low:high]) for low, high in pairwise(bounds)]
    natural = np.repeat(np.arange(len(samples)), samples.lengths.numpy())
    names = [f"client{number:05d}" for number in range(clients)]
    attributes = pd.DataFrame(
        {
            "samples": np.diff(bounds),
            "natural_clients": [len(np.unique(natural[row.numpy()])) for row in rows],
        },
        index=pd.Index(names, name="client"),
    )
    left = int((owner < 0).sum())
    rules = [f"partition: {rule}"] + ([f"partition: {left} samples belong to no client"] if left else [])
    return replace(samples.take(rows, names, attributes), rules=(*samples.rules, *rules))


def apportion(weights: Shares, total: int, at_least: int = 0) -> Ints:
    """Return whole numbers of sum ``total`` in the ratio of weights, each at least ``at_least``; largest remainders."""
    quota = weights / weights.sum() * (total - at_least * len(weights))
    sizes = np.floor(quota).astype(np.int64)
    left = total - at_least * len(weights) - int(sizes.sum())
    sizes[np.argsort(sizes - quota, kind="stable")[:left]] += 1
    return np.asarray(sizes + at_least)


def fill(table: Ints, labels: Ints, rng: np.random.Generator) -> Ints:
    """Return the owner of every unit, so that client ``k`` gets ``table[k, c]`` units of class ``c`` at random; else -1.

    Args:
        table: ``(clients, classes)``, no column above the number of units of the class.
        labels: ``(units,)``.
        rng: says which units.
    """
    owners = np.full(len(labels), -1, np.int64)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    begins = np.searchsorted(labels[order], np.arange(table.shape[1]))
    for number, begin in enumerate(begins):
        takers = np.repeat(np.arange(len(table)), table[:, number])
        owners[order[begin : begin + len(takers)]] = takers
    return owners
