"""A wrong command line: one message, the nearest right word, code 2."""

from __future__ import annotations

import pytest

from studies.cli import main

WRONG = [
    ("train --training.rounds abc", "--training.rounds must be a whole number, got 'abc'.", "persofl train"),
    ("train --training.cohort x", "--training.cohort must be a number, got 'x'.", "persofl train"),
    ("train --training.local_steps x", "--training.local_steps must be a whole number or null, got 'x'.", ""),
    ("train --model.instance_norm maybe", "--model.instance_norm must be true or false, got 'maybe'.", ""),
    (
        "train --training.weighting foo",
        "--training.weighting must be one of 'samples', 'uniform', got 'foo'.",
        "",
    ),
    ("study run demo --seeds x", "--seeds must be a list, such as [0, 1], got 'x'.", "persofl study run"),
    ("train --params 3", "--params must be keys and values, such as {a: 1}, got '3'.", ""),
    ("train --data 3", "--data takes keys and values, or a YAML file of them, got '3'.", ""),
    ("train --seed", "--seed needs a value.", "persofl train"),
    ("train --metod x", "There is no flag --metod. Did you mean '--method'?", "persofl train"),
    ("train --rounds 3", "There is no flag --rounds. Did you mean '--training.rounds'?", ""),
    (
        "study run demo --serch.trials=3",
        "There is no flag --serch.trials. Did you mean '--search.trials'?",
        "",
    ),
    ("train --zzzzzz 3", "There is no flag --zzzzzz. See --help for those there are.", ""),
    ("study run demo extra", "persofl study run takes no further word, got 'extra'.", ""),
    ("trian", "There is no command 'trian'. Did you mean 'train'? Known: data, ", "persofl"),
    ("study rnu", "There is no command 'rnu'. Did you mean 'run'?", "persofl study"),
    (
        "data descibe",
        "Did you mean 'describe'? Known: check, describe, fetch, list, prepare.",
        "persofl data",
    ),
    ("", "Which command? Give one of: train, study, ", "persofl"),
    ("study", "Which command? Give one of: run, show.", "persofl study"),
    ("data describe", "NAME is missing.", "persofl data describe"),
    ("data check", "FILE is missing.", "persofl data check"),
]


def stop(*words):
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return end.value.code


@pytest.mark.parametrize(("line", "message", "command"), WRONG, ids=[line for line, _, _ in WRONG])
def test_a_wrong_line_is_told_in_a_line_or_two(line, message, command, capsys):
    assert stop(*line.split()) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert f"error: {message}" in error or ("Did you" in message and message in error)
    assert len(error.splitlines()) == 2
    assert error.splitlines()[1].startswith("More: persofl")
    assert not command or error.splitlines()[1] == f"More: {command} --help"


def test_every_unknown_flag_is_told(capsys):
    assert stop("train", "--metod", "x", "--sed", "3") == 2
    error = capsys.readouterr().err
    assert "no flag --metod. Did you mean '--method'?" in error
    assert "no flag --sed. Did you mean '--seed'?" in error


def test_study_show_without_a_name_lists_the_studies_there_are(store, folder, capsys):
    assert stop("study", "show", "--tracking.dir", str(folder)) == 2
    assert "There is no study in sqlite" in capsys.readouterr().err
    for name in ("second", "first"):
        store.tag(store.create_experiment(name), "persofl.config", "{}")
    store.create_experiment("a training")
    assert stop("study", "show", "--tracking.dir", str(folder)) == 2
    error = capsys.readouterr().err
    assert "there are: first, second. persofl study show first" in error
    assert "a training" not in error
