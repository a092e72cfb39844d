"""Electricity: households, meters and buildings."""

from .london import London
from .simulated import SimulatedHouseholds
from .uci import UCIElectricity

__all__ = ["London", "SimulatedHouseholds", "UCIElectricity"]
