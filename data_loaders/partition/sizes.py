"""No skew at all, and skew in how much a client has."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import DataError, raise_if_any
from ..runs import Ints
from ..samples import ClientSamples
from .base import Population, check, generator, register_partition
from .pooled import Pool, apportion, deal_out, pool

_ANY = 2.0**63


@register_partition("iid")
@dataclass(frozen=True)
class IID:
    """All samples shuffled and dealt in equal parts: what every skew is compared with.

    Args:
        clients: how many.
        seed: of the shuffle.

    Raises:
        DataError: options out of range; when called, series, or more clients than samples.
    """

    clients: int
    seed: int = 0

    def __post_init__(self) -> None:
        raise_if_any(check(self, clients=(1, _ANY)))

    def __call__(self, population: Population) -> ClientSamples:
        """Return the samples dealt to new clients, whose numbers of samples differ by one at most."""
        pooled = pool(population, "iid", self.clients)
        sizes = apportion(np.ones(self.clients), len(pooled))
        owners = _shuffled(pooled, sizes, generator(self.seed, "iid"))
        return deal_out(pooled, owners, self.clients, f"iid, seed {self.seed}")


@register_partition("quantity")
@dataclass(frozen=True)
class Quantity:
    """Clients of unequal size, otherwise alike.

    Args:
        clients: how many.
        law: ``"lognormal"``: sizes in the ratio of ``exp(spread * normal)``; ``"zipf"``: of ``1 / rank ** spread``.
        spread: 0 gives equal sizes.
        min_samples: of every client, taken off before the rest is shared out.
        seed: of the sizes and of the deal.

    Raises:
        DataError: options out of range; when called, series, or too few samples.
    """

    clients: int
    law: Literal["lognormal", "zipf"] = "lognormal"
    spread: float = 1.0
    min_samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        laws = (
            ()
            if self.law in ("lognormal", "zipf")
            else (f"law must be 'lognormal' or 'zipf', got {self.law!r}.",)
        )
        raise_if_any([*check(self, clients=(1, _ANY), spread=(0, 50), min_samples=(1, _ANY)), *laws])

    def __call__(self, population: Population) -> ClientSamples:
        """Return the samples dealt to new clients, all of them."""
        pooled = pool(population, "quantity", self.clients)
        if self.clients * self.min_samples > len(pooled):
            raise DataError(
                f"Partition 'quantity' cannot give {self.clients} clients min_samples={self.min_samples} of "
                f"{len(pooled)} samples. Ask for fewer of either."
            )
        rng = generator(self.seed, "quantity")
        logs = rng.standard_normal(self.clients)
        if self.law == "zipf":
            logs = -np.log1p(rng.permutation(self.clients))
        weights = np.exp(self.spread * (logs - logs.max()))
        sizes = apportion(weights, len(pooled), self.min_samples)
        rule = f"quantity({self.law}, spread {self.spread:g}), seed {self.seed}"
        return deal_out(pooled, _shuffled(pooled, sizes, rng), self.clients, rule)


def _shuffled(pooled: Pool, sizes: Ints, rng: np.random.Generator) -> Ints:
    """Return the owner of every unit when shuffled units are dealt in parts of these sizes."""
    return rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
