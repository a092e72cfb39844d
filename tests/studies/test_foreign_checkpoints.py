"""A checkpoint is gone on from by the run that made it and by no other."""

import dataclasses
import io
import shutil

import pandas as pd
from rich.console import Console

from studies.results import read_results
from studies.study import run
from studies.tracking import open_store


def clients(config):
    """Every client's error in every final seed."""
    run(config, Console(file=io.StringIO()))
    return read_results(open_store(config.tracking.dir), config.name).scores


def test_checkpoints_without_their_database_are_left_alone(small, folder, template, tmp_path):
    """Someone removes the databases and keeps the checkpoints of a study of the same name."""
    slow = dataclasses.replace(small.search, ranges={"lr": {"low": 1e-4, "high": 2e-4, "log": True}})
    clients(dataclasses.replace(small, search=slow))
    tables = []
    for name in ("foreign", "clean"):
        target = tmp_path / name
        target.mkdir()
        shutil.copy(template, target / "mlflow.db")
        if name == "foreign":
            shutil.copytree(folder / "checkpoints", target / "checkpoints")
        config = dataclasses.replace(small, tracking=dataclasses.replace(small.tracking, dir=str(target)))
        tables.append(clients(config))
    pd.testing.assert_frame_equal(*tables)
