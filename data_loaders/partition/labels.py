"""Label skew: clients that see other classes than the population does."""

from dataclasses import dataclass

import numpy as np

from ..errors import DataError, raise_if_any
from ..runs import Booleans, Ints
from ..samples import ClientSamples
from .base import Population, check, generator, register_partition
from .pooled import Pool, Shares, apportion, deal_out, fill, pool

_ANY = 2.0**63
_ATTEMPTS = 200


@register_partition("dirichlet")
@dataclass(frozen=True)
class Dirichlet:
    """Class shares of each client drawn from a Dirichlet law around the population's.

    With ``balanced`` clients are of one size and draw their samples by their shares, without replacement; a class
    that runs out is left out of the shares, for all clients alike (Hsu et al. 2019 let one client after another draw,
    which leaves the rest to the last). Without, each class is shared out among clients by a Dirichlet draw, which skews
    sizes too (Li et al. 2022).

    Args:
        clients: how many.
        alpha: concentration; small: one class a client, large: the population's shares.
        min_samples: units a client must get; unbalanced draws are repeated until all do.
        balanced: clients of one size.
        bins: of float targets, which stand for classes.
        seed: of the draws.

    Raises:
        DataError: options out of range; when called, series, more clients than samples, or too few samples.

    References:
        Hsu, Qi, Brown, Measuring the effects of non-identical data distribution, arXiv:1909.06335, section 3.
        Li, Diao, Chen, He, Federated learning on non-IID data silos, ICDE 2022, section 4.1.
    """

    clients: int
    alpha: float
    min_samples: int = 1
    balanced: bool = True
    bins: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        raise_if_any(
            check(self, clients=(1, _ANY), alpha=(1e-6, _ANY), min_samples=(1, _ANY), bins=(2, _ANY))
        )

    def __call__(self, population: Population) -> ClientSamples:
        """Return the samples dealt to new clients, all of them."""
        pooled = pool(population, "dirichlet", self.clients, self.bins)
        if self.clients * self.min_samples > len(pooled):
            raise DataError(
                f"Partition 'dirichlet' cannot give {self.clients} clients min_samples={self.min_samples} of "
                f"{len(pooled)} samples. Ask for fewer of either."
            )
        rng = generator(self.seed, "dirichlet")
        table = self._balanced(pooled, rng) if self.balanced else self._free(pooled, rng)
        kind = "clients of one size" if self.balanced else "sizes free"
        rule = f"dirichlet(alpha={self.alpha:g}), {kind}, seed {self.seed}"
        return deal_out(pooled, fill(table, pooled.labels, rng), self.clients, rule)

    def _balanced(self, pooled: Pool, rng: np.random.Generator) -> Ints:
        stock = np.bincount(pooled.labels, minlength=pooled.classes)
        shares = _dirichlet(self.alpha * stock / stock.sum() * pooled.classes, self.clients, rng)
        return draw_table(shares, apportion(np.ones(self.clients), len(pooled)), stock, rng)

    def _free(self, pooled: Pool, rng: np.random.Generator) -> Ints:
        stock = np.bincount(pooled.labels, minlength=pooled.classes)
        for _ in range(_ATTEMPTS):
            shares = _dirichlet(np.full(self.clients, self.alpha), pooled.classes, rng)
            table = np.stack(
                [apportion(row, int(count)) for row, count in zip(shares, stock, strict=True)], 1
            )
            if table.sum(axis=1).min() >= self.min_samples:
                return table
        raise DataError(
            f"In {_ATTEMPTS} draws with alpha={self.alpha:g} some of {self.clients} clients always got fewer than "
            f"min_samples={self.min_samples}. Raise alpha, ask for fewer clients, or set balanced=True."
        )


@register_partition("shards")
@dataclass(frozen=True)
class Shards:
    """Samples sorted by class, cut into equal shards, a few shards a client.

    Args:
        clients: how many.
        shards: of each client; about the number of its classes.
        bins: of float targets, which stand for classes.
        seed: of the order within classes and of the deal.

    Raises:
        DataError: options out of range; when called, series, or more shards than samples.

    References:
        McMahan et al., Communication-efficient learning of deep networks from decentralized data, AISTATS 2017, sec. 3.
    """

    clients: int
    shards: int = 2
    bins: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        raise_if_any(check(self, clients=(1, _ANY), shards=(1, _ANY), bins=(2, _ANY)))

    def __call__(self, population: Population) -> ClientSamples:
        """Return the samples dealt to new clients, all of them; shards differ by one sample at most."""
        pooled = pool(population, "shards", self.clients, self.bins)
        count = self.clients * self.shards
        if count > len(pooled):
            raise DataError(
                f"Partition 'shards' cannot cut {len(pooled)} samples into {self.clients} x {self.shards} shards. "
                "Ask for fewer clients or shards."
            )
        rng = generator(self.seed, "shards")
        order = rng.permutation(len(pooled))
        order = order[np.argsort(pooled.labels[order], kind="stable")]
        sizes = apportion(np.ones(count), len(pooled))
        owners = np.empty(len(pooled), np.int64)
        owners[order] = np.repeat(rng.permutation(count) % self.clients, sizes)
        rule = f"shards({self.shards} a client), seed {self.seed}"
        return deal_out(pooled, owners, self.clients, rule)


