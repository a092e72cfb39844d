"""Everything a round needs, put together once."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .algorithms import Algorithm
from .data import ClientData, example_of, facts_of, unseen_of
from .errors import PersoflError
from .losses import Loss, build_loss, refuse_mismatch
from .memory import keep_freed_memory
from .method import Method
from .models import InstanceNormalised
from .oracles import Oracle, build_oracle, build_rounded
from .personaliser import Personaliser
from .placed import HOST, device_of, placed
from .ranks import ALONE, Ranks
from .routes import Relations, Routes
from .server import (
    Aggregator,
    Clip,
    Sampler,
    SeenOnly,
    ServerTransform,
    UniformSampler,
    UpdateTransform,
    WeightedMean,
)
from .store import ClientStore
from .tasks import Task, task_of
from .training import Workbench

_DEVICE_CLIENTS = 4096


@dataclass(frozen=True)
class RoundConfig:
    """Sizes and choices of a round.

    Attributes:
        cohort: share of the population that trains in a round, in (0, 1].
        batch_size: examples per local step.
        oracle: ``"batched"``, ``"vmap"``, ``"loop"``, or ``"auto"`` for the fastest that the model allows.
        chunk: clients trained at once in one process; None asks the model (its ``clients_at_once``), and takes 25 where
            it does not say.
        weighting: clients count by their training ``"samples"``, or all the same (``"uniform"``).
        clip: largest L2 norm of a client's update; None does not clip.
        seed: of cohorts and batches.
        precision: of the gradients, ``"float32"``, or ``"bfloat16"`` for products in half the bytes, see
            :class:`persofl.oracles.RoundedOracle`.
    """

    cohort: float = 1.0
    batch_size: int = 32
    oracle: str = "auto"
    chunk: int | None = None
    weighting: Literal["samples", "uniform"] = "samples"
    clip: float | None = None
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        problems = [
            f"{name}={value}: give a whole number of at least 1"
            for name, value in (("batch_size", self.batch_size), ("chunk", self.chunk))
            if value is not None and (not isinstance(value, int) or value < 1)
        ]
        if not 0 < self.cohort <= 1:
            problems.append(
                f"cohort={self.cohort}: give the share of clients in a round, above 0 and at most 1"
            )
        if self.weighting not in ("samples", "uniform"):
            problems.append(f"weighting={self.weighting!r}: 'samples' or 'uniform'")
        if self.precision not in ("float32", "bfloat16"):
            problems.append(f"precision={self.precision!r}: 'float32' or 'bfloat16'")
        if self.clip is not None and not self.clip > 0:
            problems.append(
                f"clip={self.clip}: give the largest L2 norm of an update, above 0, or leave it out"
            )
        if problems:
            raise PersoflError("; ".join(problems) + ".")


@dataclass(frozen=True)
class RoundParts:
    """The exchangeable parts of a round; those left out follow from :class:`RoundConfig`."""

    sampler: Sampler | None = None
    update_transforms: tuple[UpdateTransform, ...] = ()
    aggregator: Aggregator = field(default_factory=WeightedMean)
    server_transforms: tuple[ServerTransform, ...] = ()


@dataclass(frozen=True)
class Federation:
    """A population with its method: what :func:`persofl.round.run_round` works on.

    Attributes:
        data: examples of every client.
        names: of the clients.
        task: what their models are judged by.
        unseen: clients held out of every cohort, ``(clients,)`` bool; they are evaluated like all others.
        method: algorithm and modulators.
        oracle: losses, gradients and forecasts of many models.
        bench: data, oracle and sizes of local training.
        personaliser: makes plans.
        store: state of the clients between rounds, the one thing here that changes.
        parts: transforms and aggregator, those of the configuration included.
        sampler: chooses cohorts.
        config: sizes and choices.
        ranks: the processes that train it together.
    """

    data: ClientData
    names: tuple[str, ...]
    task: Task
    unseen: Tensor
    method: Method
    oracle: Oracle
    bench: Workbench
    personaliser: Personaliser
    store: ClientStore
    parts: RoundParts
    sampler: Sampler
    config: RoundConfig
    ranks: Ranks = ALONE

    @property
    def algorithm(self) -> Algorithm:
        """The method's algorithm."""
        return self.method.algorithm

    @property
    def device(self) -> torch.device:
        """Where rows and examples are."""
        return device_of(self.data)

    def to(self, device: torch.device | str) -> Federation:
        """The same federation on another device; the store is moved in place.

        Indices, counts and flags stay on the host, see :mod:`persofl.placed`. A device takes a cohort whole, or as many
        clients as ``config.chunk`` says.

        Raises:
            PersoflError: data that cannot be moved.
        """
        device = torch.empty(0, device=device).device  # "cuda" has no number, tensors that are there have
        if device == self.device:
            self.store.to(device)
            return self
        data, oracle = placed(self.data, device), self.oracle.to(device)
        self.store.to(device)  # the one thing that changes in place: last, for the others may refuse
        chunk = self.config.chunk or _chunk(self.oracle.module, self.algorithm, device)
        return dataclasses.replace(
            self,
            data=data,
            oracle=oracle,
            bench=dataclasses.replace(self.bench, data=data, oracle=oracle, chunk=chunk),
            personaliser=self.personaliser.to(data, oracle, device),
        )

    @cached_property
    def routes(self) -> Routes:
        """Which of the server's rows each client starts from and sends to; found when first asked for."""
        personaliser = self.personaliser
        relations = Relations(
            self.unseen, lambda: personaliser.pairwise, lambda: personaliser.whole.weight.squeeze(1)
        )
        return self.algorithm.routes(relations)

    def offset(self, server: Tensor, anchors: Tensor, cohort: Tensor) -> Tensor | None:
        """From the cohort's anchors to the rows that its updates go to, see :meth:`persofl.routes.Routes.offset`.

        Args:
            server: the server's rows ``(R, parameters)``.
            anchors: of the cohort's clients that live here.
            cohort: ``(cohort,)`` indices.
        """
        if self.ranks.count > 1 and self.routes.count > 1:  # rows of other ranks' clients move too
            anchors = self.routes.anchors(server, cohort, self.store.seen)
        return self.routes.offset(server, anchors, cohort)

    def initial_row(self) -> Tensor:
        """The model's own weights as a row, ``(1, parameters)``."""
        return self.oracle.layout.row(self.oracle.module).unsqueeze(0)

    def initial_rows(self) -> Tensor:
        """The server's rows at the start, ``(R, parameters)``: the model's own weights in each."""
        return self.initial_row().repeat(self.routes.count, 1)


