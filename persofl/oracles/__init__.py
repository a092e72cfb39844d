"""Gradient oracles: losses and gradients of many clients' models at once."""

from .base import Batch, Oracle, Penalty
from .batched import BatchedOracle
from .build import ORACLES, build_oracle
from .loop import LoopOracle
from .vmap import VmapOracle

__all__ = [
    "ORACLES",
    "Batch",
    "BatchedOracle",
    "LoopOracle",
    "Oracle",
    "Penalty",
    "VmapOracle",
    "build_oracle",
]
