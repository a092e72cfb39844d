"""Clients on disk in studies and `persofl train`: the same numbers, beside the checkpoint, and no folder left of trials."""

import pandas as pd
import pytest
from rich.console import Console

from studies import study
from studies.cli import main
from studies.names import study_config
from studies.results import read_results

from .commands import TRAIN
from .conftest import SMALL


def test_a_study_on_disk_is_the_study_in_memory(folder, store, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    tables = []
    for name, place in (("memory", "memory"), ("disk", "disk")):
        training = {**SMALL["training"], "store": place}
        raw = {**SMALL, "name": name, "methods": ["ditto"], "seeds": [0], "training": training}
        config = study_config({**raw, "search": {"trials": 2}, "tracking": {"dir": str(folder)}}, "x")
        study.run(config, Console(quiet=True))
        tables.append(read_results(store, name).scores)
    pd.testing.assert_frame_equal(*tables)
    kept = list((folder / "checkpoints" / "disk").rglob("personal.f32"))
    assert len(kept) == 1
    assert (kept[0].parent.parent / "last.ckpt").exists()
    assert not list((folder / "checkpoints" / "memory").rglob("*.f32"))
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("resume", [False, True])
def test_training_again_and_going_on_find_their_own_clients(folder, tmp_path, resume, capsys):
    words = [*TRAIN, "--training.store", "disk", "--tracking.dir", str(folder)]
    main([*words, "--training.rounds", "3"])
    main([*words, "--training.rounds", "6", *(["--resume"] if resume else [])])
    assert ("Going on from" in capsys.readouterr().out) == resume
