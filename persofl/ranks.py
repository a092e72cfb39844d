"""Several processes, one federation: who trains whom, and how what they found becomes one.

A client lives with one rank, ``client % count``: its state, its training and its evaluation are there. Everything else is
a function of the configuration and the same on every rank: cohorts, plans, distances, the server's rows. A round so needs
three collective calls: whether everybody's training went well, the sum of weighted updates (or all updates, for a rule that
has to see them), and the losses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import DivergedError, PersoflError
from .placed import HOST
from .server import Aggregator, Updates, WeightedMean

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone by default, where every method gives back what it got.

    Attributes:
        count: of the processes.
        rank: this one's number.
    """

    count: int = 1
    rank: int = 0

    @staticmethod
    def here() -> Ranks:
        """The ranks of torch.distributed's default group, or one alone where there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return Ranks()
        return Ranks(dist.get_world_size(), dist.get_rank())

    def mine(self, clients: Tensor) -> Tensor:
        """Those of some clients that live here, in their order."""
        return clients if self.count == 1 else clients[clients % self.count == self.rank]

    def together(self, work: Callable[[], T]) -> T:
        """Do this rank's part of something; if it diverges on one rank it ends on all, before anything was changed.

        Raises:
            DivergedError: on every rank, with the first one's words.
            PersoflError: a rank ended.
        """
        if self.count == 1:
            return work()
        result, what = None, None
        try:
            result = work()
        except DivergedError as error:
            what = (error.client, error.round, error.loss, error.hint)
        said = [words for words in self._all(what) if words]
        if said:
            raise DivergedError(*said[0])
        return result  # type: ignore[return-value]

    def first(self, thing: T) -> T:
        """What the first rank has, on all."""
        return thing if self.count == 1 else self._all(thing)[0]

    def agree(self, work: Callable[[], object], hint: str) -> None:
        """Do something that may fail on any rank; where one fails all end here, and none waits for it in the next call.

        Args:
            work: this rank's part; alone, what it raises is raised as it is.
            hint: for the error, what failed and what to do.

        Raises:
            PersoflError: on every rank, with the first failed one's words.
        """
        if self.count == 1:
            work()
            return
        failed: Exception | None = None
        try:
            work()
        except Exception as error:
            failed = error
        said = self._all(None if failed is None else f"{type(failed).__name__}: {failed}")
        for rank, words in enumerate(said):
            if words is not None:
                raise PersoflError(f"Rank {rank} of {self.count}: {words}. {hint}") from failed

    def aggregate(self, aggregator: Aggregator, updates: Updates) -> Tensor:
        """The pseudo-gradient of all ranks' updates ``(R, parameters)``, the same everywhere.

        A weighted mean is a sum of each rank's own; any other rule sees all updates, in the order of the clients.
        """
        if self.count == 1:
            return aggregator.rows(updates)
        if type(aggregator) is not WeightedMean:
            return aggregator.rows(self.gathered(updates))
        shares = (
            updates.weights.new_ones(1, len(updates.weights)) if updates.shares is None else updates.shares
        )
        total = (shares * updates.weights.mT).sum(1, keepdim=True)
        weighed = self.total(aggregator.rows(updates) * total)
        everyone = self.total(total)
        return weighed / torch.where(everyone > 0, everyone, 1.0)

    def gathered(self, updates: Updates) -> Updates:
        """The updates of all ranks, in the order of the clients."""
        if self.count == 1:
            return updates
        parts = self._all(updates.to(HOST))  # else each arrives on its sender's device
        order = torch.cat([part.clients for part in parts]).argsort()
        shares = [part.shares for part in parts if part.shares is not None]
        whole = dataclasses.replace(
            updates,
            clients=torch.cat([part.clients for part in parts])[order],
            deltas=torch.cat([part.deltas for part in parts])[order],
            weights=torch.cat([part.weights for part in parts])[order],
            payload={
                name: torch.cat([part.payload[name] for part in parts])[order] for name in updates.payload
            },
            shares=torch.cat(shares, 1)[:, order] if shares else None,
        )
        return whole.to(updates.deltas.device)

    def total(self, x: Tensor) -> Tensor:
        """The sum over ranks; a new tensor where there are several."""
        if self.count == 1:
            return x
        summed = x.cuda() if dist.get_backend() == "nccl" else x  # which knows GPUs only
        summed = summed.clone() if summed is x else summed
        self._call(lambda: dist.all_reduce(summed))
        return summed.to(x.device)

    def total_of(self, sums: T) -> T:
        """A dataclass of tensors, each summed over ranks."""
        if self.count == 1:
            return sums
        kept: Any = sums
        whole: T = dataclasses.replace(
            kept, **{f.name: self.total(getattr(kept, f.name)) for f in fields(kept)}
        )
        return whole

    def spread(self, clients: Tensor, own: Tensor, values: Tensor) -> Tensor:
        """Values of all ``clients`` ``(clients, ...)`` from those of each rank's own, in the order of ``clients``.

        Args:
            clients: indices, the same on every rank.
            own: those of them that live here.
            values: of these.
        """
        if self.count == 1:
            return values
        whole = values.new_zeros(len(clients), *values.shape[1:])
        whole[torch.isin(clients, own)] = values
        return self.total(whole)

    def _all(self, thing: T) -> list[T]:
        found: list[Any] = [None] * self.count
        self._call(lambda: dist.all_gather_object(found, thing))
        return found

    def _call(self, collective: Callable[[], object]) -> None:
        try:
            collective()
        except RuntimeError as error:
            raise PersoflError(
                f"Rank {self.rank} of {self.count} lost another rank, which ended or cannot be reached ({_short(error)}). "
                "Its own words are in its output. The last checkpoint is whole: go on with --resume."
            ) from error


ALONE = Ranks()


def joined_states(ranks: Ranks, state: dict[str, Tensor], population: int) -> dict[str, Tensor]:
    """A store's state with every client's row from the rank that it lives with, on all ranks.

    Args:
        ranks: of the run.
        state: this rank's, see :meth:`persofl.store.ClientStore.state_dict`.
        population: number of clients.
    """
    if ranks.count == 1 or "disk" in state:  # on disk they are joined already
        return state
    everyone = torch.arange(population)
    foreign = everyone % ranks.count != ranks.rank
    names: Sequence[str] = sorted({name for part in ranks._all(sorted(state)) for name in part})
    widths = {name: tuple(state[name].shape[1:]) for name in state}
    known = {name: shape for part in ranks._all(widths) for name, shape in part.items()}
    joined = {}
    for name in names:
        own = state.get(name, torch.zeros(population, *known[name]))
        if name == "seen":
            joined[name] = own.clone()
            continue
        part = own.clone()
        part[foreign] = 0
        joined[name] = ranks.total(part)
    return joined


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
