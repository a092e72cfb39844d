"""Vehicles: cars on the road, sensors beside it, charging sessions."""

from .ev_norway import EVNorway

__all__ = ["EVNorway"]
