"""What changes of values share: copies client by client, channels that are a client's own, runs, spreads."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from ..errors import DataError
from ..moments import guarded, moments_of, pooled
from ..runs import Floats, Ints
from ..series import ClientSeries
from .base import Population


def own_channels(population: Population) -> Ints:
    """Return the channels that a client measures: all but those known in advance, ``(own,)``."""
    channels = int(buffer(population).shape[-1])
    known = population.known if isinstance(population, ClientSeries) else ()
    names = population.channel_names or ("",) * channels
    return np.flatnonzero([name not in known for name in names])


def buffer(population: Population) -> torch.Tensor:
    """Return values ``(steps, channels)`` of series or inputs ``(samples, steps, channels)``."""
    return population.values if isinstance(population, ClientSeries) else population.inputs


def changed(population: Population, change: Callable[[int, Floats], Floats]) -> Population:
    """Return the population with ``change(client, its own channels (..., own))`` in their place; one copy."""
    values = buffer(population).clone()
    array, own = values.numpy(), own_channels(population)
    for client in range(len(population)):
        rows = slice(int(population.offsets[client]), int(population.offsets[client + 1]))
        array[rows, ..., own] = change(client, array[rows][..., own])
    if isinstance(population, ClientSeries):
        return replace(population, values=values)
    return replace(population, inputs=values)


def spreads(population: Population) -> Floats:
    """Return the standard deviation of each own channel over all clients, 1 where it is constant, ``(own,)``."""
    offsets = population.offsets.tolist()
    rows = [torch.arange(low, high) for low, high in pairwise(offsets)]
    std = guarded(pooled(moments_of(buffer(population), rows)))[1]
    return std[0, own_channels(population)].float().numpy()


def runs(series: ClientSeries, client: int) -> list[slice]:
    """Return where the runs of a client lie in its own series."""
    ends = [0, *series.breaks_of(client).tolist(), int(series.lengths[client])]
    return [slice(low, high) for low, high in pairwise(ends)]


def needs_series(population: Population, what: str) -> ClientSeries:
    """Return the population if it is one of series.

    Raises:
        DataError: it is one of samples, which have no hours.
    """
    if not isinstance(population, ClientSeries):
        raise DataError(
            f"{what} moves a series in time; source {population.name!r} holds samples. Set it to 0 or leave it out."
        )
    return population
