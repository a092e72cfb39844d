"""Distances between two samples, one kind a file; importing the package registers them all."""

from .exact import ExactDistance
from .kernel import EnergyDistance, KernelDistance
from .labelled import JointDistance, LabelAwareDistance, LabelMarginalDistance, labelled
from .line import wasserstein_line
from .max_sliced import MaxSlicedDistance
from .mixture import MixtureDistance, fit_mixture
from .sinkhorn import SinkhornDistance, sinkhorn_potentials
from .spectral import SpectralDistance, power_spectrum

__all__ = [
    "EnergyDistance",
    "ExactDistance",
    "JointDistance",
    "KernelDistance",
    "LabelAwareDistance",
    "LabelMarginalDistance",
    "MaxSlicedDistance",
    "MixtureDistance",
    "SinkhornDistance",
    "SpectralDistance",
    "fit_mixture",
    "labelled",
    "power_spectrum",
    "sinkhorn_potentials",
    "wasserstein_line",
]
