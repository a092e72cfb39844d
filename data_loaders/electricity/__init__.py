"""Electricity: households, meters and buildings."""

from .bdg2 import BuildingDataGenome2
from .buildings import SimulatedBuildings
from .cambridge import CambridgeEstates
from .london import London
from .simulated import SimulatedHouseholds
from .uci import UCIElectricity

__all__ = [
    "BuildingDataGenome2",
    "CambridgeEstates",
    "London",
    "SimulatedBuildings",
    "SimulatedHouseholds",
    "UCIElectricity",
]
