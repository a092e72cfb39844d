"""Non-IID on purpose: populations dealt anew, shifted or drifting.

population = build_partition("dirichlet", clients=50, alpha=0.3, seed=1)(samples)
population = apply_partitions(population, [FeatureShift(gain=0.3), HoldOut(share=0.2)])
"""

from .base import (
    PARTITIONS,
    Partition,
    Population,
    apply_partitions,
    build_partition,
    register_partition,
)
from .concept import ConceptShift
from .drift import Drift
from .feature import FeatureShift
from .labels import Dirichlet, KClasses, Shards
from .natural import Group, HoldOut, Subset
from .sizes import IID, Quantity

__all__ = [
    "IID",
    "PARTITIONS",
    "ConceptShift",
    "Dirichlet",
    "Drift",
    "FeatureShift",
    "Group",
    "HoldOut",
    "KClasses",
    "Partition",
    "Population",
    "Quantity",
    "Shards",
    "Subset",
    "apply_partitions",
    "build_partition",
    "register_partition",
]
