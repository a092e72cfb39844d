"""The Lightning callback that tells a study what happens in a run, round by round."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm, TQDMProgressBar

from .errors import StudyError
from .events import Emit, Logged
from .search import Pruner
from .signals import check_stop


class Reporter(pl.Callback):
    """Emits each round's metrics, prunes a trial, and ends the run when asked to stop.

    Args:
        key: the job's key.
        objective: the logged metric that is minimised.
        emit: takes the rounds' metrics.
        pruner: says whether to go on; ``None`` for a final seed.

    Attributes:
        curve: round -> objective on the validation span; kept in checkpoints.
        pruned_at: the round after which the trial was given up, or ``None``.
    """

    def __init__(self, key: str, objective: str, emit: Emit, pruner: Pruner | None = None) -> None:
        self.key, self.objective, self.emit, self.pruner = key, objective, emit, pruner
        self.curve: dict[int, float] = {}
        self.pruned_at: int | None = None

    @property
    def reason(self) -> str:
        """Why the run ended before its last round; empty if it did not."""
        if self.pruned_at is None:
            return ""
        return f"pruned in round {self.pruned_at}: worse than the median of the finished trials"

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Report the round's training metrics."""
        check_stop()
        self.emit(Logged(self.key, trainer.global_step, _metrics(trainer, "train/")))

    def on_validation_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Report the validation metrics; give the trial up if it is a hopeless one."""
        round_, metrics = trainer.global_step, _metrics(trainer, "validation/")
        if self.objective not in metrics:
            known = ", ".join(sorted(metrics)) or "none"
            raise StudyError(f"The engine logs no metric {self.objective!r}; it logs {known}.")
        self.emit(Logged(self.key, round_, metrics))
        self.curve[round_] = metrics[self.objective]
        early = round_ < trainer.max_steps
        if early and self.pruner is not None and self.pruner.prunes(round_, self.curve[round_]):
            self.pruned_at, trainer.should_stop = round_, True

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

    def init_validation_tqdm(self) -> Tqdm:
        """No bar."""
        return Tqdm(disable=True)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The logged metrics without the logger's version, a long identifier."""
        return {
            name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"
        }


def _metrics(trainer: pl.Trainer, prefix: str) -> dict[str, float]:
    logged = trainer.callback_metrics
    return {name: float(value) for name, value in logged.items() if name.startswith(prefix)}
