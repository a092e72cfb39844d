"""Studies with a stand-in for training: what is run, filed, resumed and closed, in seconds."""

from __future__ import annotations

import dataclasses
import io

import pandas as pd
import pytest
from rich.console import Console

from studies.errors import StoppedError, StudyError
from studies.events import Done, Failed, Logged
from studies.names import study_config
from studies.pool import Inline
from studies.population import Population
from studies.report import compare
from studies.results import read_results
from studies.runner import Runner, method_states, run_study, work_of
from studies.schema import plain
from studies.session import open_session
from studies.view import Lines, make_view

CLIENTS = pd.Index(["a", "b", "c"], name="client")
PEOPLE = Population(
    "fake",
    "f" * 16,
    pd.DataFrame({"kind": ["flat", "house", "house"]}, index=CLIENTS),
    {
        "source": "fake",
        "root": None,
        "clients": 3,
        "steps": 9,
        "step_seconds": 3600,
        "unit": "kWh",
        "windows": {},
        "rules": ["none"],
        "dropped": [{"client": "d", "reason": "empty"}],
        "naive": ["lag-24"],
    },
    {"lag-24": pd.DataFrame({"nmae": [0.5, 0.6, 0.7]}, index=CLIENTS)},
)


class Training:
    """Scores that depend on the hyperparameters and the seed alone; remembers what it ran; may end badly."""

    def __init__(self, at=None, how=None):
        self.ran, self.at, self.how = [], at, how

    def __call__(self, job, emit):
        self.ran.append(job.key)
        curve = {}
        for round_ in (2, 4):
            curve[round_] = job.params["lr"] + 0.01 * job.seed + 1 / round_
            emit(Logged(job.key, round_, {"validation/nmae": curve[round_], "train/loss": 1.0}))
            if job.key == self.at and round_ == 4:
                self.how()
        if job.kind == "trial":
            return Done(job.key, "complete", "", curve, 0.1)
        return Done(
            job.key, "complete", "", curve, 0.1, pd.DataFrame({"nmae": [curve[4]] * 3}, index=CLIENTS)
        )


def run(config, store, execute, fresh=False):
    out = io.StringIO()
    session = open_session(config, store, PEOPLE, fresh=fresh)
    states = method_states(session, PEOPLE)
    view = make_view(Console(file=out), work_of(session, states))
    run_study(Runner(session, states, view), Inline(execute))
    return out.getvalue()


def statuses(store, config):
    return {f"{r.method}/{r.name}": r.status for r in store.runs(store.experiment(config.name))}


def table(store, config):
    results = read_results(store, config.name)
    return results.scores.drop(columns=[]), {m.label: m.params for m in results.methods}


def boom():
    raise ZeroDivisionError("in the model")


def stop():
    raise StoppedError("SIGINT")


ALL = ["local/trial-000", "fedavg/trial-000", "local/trial-001", "fedavg/trial-001"]
SEEDS = ["local/seed-0", "local/seed-1", "fedavg/seed-0", "fedavg/seed-1"]


def test_every_method_gets_its_trials_then_its_seeds(small, store):
    training = Training()
    out = run(small, store, training)
    assert training.ran == ALL + SEEDS
    assert set(statuses(store, small).values()) == {"FINISHED"}
    assert "[8/8] fedavg/seed-1: validation/nmae" in out
    runs = {f"{r.method}/{r.name}": r for r in store.runs(store.experiment("small"))}
    assert runs["fedavg/seed-1"].params["seed"] == "1"
    assert runs["fedavg/fedavg"].params["data.lookback"] == "24"
    assert runs["fedavg/trial-000"].tags["mlflow.parentRunId"] == runs["fedavg/fedavg"].id
    assert store.curve(runs["fedavg/trial-000"].id, "train/loss") == {2: 1.0, 4: 1.0}
    assert store.read_json(runs["fedavg/fedavg"].id, "data.json")["dropped"] == [
        {"client": "d", "reason": "empty"}
    ]


def test_the_best_trial_is_what_the_seeds_use(small, store):
    run(small, store, Training())
    runs = [r for r in store.runs(store.experiment("small")) if r.method == "fedavg"]
    best = min(float(r.params["lr"]) for r in runs if r.kind == "trial")
    assert {float(r.params["lr"]) for r in runs if r.kind == "seed"} == {best}


