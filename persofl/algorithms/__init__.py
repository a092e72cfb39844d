"""Federated algorithms, one file each; importing the package registers them."""

from .apfl import APFL
from .base import ALGORITHMS, Algorithm, LocalStep, Phase, Rows, register_algorithm
from .best_of import BestOf
from .blend import Blend
from .ditto import Ditto
from .clusters import ClusterFedAvg
from .fedadam import FedAdam
from .fedavg import FedAvg
from .fedper import FedPer
from .fedprox import FedProx
from .finetune import FineTune
from .lgfedavg import LGFedAvg
from .local import Local
from .tuned_ditto import TunedDitto
from .neighbours import Neighbours

__all__ = [
    "ALGORITHMS",
    "APFL",
    "Algorithm",
    "BestOf",
    "Blend",
    "Ditto",
    "FedAdam",
    "ClusterFedAvg",
    "FedAvg",
    "FedPer",
    "FedProx",
    "FineTune",
    "LGFedAvg",
    "Local",
    "LocalStep",
    "Phase",
    "Rows",
    "Neighbours",
    "TunedDitto",
    "register_algorithm",
]
