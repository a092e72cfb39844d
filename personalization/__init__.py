"""How far does each client's law lie from the population's, and what should that change in its training?

Distances by optimal transport, calibrated by sample size, and modulators that turn them into coefficients. "sliced" and
"gaussian" need sums only, so that no raw data leave a client; the others compare samples. Imports torch, NumPy and POT
(with SciPy, which POT brings), and scikit-learn for :func:`find_clusters` only; usable without the rest of persofl.

    distances = distance_to_population(features)                  # list of (n_k, F) tensors
    mix = build_modulator("mix_by_distance", tau=1.0)(base, distances)      # (clients, 1) -> (clients, 1)
"""

from .alignment import ExponentialAlignment
from .between import (
    EnergyDistance,
    ExactDistance,
    JointDistance,
    KernelDistance,
    LabelAwareDistance,
    LabelMarginalDistance,
    MaxSlicedDistance,
    MixtureDistance,
    SinkhornDistance,
    SpectralDistance,
    labelled,
    wasserstein_line,
)
from .calibration import calibrate
from .clustering import CLUSTERINGS, Clustering, build_clustering, register_clustering
from .clusters import Clusters, find_clusters, nearest_cluster
from .depth import QuantileDepth
from .distances import Distances
from .features import calendar_cells, calendar_conditional, daily_profiles, residual_norm, residual_profile
from .gaussian import GaussianDistance, bures_squared, bures_wasserstein, matrix_root, moments
from .graph import GRAPHS, Graph, InverseGraph, KernelGraph, RowQPGraph, build_graph, register_graph
from .kind import DISTANCES, DistanceKind, Statistics, build_distance, register_distance
from .mixing import ExponentialMixing, ShrinkageMixing, TrendMixing
from .modulators import (
    KNOBS,
    MODULATORS,
    Modulator,
    build_modulator,
    modulator_name,
    register_modulator,
)
from .null import Null, fit_null, size_grid
from .pairwise import Pairwise, pairwise_distances, pairwise_of_statistics
from .parameters import cosine_distance, l2_distance
from .pooling import Pooled, pooled_choices
from .population import client_statistics, distance_to_population
from .proximal import BayesProx, ExponentialProx, InverseProx
from .reference import Summary, combine, summarise
from .samples import SampleDistance
from .sketch import midpoint_levels, quantile_sketch, quantile_sketches, unit_projections
from .sliced import SlicedDistance, pairwise_sliced_wasserstein, sliced_wasserstein
from .updates import pairwise_update_distances, update_distances
from .weighting import RectifiedWeight
from .work import DampedRate, PersonalWork, SharedWork

__all__ = [
    "CLUSTERINGS",
    "DISTANCES",
    "GRAPHS",
    "KNOBS",
    "MODULATORS",
    "BayesProx",
    "Clustering",
    "Clusters",
    "DampedRate",
    "DistanceKind",
    "Distances",
    "EnergyDistance",
    "ExactDistance",
    "ExponentialAlignment",
    "ExponentialMixing",
    "ExponentialProx",
    "GaussianDistance",
    "Graph",
    "InverseGraph",
    "InverseProx",
    "JointDistance",
    "KernelDistance",
    "KernelGraph",
    "LabelAwareDistance",
    "LabelMarginalDistance",
    "MaxSlicedDistance",
    "MixtureDistance",
    "Modulator",
    "Null",
    "Pairwise",
    "PersonalWork",
    "Pooled",
    "QuantileDepth",
    "RectifiedWeight",
    "RowQPGraph",
    "SampleDistance",
    "SharedWork",
    "ShrinkageMixing",
    "SinkhornDistance",
    "SlicedDistance",
    "SpectralDistance",
    "Statistics",
    "Summary",
    "TrendMixing",
    "build_clustering",
    "build_distance",
    "build_graph",
    "build_modulator",
    "bures_squared",
    "bures_wasserstein",
    "calendar_cells",
    "calendar_conditional",
    "calibrate",
    "client_statistics",
    "combine",
    "cosine_distance",
    "daily_profiles",
    "distance_to_population",
    "find_clusters",
    "fit_null",
    "l2_distance",
    "labelled",
    "matrix_root",
    "midpoint_levels",
    "modulator_name",
    "moments",
    "nearest_cluster",
    "pairwise_distances",
    "pairwise_of_statistics",
    "pairwise_sliced_wasserstein",
    "pairwise_update_distances",
    "pooled_choices",
    "quantile_sketch",
    "quantile_sketches",
    "register_clustering",
    "register_distance",
    "register_graph",
    "register_modulator",
    "residual_norm",
    "residual_profile",
    "size_grid",
    "sliced_wasserstein",
    "summarise",
    "unit_projections",
    "update_distances",
    "wasserstein_line",
]
