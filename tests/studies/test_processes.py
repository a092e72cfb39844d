"""Real processes: killed, interrupted, orphaned. The stand-in for training lives in a script of its own."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

import pandas as pd
import psutil
import pytest
import yaml

from studies.results import read_results
from studies.tracking import open_store
from tests.studies.commands import start, start_script
from tests.studies.conftest import SMALL

SCRIPT = """
import os, sys, time
from studies.errors import StoppedError, WorkerError
from studies.events import Done, Job, Logged
from studies.config import StudyConfig
from studies.pool import Processes
from studies.signals import check_stop, stop_on_signals

CONFIG = StudyConfig("x", ["local"])

def execute(job, emit):
    if job.number == 99:
        os._exit(7)
    if job.number == 98:
        raise ValueError("too much")
    for round_ in range(3 if job.number < 50 else 10_000):
        check_stop()
        emit(Logged(job.key, round_, {"pid": os.getpid()}))
        time.sleep(0.01)
    return Done(job.key, "complete", "", {1: 0.5}, 0.1)

def main(numbers):
    jobs = [Job("seed", n, CONFIG, CONFIG.method_configs()[0]) for n in numbers]
    def handle(event):
        print(type(event).__name__, event.key, getattr(event, "metrics", ""), getattr(event, "message", ""), flush=True)
    with stop_on_signals(), Processes(execute, 2) as pool:
        try:
            pool.run(lambda: jobs.pop(0) if jobs else None, handle)
        except (StoppedError, WorkerError) as error:
            print(type(error).__name__, error, flush=True)

if __name__ == "__main__":
    main([int(n) for n in sys.argv[1:]])
"""


@pytest.fixture
def script(tmp_path):
    return partial(start_script, tmp_path, SCRIPT)


def until(stream, words):
    lines = []
    for line in stream:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError("".join(lines))


def test_jobs_run_side_by_side_and_every_one_once(script):
    out = script(1, 2, 3, 4, 5).communicate(timeout=120)[0].splitlines()
    done = sorted(line.split()[1] for line in out if line.startswith("Done"))
    assert done == [f"local/seed-{n}" for n in (1, 2, 3, 4, 5)]
    assert len({line.split("{")[1] for line in out if line.startswith("Logged")}) == 2


def test_an_error_in_a_job_arrives(script):
    out = script(98, 1).communicate(timeout=120)[0]
    assert "Failed local/seed-98  too much" in out
    assert "Done local/seed-1" in out


def test_a_dead_worker_is_named_with_its_job(script):
    out = script(1, 99).communicate(timeout=120)[0]
    assert "WorkerError The process that computed local/seed-99 ended without a result (exit code 7)" in out


def test_sigterm_ends_parent_and_children(script):
    process = script(60, 61)
    until(process.stdout, "seed-61")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert "StoppedError SIGTERM" in process.communicate(timeout=30)[0]
    assert psutil.wait_procs(children, timeout=10)[1] == []


def test_children_end_when_the_parent_is_killed_outright(script):
    process = script(60, 61)
    until(process.stdout, "seed-61")
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait(10)
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == []


LONG = {
    **SMALL,
    "training": {**SMALL["training"], "rounds": 60, "eval_every": 10},
    "workers": 2,
    "search": {"trials": 2},
}


def start_study(tmp_path, folder, name):
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(LONG))
    return start(["study", "run", str(path), "--tracking.dir", str(folder), "--name", name])


def table(folder, name):
    results = read_results(open_store(folder), name)
    scores = results.scores.sort_values(["method", "seed", "client"]).reset_index(drop=True)
    return (
        scores,
        {m.label: dict(m.params) for m in results.methods},
        {m.label: dict(m.trials) for m in results.methods},
    )


def statuses(folder, name):
    store = open_store(folder)
    return [run.status for run in store.runs(store.experiment(name))]


@pytest.mark.slow
def test_a_study_killed_again_and_again_ends_as_one_that_was_not(tmp_path, folder):
    assert start_study(tmp_path, folder, "whole").wait(300) == 0
    for words in ("/8] local", "[4/8]", "[6/8]"):
        process = start_study(tmp_path, folder, "killed")
        until(process.stdout, words)
        time.sleep(0.3)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(10)
        assert psutil.wait_procs(children, timeout=15)[1] == []
    assert start_study(tmp_path, folder, "killed").wait(300) == 0
    (scores, *rest), (wanted, *wanted_rest) = table(folder, "killed"), table(folder, "whole")
    pd.testing.assert_frame_equal(scores, wanted, check_exact=True)
    assert rest == wanted_rest
    assert set(statuses(folder, "killed")) == {"FINISHED"}
    assert len(statuses(folder, "killed")) == len(statuses(folder, "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_closes_every_run_and_says_how_to_go_on(tmp_path, folder, number):
    process = start_study(tmp_path, folder, "stopped")
    until(process.stdout, "/8]")
    os.killpg(process.pid, number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert f"Stopped ({number.name}). All runs are closed; run the same command again" in error
    assert "Traceback" not in error
    assert "RUNNING" not in statuses(folder, "stopped")
    assert "KILLED" in statuses(folder, "stopped")
