"""Secure aggregation, simulated: pairwise masks that cancel in the sum and hide every single message.

Messages become fixed-point integers modulo 2^64, so that a mask drawn uniformly hides its message perfectly and the
masks cancel to the last bit. What is simulated: the parties' shared seeds (a real deployment agrees on them by Diffie
and Hellman, 32 bytes a neighbour, and draws from a cryptographic generator) and that nobody drops out.

References:
    Bonawitz et al., Practical secure aggregation for privacy-preserving machine learning, CCS 2017; Bell et al.,
    Secure single-server aggregation with (poly)logarithmic overhead, CCS 2020, for a few neighbours instead of all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ..errors import check_fields, check_finite

_FINEST = 52  # bits of a float64


@dataclass(frozen=True)
class PairwiseMasks:
    """Masks shared with the neighbours on a ring of clients.

    Args:
        bits: after the binary point; the sum of K values is exact to ``K 2^-(bits + 1)``.
        neighbours: on each side of the ring. All pairs where there are fewer clients. The server reads a client's
            message only together with all its neighbours.
        seed: of the masks.
        release: of a seed, see :meth:`Protocol.run`.

    Raises:
        ValueError: an option out of range.
    """

    bits: int = 24
    neighbours: int = 16
    seed: int = 0
    release: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.bits <= _FINEST:
            raise ValueError(f"bits={self.bits} must lie between 0 and {_FINEST}.")
        if self.neighbours < 1:
            raise ValueError(
                f"neighbours={self.neighbours} must be at least 1: who shares no mask hides nothing."
            )

    def released(self, release: int) -> Self:
        """The masks of a later run on data that may have changed."""
        return replace(self, release=release)

    def encode(self, messages: Mapping[str, Tensor], *, turn: int = 0) -> dict[str, Tensor]:
        """The clients' masked messages.

        Args:
            messages: float arrays by name, ``(clients, *shape)``.
            turn: which of a run's masked messages this is; of two under the same masks the server has the difference.

        Returns:
            int64 arrays of the same shapes, whose sum over the clients is the sum of the messages.

        Raises:
            ValueError: fewer than two clients, NaN, or a value so large that the sum could overflow.
        """
        check_finite(**messages)
        first = next(iter(messages.values()))
        clients = len(first)
        if clients < 2:
            raise ValueError(f"{clients} client(s): a sum hides nothing unless there are at least two.")
        flat = torch.cat([x.reshape(clients, -1).double() for x in messages.values()], dim=1)
        limit = 2.0 ** (62 - self.bits) / clients
        if float(flat.abs().max()) >= limit:
            raise ValueError(
                f"A summary holds {float(flat.abs().max()):.3g}; with bits={self.bits} and {clients} clients the sum "
                f"could overflow beyond {limit:.3g}. Standardise the features, or lower bits."
            )
        masked = (flat * 2.0**self.bits).round().long().cpu().numpy() + self._masks(
            clients, flat.shape[1], turn
        )
        return _split(torch.from_numpy(masked).to(first.device), messages)

    def refuse_coarse(self, name: str, values: Tensor) -> None:
        """Refuse values that the fixed point would round to nothing.

        Raises:
            ValueError: the largest is less than 256 steps of ``2^-bits``.
        """
        most = float(values.abs().max())
        if 0 < most < 2.0 ** (8 - self.bits):
            needed = math.ceil(8 - math.log2(most))
            finer = f", or give masks with bits={needed}" if needed <= _FINEST else ""
            raise ValueError(
                f"The clients' {name} is {most:.3g} at most, which bits={self.bits} round to steps of "
                f"{2.0**-self.bits:.1g}. Standardise the features{finer}."
            )

    def decode(self, total: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Values of a sum of masked messages, float64."""
        return {name: x.double() / 2.0**self.bits for name, x in total.items()}

    def _masks(self, clients: int, width: int, turn: int) -> np.ndarray:
        masks, seed = np.zeros((clients, width), dtype=np.int64), self.seed % 2**64
        for one in range(clients):
            for other in self.partners(one, clients):
                if other > one:
                    shared = np.random.default_rng([seed, one, other, turn, self.release]).integers(
                        -(2**63), 2**63 - 1, width, dtype=np.int64, endpoint=True
                    )
                    masks[one] += shared
                    masks[other] -= shared
        return masks

    def partners(self, one: int, clients: int) -> list[int]:
        """Those with whom a client shares a mask."""
        steps = range(1, min(self.neighbours, clients // 2) + 1)
        return sorted({(one + sign * step) % clients for step in steps for sign in (1, -1)} - {one})


def _split(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    widths = [x[0].numel() for x in like.values()]
    parts = flat.split(widths, dim=1)
    return {name: part.reshape(x.shape) for (name, x), part in zip(like.items(), parts, strict=True)}
