"""What an algorithm is: state, phases of local work, what goes up, and what a client predicts with."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from ..errors import PersoflError
from ..oracles import Batch, Oracle
from ..plan import Plan, constant_plan
from ..routes import OneRow, Relations, Routes

Rows = dict[str, Tensor]
"""A cohort's matrices by name: ``anchor``, ``shared``, ``personal`` ``(clients, parameters)``, or columns like ``mix``."""

LocalStep = Callable[[Rows, Batch, Oracle, Plan], Tensor]
"""One optimiser step of many clients: changes the rows in place and returns the losses ``(clients,)`` before it."""


def log_range(low: float, high: float) -> dict[str, Any]:
    """Field metadata: tune on a logarithmic scale from ``low`` to ``high``."""
    return {"search": {"low": low, "high": high, "log": True}}


def unit_range() -> dict[str, Any]:
    """Field metadata: tune evenly from 0 to 1."""
    return {"search": {"low": 0.0, "high": 1.0, "log": False}}


@dataclass(frozen=True)
class Phase:
    """A stretch of local training.

    Attributes:
        name: of its random stream; phases with other names draw other batches.
        steps: the plan's column that says how many.
        step: what one step does.
        target: the matrix that steps change, where they do so by :func:`descend` and :func:`pull` alone and read it nowhere
            else: the oracle may then keep it in a layout of its own until the last step. Empty where they do more.
    """

    name: str
    steps: str
    step: LocalStep
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class Algorithm(ABC):
    """A federated algorithm: hyperparameters as fields, behaviour as pure functions of rows.

    The defaults are FedAvg's: every client trains a copy of the anchor called ``shared``, the server averages the deltas
    and the client predicts with the anchor. A subclass is final, says what differs, and is registered by name.
    Fields with ``search`` metadata are tuned in studies.

    Attributes:
        lr: learning rate of the local steps.
        local_steps: optimiser steps a round.
        local_epochs: passes over the client's own data instead of ``local_steps``.
    """

    lr: float = field(default=0.1, metadata=log_range(1e-2, 1.0))
    local_steps: int = 20
    local_epochs: float | None = None

    name: ClassVar[str] = ""
    knobs: ClassVar[frozenset[str]] = frozenset({"lr", "local_steps", "weight"})
    federated: ClassVar[bool] = True
    chooses: ClassVar[bool] = False
    matrices: ClassVar[int] = 1  # that a step reads at a time; so many times fewer clients train at once

    def __post_init__(self) -> None:
        problems = [
            f"{name}={value}: {rule}"
            for name, value, ok, rule in (
                ("lr", self.lr, self.lr > 0, "must be positive"),
                ("local_steps", self.local_steps, self.local_steps >= 1, "give at least 1"),
                (
                    "local_epochs",
                    self.local_epochs,
                    self.local_epochs is None or self.local_epochs > 0,
                    "must be positive",
                ),
                *self.checks(),
            )
            if not ok
        ]
        if problems:
            raise PersoflError(f"Method {self.name!r}: " + "; ".join(problems) + ".")

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """More checks of fields: name, value, whether it is fine, and the rule."""
        return []

    def plan(self, counts: Tensor, batch_size: int) -> Plan:
        """The plan without modulators, every client by its own count of examples ``(clients,)``."""
        values = {knob: float(getattr(self, knob)) for knob in self.knobs - {"weight"} if hasattr(self, knob)}
        plan = constant_plan(counts, **values)
        if self.local_epochs is None:
            return plan
        steps = (counts * self.local_epochs / batch_size).ceil().clamp(min=1).to(torch.float32).unsqueeze(1)
        return dataclasses.replace(plan, local_steps=steps)

    def new_client(self, anchor: Tensor, plan: Plan) -> Rows:
        """State of clients that take part for the first time; anchor ``(clients, parameters)``."""
        return {}

    def begin(self, anchor: Tensor, state: Rows, plan: Plan) -> Rows:
        """Rows to work on this round, fresh copies; ``anchor`` itself is added by the engine."""
        return {"shared": anchor.clone()}

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """Local training, in order."""

    def delta(self, rows: Rows) -> Tensor | None:
        """What goes up: ``anchor - local`` ``(clients, parameters)``, or nothing."""
        return rows["anchor"] - rows["shared"]

    def keep(self, rows: Rows) -> Rows:
        """State that stays with the client until its next round."""
        return {}

    def adaptation(self) -> Phase | None:
        """Training of ``personal`` from the anchor when a client is about to predict, if any."""
        return None

    def predictor(self, anchor: Tensor, state: Rows, plan: Plan) -> Tensor:
        """Rows that the clients predict with, ``(clients, parameters)``; ``personal`` is in state after an adaptation."""
        return anchor

    def experts(self, anchor: Tensor, state: Rows, plan: Plan) -> tuple[Tensor, ...]:
        """The models whose predictions a client blends: the predictor's for most, else the population's and its own.

        Where an algorithm ``chooses`` or ``gates``, the models that it predicts with one or a mixture of, the safest first.
        """
        return (self.predictor(anchor, state, plan),)

    def gates(self) -> str:
        """Whose evidence decides how a client mixes its experts, see :mod:`persofl.gating`; empty where it does not."""
        return ""

    def compares(self) -> bool:
        """Whether it asks how far clients are from each other."""
        return False

    def routes(self, relations: Relations) -> Routes:
        """Which of the server's rows clients start from and send to; one for all, unless clients differ in that."""
        return OneRow()

    def server_optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """What applies the aggregate to the server's rows; SGD with rate 1 replaces a row by the average."""
        return torch.optim.SGD(parameters, lr=1.0)


ALGORITHMS: dict[str, type[Algorithm]] = {}

A = TypeVar("A", bound=type[Algorithm])


def register_algorithm(name: str) -> Callable[[A], A]:
    """Class decorator: make an algorithm available to configurations, studies and the conformance tests by name."""

    def add(algorithm: A) -> A:
        algorithm.name = name
        ALGORITHMS[name] = algorithm
        return algorithm

    return add


def descend(target: str, rows: Rows, batch: Batch, oracle: Oracle, lr: Tensor) -> Tensor:
    """One SGD step on a matrix, in place: ``w <- w - lr * grad``. Returns the losses."""
    return oracle.descend(rows[target], batch, lr)


def pull(target: str, rows: Rows, plan: Plan, oracle: Oracle | None = None) -> None:
    r"""Pull a matrix towards the anchor: the proximal step of ``prox / 2 * |w - a|^2`` after a gradient step, in place.

    .. math:: w \leftarrow \frac{w + \eta\lambda a}{1 + \eta\lambda}

    The explicit step ``w - lr * prox * (w - a)`` is its first-order part, but diverges once ``lr * prox > 2``; this one
    tends to the anchor as the strength grows, so a study can search strengths over decades. The oracle tells parameters,
    which are pulled, from statistics, which are not; without one all columns are parameters.
    """
    strength = plan.lr * plan.prox
    share = strength / (1 + strength)
    if oracle is None:
        rows[target].lerp_(rows["anchor"], share)
    else:
        oracle.pull(rows[target], rows["anchor"], share)


def shared_step(rows: Rows, batch: Batch, oracle: Oracle, plan: Plan) -> Tensor:
    """FedAvg's local step: SGD on ``shared``."""
    return descend("shared", rows, batch, oracle, plan.lr)


def personal_step(rows: Rows, batch: Batch, oracle: Oracle, plan: Plan) -> Tensor:
    """SGD on ``personal``."""
    return descend("personal", rows, batch, oracle, plan.lr)
