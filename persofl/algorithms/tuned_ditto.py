"""Tuned Ditto: the strength of the pull chosen by each client on its validation span.

References:
    Li et al., Ditto: fair and robust federated learning through personalization, ICML 2021, algorithm 1, where a device may
    also tune lambda on its own validation data. Here every strength of a small grid has a personal model from the first
    round on. A learned competitor of what a distance chooses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import ClassVar

import torch
from torch import Tensor

from ..oracles import Batch, Oracle
from ..plan import Plan
from .base import Algorithm, Phase, Rows, descend, pull, register_algorithm, shared_step


@register_algorithm("tuned_ditto")
@dataclass(frozen=True, kw_only=True)
class TunedDitto(Algorithm):
    r"""Ditto with one personal model for every strength of a grid; a client predicts with the one that does best.

    .. math:: \lambda_k = \arg\min_{\lambda \in \text{grid}} F_k^{\mathrm{validation}}(v_k(\lambda))

    All personal models see the same batches, those that Ditto's would. Every strength costs a client as many steps and as
    much memory as Ditto's personal model: with a grid of four a round takes about 2.5 times Ditto's time, and its state
    four times the room; nothing more is sent. On the validation span itself each half is predicted with the choice of the
    other (:mod:`persofl.choosing`).

    Attributes:
        grid: strengths to choose from, the strongest first; a client without validation examples takes the first.
        personal_steps: steps on each personal model a round.
    """

    grid: tuple[float, ...] = (3.0, 0.3, 0.03, 0.0)
    personal_steps: int = 20

    knobs: ClassVar[frozenset[str]] = frozenset({"lr", "local_steps", "personal_steps", "weight"})
    chooses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", tuple(self.grid))  # a configuration file gives a list
        super().__post_init__()

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        falling = list(self.grid) == sorted(set(self.grid), reverse=True)
        strengths = all(isfinite(prox) and prox >= 0 for prox in self.grid)
        return [
            (
                "grid",
                self.grid,
                bool(self.grid) and strengths and falling,
                "give falling strengths, none negative",
            ),
            ("personal_steps", self.personal_steps, self.personal_steps >= 1, "give at least 1"),
        ]

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"personal{number}" for number in range(len(self.grid)))

    def new_client(self, anchor: Tensor, plan: Plan) -> Rows:
        """The personal models start at the anchor."""
        return {name: anchor.clone() for name in self._names}

    def begin(self, anchor: Tensor, state: Rows, plan: Plan) -> Rows:
        """See :class:`Algorithm`."""
        return {"shared": anchor.clone(), **{name: state[name].clone() for name in self._names}}

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`; the personal phases share a name, and with it their batches."""
        personal = [
            Phase("personal", "personal_steps", partial(_proximal_step, name, prox), name)
            for name, prox in zip(self._names, self.grid, strict=True)
        ]
        return (Phase("shared", "local_steps", shared_step, "shared"), *personal)

    def keep(self, rows: Rows) -> Rows:
        """See :class:`Algorithm`."""
        return {name: rows[name] for name in self._names}

    def experts(self, anchor: Tensor, state: Rows, plan: Plan) -> tuple[Tensor, ...]:
        """The personal models, in the order of the grid."""
        return tuple(state[name] for name in self._names)


def _proximal_step(target: str, prox: float, rows: Rows, batch: Batch, oracle: Oracle, plan: Plan) -> Tensor:
    losses = descend(target, rows, batch, oracle, plan.lr)
    pull(target, rows, replace(plan, prox=torch.full_like(plan.lr, prox)), oracle)
    return losses
