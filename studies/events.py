"""What a job is, and what it tells while it runs: the only things that cross between processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .config import MethodConfig, StudyConfig

if TYPE_CHECKING:
    import pandas as pd
    from optuna.trial import FrozenTrial


State = Literal["complete", "pruned", "diverged"]


@dataclass(frozen=True)
class Job:
    """One training run: a trial or a final seed of one method.

    Args:
        kind: which of the two.
        number: of the trial, or the seed itself.
        config: the study.
        method: the method's label, name and fixed hyperparameters.
        params: the hyperparameters that were tuned.
        history: the method's finished trials, for the pruner.
        checkpoint: folder in which a final seed keeps its state.
    """

    kind: Literal["trial", "seed"]
    number: int
    config: StudyConfig
    method: MethodConfig
    params: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[FrozenTrial, ...] = ()
    checkpoint: str = ""

    @property
    def name(self) -> str:
        """``"trial-003"`` or ``"seed-0"``: the MLflow run's name."""
        return f"trial-{self.number:03d}" if self.kind == "trial" else f"seed-{self.number}"

    @property
    def key(self) -> str:
        """``"ditto/trial-003"``: unique in a study."""
        return f"{self.method.label}/{self.name}"

    @property
    def seed(self) -> int:
        """Seed of the training: the same for all trials, which so differ by their hyperparameters alone."""
        return self.config.search.seed if self.kind == "trial" else self.number


@dataclass(frozen=True)
class Logged:
    """Metrics of one round."""

    key: str
    round: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Warned:
    """Something that does not stop a job but takes the sense out of its method."""

    key: str
    text: str


@dataclass(frozen=True)
class Done:
    """A job's result.

    Args:
        key: the job.
        state: ``"complete"``, ``"pruned"`` or ``"diverged"``.
        reason: why it ended early.
        curve: round -> objective on the validation span.
        seconds: wall time of this session's part.
        table: per-client scores on the test span, index client; final seeds only.
        confusion: of classes, see :func:`studies.confusion.confusion_table`; final seeds only.
        wire: what measuring distances sent and spent, see :func:`studies.wire.wire_metrics`.
        transcript: its messages in words.
    """

    key: str
    state: State
    reason: str
    curve: Mapping[int, float]
    seconds: float
    table: pd.DataFrame | None = None
    confusion: pd.DataFrame | None = None
    wire: Mapping[str, float] = field(default_factory=dict)
    transcript: str = ""


@dataclass(frozen=True)
class Failed:
    """A job ended with an exception; ``mendable`` if a user can do something about it."""

    key: str
    message: str
    traceback: str
    mendable: bool


Event = Logged | Warned | Done | Failed
Emit = Callable[[Event], None]
Execute = Callable[[Job, Emit], Done]
