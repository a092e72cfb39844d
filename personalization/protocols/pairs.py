"""What protocols that send clouds of points have in common: pairs of clients, and noise on clouds and scalars."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .noise import GaussianNoise, check_noise, clip_rows


def pairs(clients: int) -> Iterator[tuple[int, int]]:
    """All pairs of clients, the smaller number first."""
    for i in range(clients):
        for j in range(i + 1, clients):
            yield i, j


def require_client_unit(noise: GaussianNoise | None, protocol: str) -> None:
    """Refuse noise for single samples: one sample may change the whole plan.

    Raises:
        ValueError: the noise protects a sample, or is none.
    """
    check_noise(noise, protocol)
    if noise is not None and noise.unit != "client":
        raise ValueError(
            f"{protocol}: one sample can change the whole transport plan, so that no bound holds for unit='sample'; "
            "use unit='client'."
        )


def clipped(samples: Tensor, noise: GaussianNoise | None) -> Tensor:
    """The samples, within the ball that the noise is made for."""
    return samples if noise is None else clip_rows(samples, noise.clip)


def noisy_cloud(cloud: Tensor, noise: GaussianNoise | None, share: float, releases: int, *key: int) -> Tensor:
    """A cloud ``(S, F)`` that moved by ``share`` of the way towards clipped samples, with its noise.

    Replacing the client moves each point by at most ``share x 2 R``, the cloud by ``sqrt(S)`` times that.
    """
    if noise is None:
        return cloud
    scale = noise.scale(2 * noise.clip * share * math.sqrt(len(cloud)), releases)
    return cloud + noise.draw(tuple(cloud.shape), scale, 0, *key).to(cloud)


def noisy_scalar(value: float, noise: GaussianNoise | None, releases: int, *key: int) -> Tensor:
    """A client's W2 to a public cloud, float64; replacing the client moves it by at most ``2 R``."""
    exact = torch.tensor(value, dtype=torch.float64)
    if noise is None:
        return exact
    return (exact + noise.draw((), noise.scale(2 * noise.clip, releases), 1, *key)).clamp_min(0)
