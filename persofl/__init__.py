"""persofl: personalised federated learning on energy, vehicle and voice data, steered by optimal-transport distances."""

from typing import TYPE_CHECKING, Any

from .algorithms import (
    ALGORITHMS,
    APFL,
    Algorithm,
    Aligned,
    BestOf,
    ClusterFedAvg,
    Ditto,
    FedAdam,
    FedAvg,
    FedPer,
    FedProx,
    FineTune,
    LGFedAvg,
    Local,
    Neighbours,
    TunedDitto,
)
from .errors import DivergedError, PersoflError
from .federation import Federation, RoundConfig, RoundParts, build_federation
from .heterogeneity import Heterogeneity, heterogeneity
from .losses import AbsoluteError, CrossEntropy, Pinball, SquaredError
from .method import Method, method_params, parse_method, search_space
from .models import MLP, MODELS, Shape, build_model
from .personaliser import DistanceConfig, measure_distances
from .round import RoundReport, run_round

if TYPE_CHECKING:
    from .module import FederatedModule

__version__ = "0.1.0"

__all__ = [
    "ALGORITHMS",
    "APFL",
    "MLP",
    "MODELS",
    "AbsoluteError",
    "Algorithm",
    "Aligned",
    "BestOf",
    "ClusterFedAvg",
    "CrossEntropy",
    "DistanceConfig",
    "Ditto",
    "DivergedError",
    "FedAdam",
    "FedAvg",
    "FedPer",
    "FedProx",
    "FederatedModule",
    "Federation",
    "FineTune",
    "Heterogeneity",
    "LGFedAvg",
    "Local",
    "Method",
    "Neighbours",
    "PersoflError",
    "Pinball",
    "RoundConfig",
    "RoundParts",
    "RoundReport",
    "Shape",
    "SquaredError",
    "TunedDitto",
    "build_federation",
    "build_model",
    "heterogeneity",
    "measure_distances",
    "method_params",
    "parse_method",
    "run_round",
    "search_space",
]


def __getattr__(name: str) -> Any:
    """Import the Lightning shell when it is first asked for; Lightning takes seconds."""
    if name != "FederatedModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .module import FederatedModule

    return FederatedModule
