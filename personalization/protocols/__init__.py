"""Distances between parties that keep their samples: protocols that say what they send and what it tells.

outcome = SummedReference().run(features)          # list of (n_k, F) tensors, one per client
outcome.distances, outcome.transcript.bytes_up(), SummedReference().learns()
"""

from ..budget import BudgetExhaustedError, PrivacyBudget, Spending
from .base import Outcome, Protocol
from .fedwad import FedWaD
from .gaussians import ClassGaussians
from .masks import PairwiseMasks
from .noise import GaussianNoise
from .sketches import QuantileSketches
from .summed import SummedReference
from .transcript import EVERYONE, SERVER, Message, Piece, Transcript, client
from .triangle import TriangleWad

__all__ = [
    "EVERYONE",
    "SERVER",
    "BudgetExhaustedError",
    "ClassGaussians",
    "FedWaD",
    "GaussianNoise",
    "Message",
    "Outcome",
    "PairwiseMasks",
    "Piece",
    "PrivacyBudget",
    "Protocol",
    "QuantileSketches",
    "Spending",
    "SummedReference",
    "Transcript",
    "TriangleWad",
    "client",
]
