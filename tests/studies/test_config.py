from __future__ import annotations

import dataclasses

import pytest

from data_loaders import SOURCES
from persofl.models import MODELS
from studies.config import DataConfig, StudyConfig
from studies.errors import StudyError
from studies.names import problems, study_config
from studies.schema import plain
from studies.yamlfile import builtin_studies, merged, overlaid, parse_yaml, read_study

GOOD = {"name": "x", "methods": ["local"]}

BAD = """
name: winter
data:
  source: simulatd
  lokback: 24
  horizon: 0
  train: 1.5
model:
  name: mpl
training:
  rounds: many
  loss: huber
methods:
  - local
  - fedavgg
  - fedavg+prox_by_distance
  - {name: ditto, fixed: {prx: 1}}
  - ditto+prox_by_distanc
metric: nmea
seeds: [0, -1]
search: {ranges: {lr: {low: 1, high: 0.1}}}
trackng: {}
"""


def keys_of(cls):
    return ", ".join(sorted(field.name for field in dataclasses.fields(cls)))


def test_all_problems_of_one_file_come_in_one_message_word_for_word():
    with pytest.raises(StudyError) as caught:
        study_config(parse_yaml(BAD, "winter.yaml"), "winter.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"winter.yaml: {len(lines) - 1} problems"
    expected = [
        "trackng: unknown key. Did you mean 'tracking'? Known: data, group_by, leave_out, methods, metric, model, name, "
        "plugins, search, seeds, summary, tracking, trainer, training, workers.",
        f"data.lokback: unknown key. Did you mean 'lookback'? Known: {keys_of(DataConfig)}.",
        "data.horizon: 0 is out of range, must be at least 1.",
        "data.train: 1.5 is out of range, must be above 0 and below 1.",
        "training.rounds: expected an integer, got 'many' (str).",
        "training.loss: unknown value 'huber'. Known: cross_entropy, mae, mse, pinball.",
        "seeds[1]: -1 is out of range, must be at least 0.",
        "metric: unknown value 'nmea'. Did you mean 'nmae'? Known: accuracy, cross_entropy, error, macro_f1, mae, mase, "
        "nmae, r2, rmse.",
        f"data.source: unknown source 'simulatd'. Did you mean 'simulated'? Known: {', '.join(sorted(SOURCES))}.",
        f"model.name: unknown model 'mpl'. Did you mean 'mlp'? Known: {', '.join(sorted(MODELS))}.",
        "search.ranges.lr: low=1 must be less than high=0.1.",
    ]
    for problem in expected:
        assert f"  - {problem}" in lines
    methods = [line for line in lines if line.startswith("  - methods[")]
    assert "methods[1]: Unknown method 'fedavgg'. Did you mean 'fedavg'?" in methods[0]
    assert "methods[2]: Method 'fedavg+prox_by_distance'" in methods[1]
    assert "which 'fedavg' does not have" in methods[1]
    assert "methods[3]: Unknown parameter of method 'ditto': 'prx'. Did you mean 'prox'?" in methods[2]
    assert "methods[4]: Unknown modulator 'prox_by_distanc'. Did you mean 'prox_by_distance'?" in methods[3]
    assert len(lines) - 1 == len(expected) + 4


def test_one_problem_is_counted_as_one():
    with pytest.raises(StudyError, match=r"^x.yaml: 1 problem\n  - name: is missing.$"):
        study_config({"methods": ["local"]}, "x.yaml")


def test_a_good_file_has_no_problems_and_survives_the_way_to_plain_and_back():
    config = study_config(GOOD, "x")
    assert problems(plain(config)) == []
    assert study_config(plain(config), "x") == config


def test_shipped_studies_are_sound():
    shipped = builtin_studies()
    knobs = {"distance", *(f"distance_{data}" for data in ("arabic", "ev", "london", "openacc"))}
    newcomers = {"newcomers", "newcomers_london"}
    assert set(shipped) == {"arabic_commands", "demo", "ev", "london", "openacc"} | knobs | newcomers
    for name in shipped:
        assert problems(read_study(name)) == []


@pytest.mark.parametrize(
    ("over", "problem"),
    [
        ({"data": {"train": 0.7, "validation": 0.3}}, "data: train + validation must leave a test span"),
        ({"data": {"options": {"clints": 3}}}, "data.options: Source 'simulated' has no option 'clints'"),
        ({"data": {"source": "own"}}, "data.options: Source 'own' needs file=..."),
        (
            {"model": {"options": {"hiden": [3]}}},
            "model.options.hiden: unknown option of model 'mlp'. Did you mean 'hidden'",
        ),
        ({"model": {"options": {"hidden": 3}}}, "model.options: 'mlp' cannot be built with {'hidden': 3}"),
        (
            {"methods": ["local", "local"]},
            "methods: 'local' is there twice; give one of them a label of its own.",
        ),
        ({"methods": []}, "methods: is empty; name at least one."),
        ({"seeds": []}, "seeds: is empty; name at least one."),
        ({"seeds": [1, 1]}, "seeds: 1 is there twice."),
        ({"training": {"cohort": 0}}, "training.cohort: 0 is out of range, must be above 0 and at most 1."),
        (
            {"training": {"quantiles": [0.1, 0.9]}},
            "training.quantiles: belongs with loss: pinball, and only with it.",
        ),
        ({"search": {"ranges": {"lr": 3}}}, "search.ranges.lr: expected keys and values such as"),
        (
            {"search": {"ranges": {"lr": {"low": 0, "high": 1, "log": True}}}},
            "a log range needs low above 0, got 0.",
        ),
        (
            {"methods": [{"name": "ditto", "distance": {"knd": "x"}}]},
            "Unknown key 'knd' of distance. Did you mean 'kind'?",
        ),
        (
            {"training": {"loss": "mse", "smoothing": 0.1}},
            "training.smoothing: belongs with loss: cross_entropy, and only with it.",
        ),
        ({"data": {"split": "random"}}, "data.split: unknown value 'random'. Known: auto, official"),
        (
            {"data": {"partition": [{"name": "dirichlt"}]}},
            "data.partition: [0] There is no partition 'dirichlt'. Did you mean 'dirichlet'?",
        ),
        ({"data": {"partition": [{"alpha": 1}]}}, "data.partition: [0] needs a name."),
        (
            {"data": {"partition": [{"name": "hold_out", "share": 0.2}, {"name": "hold_out", "shre": 1}]}},
            "data.partition: [1] Partition 'hold_out' has no option 'shre'. Did you mean 'share'?",
        ),
        (
            {"data": {"calendar": ["hour", "wekday"]}},
            "data.calendar: Unknown calendar feature 'wekday'. Did you mean 'weekday'?",
        ),
        ({"data": {"min_samples": 0}}, "data.min_samples: 0 is out of range, must be at least 1."),
        (
            {"trainer": {"strategy": "ddp", "num_nodes": 2}, "training": {"store": "disk"}},
            "training.store: clients on disk are for one machine",
        ),
        ({"workers": True}, "workers: expected an integer, got True (bool)."),
        ({"methods": "local"}, "methods: expected a list, got 'local' (str)."),
    ],
)
def test_each_problem_is_named_with_its_path(over, problem):
    found = problems(merged(GOOD, over))
    assert len(found) == 1
    assert problem in found[0]


def test_the_same_method_may_take_part_twice_under_two_labels():
    methods = ["ditto", {"name": "ditto", "label": "ditto, weak", "fixed": {"prox": 0.01}}]
    config = study_config({"name": "x", "methods": methods}, "x")
    assert [m.label for m in config.method_configs()] == ["ditto", "ditto, weak"]


def test_numbers_are_read_as_written():
    assert parse_yaml("a: 1e-3\nb: 1E5\nc: -2.5e3\nd: e3", "x") == {
        "a": 1e-3,
        "b": 1e5,
        "c": -2500.0,
        "d": "e3",
    }
    config = study_config({**GOOD, "training": {"cohort": 1, "rounds": 30.0}}, "x")
    assert isinstance(config.training.cohort, float)
    assert isinstance(config.training.rounds, int)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "x.yaml is not valid YAML in line 1, column 6"),
        (
            "a: 1\na: 2",
            r"x.yaml is not valid YAML in line 2, column 1: key 'a' is here twice \(first in line 1\)",
        ),
        ("# nothing yet\n", "x.yaml is empty; it must hold keys and values, such as 'name: mine'"),
        ("- 1", "x.yaml must hold keys and values"),
    ],
)
def test_text_that_is_no_study_says_where(text, message):
    with pytest.raises(StudyError, match=message):
        parse_yaml(text, "x.yaml")


