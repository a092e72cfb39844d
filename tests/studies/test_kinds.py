"""A study of each kind of signal from its YAML to its table, on small twins; and what each task is compared by."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from data_loaders import ClientExamples, ForecastWindows
from studies.config import DataConfig
from studies.confusion import best_and_worst, matrix_of
from studies.errors import StudyError
from studies.loading import forget_data, load_data, settled
from studies.naive import class_shares, naive_scores
from studies.names import study_config
from studies.population import Population
from studies.report import as_json, as_markdown, compare, print_report
from studies.results import read_results
from studies.session import differences, settings
from studies.study import run
from studies.tracking import open_store
from studies.yamlfile import merged, read_study

BUDGET = {
    "training": {"rounds": 2, "local_steps": 1, "batch_size": 8, "eval_every": 1, "cohort": 1.0},
    "search": {"trials": 1, "ranges": {"lr": {"low": 0.01, "high": 0.1}}},
    "seeds": [0],
    "workers": 1,
}
TWINS = {
    "ev": {
        "data": {"source": "chargers", "options": {"task": "energy", "clients": 5, "days": 90}},
        "methods": ["local", "fedavg", "ditto+prox_by_distance"],
    },
    "openacc": {
        "data": {
            "source": "cars",
            "options": {"clients": 4, "runs": 3, "run_seconds": 60.0, "frequency": 1, "covariates": ["gap"]},
        },
        "methods": ["local", "fedavg"],
    },
    "arabic_commands": {
        "data": {
            "source": "speakers",
            "options": {"clients": 5, "takes": 5, "words": ["yes", "no", "stop"], "mels": 10},
            "partition": [{"name": "hold_out", "share": 0.2}],
        },
        "model": {"options": {"hidden": [8]}},
        "methods": ["local", "fedavg", "ditto+prox_by_distance"],
        "metric": "accuracy",
    },
}


def config_of(name, folder, **over):
    raw = merged(merged(read_study(name), BUDGET), TWINS[name])
    return study_config(merged(raw, {"tracking": {"dir": str(folder)}, **over}), name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Every kind's study, run once."""
    done = {}

    def get(name):
        if name not in done:
            folder, out = tmp_path_factory.mktemp(name), io.StringIO()
            config = config_of(name, folder)
            done[name] = (config, run(config, Console(file=out, width=160)), out.getvalue())
        return done[name]

    yield get
    forget_data()


def words_of(comparison):
    out = io.StringIO()
    print_report(comparison, Console(file=out, width=200))
    return out.getvalue()


@pytest.mark.parametrize("name", sorted(TWINS))
def test_a_study_of_each_kind_runs_and_is_shown_again(name, finished, tmp_path):
    config, done, said = finished(name)
    comparison = done.comparison
    naive = {"ev": "mean", "openacc": "persistence", "arabic_commands": "majority"}[name]
    labels = [method.label for method in config.method_configs()]
    assert list(comparison.summary.index) == [*labels, naive]
    assert comparison.summary["mean"].notna().all()
    assert comparison.summary["clients"].gt(0).all()
    assert f"{comparison.results.facts['clients']} clients" in said
    again = compare(read_results(open_store(config.tracking.dir), name))
    assert as_json(again) == as_json(comparison)
    assert words_of(again) == words_of(comparison)
    files = {path.name for path in done.folder.iterdir()}
    assert {"clients.png", "curves.png", "report.md", "comparison.json"} <= files
    assert ("confusion.png" in files) == (name == "arabic_commands")
    assert ("distance.png" in files) == ("ditto+prox_by_distance" in labels)


@pytest.mark.parametrize(
    ("name", "metric", "loss"),
    [("ev", "nmae", "mae"), ("openacc", "nmae", "mse"), ("arabic_commands", "accuracy", "cross_entropy")],
)
def test_metric_and_loss_are_the_tasks_where_the_file_names_none(name, metric, loss, finished):
    _, done, _ = finished(name)
    kept = done.comparison.results.settings
    assert (kept["metric"], kept["training.loss"]) == (metric, loss)


def test_keywords_are_reported_by_accuracy_with_held_out_speakers_apart(finished):
    _, done, said = finished("arabic_commands")
    comparison = done.comparison
    assert comparison.unseen["clients"].to_dict() == {"seen": 4, "unseen": 1}
    assert "5 clients (1 held out)" in said
    assert "3 classes" in said
    text = words_of(comparison)
    assert "positive is better" in text
    assert "accuracy of clients held out of training" in text.replace("Mean ", "")
    assert "Higher is better" in as_markdown(comparison)
    content = json.loads(as_json(comparison))
    assert set(content["unseen"]) == {"seen", "unseen"}
    assert content["methods"][0]["summary"]["clients"] == content["naive"]["majority"]["clients"] == 4
    assert "accuracy on the test span, clients that train" in text
    assert "1 held out of training and in no table but their own" in text
    scores = comparison.results.scores
    np.testing.assert_allclose(scores["accuracy"] + scores["error"], 1)


