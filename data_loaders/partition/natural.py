"""Natural clients merged, held out, or fewer of them."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ..errors import DataError, raise_if_any
from ..runs import Floats, Ints
from ..samples import ClientSamples
from ..series import ClientSeries, offsets_of
from .base import Population, check, column, generator, register_partition, say
from .pooled import apart

_ANY = 2.0**63


@register_partition("group")
@dataclass(frozen=True)
class Group:
    """Natural clients merged into larger ones, by an attribute or at random.

    Samples of the members are laid together. Series of the members are taken together step by step over the time that
    all of them share: their target's sum (missing where one is missing) or mean (of those observed), and the mean of
    all other channels.

    Args:
        by: an attribute; clients that share its value are merged and take its name.
        groups: how many groups of equal size, up to one client, where ``by`` is None.
        how: ``"mean"`` or ``"sum"`` of the target of series.
        seed: of the random groups.

    Raises:
        DataError: not one of ``by`` and ``groups``; when called, more groups than clients, or series of one group that
            share no time or have different grids.
    """

    by: str | None = None
    groups: int | None = None
    how: Literal["mean", "sum"] = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        problems = check(self, **({} if self.groups is None else {"groups": (1, _ANY)}))
        if (self.by is None) == (self.groups is None):
            problems.append(f"give either by or groups, got by={self.by!r} and groups={self.groups!r}.")
        if self.how not in ("mean", "sum"):
            problems.append(f"how must be 'mean' or 'sum', got {self.how!r}.")
        raise_if_any(problems)

    def __call__(self, population: Population) -> Population:
        """Return the groups as clients; attributes that all members share stay, ``members`` counts them."""
        numbers, names = self._groups(population)
        members = [np.flatnonzero(numbers == number) for number in range(len(names))]
        attributes = _shared(population.attributes, members, names)
        if isinstance(population, ClientSamples):
            merged: Population = _merge_samples(population, members, names, attributes)
            how = ""
        else:
            merged = _merge_series(population, members, names, attributes, self.how)
            how = f", {self.how} of the target over the time all members share"
        chosen = f"by {self.by}" if self.by is not None else f"at random, seed {self.seed}"
        rule = f"partition: group({chosen}): {len(population)} clients in {len(names)}{how}"
        return replace(merged, rules=(*merged.rules, rule))

    def _groups(self, population: Population) -> tuple[Ints, list[str]]:
        """Return the group of each client and the groups' names."""
        if self.by is not None:
            numbers, values = pd.factorize(column(population, self.by), sort=True)
            return np.asarray(numbers, np.int64), [str(value) for value in values]
        count = self.groups or 1
        if count > len(population):
            raise DataError(
                f"Partition 'group' cannot make {count} groups of {len(population)} clients. Ask for fewer."
            )
        numbers = generator(self.seed, "group").permutation(np.arange(len(population)) % count)
        return numbers, [f"group{number:05d}" for number in range(count)]


@register_partition("hold_out")
@dataclass(frozen=True)
class HoldOut:
    """Clients that take no part in training; the boolean attribute ``unseen`` says which.

    Nothing is removed: the engine trains on the others and evaluates all.

    Args:
        share: of the clients, rounded, one at least and not all of them.
        by: an attribute instead; clients whose value is among ``values`` are held out.
        values: compared as text.
        seed: of the choice by share.

    Raises:
        DataError: not one of ``share`` and ``by``; when called, no client or every client would be held out.
    """

    share: float | None = None
    by: str | None = None
    values: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        problems = check(self, **({} if self.share is None else {"share": (0, 1)}))
        if (self.by is None) == (self.share is None):
            problems.append(f"give either share or by, got share={self.share!r} and by={self.by!r}.")
        if (self.by is None) != (not self.values):
            problems.append(f"by and values go together, got by={self.by!r} and values={self.values!r}.")
        raise_if_any(problems)

    def __call__(self, population: Population) -> Population:
        """Return the same population with the attribute ``unseen``."""
        unseen, how = self._unseen(population)
        if unseen.all() or not unseen.any():
            raise DataError(
                f"Partition 'hold_out' would hold out {int(unseen.sum())} of {len(population)} clients of source "
                f"{population.name!r}. Choose some, and leave some to train."
            )
        return say(
            population,
            f"partition: hold_out({how}): {int(unseen.sum())} of {len(population)} clients are unseen in training",
            unseen=unseen,
        )

    def _unseen(self, population: Population) -> tuple[npt.NDArray[np.bool_], str]:
        if self.by is not None:
            values = column(population, self.by).astype(str)
            return np.asarray(values.isin([str(value) for value in self.values])), (
                f"{self.by} among {', '.join(map(str, self.values))}"
            )
        share = self.share or 0.0
        count = max(1, round(share * len(population))) if share else 0
        order = generator(self.seed, "hold_out").permutation(len(population))
        return order < count, f"share {share:g}, seed {self.seed}"


