"""The Lightning shell: one training step is one round."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from .algorithms import Algorithm
from .blending import Mixed
from .checkpoints import begin_writing, on_host, plain, settle_together
from .diskstore import DiskStore
from .errors import PersoflError
from .evaluation import client_experts, evaluate_clients, population_gate, population_metrics, weighed
from .federation import Federation, RoundConfig, RoundParts, build_federation
from .gating import Gate
from .losses import Loss
from .method import Method, as_method, method_params
from .metrics import flat_summary
from .ranks import Ranks, joined_states
from .round import RoundReport, run_round
from .store import ClientStore

_PRECISION = (
    "Leave it at float32, or give RoundConfig(precision='bfloat16'), in a study training.precision: bfloat16, for products "
    "in half the bytes."
)


class Rounds(IterableDataset[int]):
    """An endless supply of training steps."""

    def __iter__(self) -> Iterator[int]:
        """Yield placeholders for ever."""
        while True:
            yield 0


class FederatedModule(pl.LightningModule):
    """A federation that a Lightning ``Trainer`` runs: ``max_steps`` counts rounds.

    The aggregated delta is put into ``.grad`` of the server's rows and the wrapped optimiser applies it, so checkpoints,
    loggers, progress bars and callbacks work as for any other module. Checkpoints hold the clients' states.
    Every round logs ``train/loss``; validation logs the task's metrics, such as ``validation/nmae`` (mean over clients of
    their own models) and its spread; testing logs the same for the test span. Clients that are held out (attribute
    ``unseen``) have names of their own, such as ``validation/unseen_nmae``, and count in no other.

    Args:
        data: the population's windows or examples.
        model: any module from ``(batch, lookback, channels)`` to ``(batch, horizon[, outputs])``; its weights are the
            start.
        method: an algorithm, one with modulators, or a name such as ``"ditto+prox_by_distance"``.
        loss: ``"mse"``, ``"mae"``, ``"pinball"``, ``"cross_entropy"`` or a :class:`~persofl.losses.Loss`; None takes the
            task's.
        config: sizes and choices of a round.
        parts: sampler, transforms and aggregator, where the defaults are not meant.
        store: where clients keep their state, in memory by default.
    """

    def __init__(
        self,
        data: Any,
        model: nn.Module,
        method: Method | Algorithm | str,
        *,
        loss: Loss | str | None = None,
        config: RoundConfig | None = None,
        parts: RoundParts | None = None,
        store: ClientStore | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        federation = build_federation(
            data, model, as_method(method), loss=loss, config=config, parts=parts, store=store
        )
        # Not a submodule: its template's weights are no parameters of ours.
        object.__setattr__(self, "federation", federation)
        self.server = nn.Parameter(federation.initial_rows())
        # Rounds of this federation's life: a second fit goes on where the first ended.
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int64))
        self.last_round: RoundReport | None = None
        self.metrics_of: dict[str, dict[str, Tensor]] = {}
        self.sums_of: dict[str, Any] = {}
        self._parts: list[tuple[Tensor, Any]] = []
        self._fitted: Gate | None = None

    federation: Federation
    rounds: Tensor

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> FederatedModule:
        """Take the federation along wherever the module goes.

        Raises:
            PersoflError: another type of numbers; data that cannot be moved. Nothing has moved then.
        """
        there = fn(self.server.detach()[:0])
        if there.dtype != self.server.dtype:
            raise PersoflError(
                f"A federation's numbers are {self.server.dtype}, and cannot become {there.dtype}. {_PRECISION}"
            )
        object.__setattr__(self, "federation", self.federation.to(there.device))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def setup(self, stage: str) -> None:
        """Find the processes that train together.

        Raises:
            PersoflError: several machines, and clients on disk; a precision that Lightning would have to see to.
        """
        asked = str(getattr(self._trainer, "precision", "32-true"))
        if asked not in ("32-true", "32"):
            raise PersoflError(
                f"Trainer(precision={asked!r}) knows nothing of many clients' models. {_PRECISION}"
            )
        ranks = Ranks.here()
        store = self.federation.store
        if isinstance(store, DiskStore):
            store.join(ranks, machines=getattr(self._trainer, "num_nodes", 1))
        if ranks != self.federation.ranks:
            object.__setattr__(self, "federation", dataclasses.replace(self.federation, ranks=ranks))

    def on_fit_start(self) -> None:
        """Write checkpoints in the background, and keep the way back to those that may be the last."""
        begin_writing(self.trainer)
        if isinstance(self.federation.store, DiskStore):
            self.federation.store.begin()

    def on_train_start(self) -> None:
        """Refuse rounds whose noise the privacy budget does not cover, before the first.

        Gradients are ours: Lightning's wrapper for several processes must not wait for a backward pass.

        Raises:
            BudgetExhaustedError: the refreshes of distances would exceed the protocol's limit.
        """
        if self.trainer.max_steps > 0:
            self.federation.personaliser.afford(self.trainer.max_steps)
        wrapper: Any = self.trainer.model
        if hasattr(wrapper, "require_backward_grad_sync"):
            wrapper.require_backward_grad_sync = False

    def on_train_end(self) -> None:
        """The last checkpoint is on file, or every rank knows that it is not."""
        settle_together(self.trainer.strategy.checkpoint_io, self.federation.ranks)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The algorithm's server optimiser over the server's rows."""
        return self.federation.algorithm.server_optimizer([self.server])

    def train_dataloader(self) -> DataLoader[int]:
        """One step after the other, without end."""
        return DataLoader(Rounds(), batch_size=None)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One round."""
        optimizer = cast(Any, self.optimizers())
        first = self.federation.oracle.layout.trainable  # from here on statistics: no gradients, but means

        def apply(aggregate: Tensor) -> None:
            averaged = self.server.detach()[:, first:] - aggregate[:, first:]
            self.server.grad = aggregate
            optimizer.step()
            self.server.grad = None
            self.server.detach()[:, first:] = averaged

        self._forget()
        self.last_round = run_round(self.federation, self.server.detach(), int(self.rounds), apply)
        self.rounds += 1
        self.log("train/loss", self.last_round.loss, prog_bar=True, batch_size=1)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Clients in groups."""
        return self._client_groups()

    def test_dataloader(self) -> DataLoader[Tensor]:
        """Clients in groups."""
        return self._client_groups()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Indices of clients stay on the host."""
        return batch

    def _client_groups(self) -> DataLoader[Tensor]:
        clients = torch.arange(len(self.federation.data))
        return DataLoader(list(clients.split(200)), batch_size=None)  # type: ignore[arg-type]

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Evaluate a group of clients on their validation spans."""
        self._parts.append(self._evaluate_group(batch, "validation"))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        """Evaluate a group of clients on their test spans."""
        self._parts.append(self._evaluate_group(batch, "test"))

    def _evaluate_group(self, clients: Tensor, span: str) -> tuple[Tensor, Any]:
        # Lightning evaluates in inference mode, whose tensors cannot be trained on; an adaptation has to.
        with torch.inference_mode(False), torch.no_grad():
            clients = self.federation.ranks.mine(clients.clone())
            experts = client_experts(self.federation, self.server.detach(), clients, int(self.rounds))
            return clients, evaluate_clients(self.federation, experts, clients, span, self._gate())

    def _gate(self) -> Gate | None:
        """How the clients mix their models; fitted once for the weights that there are."""
        if self._fitted is None and self.federation.algorithm.gates():
            groups = [self.federation.ranks.mine(group.clone()) for group in self._client_groups()]
            self._fitted = population_gate(self.federation, self.server.detach(), groups, int(self.rounds))
        return self._fitted

    def on_validation_epoch_start(self) -> None:
        """Forget what an interrupted evaluation left."""
        self._parts = []

    def on_test_epoch_start(self) -> None:
        """Forget what an interrupted evaluation left."""
        self._parts = []

    def on_validation_epoch_end(self) -> None:
        """Log the population's validation errors."""
        self._log_summary("validation")

    def on_test_epoch_end(self) -> None:
        """Log the population's test errors."""
        self._log_summary("test")

    def _log_summary(self, span: str) -> None:
        self._judge(span, self._parts)
        federation = self.federation
        flat = flat_summary(self.metrics_of[span], federation.task.metrics, federation.unseen)
        for name, value in flat.items():
            self.log(f"{span}/{name}", value, prog_bar=name == federation.task.objective, batch_size=1)

    def _judge(self, span: str, parts: list[tuple[Tensor, Any]]) -> None:
        """Make the population's metrics of its groups' sums."""
        clients, sums = [own for own, _ in parts], [part for _, part in parts]
        whole = self.federation.task.together(clients, sums, len(self.federation.data))
        self.sums_of[span] = self.federation.ranks.total_of(whole)
        self.metrics_of[span] = population_metrics(self.federation, self.sums_of[span])

    def _judge_now(self, span: str) -> None:
        """Evaluate a span unless that is done."""
        if span not in self.metrics_of:
            self._judge(span, [self._evaluate_group(clients, span) for clients in self._client_groups()])

    def _forget(self) -> None:
        """What was evaluated belongs to other weights."""
        self.metrics_of.clear()
        self.sums_of.clear()
        self._fitted = None

    def client_table(self, span: str = "test") -> pd.DataFrame:
        """Every client's errors, evaluating now if the span was not evaluated yet.

        Args:
            span: ``"validation"`` or ``"test"``.

        Returns:
            Index ``client``; the task's metrics (a forecast's: ``nmae``, ``mae``, ``rmse``, ``mase``), ``loss``,
            ``windows`` (or ``examples``), and ``distance`` (relative, 1 is the typical client) where the method
            measured one.
        """
        self._judge_now(span)
        columns = {name: values.numpy() for name, values in self.metrics_of[span].items()}
        if self.federation.method.modulators:
            columns["distance"] = self.federation.personaliser.distances.relative.numpy()
        return pd.DataFrame(columns, index=pd.Index(self.federation.names, name="client"))

    def confusion(self, span: str = "test") -> Tensor:
        """Every client's confusion matrix, evaluating now if the span was not evaluated yet.

        Args:
            span: ``"validation"`` or ``"test"``.

        Returns:
            ``(clients, classes, classes)`` int64: examples of the row's class that were taken for the column's.

        Raises:
            PersoflError: the task has no classes.
        """
        task = self.federation.task
        if task.floats:
            raise PersoflError(
                f"Task {task.name!r} has no classes to confuse; see client_table for its errors."
            )
        self._judge_now(span)
        matrices: Tensor = self.sums_of[span].confusion
        return matrices.round().to(torch.int64)

    def client_model(self, client: str | int) -> nn.Module:
        """A client's own model as an ordinary module, in evaluation mode.

        Where a method mixes the predictions of several, it is a module that does so (:class:`persofl.blending.Mixed`).

        Args:
            client: name or index.

        Raises:
            PersoflError: no such client.
        """
        index = self._index(client)
        federation, alone = self.federation, torch.tensor([index])
        experts = client_experts(federation, self.server.detach(), alone, int(self.rounds))
        with torch.no_grad():
            experts, weights = weighed(federation, experts, alone, "test", self._gate())
        oracle = federation.oracle
        models = [oracle.layout.load(copy.deepcopy(oracle.module), rows[0]).eval() for rows in experts]
        if len(models) == 1:
            return models[0]
        return Mixed(models, weights[0, 0]).eval()

    def _index(self, client: str | int) -> int:
        names = self.federation.names
        if isinstance(client, str) and client in names:
            return names.index(client)
        if isinstance(client, int) and 0 <= client < len(names):
            return client
        raise PersoflError(
            f"No client {client!r}; give a name such as {names[0]!r}, or an index below {len(names)}."
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the clients' states, and what they belong to.

        Raises:
            OSError, PersoflError: the one before could not be written; see :func:`persofl.checkpoints.settle_together`.
        """
        federation = self.federation
        # A store on disk knows the way back to two moments: the one before must be on file before this is marked.
        if self._trainer is not None:
            settle_together(self.trainer.strategy.checkpoint_io, federation.ranks)
        for part in ("state_dict", "optimizer_states"):  # readable where there is no such device
            if part in checkpoint:
                checkpoint[part] = on_host(checkpoint[part])
        checkpoint["clients"] = joined_states(
            federation.ranks, federation.store.state_dict(), len(federation.data)
        )
        checkpoint["distances"] = self.federation.personaliser.state_dict()
        checkpoint["method"] = {"name": self.federation.method.name, "params": self._settings()}
        checkpoint["names"] = list(self.federation.names)

    def _settings(self) -> dict[str, Any]:
        """Hyperparameters and sizes, as values that ``torch.load(weights_only=True)`` reads back."""
        return plain({**method_params(self.federation.method), **dataclasses.asdict(self.federation.config)})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the clients' states.

        Raises:
            PersoflError: the checkpoint is of another method, model or population, or of no federation.
        """
        if not {"clients", "method", "names"} <= checkpoint.keys():
            raise PersoflError("This is no checkpoint of a federation: it holds no clients.")
        saved, ours = checkpoint["method"]["name"], self.federation.method.name
        if saved != ours:
            raise PersoflError(f"The checkpoint is of method {saved!r}, this run of {ours!r}.")
        rows, columns = checkpoint["state_dict"]["server"].shape
        if columns != self.server.shape[1]:
            raise PersoflError(
                f"The checkpoint's model has {columns} parameters, this run's {self.server.shape[1]}. Build the model that "
                "it was trained with."
            )
        if rows != self.server.shape[0]:
            raise PersoflError(
                f"The checkpoint's server has {rows} rows, this run's {self.server.shape[0]}: other clusters or clients. "
                "Use the data and the distance settings that it was trained with."
            )
        self.federation.store.load_state_dict(checkpoint["clients"])
        self.federation.personaliser.load_state_dict(checkpoint.get("distances", {}))
        if checkpoint["names"] != list(self.federation.names):
            ours, theirs = next(
                p for p in zip(self.federation.names, checkpoint["names"], strict=True) if p[0] != p[1]
            )
            raise PersoflError(
                f"The checkpoint's clients are others: it has {theirs!r} where the data has {ours!r}."
            )
        self._tell_changes(checkpoint["method"]["params"])
        self._forget()

    def _tell_changes(self, saved: dict[str, Any]) -> None:
        """Warn of settings that differ from the checkpoint's; going on with a lower lr, say, is allowed."""
        # A setting that is younger than the checkpoint was at its default.
        before = {**plain(dataclasses.asdict(RoundConfig())), **saved}
        changed = [
            f"{k}={v!r} (was {before.get(k)!r})" for k, v in self._settings().items() if before.get(k) != v
        ]
        if changed:
            warnings.warn(
                f"Going on from a checkpoint with other settings: {', '.join(changed)}.", stacklevel=2
            )