def test_a_finished_study_runs_nothing_again(small, store):
    run(small, store, Training())
    again = Training()
    run(small, store, again)
    assert again.ran == []


@pytest.mark.parametrize("at", [ALL[0], ALL[3], SEEDS[0], SEEDS[3]])
@pytest.mark.parametrize(("how", "status"), [(boom, "FAILED"), (stop, "KILLED")])
def test_a_study_that_ends_anywhere_leaves_nothing_running_and_goes_on_to_the_same_end(
    small, store, at, how, status
):
    whole = Training()
    other = dataclasses.replace(small, name="whole")
    run(other, store, whole)
    first, second = Training(at, how), Training()
    with pytest.raises((StoppedError, RuntimeError)):
        run(small, store, first)
    assert "RUNNING" not in statuses(store, small).values()
    assert statuses(store, small)[at] == status
    run(small, store, second)
    assert first.ran + second.ran[1:] == whole.ran
    assert set(statuses(store, small).values()) == {"FINISHED"}
    assert len(statuses(store, small)) == len(statuses(store, other))
    (scores, params), (wanted, wanted_params) = table(store, small), table(store, other)
    pd.testing.assert_frame_equal(scores, wanted)
    assert params == wanted_params


def test_a_session_killed_outright_is_closed_by_the_next(small, store):
    session = open_session(small, store, PEOPLE)
    states = method_states(session, PEOPLE)
    runner = Runner(session, states, Lines(Console(file=io.StringIO()), work_of(session, states)))
    job = runner.next_job()
    assert statuses(store, small)["local/trial-000"] == "RUNNING"
    open_session(small, store, PEOPLE)
    assert job.key == "local/trial-000"
    assert set(statuses(store, small).values()) == {"KILLED"}


def test_a_trial_stored_before_its_run_was_closed_counts(small, store):
    session = open_session(small, store, PEOPLE)
    states = method_states(session, PEOPLE)
    runner = Runner(session, states, Lines(Console(file=io.StringIO()), work_of(session, states)))
    job = runner.next_job()
    runner._store_trial(states["local"], job, Done(job.key, "complete", "", {4: 0.3}, 0.1))
    again = Training()
    run(small, store, again)
    assert "local/trial-000" not in again.ran
    assert statuses(store, small)["local/trial-000"] == "FINISHED"


def test_a_trial_that_diverges_counts_and_the_study_goes_on(small, store):
    def execute(job, emit):
        if job.key == "local/trial-000":
            return Done(job.key, "diverged", "The loss of client 'a' became nan in round 3.", {}, 0.1)
        return Training()(job, emit)

    out = run(small, store, execute)
    runs = {f"{r.method}/{r.name}": r for r in store.runs(store.experiment("small"))}
    assert runs["local/trial-000"].status == "FAILED"
    assert runs["local/trial-000"].tags["persofl.reason"] == "The loss of client 'a' became nan in round 3."
    assert "local/trial-000: The loss of client 'a' became nan in round 3." in out
    assert runs["local/local"].status == "FINISHED"
    assert dict(read_results(store, "small").methods[0].trials) == {"diverged": 1, "complete": 1}


def test_a_method_none_of_whose_trials_ends_is_reported_and_the_others_go_on(small, store):
    def execute(job, emit):
        if job.method.label == "local":
            return Done(job.key, "diverged", "nan", {}, 0.1)
        return Training()(job, emit)

    out = run(small, store, execute)
    assert "No trial of method 'local' reached its last round (2 tried)." in out
    assert statuses(store, small)["local/local"] == "FAILED"
    results = read_results(store, "small")
    assert set(results.scores["method"]) == {"fedavg"}
    assert "No trial" in results.methods[0].reason


def test_an_error_that_a_user_can_mend_names_the_job(small, store):
    def execute(job, emit):
        return Failed(job.key, "batch_size=0", "Traceback", True)

    with pytest.raises(StudyError, match=r"local/trial-000 failed. batch_size=0"):
        run(small, store, execute)