def build_federation(
    data: ClientData,
    model: nn.Module,
    method: Method,
    *,
    loss: Loss | str | None = None,
    config: RoundConfig | None = None,
    parts: RoundParts | None = None,
    store: ClientStore | None = None,
) -> Federation:
    """Check that data, model, loss and method fit, and put them together.

    Args:
        data: examples of every client; those whose attribute ``unseen`` is true never train in a round.
        model: its weights are the start.
        method: algorithm and modulators.
        loss: a loss or its name; None takes the task's, ``"cross_entropy"`` for classes and ``"mse"`` else.
        config: sizes and choices.
        parts: where the defaults are not meant.
        store: where clients keep their state; in memory by default, :class:`persofl.diskstore.DiskStore` on disk.

    Raises:
        PersoflError: the model or the loss does not fit the data, or the model the oracle; a client without training
            examples; nobody left to train.
    """
    keep_freed_memory()
    config, parts = config or RoundConfig(), parts or RoundParts()
    data, model = placed(data, HOST), _on_host(model)  # everything starts there
    facts, task = facts_of(data), task_of(data)
    loss = _fitting_loss(loss or task.loss, len(facts.classes))
    if isinstance(model, InstanceNormalised) and task.name != "forecast":
        raise PersoflError(
            f"instance_norm gives a forecast the level of its window, which the targets of task {task.name!r} do not "
            "have. Leave it out."
        )
    empty = torch.nonzero(data.count("train") == 0).flatten().tolist()
    if empty:
        raise PersoflError(
            f"Client {facts.clients[empty[0]]!r} has no training example; drop it, or shorten lookback."
        )
    unseen = unseen_of(data)
    oracle = build_oracle(model, loss, example_of(data), config.oracle)
    oracle = build_rounded(oracle, example_of(data)) if config.precision == "bfloat16" else oracle
    chunk = config.chunk or _chunk(model, method.algorithm, HOST)
    return Federation(
        data=data,
        names=facts.clients,
        task=task,
        unseen=unseen,
        method=method,
        oracle=oracle,
        bench=Workbench(data, oracle, config.batch_size, chunk, facts.clients),
        personaliser=Personaliser(
            data,
            oracle,
            method.algorithm,
            method.modulators,
            method.distance.dealt(config.seed),
            config.batch_size,
            config.weighting,
        ),
        store=ClientStore(len(data)) if store is None else store,
        parts=_complete(parts, config),
        sampler=_sampler(parts.sampler or UniformSampler(config.cohort), unseen),
        config=config,
    )


def _on_host(model: nn.Module) -> nn.Module:
    if all(tensor.device == HOST for tensor in (*model.parameters(), *model.buffers())):
        return model
    return copy.deepcopy(model).to(HOST)


def _chunk(model: nn.Module, algorithm: Algorithm, device: torch.device) -> int:
    """Clients to train at once: as many as a processor's cache holds, or as a device's memory."""
    at_once: Any = getattr(model, "clients_at_once", 25) if device == HOST else _DEVICE_CLIENTS
    return max(1, int(at_once) // algorithm.matrices)


def _fitting_loss(loss: Loss | str, classes: int) -> Loss:
    """Build a loss by name for so many classes, or check one that is built."""
    if isinstance(loss, str):
        return build_loss(loss, classes=classes)
    refuse_mismatch(loss, classes)
    return loss


def _sampler(sampler: Sampler, unseen: Tensor) -> Sampler:
    """The sampler, kept to the clients that are not held out."""
    if unseen.all():
        raise PersoflError(
            "All clients have the attribute unseen=true, so that none can train. Hold out fewer."
        )
    return SeenOnly(sampler, (~unseen).nonzero().flatten()) if unseen.any() else sampler


def _complete(parts: RoundParts, config: RoundConfig) -> RoundParts:
    """Fill the parts left out from the configuration."""
    clip: tuple[Any, ...] = (Clip(config.clip),) if config.clip is not None else ()
    return dataclasses.replace(parts, update_transforms=(*clip, *parts.update_transforms))
