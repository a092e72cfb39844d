"""Aligned: a personal model whose embedding keeps the law that the global model's has.

References:
    Xu, Tong and Huang, Personalized federated learning with feature alignment and classifier collaboration, ICLR 2023, pull
    a client's features towards the population's, class by class. Without classes we compare the laws of a batch's
    embeddings, by the sliced Wasserstein distance as in Kolouri et al., Sliced Wasserstein auto-encoders, ICLR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import ClassVar

import torch
from torch import Tensor

from personalization import sliced_wasserstein, unit_projections

from ..oracles import Batch, Oracle, Penalty
from ..plan import Plan
from .base import Algorithm, Phase, Rows, log_range, register_algorithm, shared_step


@register_algorithm("aligned")
@dataclass(frozen=True, kw_only=True)
class Aligned(Algorithm):
    r"""FedAvg for the shared model, and beside it a personal one whose embeddings are pulled towards the anchor's.

    .. math:: \min_{v_k} F_k(v_k) + \mathrm{align}\; \mathrm{SW}_2^2\big(\varphi_{v_k}(x), \varphi_w(x)\big)

    over batches x, with :math:`\varphi` what reaches the model's ``head``. Where Ditto ties parameters, this ties what the
    head gets to see and leaves the head free; squared, so that it is smooth where the laws agree. ``align = 0`` trains the
    personal model alone. A model that is nothing but a head (``linear``, ``dlinear``) has nothing to align.

    Attributes:
        align: strength of the pull.
        personal_steps: steps on the personal model a round.
        projections: directions along which embeddings are compared.
    """

    align: float = field(default=0.1, metadata=log_range(1e-3, 10.0))
    personal_steps: int = 20
    projections: int = 32

    knobs: ClassVar[frozenset[str]] = frozenset({"lr", "local_steps", "personal_steps", "align", "weight"})

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [
            ("align", self.align, self.align >= 0, "must not be negative"),
            ("personal_steps", self.personal_steps, self.personal_steps >= 1, "give at least 1"),
            ("projections", self.projections, self.projections >= 1, "give at least 1"),
        ]

    def new_client(self, anchor: Tensor, plan: Plan) -> Rows:
        """The personal model starts at the anchor."""
        return {"personal": anchor.clone()}

    def begin(self, anchor: Tensor, state: Rows, plan: Plan) -> Rows:
        """See :class:`Algorithm`."""
        return {"shared": anchor.clone(), "personal": state["personal"].clone()}

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (
            Phase("shared", "local_steps", shared_step, "shared"),
            Phase("personal", "personal_steps", self._aligned_step),
        )

    def _aligned_step(self, rows: Rows, batch: Batch, oracle: Oracle, plan: Plan) -> Tensor:
        anchors = oracle.embed(rows["anchor"], batch.x)
        # Drawn here, not in the gap: an oracle that vectorises the gap would draw others for every client.
        directions = _directions(anchors.shape[-1], self.projections, anchors.dtype, anchors.device)
        penalty = Penalty(partial(squared_gap, directions), sorted_along(directions, anchors), plan.align)
        losses, grads = oracle.grad(rows["personal"], batch, penalty)
        rows["personal"].addcmul_(grads, plan.lr, value=-1)
        return losses

    def keep(self, rows: Rows) -> Rows:
        """See :class:`Algorithm`."""
        return {"personal": rows["personal"]}

    def predictor(self, anchor: Tensor, state: Rows, plan: Plan) -> Tensor:
        """See :class:`Algorithm`."""
        return state["personal"]


@lru_cache(maxsize=16)
def _directions(width: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Unit directions ``(count, width)``, the same at every step: drawn on the host and sent to the device once."""
    return unit_projections(width, count, like=torch.empty(0, dtype=dtype, device=device))


def sorted_along(directions: Tensor, embedding: Tensor) -> Tensor:
    """Embeddings ``(..., batch, width)`` along directions ``(L, width)``, each sorted: a sketch ``(..., L, batch)``."""
    return (directions @ embedding.mT).sort(dim=-1).values


def squared_gap(directions: Tensor, embedding: Tensor, target: Tensor) -> Tensor:
    """Squared sliced distance of embeddings ``(..., batch, width)`` to a sketch of as many, ``(...)``."""
    return sliced_wasserstein(sorted_along(directions, embedding), target) ** 2