def test_other_settings_are_refused_with_what_differs(small, store):
    run(small, store, Training())
    raw = plain(small)
    raw["training"]["rounds"] = 40
    raw["search"]["trials"] = 3
    with pytest.raises(StudyError) as caught:
        run(study_config(raw, "x"), store, Training())
    assert str(caught.value) == (
        "Study 'small' was started with other settings: 2 problems\n"
        "  - training.rounds: 4 then, 40 now\n"
        "  - search.trials: 2 then, 3 now\n"
        "Use the old settings to go on with it, give this one another --name, or start over with --fresh "
        "(the old runs move to MLflow's bin)."
    )


def test_other_data_are_refused_too(small, store):
    run(small, store, Training())
    with pytest.raises(StudyError, match=r"the data: other values or other clients than then"):
        open_session(small, store, dataclasses.replace(PEOPLE, fingerprint="0" * 16))


def test_fresh_starts_over(small, store):
    run(small, store, Training())
    raw = plain(small)
    raw["training"]["rounds"] = 40
    again = Training()
    run(study_config(raw, "x"), store, again, fresh=True)
    assert again.ran == ALL + SEEDS
    assert len(statuses(store, small)) == 10


def test_methods_and_seeds_may_be_added(small, store):
    run(small, store, Training())
    raw = plain(small)
    raw["methods"], raw["seeds"] = ["local", "fedavg", "fedprox"], [0, 1, 2]
    again = Training()
    run(study_config(raw, "x"), store, again)
    assert again.ran == [
        "fedprox/trial-000", "fedprox/trial-001", "local/seed-2", "fedavg/seed-2",
        "fedprox/seed-0", "fedprox/seed-1", "fedprox/seed-2",
    ]  # fmt: skip
    raw["methods"] = [
        "local",
        {"name": "fedavg", "label": "", "fixed": {"lr": 1.0}, "distance": {}},
        "fedprox",
    ]
    with pytest.raises(StudyError, match=r"methods.fedavg.fixed.lr: unset then, 1.0 now"):
        run(study_config(raw, "x"), store, Training())


def test_a_study_deleted_in_mlflow_is_not_taken_up_from_its_trials(small, store):
    run(small, store, Training())
    store.client.delete_experiment(store.experiment("small"))
    with pytest.raises(StudyError, match=r"but no experiment in MLflow. Start over with --fresh"):
        run(small, store, Training())


def test_nothing_to_tune_takes_one_trial(small, store):
    raw = plain(small)
    raw["methods"] = [{"name": "local", "label": "", "fixed": {"lr": 0.1}, "distance": {}}]
    training = Training()

    def execute(job, emit):
        return training(dataclasses.replace(job, params={"lr": 0.1}), emit)

    run(study_config(raw, "x"), store, execute)
    assert training.ran == ["local/trial-000", "local/seed-0", "local/seed-1"]


def test_bars_draw_on_a_terminal(small, store):
    out = io.StringIO()
    session = open_session(small, store, PEOPLE)
    states = method_states(session, PEOPLE)
    view = make_view(Console(file=out, force_terminal=True, width=120), work_of(session, states))
    run_study(Runner(session, states, view), Inline(Training()))
    assert "all methods" in out.getvalue()
    assert "8/8" in out.getvalue()
    assert "best validation/nmae" in out.getvalue()


def test_the_comparison_is_read_from_mlflow_alone(small, store):
    run(small, store, Training())
    (store.folder / "optuna.db").unlink()
    comparison = compare(read_results(store, "small"))
    assert list(comparison.summary.index) == ["local", "fedavg", "lag-24"]
    assert comparison.summary.loc["lag-24", "mean"] == pytest.approx(0.6)
    assert comparison.group_by == "kind"
    assert comparison.groups["clients"].to_dict() == {"flat": 1, "house": 2}
    run(dataclasses.replace(small, group_by="kind"), store, Training())
    assert read_results(store, "small").group_by == "kind"
    with pytest.raises(StudyError, match=r"no attribute 'knd'. Did you mean 'kind'\?"):
        compare(read_results(store, "small"), "knd")


def test_an_unknown_study_names_the_nearest(small, store):
    run(small, store, Training())
    with pytest.raises(StudyError, match=r"There is no study 'smal' .* Did you mean 'small'\?"):
        read_results(store, "smal")
