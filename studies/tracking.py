"""MLflow as a study sees it: experiment = study, parent run = method, child runs = trials and final seeds."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .environment import git_commit, origin
from .trackfaults import check_writable, explain, is_locked

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

T = TypeVar("T")
Status = str
PAUSES = (1.0, 3.0)


@dataclass(frozen=True)
class Run:
    """One MLflow run as read back: its params, last metrics and tags."""

    id: str
    name: str
    status: Status
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    start: int
    end: int | None

    @property
    def kind(self) -> str:
        """``"method"``, ``"trial"``, ``"seed"`` or ``"comparison"``."""
        return self.tags.get("persofl.kind", "")

    @property
    def method(self) -> str:
        """Label of the method the run belongs to, empty for the comparison."""
        return self.tags.get("persofl.method", "")


@dataclass(frozen=True)
class Store:
    """The tracking store of one folder (or of the server that ``MLFLOW_TRACKING_URI`` names).

    Every call may raise :class:`TrackingError`: the database is locked, read-only or damaged, the disk is full.
    """

    uri: str
    folder: Path
    client: MlflowClient

    @property
    def local(self) -> bool:
        """Whether the store is this folder's own database, which only this machine writes."""
        return self.uri.startswith("sqlite:")

    def experiment(self, name: str) -> str | None:
        """Id of the experiment ``name``, or ``None``."""
        found = self._call("reading the experiment", lambda: self.client.get_experiment_by_name(name))
        return found.experiment_id if found is not None and found.lifecycle_stage == "active" else None

    def create_experiment(self, name: str) -> str:
        """Create the experiment ``name`` with its artifacts under this folder; return its id."""
        place = (self.folder / "artifacts").resolve().as_uri() if self.local else None
        return str(
            self._call(
                "creating the experiment",
                lambda: self.client.create_experiment(name, artifact_location=place),
            )
        )

    def experiments(self) -> list[str]:
        """Names of all experiments."""
        return [e.name for e in self._call("reading the experiments", self.client.search_experiments)]

    def tag(self, experiment: str, key: str, value: str) -> None:
        """Set a tag of the experiment."""
        self._call("writing a tag", lambda: self.client.set_experiment_tag(experiment, key, value))

    def tags(self, experiment: str) -> dict[str, str]:
        """Tags of the experiment."""
        return dict(self._call("reading the tags", lambda: self.client.get_experiment(experiment)).tags)

    def start(
        self, experiment: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any], parent: str = ""
    ) -> str:
        """Start a run, below ``parent`` if given; return its id."""
        above = {"mlflow.parentRunId": parent} if parent else {}
        system = {"mlflow.runName": name, "mlflow.source.name": "persofl", "mlflow.source.type": "LOCAL"}
        all_tags = {**system, **origin(), **git_commit_once(), **above, **tags}
        run = self._call(
            "starting a run", lambda: self.client.create_run(experiment, run_name=name, tags=all_tags)
        )
        self.params(run.info.run_id, params)
        return str(run.info.run_id)

    def params(self, run: str, params: Mapping[str, Any]) -> None:
        """Log parameters; values that are not text are written as Python shows them."""
        from mlflow.entities import Param

        rows = [Param(key, str(value)) for key, value in params.items()]
        for part in _parts(rows, 100):
            self._call("writing parameters", partial(self.client.log_batch, run, params=part))

    def metrics(self, run: str, rows: Sequence[tuple[str, float, int]]) -> None:
        """Log ``(name, value, round)`` rows in as few writes as MLflow takes."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(name, float(value), now, step) for name, value, step in rows]
        for part in _parts(entries, 1000):
            self._call("writing metrics", partial(self.client.log_batch, run, metrics=part))

    def end(self, run: str, status: Status = "FINISHED", reason: str = "") -> None:
        """End a run as FINISHED, FAILED or KILLED, with the reason as a tag."""
        if reason:
            self.set_tag(run, "persofl.reason", reason[:5000])
        self._call("ending a run", lambda: self.client.set_terminated(run, status))

    def set_tag(self, run: str, key: str, value: str) -> None:
        """Set a tag of the run."""
        self._call("writing a tag", lambda: self.client.set_tag(run, key, value))

    def inputs(self, run: str, datasets: list[DatasetInput]) -> None:
        """Record the data sets a run reads."""
        self._call("writing the data set", lambda: self.client.log_inputs(run, datasets))

    def curve(self, run: str, metric: str) -> dict[int, float]:
        """Round -> value of a metric; the last one written where a resumed run repeats a round."""
        rows = self._call("reading a metric", lambda: self.client.get_metric_history(run, metric))
        return {row.step: row.value for row in sorted(rows, key=lambda row: (row.step, row.timestamp))}

    def reopen(self, run: str) -> None:
        """Mark a run as RUNNING again, by this session."""
        for key, value in origin().items():
            self.set_tag(run, key, value)
        self._call("reopening a run", lambda: self.client.update_run(run, status="RUNNING"))

    def delete(self, run: str) -> None:
        """Move a run to MLflow's bin, from which ``mlflow`` can restore it."""
        self._call("deleting a run", lambda: self.client.delete_run(run))

    def runs(self, experiment: str, where: str = "") -> list[Run]:
        """Runs of the experiment, oldest first, filtered by an MLflow search string."""

        def search() -> list[Run]:
            found, token = [], None
            while True:
                page = self.client.search_runs([experiment], where, page_token=token, max_results=1000)
                found += [_run(run) for run in page]
                token = page.token
                if not token:
                    return sorted(found, key=lambda run: (run.start, run.name))

        return self._call("reading the runs", search)

    def artifact(self, run: str, name: str, text: str) -> None:
        """Write a text artifact."""
        self._call("writing an artifact", lambda: self.client.log_text(run, text, name))

    def artifact_file(self, run: str, path: Path, folder: str | None = None) -> None:
        """Copy a file into the run's artifacts."""
        self._call("writing an artifact", lambda: self.client.log_artifact(run, str(path), folder))

    def table(self, run: str, name: str, table: pd.DataFrame) -> None:
        """Write a table as CSV, which the MLflow UI shows; floats keep every digit."""
        self.artifact(run, name, table.to_csv())

    def read_table(self, run: str, name: str) -> pd.DataFrame:
        """Read back what :meth:`table` wrote, the first column as the index."""
        import pandas as pd

        with tempfile.TemporaryDirectory() as folder:
            path = self._call(
                "reading an artifact", lambda: self.client.download_artifacts(run, name, folder)
            )
            return pd.read_csv(path, index_col=0, engine="python")

    def read_json(self, run: str, name: str) -> Any:
        """Read a JSON artifact."""
        with tempfile.TemporaryDirectory() as folder:
            path = self._call(
                "reading an artifact", lambda: self.client.download_artifacts(run, name, folder)
            )
            return json.loads(Path(path).read_text())

    def _call(self, doing: str, call: Callable[[], T]) -> T:
        """Run ``call``; a lock is waited for, any other trouble becomes an error a user can act on."""
        for pause in (*PAUSES, None):
            try:
                return call()
            except Exception as error:
                if pause is None or not is_locked(error):
                    raise explain(error, self.uri, self.folder, doing) from error
                time.sleep(pause)
        raise AssertionError("unreachable")


