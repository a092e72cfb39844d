"""Concept shift: the same inputs mean something else to another cluster of clients."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch

from ..errors import DataError, raise_if_any
from ..runs import Floats, Ints
from ..samples import ClientSamples
from ..series import ClientSeries
from .base import Population, check, column, generator, register_partition, say
from .shape import runs

_ANY = 2.0**63
Maps = Literal["flip", "scale", "reverse"]


@register_partition("concept_shift")
@dataclass(frozen=True)
class ConceptShift:
    """Clients in clusters; all but the first cluster have their targets mapped. Inputs of samples stay.

    Classes are exchanged: cluster by cluster, a share of them change places in a ring. Float targets are flipped about
    their mean in every other cluster, or scaled. Of series the target channel itself is changed, past and future
    alike: flipped about the client's mean (against its covariates), scaled, or each day of it reversed.

    Args:
        clusters: how many, of equal size up to one client.
        by: an attribute whose values are the clusters instead, in sorted order.
        share: of the classes that change places.
        map: of float targets and series: ``"flip"``, ``"scale"`` or, series only, ``"reverse"``.
        factor: of ``"scale"``, to the power of the cluster's number.
        seed: of the clusters and the exchange of classes.

    Raises:
        DataError: options out of range; when called, more clusters than clients, a map that does not fit.
    """

    clusters: int = 2
    by: str | None = None
    share: float = 1.0
    map: Maps = "flip"
    factor: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        problems = check(self, clusters=(2, _ANY), share=(0, 1), factor=(1e-6, _ANY))
        if self.map not in ("flip", "scale", "reverse"):
            problems.append(f"map must be 'flip', 'scale' or 'reverse', got {self.map!r}.")
        raise_if_any(problems)

    def __call__(self, population: Population) -> Population:
        """Return the population with mapped targets; the attribute ``cluster`` says whose concept a client has."""
        clusters = self._clusters(population)
        mapped: Population
        how: str = self.map
        if isinstance(population, ClientSeries):
            mapped = self._map_series(population, clusters)
        elif population.classes:
            mapped, how = self._exchange(population, clusters), f"{self.share:.0%} of the classes exchanged"
        else:
            mapped = self._map_targets(population, clusters)
        rule = f"partition: concept_shift({int(clusters.max()) + 1} clusters, {how}), seed {self.seed}"
        return say(mapped, rule, cluster=clusters)

    def _clusters(self, population: Population) -> Ints:
        """Return each client's cluster, ``(clients,)``."""
        if self.by is not None:
            return np.asarray(pd.factorize(column(population, self.by), sort=True)[0], np.int64)
        if self.clusters > len(population):
            raise DataError(
                f"Partition 'concept_shift' cannot make {self.clusters} clusters of {len(population)} clients. "
                "Ask for fewer."
            )
        return generator(self.seed, "clusters").permutation(np.arange(len(population)) % self.clusters)

    def _exchange(self, samples: ClientSamples, clusters: Ints) -> ClientSamples:
        """Return samples whose classes are exchanged within clusters; cluster 0 keeps its own."""
        classes = len(samples.classes)
        if round(self.share * classes) < 2:
            raise DataError(
                f"Partition 'concept_shift' exchanges share={self.share:g} of {classes} classes; that is fewer than two. "
                "Raise share."
            )
        names = np.tile(np.arange(classes), (int(clusters.max()) + 1, 1))
        rng = generator(self.seed, "exchange")
        for number in range(1, len(names)):
            ring = rng.choice(classes, round(self.share * classes), replace=False)
            names[number, ring] = np.roll(ring, 1)
        owners = np.repeat(clusters, samples.lengths.numpy())
        return replace(samples, targets=torch.from_numpy(names[owners, samples.targets.numpy()]))

    def _map_targets(self, samples: ClientSamples, clusters: Ints) -> ClientSamples:
        if self.map == "reverse":
            raise DataError(
                "map='reverse' turns the days of series; samples have none. Use 'flip' or 'scale'."
            )
        owners = torch.from_numpy(np.repeat(clusters, samples.lengths.numpy())).unsqueeze(1)
        targets = samples.targets
        if self.map == "scale":
            return replace(samples, targets=targets * self.factor ** owners.float())
        flipped = 2 * targets.double().mean(0).float() - targets
        return replace(samples, targets=torch.where(owners % 2 == 1, flipped, targets))

    def _map_series(self, series: ClientSeries, clusters: Ints) -> ClientSeries:
        values = series.values.clone()
        target = values[:, 0].numpy()
        for client in np.flatnonzero(clusters if self.map == "scale" else clusters % 2):
            rows = slice(int(series.offsets[client]), int(series.offsets[client + 1]))
            if self.map == "reverse":
                target[rows] = _days_reversed(series, int(client), target[rows])
            elif self.map == "scale":
                target[rows] *= np.float32(self.factor ** int(clusters[client]))
            else:
                target[rows] = 2 * np.nanmean(target[rows], dtype=np.float64) - target[rows]
        return replace(series, values=values)


def _days_reversed(series: ClientSeries, client: int, target: Floats) -> Floats:
    """Return ``(steps,)`` with the steps of every whole day of a run in reverse, days counted from its start.

    Raises:
        DataError: the step does not divide a day.
    """
    if 86400 % series.step_seconds:
        raise DataError(
            f"map='reverse' needs a step that divides a day; source {series.name!r} has steps of "
            f"{series.step_seconds} s. Use 'flip' or 'scale'."
        )
    day, turned = int(86400 // series.step_seconds), target.copy()
    for run in runs(series, client):
        whole = (run.stop - run.start) // day * day
        days = target[run.start : run.start + whole].reshape(-1, day)
        turned[run.start : run.start + whole] = days[:, ::-1].ravel()
    return turned
