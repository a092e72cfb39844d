"""What distances sent and spent, in metrics, words and MLflow."""

import math

import pytest
from rich.console import Console

from persofl.wire import Toll
from studies import study
from studies.names import problems, study_config
from studies.wire import TRANSCRIPT, wire_line, wire_metrics, wire_text

from .conftest import SMALL

ONE = Toll("summed_reference", 4096.0, 2048.0, 2, math.nan, "little", "round 1  up  summary")
NOISY = Toll("summed_reference", 4096.0, 2048.0, 1, 3.5, "less", "round 1  up  masked")


def test_bytes_add_up_and_epsilon_is_the_last():
    assert wire_metrics([]) == {}
    assert wire_metrics([ONE, ONE]) == {
        "distance/bytes_up": 8192.0,
        "distance/bytes_down": 4096.0,
        "distance/measured": 2.0,
    }
    assert wire_metrics([NOISY, Toll("x", 1.0, 1.0, 1, 5.0, "", "")])["distance/epsilon"] == 5.0


def test_words_are_of_the_last_measurement_that_this_session_made():
    restored = Toll("summed_reference", 1.0, 1.0, 0, math.nan, "", "")
    assert wire_text([ONE, NOISY]).startswith("summed_reference, 1 round(s). The server learns: less")
    assert wire_text([ONE, restored]).startswith("summed_reference, 2 round(s)")
    assert wire_text([]) == wire_line([]) == ""
    assert wire_line([NOISY, NOISY]) == (
        "Distances by summed_reference: measured 2 time(s), 8.0 KiB up and 4.0 KiB down per client, epsilon 3.50 spent."
    )


def test_a_study_tracks_what_its_noisy_distances_cost(folder, store):
    protocol = {"name": "summed_reference", "epsilon": 2.0, "clip": 5.0}
    steered = {"name": "ditto+prox_by_distance", "distance": {"kind": "gaussian", "protocol": protocol}}
    raw = {
        **SMALL,
        "methods": ["local", steered],
        "search": {"trials": 1},
        "seeds": [0],
        "tracking": {"dir": str(folder)},
    }
    config = study_config(raw, "noisy.yaml")
    study.run(config, Console(quiet=True))
    runs = {f"{run.method}/{run.name}": run for run in store.runs(store.experiment("small"))}
    for name in ("trial-000", "seed-0"):
        metrics = runs[f"ditto+prox_by_distance/{name}"].metrics
        assert metrics["distance/epsilon"] == pytest.approx(2.0)
        assert metrics["distance/measured"] == 1
        assert metrics["distance/bytes_up"] > 24 * 24 * 8
    assert not any(key.startswith("distance/") for key in runs["local/seed-0"].metrics)
    seed = runs["ditto+prox_by_distance/seed-0"].id
    text = next((folder / "artifacts").rglob(f"{seed}/**/{TRANSCRIPT}")).read_text()
    assert "(2, 1e-05)-differentially private for one sample" in text


@pytest.mark.parametrize(
    ("protocol", "problem"),
    [
        ({"name": "summed_reference", "epsilon": -2}, "epsilon=-2"),
        ({"nam": "summed_reference"}, "Unknown key of protocol 'nam'"),
    ],
)
def test_a_bad_protocol_is_a_problem_of_its_method(protocol, problem):
    raw = {
        **SMALL,
        "methods": ["local", {"name": "ditto+prox_by_distance", "distance": {"protocol": protocol}}],
    }
    assert any(text.startswith("methods[1]: ") and problem in text for text in problems(raw)), problems(raw)