def test_no_table_plot_or_logged_mean_mixes_held_out_clients_with_the_others(finished):
    config, done, _ = finished("arabic_commands")
    comparison = done.comparison
    results, attributes = comparison.results, comparison.results.attributes
    (unseen,) = attributes.index[attributes["unseen"].astype(bool)]
    scores = results.scores.copy()
    scores.loc[scores["client"] == unseen, "accuracy"] = 100.0  # would be seen in every figure
    spoilt = compare(dataclasses.replace(results, scores=scores))
    for name in ("summary", "paired", "groups"):
        pd.testing.assert_frame_equal(getattr(spoilt, name), getattr(comparison, name))
    assert spoilt.unseen.loc["unseen", "fedavg"] == 100.0
    for label in ("local", "fedavg"):
        own = results.scores[(results.scores["method"] == label) & (results.scores["client"] != unseen)]
        assert comparison.summary.loc[label, "mean"] == pytest.approx(own["accuracy"].mean())
        assert comparison.unseen.loc["seen", label] == pytest.approx(own["accuracy"].mean())
    seen = results.seen()
    for table in (seen.scores, seen.confusion):
        assert unseen not in set(table["client"])
        assert table["client"].nunique() == 4
    assert unseen not in best_and_worst(seen)[1]
    assert unseen not in seen.attributes.index
    store = open_store(config.tracking.dir)
    runs = store.runs(store.experiment(config.name))
    (run_,) = [run for run in runs if run.kind == "seed" and run.method == "fedavg"]
    assert run_.metrics["test/accuracy"] == pytest.approx(comparison.unseen.loc["seen", "fedavg"])
    assert run_.metrics["test/unseen_accuracy"] == pytest.approx(comparison.unseen.loc["unseen", "fedavg"])


def test_confusions_are_kept_by_client_and_add_up(finished):
    results = finished("arabic_commands")[1].comparison.results
    assert results.classes == ["yes", "no", "stop"]
    counted = results.confusion.groupby(["method", "client"])["count"].sum()
    examples = results.scores.set_index(["method", "client"])["examples"]
    assert (counted.sort_index() == examples.sort_index()).all()
    own = results.confusion[results.confusion["method"] == "fedavg"]
    matrix = matrix_of(own, results.classes)
    correct = results.scores.query("method == 'fedavg'").eval("accuracy * examples").sum()
    assert np.trace(matrix) == pytest.approx(correct)
    best, worst = best_and_worst(results)
    means = results.scores.groupby("method")["accuracy"].mean()
    assert means[best] == means.max()
    of_best = results.scores[results.scores["method"] == best].set_index("client")["accuracy"]
    assert len(worst) == 1
    assert of_best[worst[0]] == of_best.min()


def test_a_study_goes_on_with_more_seeds(finished):
    config, _, _ = finished("openacc")
    out = io.StringIO()
    more = config_of("openacc", config.tracking.dir, seeds=[0, 1])
    done = run(more, Console(file=out, width=160))
    assert set(done.comparison.summary.loc[["local", "fedavg"], "seeds"]) == {2}
    assert "Going on: 4 of 6 jobs are done." in out.getvalue()


# --- what does not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "over", "problem"),
    [
        (
            "arabic_commands",
            {"metric": "nmae"},
            "metric: task 'classify' has no 'nmae'. Known: accuracy, cross_entropy",
        ),
        ("arabic_commands", {"training": {"loss": "mse"}}, "training.loss: Loss 'mse' compares floats"),
        (
            "arabic_commands",
            {"model": {"instance_norm": True}},
            "model.instance_norm: the targets of task 'classify'",
        ),
        (
            "ev",
            {"metric": "accuracy"},
            "metric: task 'regress' has no 'accuracy'. Known: mae, nmae, r2, rmse",
        ),
        ("ev", {"training": {"loss": "cross_entropy"}}, "training.loss: Loss 'cross_entropy' needs classes"),
        ("openacc", {"metric": "r2"}, "metric: task 'forecast' has no 'r2'"),
    ],
)
def test_what_does_not_fit_the_task_is_said_before_anything_runs(name, over, problem, tmp_path):
    config = study_config(merged(merged(merged(read_study(name), BUDGET), TWINS[name]), over), name)
    with pytest.raises(StudyError) as caught:
        settled(config, load_data(config.data))
    assert problem in str(caught.value)


def test_a_calendar_is_for_series():
    data = DataConfig(
        source="simulated", options={"clients": 2, "days": 20}, lookback=24, horizon=4, calendar=["hour"]
    )
    windows = load_data(data)
    assert isinstance(windows, ForecastWindows)
    assert windows.shape == (24, 4, 3)
    assert any("calendar" in rule for rule in Population.of(windows, data).facts["rules"])
    with pytest.raises(ValueError, match="has samples, whose inputs are as they are"):
        load_data(DataConfig(**{**samples(), "calendar": ["hour"]}))


