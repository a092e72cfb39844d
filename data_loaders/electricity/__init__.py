"""Electricity: households, meters and buildings."""
