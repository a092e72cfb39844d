from __future__ import annotations

import json
import math
import sqlite3
import threading

import pandas as pd
import pytest

from studies.environment import environment, git_commit
from studies.errors import StudyError, TrackingError
from studies.locks import exclusive, slug
from studies.session import CUT_OFF, close_cut_off
from studies.trackfaults import explain
from studies.tracking import open_store


def test_a_run_comes_back_as_it_was_written(store):
    experiment = store.create_experiment("winter")
    parent = store.start(
        experiment, "ditto", {"persofl.kind": "method", "persofl.method": "ditto"}, {"data.lookback": 24}
    )
    run = store.start(
        experiment, "seed-0", {"persofl.kind": "seed", "persofl.method": "ditto"}, {"lr": 0.1}, parent
    )
    store.metrics(run, [("train/loss", 1 / round_, round_) for round_ in range(1, 2500)])
    table = pd.DataFrame(
        {"nmae": [0.1, math.pi, float("nan")]}, index=pd.Index(["a", "b", "c"], name="client")
    )
    store.table(run, "clients.csv", table)
    store.end(run)
    store.end(parent, "FAILED", "no luck")
    runs = {r.name: r for r in open_store(store.folder).runs(store.experiment("winter"))}
    assert runs["seed-0"].params == {"lr": "0.1"}
    assert runs["seed-0"].tags["mlflow.parentRunId"] == parent
    assert runs["seed-0"].tags["persofl.pid"].isdigit()
    assert (runs["seed-0"].status, runs["ditto"].status) == ("FINISHED", "FAILED")
    assert runs["ditto"].tags["persofl.reason"] == "no luck"
    assert (runs["ditto"].kind, runs["ditto"].method) == ("method", "ditto")
    curve = store.curve(run, "train/loss")
    assert len(curve) == 2499
    assert curve[2] == 0.5
    pd.testing.assert_frame_equal(store.read_table(run, "clients.csv"), table)


def test_artifacts_lie_in_the_folder(store):
    run = store.start(store.create_experiment("winter"), "a", {}, {})
    store.artifact(run, "data.json", json.dumps({"clients": 3}))
    assert store.read_json(run, "data.json") == {"clients": 3}
    assert list((store.folder / "artifacts").rglob("data.json"))


def test_a_round_logged_twice_counts_once(store):
    run = store.start(store.create_experiment("winter"), "a", {}, {})
    store.metrics(run, [("v", 1.0, 1), ("v", 2.0, 2)])
    store.reopen(run)
    store.metrics(run, [("v", 2.0, 2), ("v", 3.0, 3)])
    assert store.curve(run, "v") == {1: 1.0, 2: 2.0, 3: 3.0}


def test_an_unknown_experiment_is_none_and_a_deleted_one_too(store):
    assert store.experiment("winter") is None
    store.client.delete_experiment(store.create_experiment("winter"))
    assert store.experiment("winter") is None
    with pytest.raises(TrackingError, match="experiment 'winter' was deleted"):
        store.create_experiment("winter")


def test_runs_left_running_are_closed_with_the_reason(store):
    experiment = store.create_experiment("winter")
    left = store.start(experiment, "seed-0", {}, {})
    done = store.start(experiment, "seed-1", {}, {})
    store.end(done)
    runs = {run.id: run for run in close_cut_off(store, experiment)}
    assert runs[left].status == "KILLED"
    assert runs[left].tags["persofl.reason"] == CUT_OFF
    assert runs[done].status == "FINISHED"


def test_on_a_server_only_runs_of_this_host_are_closed(store):
    experiment = store.create_experiment("winter")
    ours = store.start(experiment, "a", {}, {})
    theirs = store.start(experiment, "b", {"persofl.host": "elsewhere"}, {})
    shared = type(store)("http://server", store.folder, store.client)
    status = {run.id: run.status for run in close_cut_off(shared, experiment)}
    assert status == {ours: "KILLED", theirs: "RUNNING"}


def test_a_locked_database_is_named_before_any_work(store):
    holder = sqlite3.connect(store.folder / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(
            TrackingError, match="is locked by another process, and stayed so while we waited"
        ):
            open_store(store.folder, wait=0.1)
    finally:
        holder.close()
    open_store(store.folder, wait=0.1)


def test_a_lock_that_goes_away_is_waited_for(store):
    holder = sqlite3.connect(store.folder / "mlflow.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.3, holder.close)
    timer.start()
    open_store(store.folder, wait=10)
    timer.join()


def test_a_damaged_database_is_not_touched(tmp_path):
    (tmp_path / "mlflow.db").write_text("a letter, not a database, but long enough to be taken for one " * 20)
    with pytest.raises(
        TrackingError, match=r"damaged or no MLflow database. Move it away, or choose another folder"
    ):
        open_store(tmp_path)
    assert (tmp_path / "mlflow.db").read_text().startswith("a letter")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        TrackingError, match=r"cannot be written .* choose another folder with --tracking.dir"
    ):
        open_store(tmp_path / "file" / "mlruns")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("(sqlite3.OperationalError) database or disk is full", "is full. Free some space"),
        ("[Errno 28] No space left on device: 'x'", "is full. Free some space"),
        ("(sqlite3.OperationalError) attempt to write a readonly database", "cannot be written"),
        ("(sqlite3.OperationalError) database is locked", "is locked by another process"),
        ("Detected out-of-date database schema (found version a)", "another version of MLflow"),
    ],
)
def test_known_troubles_say_what_to_do(text, advice, tmp_path):
    error = explain(RuntimeError(text), "sqlite:///x", tmp_path, "writing metrics")
    assert isinstance(error, TrackingError)
    assert advice in str(error)
    assert str(error).endswith("(While writing metrics.)")


def test_unknown_troubles_stay_what_they_are(tmp_path):
    error = RuntimeError("something else")
    assert explain(error, "sqlite:///x", tmp_path, "writing metrics") is error


def test_a_study_runs_once_at_a_time(tmp_path):
    with (
        exclusive(tmp_path / "a.lock", "Study 'a'"),
        pytest.raises(StudyError, match=r"Study 'a' is already running \(process \d+ on .*\). Wait for it"),
        exclusive(tmp_path / "a.lock", "Study 'a'"),
    ):
        pass
    with exclusive(tmp_path / "a.lock", "Study 'a'"):
        pass


@pytest.mark.parametrize(
    ("name", "expected"), [("ditto+prox", "ditto+prox"), ("a/b c", "a_b_c_"), ("../x", "_x_"), ("..", "_")]
)
def test_names_become_file_names_inside_the_folder(name, expected):
    assert slug(name).startswith(expected)
    assert not {"/", " "} & set(slug(name))


def test_names_that_would_share_a_file_do_not():
    assert len({slug(name) for name in ("a b", "a_b", "a/b", "a  b")}) == 4


def test_environment_and_commit_are_text_that_json_takes():
    assert json.loads(json.dumps(environment()))["python"].startswith("3.")
    assert all(isinstance(value, str) for value in git_commit().values())
