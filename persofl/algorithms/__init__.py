"""Federated algorithms, one file each; importing the package registers them."""

from .aligned import Aligned
from .apfl import APFL
from .base import ALGORITHMS, Algorithm, LocalStep, Phase, Rows, register_algorithm
from .best_of import BestOf
from .blend import Blend
from .clusters import ClusterFedAvg
from .ditto import Ditto
from .fedadam import FedAdam
from .fedavg import FedAvg
from .fedper import FedPer
from .fedprox import FedProx
from .finetune import FineTune
from .gate import Gate
from .gated_neighbours import GatedNeighbours
from .lgfedavg import LGFedAvg
from .local import Local
from .neighbours import Neighbours
from .tuned_ditto import TunedDitto
from .tuned_neighbours import TunedNeighbours

__all__ = [
    "ALGORITHMS",
    "APFL",
    "Algorithm",
    "Aligned",
    "BestOf",
    "Blend",
    "ClusterFedAvg",
    "Ditto",
    "FedAdam",
    "FedAvg",
    "FedPer",
    "FedProx",
    "FineTune",
    "Gate",
    "GatedNeighbours",
    "LGFedAvg",
    "Local",
    "LocalStep",
    "Neighbours",
    "Phase",
    "Rows",
    "TunedDitto",
    "TunedNeighbours",
    "register_algorithm",
]
