"""The Lightning callback that tells a study what happens in a run, round by round."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm, TQDMProgressBar

from persofl.ranks import Ranks

from .errors import StudyError
from .events import Emit, Logged
from .search import Pruner
from .signals import STOPS, note_signals, stop_requested, stopped, take_back_sigterm


@dataclass(frozen=True)
class Keep:
    """Where a run keeps its state, and every how many rounds.

    Attributes:
        file: the checkpoint.
        every: rounds.
        stale: files and folders of an earlier run that would be taken for this one's; gone when the first round begins,
            so that a run that cannot start costs nothing.
    """

    file: Path
    every: int
    stale: tuple[Path, ...] = ()

    def clear(self) -> None:
        """Remove what is stale."""
        for path in self.stale:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


class Reporter(pl.Callback):
    """Emits each round's metrics, prunes a trial, keeps the state, and ends the run when asked to stop.

    Lightning's own ``ModelCheckpoint`` saves a round before its validation, which a resumed run then leaves out; this
    saves when all of a round is done.

    Args:
        key: the job's key.
        objective: the logged metric that is minimised.
        emit: takes the rounds' metrics.
        pruner: says whether to go on; ``None`` for a final seed.
        keep: where the state is kept; ``None`` for a trial, which starts again.

    Attributes:
        curve: round -> objective on the validation span; kept in checkpoints.
        pruned_at: the round after which the trial was given up, or ``None``.
    """

    def __init__(
        self,
        key: str,
        objective: str,
        emit: Emit,
        pruner: Pruner | None = None,
        keep: Keep | None = None,
    ) -> None:
        self.key, self.objective, self.emit = key, objective, emit
        self.pruner, self.keep = pruner, keep
        self.curve: dict[int, float] = {}
        self.pruned_at: int | None = None
        self._asked: int | None = None

    @property
    def reason(self) -> str:
        """Why the run ended before its last round; empty if it did not."""
        if self.pruned_at is None:
            return ""
        return f"pruned in round {self.pruned_at}: worse than the median of the finished trials"

    def setup(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        """All processes are there: from here on a signal ends the run after its round."""
        note_signals()

    def on_train_start(self, trainer: pl.Trainer, *_: object) -> None:
        """Report again what a killed session may not have got to write."""
        take_back_sigterm()  # Lightning has just taken it over
        for round_, value in self.curve.items():
            self.emit(Logged(self.key, round_, {self.objective: value}))

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: object) -> None:
        """All is ready for the first round, whose first write to the clients' folder waits for the first rank."""
        if self.keep is not None and trainer.is_global_zero:
            self.keep.clear()

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        """End here if someone asked to stop before the last round was over, and its state so was kept."""
        if self._asked is not None:
            raise stopped(self._asked)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Report the round's training metrics."""
        self.emit(Logged(self.key, trainer.global_step, _metrics(trainer, "train/")))
        if trainer.global_step % int(trainer.val_check_batch or 1) != 0:
            self._round_over(trainer)

    def on_validation_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Report the validation metrics; give the trial up if it is a hopeless one."""
        round_, metrics = trainer.global_step, _metrics(trainer, "validation/")
        if self.objective not in metrics:
            known = ", ".join(sorted(metrics)) or "none"
            raise StudyError(f"The engine logs no metric {self.objective!r}; it logs {known}.")
        self.emit(Logged(self.key, round_, metrics))
        self.curve[round_] = metrics[self.objective]
        early = round_ < trainer.max_steps
        hopeless = early and self.pruner is not None and self.pruner.prunes(round_, self.curve[round_])
        if self.pruner is not None and Ranks.here().first(hopeless):
            self.pruned_at, trainer.should_stop = round_, True
        self._round_over(trainer)

    def _round_over(self, trainer: pl.Trainer) -> None:
        round_ = trainer.global_step
        self._asked = _asked_of_any()  # all ranks keep the state together and end together, or none
        if self.keep is None:
            return
        if self._asked is not None or round_ % self.keep.every == 0 or round_ == trainer.max_steps:
            trainer.save_checkpoint(self.keep.file)

    def state_dict(self) -> dict[str, Any]:
        """The curve so far."""
        return {"curve": dict(self.curve)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curve of a checkpoint."""
        self.curve = dict(state_dict["curve"])


class RoundBar(TQDMProgressBar):
    """A bar that counts rounds up to the last one, with the loss; validation draws no bar of its own."""

    @property
    def total_train_batches(self) -> int:
        """Rounds in all."""
        return int(self.trainer.max_steps)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start the bar."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description("Round")

    def init_train_tqdm(self) -> Tqdm:
        """A bar that knows its end from the start, which a resumed run's would not."""
        bar = super().init_train_tqdm()
        bar.total = self.total_train_batches
        bar.set_description("Round")
        return bar

    def init_validation_tqdm(self) -> Tqdm:
        """No bar."""
        return Tqdm(disable=True)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The logged metrics without the logger's version, a long identifier."""
        return {
            name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"
        }


def _asked_of_any() -> int | None:
    """The signal that asked this rank or another to stop, the same on all of them."""
    here = stop_requested()
    heard = Ranks.here().total(torch.tensor([number == here for number in STOPS], dtype=torch.int64))
    return next((number for number, ranks in zip(STOPS, heard.tolist(), strict=True) if ranks), None)


def _metrics(trainer: pl.Trainer, prefix: str) -> dict[str, float]:
    logged = trainer.callback_metrics
    return {name: float(value) for name, value in logged.items() if name.startswith(prefix)}
