"""Studies whose runs are each trained by several processes."""

from __future__ import annotations

import os
import signal

import pandas as pd
import psutil
import pytest
import yaml

from studies.cli import main
from studies.results import read_results
from studies.tracking import open_store
from tests.studies.commands import start, start_script
from tests.studies.conftest import SMALL
from tests.studies.test_processes import until

DDP = {"strategy": "ddp", "devices": 2}

SCRIPT = """
import os, sys, time
import studies.pool
from studies.errors import WorkerError
from studies.events import Done, Job, Logged
from studies.config import StudyConfig
from studies.pool import Processes
from studies.signals import stop_on_signals

CONFIG = StudyConfig("x", ["local"])
studies.pool.GRACE = 1.0

def execute(job, emit):
    from persofl.ranks import Ranks
    ranks = Ranks.here()
    if ranks.rank == 1 and job.number == 97:
        os._exit(7)
    if ranks.rank == 1 and job.number in (95, 98):
        raise ValueError("too much")
    if job.number == 95:
        time.sleep(100)  # as one that waits for the other
    emit(Logged(job.key, 0, {"pids": tuple(ranks._all(os.getpid())) if job.number < 90 else ()}))
    return Done(job.key, "complete", f"by {ranks.rank} of {ranks.count}", {1: 0.5}, 0.1)

def main(numbers):
    jobs = [Job("seed", n, CONFIG, CONFIG.method_configs()[0]) for n in numbers]
    def handle(event):
        words = [getattr(event, name, "") for name in ("metrics", "message", "reason")]
        print(type(event).__name__, event.key, *words, flush=True)
    with stop_on_signals(), Processes(execute, 1, size=2) as pool:
        try:
            pool.run(lambda: jobs.pop(0) if jobs else None, handle)
        except WorkerError as error:
            print(type(error).__name__, error, flush=True)

if __name__ == "__main__":
    main([int(n) for n in sys.argv[1:]])
"""


@pytest.fixture
def said(tmp_path):
    return lambda *numbers: start_script(tmp_path, SCRIPT, *numbers).communicate(timeout=120)[0]


def test_a_team_has_every_job_together_and_the_first_speaks_for_it(said):
    out = said(1, 2).splitlines()
    assert [line for line in out if line.startswith("Done")] == [
        f"Done local/seed-{n}   by 0 of 2" for n in (1, 2)
    ]
    logged = [line for line in out if line.startswith("Logged")]
    assert len(logged) == 2
    assert len({line.split("{")[1] for line in logged}) == 1  # the same two processes


def test_an_error_of_one_is_the_jobs_and_those_that_wait_for_it_are_replaced(said):
    out = said(98, 1, 95, 2)
    assert "Failed local/seed-98  too much" in out
    assert "Failed local/seed-95  too much" in out
    assert "Done local/seed-1" in out
    assert "Done local/seed-2   by 0 of 2" in out


def test_a_dead_one_is_named_with_its_job(said):
    assert "WorkerError The process that computed local/seed-97 ended without a result (exit code 7)" in said(
        97
    )


def scores(folder, name):
    store = open_store(folder)
    assert "RUNNING" not in {run.status for run in store.runs(store.experiment(name))}
    found = read_results(store, name).scores
    return found.sort_values(["method", "seed", "client"]).reset_index(drop=True)


def study(tmp_path, **changed):
    path = tmp_path / f"{changed['name']}.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changed}))
    return str(path)


@pytest.mark.parametrize(
    ("stored", "workers"), [("memory", 1), pytest.param("disk", 2, marks=pytest.mark.slow)]
)
def test_runs_of_several_processes_find_what_those_of_one_find(tmp_path, folder, capfd, stored, workers):
    training = {**SMALL["training"], "rounds": 8, "store": stored}
    methods = ["ditto+prox_by_distance"] if stored == "memory" else ["local", "gate"]
    same = {"training": training, "methods": methods, "search": {"trials": 2}, "seeds": [0]}
    for name, more in (("one", {}), ("two", {"trainer": DDP, "workers": workers})):
        file = study(tmp_path, name=name, **same, **more)
        main(["study", "run", file, "--tracking.dir", str(folder)])
    pd.testing.assert_frame_equal(scores(folder, "two"), scores(folder, "one"), rtol=1e-4)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_team_that_was_stopped_goes_on_where_it_was(tmp_path, folder):
    training = {**SMALL["training"], "rounds": 150, "eval_every": 10, "store": "disk"}
    files = {n: study(tmp_path, name=n, training=training, trainer=DDP) for n in ("whole", "stopped")}
    words = ["--tracking.dir", str(folder)]
    main(["study", "run", files["whole"], *words])
    for told in ("/8] local", "[5/8]"):
        process = start(["study", "run", files["stopped"], *words])
        until(process.stdout, told)
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        assert "All runs are closed" in process.communicate(timeout=60)[1]
        assert psutil.wait_procs(children, timeout=15)[1] == []
    main(["study", "run", files["stopped"], *words])
    pd.testing.assert_frame_equal(scores(folder, "stopped"), scores(folder, "whole"), rtol=1e-5)


@pytest.mark.parametrize(
    "more", [{"num_nodes": 2, "strategy": "ddp"}, {"accelerator": "gpu"}, {"accelerator": "auto"}]
)
def test_machines_and_gpus_are_of_a_single_training(tmp_path, folder, capsys, more):
    file = study(tmp_path, name="far", trainer=more)
    with pytest.raises(SystemExit, match="2"):
        main(["study", "run", file, "--tracking.dir", str(folder)])
    error = capsys.readouterr().err
    assert "a study's runs train on this machine's processors" in error
    assert "`persofl train` takes these" in error
    assert open_store(folder).experiment("far") is None
