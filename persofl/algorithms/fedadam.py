"""FedAdam: FedAvg with Adam on the server.

References:
    Reddi et al., Adaptive federated optimization, ICLR 2021, algorithm 2. ``torch.optim.Adam`` also corrects the bias of
    the first moments, which the paper leaves out; ``tau`` is its ``eps``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .base import Algorithm, Phase, log_range, register_algorithm, shared_step


@register_algorithm("fedadam")
@dataclass(frozen=True, kw_only=True)
class FedAdam(Algorithm):
    """FedAvg's clients; the server takes an Adam step along the averaged delta.

    Attributes:
        server_lr: Adam's rate; unlike FedAvg's 1, it is the size of a step in each coordinate.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        tau: adaptivity, added to the root of the second moment.
    """

    server_lr: float = field(default=0.01, metadata=log_range(1e-3, 0.3))
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def checks(self) -> list[tuple[str, object, bool, str]]:
        """See :class:`Algorithm`."""
        return [
            ("server_lr", self.server_lr, self.server_lr > 0, "must be positive"),
            ("beta1", self.beta1, 0 <= self.beta1 < 1, "lies in [0, 1)"),
            ("beta2", self.beta2, 0 <= self.beta2 < 1, "lies in [0, 1)"),
            ("tau", self.tau, self.tau > 0, "must be positive"),
        ]

    def phases(self) -> tuple[Phase, ...]:
        """See :class:`Algorithm`."""
        return (Phase("shared", "local_steps", shared_step, "shared"),)

    def server_optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """See :class:`Algorithm`."""
        return torch.optim.Adam(parameters, lr=self.server_lr, betas=(self.beta1, self.beta2), eps=self.tau)
