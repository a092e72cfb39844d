"""Vehicles: cars on the road, sensors beside it, charging sessions."""

from .cars import SimulatedCars
from .chargers import SimulatedChargers
from .ev_norway import EVNorway
from .openacc import OpenACC
from .sensit import SensIT
from .ved import VED

__all__ = ["VED", "EVNorway", "OpenACC", "SensIT", "SimulatedCars", "SimulatedChargers"]