def test_a_missing_file_names_the_shipped_studies():
    with pytest.raises(
        StudyError, match=r"no study file 'demmo'.*Did you mean 'demo'\? Known: arabic_commands, demo"
    ):
        read_study("demmo")


def test_flags_override_leaves_and_replace_lists():
    base = {"data": {"root": "a", "lookback": 3}, "seeds": [0, 1]}
    assert merged(base, {"data": {"root": "b"}, "seeds": [7]}) == {
        "data": {"root": "b", "lookback": 3},
        "seeds": [7],
    }


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(StudyConfig)])
def test_every_key_is_documented(field):
    assert f"{field}:" in StudyConfig.__doc__


def test_a_study_extends_a_shipped_one_or_a_file_beside_it(tmp_path):
    (tmp_path / "base.yaml").write_text("extends: demo\nname: base\nseeds: [7]\nsearch: {trials: 3}\n")
    (tmp_path / "own.yaml").write_text("extends: base.yaml\nname: own\nsearch: {seed: 5}\n")
    demo, own = read_study("demo"), read_study(str(tmp_path / "own.yaml"))
    assert own == {**demo, "name": "own", "seeds": [7], "search": {**demo["search"], "trials": 3, "seed": 5}}
    assert problems(own) == []


def test_options_go_with_the_source_and_the_model_they_belong_to(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "extends: demo\nname: own\ndata: {source: chargers}\nmodel: {name: linear}\n"
    )
    own, demo = read_study(str(tmp_path / "own.yaml")), read_study("demo")
    assert "options" in demo["data"]
    assert "options" not in own["data"]
    assert "options" not in own["model"]
    same = overlaid(demo, {"data": {"source": demo["data"]["source"], "lookback": 48}})
    assert same["data"]["options"] == demo["data"]["options"]


def test_a_study_cannot_extend_itself_or_nothing(tmp_path):
    for name, base in (("a", "b.yaml"), ("b", "a.yaml"), ("c", "[demo]"), ("d", "nowhere")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {base}\n")
    with pytest.raises(StudyError, match="cannot extend itself"):
        read_study(str(tmp_path / "a.yaml"))
    with pytest.raises(StudyError, match="extends must name one study"):
        read_study(str(tmp_path / "c.yaml"))
    with pytest.raises(StudyError, match=r"no study file 'nowhere' \(.*d.yaml extends it\)"):
        read_study(str(tmp_path / "d.yaml"))
