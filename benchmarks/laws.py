"""Laws that a population's clients may share, and populations of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

FEATURES = 24
Law = Callable[[int], Tensor]
"""Draws n samples."""


def normal_law(g: torch.Generator) -> Law:
    factor = torch.randn(FEATURES, FEATURES, generator=g) / FEATURES**0.5
    return lambda n: torch.randn(n, FEATURES, generator=g) @ factor


def log_normal_law(g: torch.Generator) -> Law:
    base = normal_law(g)
    return lambda n: torch.exp(0.7 * base(n).clamp(-3, 3))


def clustered_law(g: torch.Generator) -> Law:
    base, centres = normal_law(g), 1.5 * torch.randn(3, FEATURES, generator=g)
    return lambda n: 0.5 * base(n) + centres[torch.randint(3, (n,), generator=g)]


def london_profiles(path: Path) -> Tensor:
    """All complete days of all households, each household scaled by its own mean and deviation, shape (days, 24)."""
    load = pd.read_parquet(path).to_numpy(dtype=np.float32)
    scaled = (load - np.nanmean(load, 0)) / np.nanstd(load, 0)
    days = scaled.T.reshape(scaled.shape[1], -1, 24).reshape(-1, 24)
    return torch.from_numpy(days[np.isfinite(days).all(1)])


def resampled_law(pool: Tensor) -> Callable[[torch.Generator], Law]:
    return lambda g: lambda n: pool[torch.randint(len(pool), (n,), generator=g)]


def population(law: Law, clients: int, low: int, high: int, seed: int) -> tuple[list[Tensor], np.ndarray]:
    n = np.exp(np.random.default_rng(seed).uniform(np.log(low), np.log(high), clients)).astype(int)
    return [law(int(m)) for m in n], n