def test_a_study_begun_before_a_setting_existed_goes_on():
    now = settings(study_config({"name": "x", "methods": ["local"], "metric": "nmae"}, "x"))
    then = json.loads(json.dumps(now))
    for key in (
        "split",
        "scale",
        "min_samples",
        "split_seed",
        "partition",
        "calendar",
        "timezone",
        "holidays",
    ):
        del then["data"][key]
    del then["training"]["smoothing"]
    assert differences(then, now) == []
    now["data"]["partition"] = [{"name": "hold_out", "share": 0.1}]
    assert differences(then, now) == ["data.partition: [] then, [{'name': 'hold_out', 'share': 0.1}] now"]


# --- data, and predictions without training ----------------------------------------------------------------


def samples(**over):
    options = {"clients": 4, "takes": 5, "words": ["yes", "no"], "mels": 8}
    return {"source": "speakers", "options": options, "split": "stratified", **over}


def test_partitions_are_applied_in_turn_and_written_down():
    data = DataConfig(
        **samples(
            partition=[
                {"name": "dirichlet", "clients": 3, "alpha": 50.0, "seed": 1},
                {"name": "hold_out", "share": 0.3},
            ]
        )
    )
    examples = load_data(data)
    assert isinstance(examples, ClientExamples)
    facts = Population.of(examples, data).facts
    assert facts["clients"] <= 3
    assert facts["unseen"] == 1
    places = [
        next(k for k, rule in enumerate(facts["rules"]) if word in rule) for word in ("dirichlet", "hold_out")
    ]
    assert places == sorted(places)


def test_who_is_held_out_is_part_of_the_data():
    prints = [
        Population.of(load_data(data), data).fingerprint
        for data in (
            DataConfig(**samples(partition=partition))
            for partition in (
                [],
                [{"name": "hold_out", "share": 0.3}],
                [{"name": "hold_out", "share": 0.3, "seed": 5}],
            )
        )
    ]
    assert prints[0] not in prints[1:]


def targets_of(data, client, span):
    ranks = torch.arange(int(data.count(span)[client])).unsqueeze(0)
    return data.gather(data.positions(span, torch.tensor([client]), ranks)[0])[1]


def test_the_majority_is_each_clients_commonest_class():
    data = load_data(
        DataConfig(**samples(partition=[{"name": "dirichlet", "clients": 3, "alpha": 2.0, "min_samples": 6}]))
    )
    scores = naive_scores(data)["majority"]
    assert list(scores.columns) == ["error", "accuracy", "macro_f1", "cross_entropy"]
    for client, name in enumerate(data.clients):
        train, test = targets_of(data, client, "train").flatten(), targets_of(data, client, "test").flatten()
        counts = torch.bincount(train, minlength=2)
        accuracy = float((test == counts.argmax()).float().mean())
        assert scores.loc[name, "accuracy"] == pytest.approx(accuracy)
        shares = (counts + 1.0) / (counts.sum() + 2)
        assert scores.loc[name, "cross_entropy"] == pytest.approx(-float(shares.log()[test].mean()), rel=1e-5)


def test_class_shares_are_never_zero():
    shares = class_shares([torch.tensor([[0], [0]]), torch.tensor([[2]])], 3)
    torch.testing.assert_close(
        shares, torch.tensor([[[3, 1, 1]], [[1, 1, 2]]]) / torch.tensor([5.0, 4.0]).view(2, 1, 1)
    )


def test_the_mean_is_of_each_clients_training_targets():
    data = load_data(DataConfig(source="chargers", options={"task": "energy", "clients": 3, "days": 60}))
    scores = naive_scores(data)["mean"]
    for client, name in enumerate(data.clients):
        train, test = (
            data.unscale(torch.tensor([client]), targets_of(data, client, span).unsqueeze(0))[0]
            for span in ("train", "test")
        )
        error = (test - train.mean(0)).abs()
        assert scores.loc[name, "mae"] == pytest.approx(float(error.mean()), rel=1e-4)
        assert scores.loc[name, "nmae"] == pytest.approx(float(error.sum() / test.abs().sum()), rel=1e-4)


def test_persistence_is_the_last_value_where_there_is_no_day():
    options = {"clients": 2, "runs": 3, "run_seconds": 60.0, "frequency": 1}
    data = load_data(DataConfig(source="cars", options=options, lookback=5, horizon=3))
    scores = naive_scores(data)
    assert list(scores) == ["persistence"]
    for client, name in enumerate(data.clients):
        ranks = torch.arange(int(data.count("test")[client])).unsqueeze(0)
        x, y = data.gather(data.positions("test", torch.tensor([client]), ranks)[0])
        error = (x[:, -1:, 0] - y).abs().mean() * data.std[client, 0]
        assert scores["persistence"].loc[name, "mae"] == pytest.approx(float(error), rel=1e-4)
