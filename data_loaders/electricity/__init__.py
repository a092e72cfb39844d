"""Electricity: households, meters and buildings."""

from .london import London
from .simulated import SimulatedHouseholds

__all__ = ["London", "SimulatedHouseholds"]
