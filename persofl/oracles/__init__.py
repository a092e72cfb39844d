"""Gradient oracles: losses and gradients of many clients' models at once."""

from .base import Batch, Oracle, Penalty
from .batched import BatchedOracle
from .build import ORACLES, build_oracle
from .loop import LoopOracle
from .rounded import RoundedOracle, build_rounded
from .vmap import VmapOracle

__all__ = [
    "ORACLES",
    "Batch",
    "BatchedOracle",
    "LoopOracle",
    "Oracle",
    "Penalty",
    "RoundedOracle",
    "VmapOracle",
    "build_oracle",
    "build_rounded",
]
