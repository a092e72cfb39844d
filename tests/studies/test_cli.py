from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import pytest
import yaml
from rich.console import Console

from studies.cli import main
from studies.commands import ui
from studies.errors import StudyError
from studies.study import run
from studies.tracking import open_store
from tests.studies.conftest import SMALL

LEVELS = [
    ([], "COMMAND"),
    (["train"], "--training.rounds"),
    (["study"], "run"),
    (["study", "run"], "--search.trials"),
    (["study", "show"], "--json"),
    (["methods"], "List algorithms"),
    (["data"], "list"),
    (["data", "list"], "List the data sources"),
    (["ui"], "--port"),
]


def call(*words):
    """Exit code of a command, 0 if it just returns."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return end.code
    return 0


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


@pytest.mark.parametrize(("words", "expected"), LEVELS)
def test_help_on_every_level(words, expected, capsys):
    assert call(*words, "--help") == 0
    assert expected in capsys.readouterr().out


def test_version(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out.startswith("persofl ")


def test_help_and_parsing_import_nothing_heavy():
    code = (
        "import sys; from studies.cli import make_parser; "
        "make_parser().parse_args(['study', 'run', 'demo', '--seeds', '[0]'], defaults=False); "
        "print([m for m in ('torch', 'mlflow', 'optuna', 'pandas', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_methods_and_sources_are_listed(capsys):
    assert call("methods") == 0
    out = capsys.readouterr().out
    for word in ("ditto", "apfl", "prox_by_distance", "exp(-u / tau)", "0.01 to 1, log", "row_qp]"):
        assert word in out
    assert call("data", "list") == 0
    out = capsys.readouterr().out
    assert "london" in out
    assert "simulated" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study", "run", "nowhere.yaml"], "error: There is no study file 'nowhere.yaml'"),
        (["study", "run"], "error: Which study?"),
        (["study", "run", "demo", "--methods", "[fedavgg]"], "error: demo + flags: 1 problem\n  - methods[0]: Unknown"),
        (["study", "run", "demo", "--data.options.dayz", "3"], "no option 'dayz'"),
        (["train", "--method", "ditt"], "Unknown method 'ditt'. Did you mean 'ditto'?"),
        (["train", "--data.source", "london", "--data.root", "nowhere"], "nowhere"),
        (["study", "run", "demo", "--workers", "1", "--group_by", "archtype"], "Did you mean 'archetype'?"),
        (["study", "show", "nothing"], "error: There is no study 'nothing'"),
    ],
)  # fmt: skip
def test_errors_are_one_message_with_code_2_and_no_traceback(words, message, capsys, folder):
    assert call(*words, "--tracking.dir", folder) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_unknown_flags_and_wrong_types_are_code_2_as_well(capsys):
    assert call("study", "run", "demo", "--serch.trials", "3") == 2
    assert call("study", "run", "demo", "--search.trials", "three") == 2
    assert "search.trials" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_debug_shows_where_an_error_arose(how, monkeypatch):
    monkeypatch.setenv("PERSOFL_DEBUG", "1" if how == "environment" else "0")
    with pytest.raises(ValueError, match="no study file"):
        main(["study", "run", "nowhere.yaml", *(["--debug"] if how == "flag" else [])])


def test_a_study_from_file_to_table_and_back(study_file, folder, capsys):
    place = ["--tracking.dir", folder]
    assert call("study", "run", study_file, *place) == 0
    out = capsys.readouterr().out
    for words in (
        "4 clients",
        "[8/8]",
        "mean nmae",
        "lag-24",
        "Difference to fedavg",
        "Mean nmae by archetype",
    ):
        assert words in out
    assert f"persofl ui --tracking.dir {folder}" in out
    assert {f.name for f in (folder / "reports" / "small").iterdir()} == {
        "report.md", "comparison.json", "clients.png", "curves.png",
    }  # fmt: skip
    store = open_store(folder)
    runs = store.runs(store.experiment("small"))
    assert {run.status for run in runs} == {"FINISHED"}
    assert sorted({run.kind for run in runs}) == ["comparison", "method", "seed", "trial"]

    assert call("study", "show", "small", "--json", *place) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [m["method"] for m in shown["methods"]] == ["local", "fedavg"]
    assert shown["methods"][0]["summary"]["seeds"] == 2
    assert shown["methods"][1]["versus_fedavg"] is None
    assert set(shown["naive"]) == {"lag-24"}
    assert shown == json.loads((folder / "reports" / "small" / "comparison.json").read_text())

    assert call("study", "show", "small", "--markdown", *place) == 0
    assert "| method | mean nmae |" in capsys.readouterr().out

    assert call("study", "run", study_file, *place) == 0
    assert "Going on: 8 of 8 jobs are done." in capsys.readouterr().out
    assert len(store.runs(store.experiment("small"))) == len(runs)

    assert call("study", "run", study_file, *place, "--training.rounds", 5) == 2
    assert "training.rounds: 4 then, 5 now" in capsys.readouterr().err
    assert (
        call("study", "run", study_file, *place, "--training.rounds", 5, "--name", "other", "--seeds", "[0]")
        == 0
    )
    assert "persofl study show other" in capsys.readouterr().out


def test_methods_are_left_out_and_set_against_one_by_flags_and_inherit_with_two_workers(
    tmp_path, folder, capsys
):
    file = tmp_path / "chain.yaml"
    methods = [
        {"name": "finetune", "inherit": {"lr": "fedavg.lr"}},
        {"name": "ditto", "inherit": {"lr": "fedavg.lr"}},
        "fedavg",
        "local",
    ]
    file.write_text(yaml.safe_dump({**SMALL, "name": "chain", "methods": methods, "workers": 2}))
    place = ["--tracking.dir", folder]
    assert call("study", "run", file, *place, "--leave_out", '["dit*"]') == 0
    capsys.readouterr()
    store = open_store(folder)
    runs = store.runs(store.experiment("chain"))
    assert {run.status for run in runs} == {"FINISHED"}
    assert {run.method for run in runs if run.kind == "method"} == {"finetune", "fedavg", "local"}
    rates = {run.method: run.params["lr"] for run in runs if run.kind == "seed"}
    assert rates["finetune"] == rates["fedavg"]
    assert call("study", "show", "chain", "--against", "local", *place) == 0
    assert "Difference to local" in capsys.readouterr().out
    assert call("study", "show", "chain", "--against", "locl", *place) == 2
    assert "local" in capsys.readouterr().err


def test_config_flag_overrides_the_file_and_flags_override_both(study_file, folder, tmp_path, capsys):
    over = tmp_path / "over.yaml"
    over.write_text("seeds: [3]\nmethods: [local]\nsearch: {trials: 3}")
    words = ["study", "run", study_file, "--config", over, "--search.trials", 1, "--tracking.dir", folder]
    assert call(*words) == 0
    assert "[2/2] local/seed-3" in capsys.readouterr().out


def test_train_leaves_a_table_a_checkpoint_and_a_finished_run(study_file, folder, capsys, tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump({key: SMALL[key] for key in ("data", "model", "training")}))
    words = ["train", "--config", config, "--method", "ditto", "--params.lr", 0.05, "--tracking.dir", folder]
    assert call(*words, "--resume") == 2
    assert "There is no checkpoint to resume from" in capsys.readouterr().err
    assert call(*words) == 0
    out = capsys.readouterr().out
    assert "nmae on the test span over 4 clients: mean" in out
    assert "train/loss" in out
    assert (folder / "checkpoints" / "train" / "ditto" / "train-seed-0" / "last.ckpt").is_file()
    store = open_store(folder)
    (run,) = store.runs(store.experiment("train"))
    assert run.status == "FINISHED"
    assert run.params["lr"] == "0.05"
    assert run.params["data.lookback"] == "24"
    assert len(store.read_table(run.id, "clients.csv")) == 4
    assert len(store.curve(run.id, "train/loss")) == 4

    assert call(*words, "--resume", "--training.rounds", 6) == 0
    (resumed,) = store.runs(store.experiment("train"))
    assert (resumed.id, resumed.status) == (run.id, "FINISHED")
    assert len(store.curve(run.id, "train/loss")) == 6


def test_a_diverging_run_names_client_and_round_and_is_failed(folder, tmp_path, capsys):
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump({key: SMALL[key] for key in ("data", "model", "training")}))
    words = ["train", "--config", config, "--params.lr", 1e30, "--tracking.dir", folder]
    assert call(*words) == 2
    error = capsys.readouterr().err
    assert "error: The loss of client 'sim-" in error or "error: The loss of client" in error
    assert "in round" in error
    store = open_store(folder)
    assert [run.status for run in store.runs(store.experiment("train"))] == ["FAILED"]


@pytest.mark.slow
def test_the_ui_answers(folder):
    import socket
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "studies.cli", "ui", "--port", str(port), "--tracking.dir", str(folder)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert f"http://127.0.0.1:{port}" in server.stdout.readline()
        for _ in range(120):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                    assert answer.status == 200
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail("the UI does not answer")
    finally:
        import os
        import signal

        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


@pytest.mark.parametrize("round_", [1, 5, 6])
def test_a_run_asked_to_stop_keeps_its_last_round_and_goes_on_from_it_bit_by_bit(
    folder, tmp_path, monkeypatch, round_
):
    from studies import callbacks, signals

    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump({key: SMALL[key] for key in ("data", "model", "training")}))
    words = [
        "train",
        "--config",
        config,
        "--method",
        "ditto",
        "--training.rounds",
        9,
        "--tracking.dir",
        folder,
    ]
    assert call(*words, "--name", "whole") == 0
    over = callbacks.Reporter._round_over

    def stop_in_that_round(self, trainer):
        if trainer.global_step == round_:
            signals._received.append(15)
        over(self, trainer)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Reporter, "_round_over", stop_in_that_round)
        assert call(*words) == 130
    store = open_store(folder)
    (run,) = store.runs(store.experiment("train"))
    assert (run.status, run.tags["persofl.reason"]) == ("KILLED", "stopped by a signal")
    assert call(*words, "--resume") == 0
    (run,) = store.runs(store.experiment("train"))
    (whole,) = store.runs(store.experiment("whole"))
    assert run.status == "FINISHED"
    for metric in ("train/loss", "validation/nmae"):
        assert store.curve(run.id, metric) == store.curve(whole.id, metric)
    assert store.read_table(run.id, "clients.csv").equals(store.read_table(whole.id, "clients.csv"))


def test_a_port_that_is_taken_is_named(folder):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(StudyError, match=rf"Port {port} is taken\. Try --port {port + 1}\."):
            ui({"tracking": {"dir": str(folder)}, "port": port})


def test_training_under_a_studys_name_is_refused(small, folder, capsys):
    run(small, Console(quiet=True))
    with pytest.raises(SystemExit) as left:
        main(
            [
                *[
                    "train",
                    "--name",
                    "small",
                    "--method",
                    "fedavg",
                    "--data.options.clients",
                    "3",
                    "--tracking.dir",
                ],
                str(folder),
            ]
        )
    assert left.value.code == 2
    assert "'small' is a study; give this training another --name." in capsys.readouterr().err
