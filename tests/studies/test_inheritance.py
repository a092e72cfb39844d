"""Hyperparameters taken from another method: when, which, and what is refused."""

from __future__ import annotations

import pytest

from studies.config import StudyConfig
from studies.errors import StoppedError, StudyError
from studies.events import Done
from studies.names import problems, space_of, study_config
from studies.results import read_results
from studies.session import differences, settings

from .conftest import SMALL
from .test_runner import CLIENTS, Training, run, statuses

CHAIN = [
    {"name": "finetune", "inherit": {"lr": "ditto.lr", "personal_lr": "local.lr"}},
    {"name": "ditto", "inherit": {"lr": "fedavg.lr"}},
    "local",
    "fedavg",
]


def study(folder, methods, **over):
    return study_config({**SMALL, **over, "methods": methods, "tracking": {"dir": str(folder)}}, "x.yaml")


class Recording(Training):
    """Scores by what the method is really built with."""

    def __call__(self, job, emit):
        import pandas as pd

        self.ran.append((job.key, {**job.method.fixed, **job.params}))
        if job.key == self.at:
            self.how()
        lr = {**job.method.fixed, **job.params}["lr"]
        table = pd.DataFrame({"nmae": [lr] * 3}, index=CLIENTS) if job.kind == "seed" else None
        return Done(job.key, "complete", "", {4: lr}, 0.1, table)


def chosen(training, method, param="lr"):
    return {params[param] for key, params in training.ran if key.startswith(f"{method}/seed")}


def test_a_method_waits_for_its_parents_and_takes_what_they_chose(folder, store):
    config, training = study(folder, CHAIN), Recording()
    run(config, store, training)
    keys = [key for key, _ in training.ran]
    assert keys.index("ditto/trial-000") > max(keys.index(f"fedavg/trial-00{n}") for n in (0, 1))
    assert keys.index("finetune/trial-000") > max(keys.index(f"ditto/trial-00{n}") for n in (0, 1))
    assert chosen(training, "ditto") == chosen(training, "finetune") == chosen(training, "fedavg")
    assert chosen(training, "finetune", "personal_lr") == chosen(training, "local")
    assert set(statuses(store, config).values()) == {"FINISHED"}
    params = {m.label: m.params for m in read_results(store, "small").methods}
    assert float(params["finetune"]["lr"]) == next(iter(chosen(training, "fedavg")))


def test_what_is_inherited_is_not_searched(folder):
    methods = {method.label: method for method in study(folder, CHAIN).method_configs()}
    config = study(folder, CHAIN)
    assert set(space_of(methods["ditto"], config).ranges) == {"prox"}
    assert set(space_of(methods["finetune"], config).ranges) == {"personal_steps"}


def test_a_fixed_value_and_a_default_are_inherited_too(folder, store):
    methods = [
        {"name": "fedavg", "fixed": {"lr": 0.07}},
        {"name": "ditto", "inherit": {"lr": "fedavg.lr", "personal_steps": "best_of.personal_steps"}},
        {"name": "best_of", "inherit": {"lr": "fedavg.lr"}},
    ]
    training = Recording()
    run(study(folder, methods), store, training)
    assert chosen(training, "ditto") == {0.07}
    assert chosen(training, "ditto", "personal_steps") == {20}


def test_a_parent_that_failed_fails_its_children_and_nobody_else(folder, store):
    config = study(folder, [*CHAIN, "fedprox"])

    class Diverging(Recording):
        def __call__(self, job, emit):
            done = super().__call__(job, emit)
            return Done(job.key, "diverged", "nan", {}, 0.1) if job.method.label == "fedavg" else done

    out = run(config, store, Diverging())
    found = {
        name: status
        for name, status in statuses(store, config).items()
        if name.count("/") and "-0" not in name
    }
    assert found["ditto/ditto"] == found["finetune/finetune"] == found["fedavg/fedavg"] == "FAILED"
    assert found["local/local"] == found["fedprox/fedprox"] == "FINISHED"
    assert "ditto inherits from a method that failed" in out


def test_a_chain_that_fails_leaves_nothing_running_where_children_are_listed_first(folder, store):
    config = study(folder, [CHAIN[0], CHAIN[1], "local", {"name": "fedavg", "fixed": {"local_steps": 1}}])

    class Diverging(Recording):
        def __call__(self, job, emit):
            super().__call__(job, emit)
            return Done(job.key, "diverged", "nan", {}, 0.1)

    training = Diverging()
    run(config, store, training)
    assert not [key for key, _ in training.ran if key.startswith(("finetune", "ditto"))]
    assert set(statuses(store, config).values()) == {"FAILED"}


def test_a_child_added_in_front_of_a_finished_chain_still_runs(folder, store):
    run(study(folder, CHAIN[1:]), store, Recording())
    config, again = study(folder, CHAIN), Recording()
    run(config, store, again)
    assert [key for key, _ in again.ran] == [
        f"finetune/{name}" for name in ("trial-000", "trial-001", "seed-0", "seed-1")
    ]
    assert set(statuses(store, config).values()) == {"FINISHED"}


