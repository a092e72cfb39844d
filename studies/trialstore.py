"""Finished trials on disk: one Optuna study per method, in one SQLite file beside MLflow's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .search import direction
from .trackfaults import explain

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

T = TypeVar("T")


@dataclass(frozen=True)
class TrialStore:
    """The trials of one study; Optuna knows them as ``"<study>/<method>"``."""

    study: str
    folder: Path
    storage: RDBStorage

    @classmethod
    def open(cls, folder: Path, study: str, wait: float = 60.0) -> TrialStore:
        """Open ``<folder>/optuna.db``, creating it at the first time.

        Args:
            folder: the tracking folder.
            study: the study's name.
            wait: seconds to wait for a lock.

        Raises:
            TrackingError: the file cannot be written.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        folder.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{folder.resolve() / 'optuna.db'}"
        options = {"connect_args": {"timeout": wait}}
        try:
            return cls(study, folder, optuna.storages.RDBStorage(url, engine_kwargs=options))
        except Exception as error:
            raise explain(error, url, folder, "opening the trials' database") from error

    def history(self, label: str) -> list[FrozenTrial]:
        """Finished trials of the method, in order; empty if none."""
        import optuna

        name = f"{self.study}/{label}"

        def read() -> list[FrozenTrial]:
            if name not in optuna.get_all_study_names(self.storage):
                return []
            return optuna.load_study(study_name=name, storage=self.storage).trials

        return self._call("reading the trials", read)

    def add(self, label: str, trial: FrozenTrial, *, higher: bool = False) -> None:
        """Store a finished trial, in one transaction; ``higher`` if more of the objective is better."""
        import optuna

        def write() -> None:
            study = optuna.create_study(
                study_name=f"{self.study}/{label}",
                storage=self.storage,
                direction=direction(higher=higher),
                load_if_exists=True,
            )
            study.add_trial(trial)

        self._call("storing a trial", write)

    def clear(self) -> None:
        """Forget every trial of the study."""
        import optuna

        def remove() -> None:
            for name in optuna.get_all_study_names(self.storage):
                if name.startswith(f"{self.study}/"):
                    optuna.delete_study(study_name=name, storage=self.storage)

        self._call("removing the trials", remove)

    def _call(self, doing: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            raise explain(error, str(self.storage.url), self.folder, doing) from error
