"""One MLflow database made per session and copied into each test: creating its schema takes seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from studies.config import StudyConfig
from studies.names import study_config
from studies.tracking import Store, open_store

SMALL = {
    "name": "small",
    "data": {"source": "simulated", "options": {"clients": 4, "days": 40}, "lookback": 24, "horizon": 4},
    "model": {"name": "linear"},
    "training": {"rounds": 4, "local_steps": 2, "batch_size": 8, "eval_every": 2},
    "methods": ["local", "fedavg"],
    "metric": "nmae",
    "search": {"trials": 2},
    "seeds": [0, 1],
    "workers": 1,
}


@pytest.fixture(autouse=True)
def _own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    store = open_store(folder)
    store.experiments()
    return folder / "mlflow.db"


@pytest.fixture
def folder(tmp_path, template) -> Path:
    target = tmp_path / "mlruns"
    target.mkdir()
    shutil.copy(template, target / "mlflow.db")
    return target


@pytest.fixture
def store(folder) -> Store:
    return open_store(folder)


@pytest.fixture
def small(folder) -> StudyConfig:
    return study_config({**SMALL, "tracking": {"dir": str(folder)}}, "small.yaml")
