"""Vehicles: cars on the road, sensors beside it, charging sessions."""

from .ev_norway import EVNorway
from .openacc import OpenACC

__all__ = ["EVNorway", "OpenACC"]