def open_store(folder: str | Path, wait: float = 20.0) -> Store:
    """Open the store under ``folder``, creating its database at the first time.

    ``MLFLOW_TRACKING_URI`` in the environment takes precedence for the runs; checkpoints and the search's
    database stay in the folder.

    Args:
        folder: the tracking folder.
        wait: seconds to wait for a database that another process has locked.

    Raises:
        TrackingError: it cannot be written.
    """
    path = Path(folder)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path.resolve() / 'mlflow.db'}"
    check_writable(path, uri, wait)
    quiet_mlflow()
    from mlflow import MlflowClient

    try:
        return Store(uri, path, MlflowClient(tracking_uri=uri))
    except Exception as error:
        raise explain(error, uri, path, "opening the database") from error


def quiet_mlflow() -> None:
    """No usage reports, no schema-migration chatter; what matters comes back as an exception."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("alembic", "mlflow.store", "mlflow.tracking", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


_COMMIT: list[dict[str, str]] = []


def git_commit_once() -> dict[str, str]:
    """:func:`git_commit`, asked once in a process: a study starts a hundred runs."""
    if not _COMMIT:
        _COMMIT.append(git_commit())
    return _COMMIT[0]


def _parts(rows: list[T], size: int) -> Iterator[list[T]]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def _run(run: Any) -> Run:
    info, data = run.info, run.data
    return Run(
        info.run_id,
        info.run_name,
        info.status,
        data.params,
        data.metrics,
        data.tags,
        info.start_time,
        info.end_time,
    )
