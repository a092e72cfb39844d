"""Gate over the average of the clients whose data lie close: distances say whom to learn from and whose evidence counts.

References:
    See :mod:`persofl.algorithms.neighbours` for the average and :mod:`persofl.algorithms.gate` for the mixture.
"""

from __future__ import annotations

from dataclasses import dataclass

from .base import register_algorithm
from .gate import Gate
from .neighbours import Neighbours


@register_algorithm("gated_neighbours")
@dataclass(frozen=True, kw_only=True)
class GatedNeighbours(Gate, Neighbours):
    """:class:`Gate`, with the average of a client's neighbours in place of the global model.

    The three models of a client are that average, the same fine-tuned, and one that it trains alone. ``scale -> inf`` is
    :class:`Gate` where all clients take part in every round.
    """

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [*Neighbours.checks(self), *Gate.checks(self)]

    def compares(self) -> bool:
        """See :class:`Algorithm`."""
        return True