@register_partition("k_classes")
@dataclass(frozen=True)
class KClasses:
    """Every client has exactly so many classes, and the owners of a class share it equally.

    Classes have owners in equal number, up to one. With fewer owners than classes the rest belongs to no client.

    Args:
        clients: how many.
        classes: of each client.
        bins: of float targets, which stand for classes.
        seed: of who owns what, and of the deal.

    Raises:
        DataError: options out of range; when called, series, more classes than there are, or a class with fewer samples
            than owners.
    """

    clients: int
    classes: int = 2
    bins: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        raise_if_any(check(self, clients=(1, _ANY), classes=(1, _ANY), bins=(2, _ANY)))

    def __call__(self, population: Population) -> ClientSamples:
        """Return the samples dealt to new clients."""
        pooled = pool(population, "k_classes", self.clients, self.bins)
        if self.classes > pooled.classes:
            raise DataError(
                f"Partition 'k_classes' cannot give a client {self.classes} of {pooled.classes} classes. "
                "Ask for fewer."
            )
        rng = generator(self.seed, "k_classes")
        owns = self._owners(pooled.classes, rng)
        stock = np.bincount(pooled.labels, minlength=pooled.classes)
        if (owns.sum(axis=0) > stock).any():
            worst = int((owns.sum(axis=0) - stock).argmax())
            raise DataError(
                f"Partition 'k_classes': {int(owns[:, worst].sum())} clients share {int(stock[worst])} samples of "
                "one class. Ask for fewer clients or classes."
            )
        table = np.zeros(owns.shape, np.int64)
        for number in np.flatnonzero(owns.any(axis=0)):
            who = rng.permutation(np.flatnonzero(owns[:, number]))
            table[who, number] = apportion(np.ones(len(who)), int(stock[number]))
        rule = f"k_classes({self.classes} a client), seed {self.seed}"
        return deal_out(pooled, fill(table, pooled.labels, rng), self.clients, rule)

    def _owners(self, classes: int, rng: np.random.Generator) -> Booleans:
        """Return ``(clients, classes)`` booleans: each client takes the classes with fewest owners, ties at random."""
        owns = np.zeros((self.clients, classes), np.bool_)
        for client in range(self.clients):
            order = np.lexsort((rng.random(classes), owns.sum(axis=0)))
            owns[client, order[: self.classes]] = True
        return owns


def _dirichlet(alpha: Shares, count: int, rng: np.random.Generator) -> Shares:
    """Return ``(count, len(alpha))`` draws; where all parts are below the smallest number, one class at random."""
    shares = rng.dirichlet(alpha, count)
    broken = ~np.isfinite(shares).all(axis=1) | (shares.sum(axis=1) < 0.5)
    one = rng.choice(len(alpha), size=count, p=alpha / alpha.sum())
    return np.where(broken[:, None], np.eye(len(alpha))[one], shares)


def draw_table(shares: Shares, sizes: Ints, stock: Ints, rng: np.random.Generator) -> Ints:
    """Draw how many units of each class each client gets, without replacement.

    All clients draw at once; where a class is asked for more often than it occurs, chance says whose draws count, and
    the others draw again from what is left. A client that wants nothing that is left takes it as it comes.

    Args:
        shares: ``(clients, classes)``, rows of sum 1.
        sizes: ``(clients,)`` units of each client, of the same sum as ``stock``.
        stock: ``(classes,)`` units of each class.
        rng: of the draws.

    Returns:
        ``(clients, classes)`` with row sums ``sizes`` and column sums ``stock``.
    """
    table, left, lacking = np.zeros(shares.shape, np.int64), stock.copy(), sizes.copy()
    while lacking.any():
        wish = np.where(left > 0, shares, 0.0)
        wish = np.where(wish.sum(axis=1, keepdims=True) > 1e-12, wish, left / left.sum())
        asked = rng.multinomial(lacking, wish / wish.sum(axis=1, keepdims=True))
        for number in np.flatnonzero(asked.sum(axis=0) > left):
            asked[:, number] = rng.multivariate_hypergeometric(asked[:, number], int(left[number]))
        table += asked
        left = left - asked.sum(axis=0)
        lacking = lacking - asked.sum(axis=1)
    return table
