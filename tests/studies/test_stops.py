"""Asked to stop in the middle of a round: the round ends, its state is kept, runs are KILLED; whoever of them is asked."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from persofl import FederatedModule, PersoflError
from studies import callbacks
from studies.cli import main
from studies.signals import stop_on_signals, take_back_sigterm
from studies.tracking import open_store
from tests.studies.commands import TRAIN, start
from tests.studies.conftest import SMALL

ROOT = Path(__file__).parents[2]
STATE = Path("checkpoints", "train", "ditto", "train-seed-0")


def call(*words):
    try:
        main([str(word) for word in words])
    except SystemExit as left:
        return left.code
    return 0


def train(folder, rounds, *more):
    return call(*TRAIN, "--tracking.dir", folder, "--training.rounds", rounds, *more)


def kept(folder):
    return torch.load(folder / STATE / "last.ckpt", weights_only=False)["global_step"]


def statuses(folder, name="train"):
    store = open_store(folder)
    return [run.status for run in store.runs(store.experiment(name))]


@pytest.fixture
def struck(monkeypatch):
    """Send this process signals when the batch of round 3 has been trained, with Lightning's own handlers in place."""
    end = callbacks.Reporter.on_train_batch_end

    def strike(*numbers):
        def strike_then_end(self, trainer, *rest):
            if trainer.global_step == 3:
                for number in numbers:
                    os.kill(os.getpid(), number)
            end(self, trainer, *rest)

        monkeypatch.setattr(callbacks.Reporter, "on_train_batch_end", strike_then_end)
        return lambda: monkeypatch.setattr(callbacks.Reporter, "on_train_batch_end", end)

    return strike


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_training_ends_after_its_round_and_goes_on(folder, struck, capsys, number):
    heal = struck(number)
    assert train(folder, 6) == 130
    assert f"Stopped ({number.name}). The last checkpoint is kept" in capsys.readouterr().err
    assert (statuses(folder), kept(folder)) == (["KILLED"], 3)
    heal()
    assert train(folder, 6, "--resume") == 0
    assert (statuses(folder), kept(folder)) == (["FINISHED"], 6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_study_in_one_process_closes_its_runs_and_goes_on(folder, tmp_path, struck, capsys, number):
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump({**SMALL, "methods": ["fedavg"], "seeds": [0]}))
    heal = struck(number)
    words = ("study", "run", file, "--tracking.dir", folder)
    assert call(*words) == 130
    assert f"Stopped ({number.name}). All runs are closed" in capsys.readouterr().err
    assert set(statuses(folder, "small")) == {"KILLED"}
    heal()
    assert call(*words) == 0
    assert "RUNNING" not in statuses(folder, "small")


def test_a_second_ctrl_c_ends_at_once_and_is_no_failure(folder, struck, capsys):
    struck(signal.SIGINT, signal.SIGINT)
    assert train(folder, 6) == 130
    assert "Stopped (SIGINT)" in capsys.readouterr().err
    assert statuses(folder) == ["KILLED"]


def test_sigterm_is_taken_back_only_while_someone_listens():
    before = signal.getsignal(signal.SIGTERM)
    take_back_sigterm()
    assert signal.getsignal(signal.SIGTERM) == before
    with stop_on_signals():
        ours = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        take_back_sigterm()
        assert signal.getsignal(signal.SIGTERM) == ours
    assert signal.getsignal(signal.SIGTERM) == before


# --- what an earlier run left ------------------------------------------------------------------------------


def refuse(self):
    raise PersoflError("No budget for this.")


@pytest.mark.parametrize("store", ["memory", "disk"])
@pytest.mark.parametrize("why", ["No budget for this.", "trainer: "])
def test_a_run_that_cannot_start_leaves_the_earlier_ones_state(folder, store, why, monkeypatch, capsys):
    place = ("--training.store", store)
    assert train(folder, 2, *place) == 0
    before = {file.name: file.read_bytes() for file in (folder / STATE).rglob("*") if file.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        more = ("--trainer.accelerator", "gpu") if why == "trainer: " else ()
        if not more:
            patch.setattr(FederatedModule, "on_train_start", refuse)
        assert train(folder, 4, *place, *more) == 2
    assert f"error: {why}" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in (folder / STATE).rglob("*") if file.is_file()} == before
    assert train(folder, 4, *place, "--resume") == 0
    assert train(folder, 3, *place) == 0
    assert kept(folder) == 3


# --- several processes -------------------------------------------------------------------------------------


def start_two(folder, *more):
    words = ["train", "--method", "ditto", "--data.lookback", "24"]
    words += [
        "--data.options",
        "{clients: 7, days: 40}",
        "--data.horizon",
        "6",
        "--tracking.dir",
        str(folder),
    ]
    words += ["--trainer.strategy", "ddp", "--trainer.devices", "2", "--training.eval_every", "2", *more]
    return start(words)


def wait_for(file, process, seconds=120):
    end = time.monotonic() + seconds
    while not file.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whom", "number"),
    [
        ("first", signal.SIGINT),
        ("helper", signal.SIGINT),
        ("first", signal.SIGTERM),
        ("helper", signal.SIGTERM),
        ("all", signal.SIGTERM),
    ],
)
def test_whoever_of_two_is_asked_both_end_after_the_round(folder, whom, number):
    process = start_two(folder, "--training.rounds", "5000")
    wait_for(folder / STATE / "last.ckpt", process)
    (helper,) = psutil.Process(process.pid).children()
    if whom == "all":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid if whom == "first" else helper.pid, number)
    error = process.communicate(timeout=180)[1]
    assert psutil.wait_procs([helper], timeout=10)[1] == []
    assert process.returncode == 130
    assert error.count(f"Stopped ({number.name}). The last checkpoint is kept") == 1
    assert "Traceback" not in error
    assert "error:" not in error
    assert statuses(folder) == ["KILLED"]
    stopped = kept(folder)
    resumed = start_two(folder, "--training.rounds", str(stopped + 2), "--resume")
    resumed.communicate(timeout=180)
    assert resumed.returncode == 0
    assert (statuses(folder), kept(folder)) == (["FINISHED"], stopped + 2)
