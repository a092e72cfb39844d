"""Where clients keep their state between rounds."""

from __future__ import annotations

import torch
from torch import Tensor

from .algorithms import Rows
from .errors import PersoflError


class ClientStore:
    """State of the whole population in memory, one matrix per name, filled when a client first takes part.

    Args:
        population: number of clients.
    """

    def __init__(self, population: int) -> None:
        self.seen = torch.zeros(population, dtype=torch.bool)
        self.rows: Rows = {}
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Move the rows, in place; who was seen stays on the host."""
        self.device = device
        self.rows = {name: rows.to(device) for name, rows in self.rows.items()}

    def read(self, clients: Tensor, newcomers: Rows) -> Rows:
        """State of ``clients``; those never seen take their rows of ``newcomers`` (same order)."""
        if not self.rows:
            return newcomers
        seen = self.seen[clients].unsqueeze(1).to(self.device)
        return {name: torch.where(seen, self.rows[name][clients], new) for name, new in newcomers.items()}

    def write(self, clients: Tensor, rows: Rows) -> None:
        """Keep the rows of ``clients``."""
        for name, values in rows.items():
            if name not in self.rows:
                self.rows[name] = values.new_zeros(len(self.seen), values.shape[1])
            self.rows[name][clients] = values
        self.seen[clients] = True

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint, copies on the host."""
        return {
            "seen": self.seen.clone(),
            **{f"rows.{name}": rows.to("cpu", copy=True) for name, rows in self.rows.items()},
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` gave.

        Raises:
            PersoflError: the checkpoint has another number of clients, or keeps them on disk.
        """
        if "disk" in state:
            raise PersoflError(
                "The checkpoint keeps its clients in a folder. Give that folder: store=DiskStore(clients, FOLDER), or "
                "training.store: disk."
            )
        if len(state["seen"]) != len(self.seen):
            raise PersoflError(
                f"The checkpoint holds {len(state['seen'])} clients, the data {len(self.seen)}. Load it with the data "
                "(and the rules that drop clients) that it was trained on."
            )
        self.seen = state["seen"].to("cpu", copy=True)
        self.rows = {
            name.removeprefix("rows."): rows.to(self.device, copy=True)
            for name, rows in state.items()
            if name != "seen"
        }
