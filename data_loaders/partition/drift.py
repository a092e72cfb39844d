"""Drift: a client's law changes with time, so that what it trained on is not what it meets."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..errors import DataError, raise_if_any
from ..runs import Floats, Ints
from ..samples import ClientSamples
from ..series import ClientSeries
from .base import Population, check, generator, register_partition, say
from .shape import changed, runs

_ANY = 2.0**63


@register_partition("drift")
@dataclass(frozen=True)
class Drift:
    """Class shares of ordered samples that change with time; gain and hours of series that grow with it.

    Samples are dealt anew to the client's own times, which take the place of a split of the source's own: with
    ``labels=1`` class after class, with 0 in random order. Of series the client's own channels (not those known in
    advance) are multiplied by a gain that grows from 1 to ``exp(gain)`` over the client's series, and delayed by hours
    that grow from 0 to ``rotation``.

    Args:
        labels: how strongly the order of samples follows their class (or float target), 0 to 1.
        gain: logarithm of the gain at the end of a series.
        rotation: delay at the end of a series, hours.
        individual: each client's drift has an order of classes, a size and a sign of its own; else all drift alike.
        seed: of the order, and of what is individual together with the client's name.

    Raises:
        DataError: options out of range; when called, none set for this kind of population.
    """

    labels: float = 0.0
    gain: float = 0.0
    rotation: float = 0.0
    individual: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        raise_if_any(check(self, labels=(0, 1), gain=(-20, 20), rotation=(0, _ANY)))

    def __call__(self, population: Population) -> Population:
        """Return the population with a law that drifts; samples without times get some, a second apart."""
        series = isinstance(population, ClientSeries)
        if not (self.gain or self.rotation if series else self.labels):
            raise DataError(
                f"Partition 'drift' changes nothing in source {population.name!r}: "
                + ("set gain or rotation for series." if series else "set labels above 0 for samples.")
            )
        whose = "each client by itself" if self.individual else "all clients alike"
        if isinstance(population, ClientSeries):
            what = f"gain {self.gain:g}, rotation {self.rotation:g} h"
            drifted: Population = self._drift_series(population)
        else:
            what, drifted = f"labels {self.labels:g}", self._drift_samples(population)
        return say(drifted, f"partition: drift({what}), {whose}, seed {self.seed}")

    def _drift_samples(self, samples: ClientSamples) -> ClientSamples:
        if samples.official is not None:
            rule = "partition: the source's own split is left out, since the order in time counts now"
            samples = replace(samples, official=None, rules=(*samples.rules, rule))
        if samples.times is None:
            samples = replace(samples, times=torch.arange(len(samples.targets)))
        times = torch.empty_like(samples.times)  # type: ignore[arg-type]
        for client, name in enumerate(samples.clients):
            rows = samples.rows(client)
            rank = np.argsort(self._when(samples, rows, name), kind="stable")
            times[rows][torch.from_numpy(rank)] = samples.times[rows].sort().values  # type: ignore[index]
        return replace(samples, times=times)

    def _when(self, samples: ClientSamples, rows: slice, client: str) -> Floats:
        """Return a number for every sample ``(n,)``; the smaller, the earlier it comes."""
        targets, rng = samples.targets[rows].numpy(), generator(self.seed, "when", client)
        whose = generator(self.seed, "drift", client if self.individual else "")
        if samples.classes:
            place = whose.permutation(len(samples.classes))[targets]
        else:
            place = targets[:, 0] * (whose.choice([-1, 1]) if self.individual else 1)
        order = np.lexsort((rng.random(len(targets)), place))
        position = np.empty(len(targets))
        position[order] = np.arange(len(targets)) / max(1, len(targets))
        return np.asarray(self.labels * position + (1 - self.labels) * rng.random(len(targets)))

    def _drift_series(self, series: ClientSeries) -> Population:
        def drift(client: int, values: Floats) -> Floats:
            size = 1.0
            if self.individual:
                size = generator(self.seed, "drift", series.clients[client]).uniform(-1, 1)
            progress = np.arange(len(values)) / max(1, len(values) - 1)
            delay = np.round(size * self.rotation * progress * 3600 / series.step_seconds).astype(np.int64)
            gain = np.exp(size * self.gain * progress).astype(np.float32)
            return values[_delayed(series, client, delay)] * gain[:, None]

        return changed(series, drift)


def _delayed(series: ClientSeries, client: int, delay: Ints) -> Ints:
    """Return which step is seen at each step ``(steps,)`` when it comes late by ``delay`` steps, within its run."""
    seen = np.arange(len(delay)) - delay
    for run in runs(series, client):
        seen[run] = seen[run].clip(run.start, run.stop - 1)
    return np.asarray(seen)
