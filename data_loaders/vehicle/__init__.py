"""Vehicles: cars on the road, sensors beside it, charging sessions."""
