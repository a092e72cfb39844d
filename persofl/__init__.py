"""persofl: personalised federated learning on energy time series, steered by optimal-transport distances."""

from .algorithms import ALGORITHMS, APFL, Algorithm, Ditto, FedAdam, FedAvg, FedProx, FineTune, Local
from .errors import DivergedError, PersoflError
from .federation import Federation, RoundConfig, RoundParts, build_federation
from .losses import AbsoluteError, Pinball, SquaredError
from .method import Method, method_params, parse_method, search_space
from .models import MLP, MODELS, Shape, build_model
from .module import FederatedModule
from .personaliser import DistanceConfig, measure_distances
from .round import RoundReport, run_round

__version__ = "0.1.0"

__all__ = [
    "ALGORITHMS",
    "APFL",
    "MLP",
    "MODELS",
    "AbsoluteError",
    "Algorithm",
    "DistanceConfig",
    "Ditto",
    "DivergedError",
    "FedAdam",
    "FedAvg",
    "FedProx",
    "FederatedModule",
    "Federation",
    "FineTune",
    "Local",
    "Method",
    "PersoflError",
    "Pinball",
    "RoundConfig",
    "RoundParts",
    "RoundReport",
    "Shape",
    "SquaredError",
    "build_federation",
    "build_model",
    "measure_distances",
    "method_params",
    "parse_method",
    "run_round",
    "search_space",
]
