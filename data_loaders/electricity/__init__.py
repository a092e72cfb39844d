"""Electricity: households, meters and buildings."""

from .bdg2 import BuildingDataGenome2
from .london import London
from .simulated import SimulatedHouseholds
from .uci import UCIElectricity

__all__ = ["BuildingDataGenome2", "London", "SimulatedHouseholds", "UCIElectricity"]
