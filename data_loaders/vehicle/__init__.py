"""Vehicles: cars on the road, sensors beside it, charging sessions."""

from .ev_norway import EVNorway
from .openacc import OpenACC
from .sensit import SensIT

__all__ = ["EVNorway", "OpenACC", "SensIT"]
