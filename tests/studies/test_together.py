"""The processes of one machine: who starts whom, and what is said when one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from studies import together
from studies.config import TrainerConfig
from studies.errors import StudyError
from studies.signals import end_at_signals, note_signals, stop_on_signals, stop_requested
from studies.together import helped, is_helper, refuse_unmet
from tests.studies.test_stops import start_two

TWO = TrainerConfig(strategy="ddp", devices=2)
NAMES = (
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_NTASKS",
    together.FIRST,
)


@pytest.fixture(autouse=True)
def _nobody_else(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(together, "NOTICE", 0.2)


@pytest.fixture
def helper(monkeypatch):
    """Let helpers run some Python instead of this process's command."""

    def does(code):
        monkeypatch.setattr(together, "_command", lambda: [sys.executable, "-c", code])

    return does


def test_helpers_know_their_rank_and_where_all_meet(helper, tmp_path):
    told = ", ".join(f"os.environ[{name!r}]" for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"))
    helper(
        f"import os; open(f'{tmp_path}/' + os.environ['LOCAL_RANK'], 'w').write(','.join(({told}))); assert 1"
    )
    before = dict(os.environ)
    with helped(TrainerConfig(strategy="ddp", devices=3)):
        here = [os.environ[name] for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")]
        assert not is_helper()
    assert dict(os.environ) == before
    assert here[:2] == ["0", "127.0.0.1"]
    assert {file.name: file.read_text().split(",") for file in tmp_path.iterdir()} == {
        rank: [rank, *here[1:]] for rank in ("1", "2")
    }


@pytest.mark.parametrize("name", ["LOCAL_RANK", "SLURM_NTASKS"])
def test_processes_of_a_launcher_start_nobody(name, helper, tmp_path, monkeypatch):
    helper(f"open('{tmp_path}/started', 'w')")
    monkeypatch.setenv(name, "0")
    with helped(TWO):
        assert "MASTER_PORT" not in os.environ
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (
            "os.kill(os.getpid(), 9)",
            r"Process 1 of 2 ended by SIGKILL, which usually means .* memory .*--resume",
        ),
        ("os._exit(3)", r"Process 1 of 2 ended with code 3; its own words are above\. .*--resume"),
    ],
)
def test_a_helper_that_dies_ends_the_first_in_the_middle_of_its_work(end, words, helper):
    helper(f"import os; {end}")
    before, began = signal.getsignal(signal.SIGUSR1), time.monotonic()
    with pytest.raises(StudyError, match=words), helped(TWO):
        time.sleep(60)
    assert time.monotonic() - began < 30
    assert signal.getsignal(signal.SIGUSR1) == before


def test_one_that_finds_out_by_itself_has_its_own_words(helper, monkeypatch):
    monkeypatch.setattr(together, "NOTICE", 20.0)
    helper("import os; os._exit(3)")

    def loses():
        time.sleep(1.5)
        raise StudyError("Rank 0 of 2 lost another rank.")

    with pytest.raises(StudyError, match="lost another rank"), helped(TWO):
        loses()


def test_helpers_that_wait_in_vain_are_ended(helper):
    helper("import time; time.sleep(600)")
    began = time.monotonic()
    with pytest.raises(StudyError, match="No data"), helped(TWO):
        raise StudyError("No data.")
    assert time.monotonic() - began < 10


UNREACHABLE = """
import signal, sys, time
from studies import together
together.NOTICE, together.GRACE = .2, .5
together._command = lambda: [sys.executable, "-c", "import os; os._exit(3)"]
with together.helped(together.TrainerConfig(strategy="ddp", devices=2)):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # as in a call that waits for the others to come
    time.sleep(60)
"""


def test_a_first_process_that_cannot_be_reached_ends_with_the_same_words():
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: Process 1 of 2 ended with code 3")
    assert done.stderr.count("\n") == 1


ORPHAN = """
import os, signal, subprocess, sys
from studies import together
code = '''
import time
from studies import together
together.NOTICE = .2
with together.helped(together.TrainerConfig(strategy="ddp", devices=2)):
    print("ready", flush=True)
    time.sleep(60)
'''
env = {**os.environ, "LOCAL_RANK": "1", together.FIRST: str(os.getpid())}
child = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE)
child.stdout.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_helper_does_not_outlive_the_first():
    done = subprocess.run(  # which waits until nobody holds its pipe for errors
        [sys.executable, "-c", ORPHAN], stderr=subprocess.PIPE, text=True, timeout=50, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert "error: The first process ended. The last checkpoint" in done.stderr


def test_machines_that_nobody_told_where_they_meet_are_refused(monkeypatch):
    two = TrainerConfig(strategy="ddp", num_nodes=2)
    monkeypatch.setenv("NODE_RANK", "1")
    with pytest.raises(StudyError, match=r"num_nodes=2: MASTER_ADDR, MASTER_PORT not set.* Set NODE_RANK"):
        refuse_unmet(two)
    refuse_unmet(TWO)
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    refuse_unmet(two)


def test_signals_end_a_process_that_waits_and_are_noted_again():
    before = signal.getsignal(signal.SIGTERM)
    end_at_signals()
    assert signal.getsignal(signal.SIGTERM) == before  # nobody listens
    with stop_on_signals():
        end_at_signals()
        assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        note_signals()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop_requested() == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def is_rank(child):
    with suppress(psutil.Error):
        return child.environ().get("LOCAL_RANK") == "1"


@pytest.mark.slow
def test_a_rank_that_dies_before_all_have_met_ends_the_run_with_words(folder):
    """Lightning would have killed the first within five seconds, and nobody would have said a word."""
    first = start_two(folder, "--training.rounds", "4")
    helpers = []
    while not helpers:
        assert first.poll() is None
        time.sleep(0.1)
        helpers = [child for child in psutil.Process(first.pid).children() if is_rank(child)]
    helpers[0].kill()
    error = first.communicate(timeout=100)[1]
    assert first.returncode in (1, 2)
    assert error.count("error: ") == 1
    assert "Process 1 of 2 ended by SIGKILL" in error
