"""Data on a device: examples are computed there, and looked up here.

Indices, counts, flags and steps live on the host, which decides with them; examples, rows and the plan's columns live on
the device, which computes with them. What crosses in a round is where the cohort's examples lie.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .data import ClientData
from .errors import PersoflError

HOST = torch.device("cpu")


class PlacedData:
    """A population's examples on a device, behind the interface of :class:`persofl.data.ClientData`.

    Args:
        host: the data, which stay as they are; with a method ``to(device)`` that copies them.
        device: where examples come out.

    Raises:
        PersoflError: data that cannot be moved.
    """

    def __init__(self, host: ClientData, device: torch.device) -> None:
        move = getattr(host, "to", None)
        if move is None:
            raise PersoflError(
                f"{type(host).__name__} has no method to(device), and so cannot train on {device}. Give it one that "
                "returns a copy whose gather() works there, or train on the CPU."
            )
        self.host, self.device, self._there = host, device, move(device)

    def __len__(self) -> int:
        return len(self.host)

    def __getattr__(self, name: str) -> Any:
        # Copying and pickling ask before there is a host.
        if name.startswith("__") or name == "host":
            raise AttributeError(name)
        return getattr(self.host, name)

    def positions(self, span: Any, clients: Tensor, ranks: Tensor) -> Tensor:
        """See :class:`persofl.data.ClientData`; on the device, in one copy."""
        return self.host.positions(span, clients, ranks).to(self.device, non_blocking=True)

    def gather(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`persofl.data.ClientData`; on the device."""
        x, y = self._there.gather(positions.to(self.device))
        return x, y

    def unscale(self, clients: Tensor, y: Tensor) -> Tensor:
        """See :class:`persofl.data.ClientData`; on the device."""
        unscale = getattr(self._there, "unscale", None)
        return y if unscale is None else unscale(clients.to(self.device), y)


def device_of(data: ClientData) -> torch.device:
    """Where the data's examples come out."""
    return data.device if isinstance(data, PlacedData) else HOST


def placed(data: ClientData, device: torch.device) -> ClientData:
    """The data on a device; those of the host as they are.

    Args:
        data: plain, or placed somewhere before.
        device: to be on.
    """
    host = data.host if isinstance(data, PlacedData) else data
    return host if device == HOST else PlacedData(host, device)
