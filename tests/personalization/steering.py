"""Distances and columns for the tests of modulators."""

import torch

from personalization import MODULATORS, Distances, build_modulator

NAMES = sorted(MODULATORS)
INCREASING = {"depth_by_distance", "mix_by_distance", "mix_by_shrinkage", "work_by_distance"}
STEPS = {"work_by_distance", "shared_work_by_distance"}
WHOLE = STEPS | {"depth_by_distance"}


def at(relative, n=None, dtype=torch.float64):
    u = torch.as_tensor(relative, dtype=dtype)
    n = torch.full((len(u),), 100) if n is None else torch.as_tensor(n)
    return Distances(u, 0 * u, 0 * u, 0 * u, 0 * u + 1, n, u, u)


def column(value, clients, dtype=torch.float64):
    return torch.full((clients, 1), value, dtype=dtype)


def apply(name, relative, base=20.0, n=None, **params):
    return build_modulator(name, **params)(column(base, len(relative)), at(relative, n)).squeeze(1)