def test_a_study_that_was_stopped_goes_on_with_the_same_values(folder, store):
    config = study(folder, CHAIN)
    whole = Recording()
    run(study(folder, CHAIN, name="whole"), store, whole)

    def stop():
        raise StoppedError("SIGINT")

    first, second = Recording("ditto/trial-001", stop), Recording()
    with pytest.raises(StoppedError):
        run(config, store, first)
    run(config, store, second)
    again = dict([*first.ran, *second.ran])
    assert again == dict(whole.ran)


@pytest.mark.parametrize(
    ("methods", "problem"),
    [
        (
            [{"name": "ditto", "inherit": {"lr": "fedavgg.lr"}}, "fedavg"],
            "methods[0].inherit.lr: 'fedavgg.lr' names no",
        ),
        (
            [{"name": "ditto", "inherit": {"lr": "fedavg"}}, "fedavg"],
            "methods[0].inherit.lr: 'fedavg' names no method",
        ),
        (
            [{"name": "ditto", "inherit": {"lr": "fedavg.rl"}}, "fedavg"],
            "has no parameter 'rl'. Did you mean 'lr'",
        ),
        (
            [{"name": "ditto", "inherit": {"rl": "fedavg.lr"}}, "fedavg"],
            "no such parameter. Did you mean 'lr'",
        ),
        (
            [{"name": "ditto", "fixed": {"lr": 0.1}, "inherit": {"lr": "fedavg.lr"}}, "fedavg"],
            "methods[0].inherit.lr: is fixed too",
        ),
        (
            [
                {"name": "ditto", "inherit": {"lr": "fedavg.lr"}},
                {"name": "fedavg", "inherit": {"lr": "ditto.lr"}},
            ],
            "inherits from itself, directly or by way of others",
        ),
        (
            [{"name": "finetune", "inherit": {"personal_steps": "fedavg.lr"}}, "fedavg"],
            "methods[0].inherit.personal_steps: needs a whole number, and 'lr' of method 'fedavg' is none",
        ),
        (
            ["local", {"name": "fedavg", "controls": ["lokal"]}],
            "methods[1].controls: there is no method 'lokal'. Did you",
        ),
        (
            ["local", {"name": "fedavg", "controls": ["fedavg"]}],
            "methods[1].controls: 'fedavg' is the method itself",
        ),
    ],
)
def test_what_cannot_be_inherited_or_controlled_is_a_problem_with_its_path(methods, problem):
    assert any(problem in text for text in problems({**SMALL, "methods": methods})), problems(
        {**SMALL, "methods": methods}
    )


def test_labels_may_hold_dots_and_modulators_have_parameters_of_their_own(folder, store):
    steered = "ditto+prox_by_distance"
    methods = [
        "fedavg",
        {"name": steered, "label": "by d. 2.0", "inherit": {"lr": "fedavg.lr"}},
        {
            "name": steered,
            "label": "dealt",
            "inherit": {"prox_by_distance.tau": "by d. 2.0.prox_by_distance.tau", "lr": "by d. 2.0.lr"},
        },
    ]
    training = Recording()
    run(study(folder, methods), store, training)
    taus = [
        {params["prox_by_distance.tau"] for key, params in training.ran if key.startswith(f"{name}/seed")}
        for name in ("by d. 2.0", "dealt")
    ]
    assert taus[0] == taus[1]
    assert len(taus[0]) == 1


def test_methods_left_out_take_no_part(folder):
    methods = [
        "local",
        "fedavg",
        {"name": "ditto", "label": "ditto oracle"},
        {"name": "ditto", "controls": ["local", "ditto oracle"]},
    ]
    config = study(folder, methods, leave_out=["* oracle"])
    assert [method.label for method in config.method_configs()] == ["local", "fedavg", "ditto"]
    assert config.method_configs()[2].controls == ["local"]


@pytest.mark.parametrize(
    ("leave_out", "problem"),
    [(["*oracle"], "leave_out: '*oracle' fits none"), (["*"], "leave_out: leaves no method")],
)
def test_patterns_that_leave_out_nothing_or_all_are_problems(leave_out, problem):
    assert any(problem in text for text in problems({**SMALL, "leave_out": leave_out}))


def test_inheriting_from_a_method_left_out_is_a_problem():
    methods = ["local", {"name": "ditto", "inherit": {"lr": "fedavg.lr"}}, "fedavg"]
    found = problems({**SMALL, "methods": methods, "leave_out": ["fedavg"]})
    assert any("'fedavg.lr' names no method" in text for text in found)


def test_controls_and_an_empty_inherit_do_not_change_a_study():
    plain = StudyConfig("x", ["local", "fedavg"])
    older = settings(plain)
    assert "inherit" not in older["methods"]["local"]
    named = study_config({**SMALL, "methods": ["local", {"name": "fedavg", "controls": ["local"]}]}, "x")
    assert differences(settings(study_config(SMALL, "x")), settings(named)) == []
    given = study_config(
        {**SMALL, "methods": ["local", {"name": "fedavg", "inherit": {"lr": "local.lr"}}]}, "x"
    )
    assert any("inherit" in text for text in differences(settings(study_config(SMALL, "x")), settings(given)))


def test_a_bad_study_says_all_of_it_at_once():
    with pytest.raises(StudyError, match="2 problems"):
        study_config(
            {**SMALL, "methods": ["local", {"name": "ditto", "inherit": {"lr": "x.lr"}, "controls": ["y"]}]},
            "x",
        )