@register_partition("subset")
@dataclass(frozen=True)
class Subset:
    """The first clients, or some at random.

    Args:
        clients: how many.
        shuffle: at random, in their order, instead of the first ones.
        seed: of the random choice.

    Raises:
        DataError: options out of range; when called, more clients than there are.
    """

    clients: int
    shuffle: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        raise_if_any(check(self, clients=(1, _ANY)))

    def __call__(self, population: Population) -> Population:
        """Return fewer clients."""
        if self.clients > len(population):
            raise DataError(
                f"Partition 'subset' cannot take {self.clients} of {len(population)} clients of source "
                f"{population.name!r}. Ask for fewer."
            )
        chosen = np.arange(len(population))
        if self.shuffle:
            chosen = generator(self.seed, "subset").permutation(len(population))
        chosen = np.sort(chosen[: self.clients])
        which = f"at random, seed {self.seed}" if self.shuffle else "the first"
        rule = f"partition: subset({which}): {self.clients} of {len(population)} clients"
        fewer = population.select(chosen.tolist())
        return replace(fewer, rules=(*fewer.rules, rule))


def _shared(attributes: pd.DataFrame, members: list[Ints], names: list[str]) -> pd.DataFrame:
    """Return one row a group: how many members, and what all members of every group agree on."""
    kept: dict[str, list[object]] = {"members": [len(part) for part in members]}
    for name in attributes.columns:
        values = attributes[name]
        if all(values.iloc[part].nunique(dropna=False) == 1 for part in members):
            kept[str(name)] = [values.iloc[part[0]] for part in members]
    return pd.DataFrame(kept, index=pd.Index(names, name=attributes.index.name))


def _merge_samples(
    samples: ClientSamples, members: list[Ints], names: list[str], attributes: pd.DataFrame
) -> ClientSamples:
    samples = apart(samples)
    places = [samples.rows(client) for client in range(len(samples))]
    rows = [torch.cat([torch.arange(places[k].start, places[k].stop) for k in part]) for part in members]
    return samples.take(rows, names, attributes)


def _merge_series(
    series: ClientSeries, members: list[Ints], names: list[str], attributes: pd.DataFrame, how: str
) -> ClientSeries:
    if len(series.breaks):
        raise DataError(
            f"Partition 'group' cannot add up clients of source {series.name!r}: their series have runs, which share "
            "no time. Group them before they are cut into runs."
        )
    merged = [_merge_group(series, part, name, how) for part, name in zip(members, names, strict=True)]
    return replace(
        series,
        values=torch.from_numpy(np.concatenate([values for _, values in merged])),
        offsets=offsets_of([len(values) for _, values in merged]),
        clients=tuple(names),
        attributes=attributes,
        starts=np.array([start for start, _ in merged], "datetime64[s]"),
    )


def _merge_group(series: ClientSeries, part: Ints, name: str, how: str) -> tuple[np.datetime64, Floats]:
    """Return start and values of one group."""
    step = series.step_seconds
    lags = (series.starts[part] - series.starts[part].min()).astype("timedelta64[s]").astype(float) / step
    begins = np.round(lags).astype(np.int64)
    low, high = int(begins.max()), int((begins + series.lengths.numpy()[part]).min())
    if high <= low or np.abs(lags - begins).max() > 1e-6:
        why = "share no time" if high <= low else "do not lie on one grid of steps"
        raise DataError(
            f"Partition 'group': the {len(part)} series of group {name!r} {why}. Merge others, or cut and resample them."
        )
    total = np.zeros((high - low, series.channels))
    seen = np.zeros(total.shape, np.int64)
    for client, begin in zip(part, begins, strict=True):
        values = series.of(int(client)).numpy()[low - begin : high - begin]
        seen += ~np.isnan(values)
        total += np.nan_to_num(values, nan=0.0)
    result = np.where(seen > 0, total / np.maximum(seen, 1), np.nan)
    if how == "sum":
        result[:, 0] = np.where(seen[:, 0] == len(part), total[:, 0], np.nan)
    start = series.starts[part].min() + np.timedelta64(round(low * step), "s")
    return start, result.astype(np.float32)
