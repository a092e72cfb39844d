"""The dial of a twin: from one law for all clients to archetypes and own habits in full."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Law:
    """What clients of a twin are drawn from.

    Args:
        names: of the parameters.
        base: ``(parameters,)`` of everybody at dial 0.
        archetypes: their parameters, ``(parameters,)`` each.
        spread: ``(parameters,)`` of a client around its archetype: of the logarithm, or where ``additive``, of the value.
        additive: ``(parameters,)`` bool.
        upper: ``(parameters,)`` the largest value, inf for none.
    """

    names: tuple[str, ...]
    base: Array
    archetypes: Mapping[str, Array]
    spread: Array
    additive: npt.NDArray[np.bool_]
    upper: Array

    def parameters(self, kinds: Sequence[str], own: Array, heterogeneity: float) -> Array:
        """Return each client's parameters, on the straight line from the base to its own, ``(clients, parameters)``.

        Args:
            kinds: archetype of each client.
            own: ``(clients, parameters)`` standard normal, how each differs from its archetype.
            heterogeneity: 0: all alike, 1: archetype and own habits in full.
        """
        typical = np.stack([self.archetypes[kind] for kind in kinds])
        moved = typical + self.spread * own
        scaled = typical * np.exp(self.spread * own - self.spread**2 / 2)
        target = np.minimum(np.where(self.additive, moved, scaled), self.upper)
        return np.asarray(self.base + heterogeneity * (target - self.base))

    def distance(self, parameters: Array, kinds: Sequence[str], heterogeneity: float) -> Array:
        """Return how far clients lie from the mean of the law they are drawn from, ``(clients,)``.

        Root mean square over the parameters, each in units of its standard deviation at full heterogeneity.

        Args:
            parameters: ``(clients, parameters)``.
            kinds: the archetypes of the law, all equally likely.
            heterogeneity: the law's.
        """
        table = np.stack([self.archetypes[kind] for kind in kinds])
        mean = self.base + heterogeneity * (table.mean(axis=0) - self.base)
        log_spread = np.sqrt(np.expm1(self.spread**2) * (table**2).mean(axis=0))
        scale = np.sqrt(table.var(axis=0) + np.where(self.additive, self.spread, log_spread) ** 2)
        offset = (parameters - mean) / np.where(scale > 0, scale, 1)
        return np.asarray(np.sqrt((offset**2).mean(axis=1)))
