"""Gate: a mixture of the global, the fine-tuned and the own model, by evidence shared among clients that are alike.

References:
    Mansour, Mohri, Ro and Suresh, Three approaches for personalization with applications to federated learning, 2020,
    section 5 (model interpolation), with three models and a weight that borrows strength (:mod:`personalization.pooling`).
    Jacobs, Jordan, Nowlan and Hinton, Adaptive mixtures of local experts, Neural Computation 3(1), 1991, for the gate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..oracles import Batch, Oracle
from ..plan import Plan
from .base import Algorithm, Phase, Rows, descend, log_range, register_algorithm, shared_step

POOLS = ("neighbours", "everyone", "nobody")


@register_algorithm("gate")
@dataclass(frozen=True, kw_only=True)
class Gate(Algorithm):
    r"""FedAvg and local training side by side; a client predicts with a mixture of three models.

    .. math:: \hat y = a_{k1} f_w(x) + a_{k2} f_{u_k}(x) + a_{k3} f_{v_k}(x)

    with the global model w, u_k fine-tuned from it when the client predicts, and v_k trained alone. The weights, tenths
    that sum to 1, are those with the least error on the client's validation span *and* on those of other clients, whose
    evidence counts the more the closer their data lie. A client keeps the global model or its own alone where a mixture
    is not better by some share. How much others' evidence counts, how far a neighbour reaches and how large that share is
    are learnt from all (:mod:`personalization.pooling`): where distances tell nothing, all clients count alike. A round
    costs what FedAvg and local training cost together, an evaluation a fine-tuning more.

    Attributes:
        personal_lr: learning rate of the client's own model.
        personal_steps: steps on it a round, and steps of fine-tuning.
        tune_lr: learning rate of fine-tuning.
        pool: whose evidence counts beside the client's own: that of its ``"neighbours"`` by pairwise distance, of
            ``"everyone"`` alike, or of ``"nobody"``; a client without validation examples follows the others in any case.
        harm: what a client that is worse off than with the global model or its own counts beside its error, in mean
            errors, when the gate is learnt; 0 minds the mean error alone.
    """

    personal_lr: float = field(default=0.1, metadata=log_range(1e-2, 1.0))
    personal_steps: int = field(default=20, metadata={"search": {"low": 1, "high": 100, "log": True}})
    tune_lr: float = field(default=0.02, metadata=log_range(1e-3, 0.5))
    pool: str = "neighbours"
    harm: float = 0.2

    knobs: ClassVar[frozenset[str]] = frozenset({"lr", "local_steps", "personal_steps", "weight"})

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [
            ("personal_lr", self.personal_lr, self.personal_lr > 0, "must be positive"),
            ("personal_steps", self.personal_steps, self.personal_steps >= 1, "give at least 1"),
            ("tune_lr", self.tune_lr, self.tune_lr > 0, "must be positive"),
            ("pool", self.pool, self.pool in POOLS, f"choose of {', '.join(POOLS)}"),
            ("harm", self.harm, self.harm >= 0, "must not be negative"),
        ]

    def new_client(self, anchor: Tensor, plan: Plan) -> Rows:
        """The client's own model starts at the anchor of its first round."""
        return {"own": anchor.clone()}

    def begin(self, anchor: Tensor, state: Rows, plan: Plan) -> Rows:
        """See :class:`Algorithm`."""
        return {"shared": anchor.clone(), "own": state["own"].clone()}

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (
            Phase("shared", "local_steps", shared_step, "shared"),
            Phase("personal", "personal_steps", self._own_step, "own"),
        )

    def _own_step(self, rows: Rows, batch: Batch, oracle: Oracle, plan: Plan) -> Tensor:
        # A modulator of lr scales the client's own training by the same factor as the shared steps.
        return descend("own", rows, batch, oracle, plan.lr * (self.personal_lr / self.lr))

    def keep(self, rows: Rows) -> Rows:
        """See :class:`Algorithm`."""
        return {"own": rows["own"]}

    def adaptation(self) -> Phase:
        """See :class:`Algorithm`."""
        return Phase("finetune", "personal_steps", self._tune_step, "personal")

    def _tune_step(self, rows: Rows, batch: Batch, oracle: Oracle, plan: Plan) -> Tensor:
        return descend("personal", rows, batch, oracle, plan.lr * (self.tune_lr / self.lr))

    def experts(self, anchor: Tensor, state: Rows, plan: Plan) -> tuple[Tensor, ...]:
        """The global model, the fine-tuned one and the client's own."""
        return anchor, state["personal"], state["own"]

    def compares(self) -> bool:
        """See :class:`Algorithm`."""
        return self.pool == "neighbours"

    def gates(self) -> str:
        """See :class:`Algorithm`."""
        return self.pool
