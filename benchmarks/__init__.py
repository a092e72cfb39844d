"""Benchmarks: what is measured, and how, is in each module; `make bench` runs `benchmarks.run`."""
