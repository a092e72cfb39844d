"""A method whose distances tell no clients apart says so: once, in the output, the report and MLflow."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from studies.config import MethodConfig
from studies.events import Job, Warned
from studies.loading import flat_distances, forget_data, load_data, settled
from studies.report import as_json, as_markdown, compare
from studies.results import read_results
from studies.training import run_job
from tests.studies.test_runner import PEOPLE, Training, run

TEXT = "Distances of method 'ditto+prox_by_distance' are all 0: its modulators steer nothing; look at"


def module_of(relative, modulators=("prox",)):
    distances = SimpleNamespace(relative=torch.tensor(relative))
    federation = SimpleNamespace(
        method=SimpleNamespace(modulators=modulators), personaliser=SimpleNamespace(distances=distances)
    )
    return SimpleNamespace(federation=federation)


def test_distances_that_are_all_alike_are_found():
    assert flat_distances(module_of([0.0, 0.0]), "ditto+prox_by_distance").startswith(TEXT)
    assert "are all 1:" in flat_distances(module_of([1.0, 1.0]), "x")
    assert flat_distances(module_of([0.0, 1.0]), "x") == ""
    assert flat_distances(module_of([0.0, 0.0], ()), "fedavg") == ""


def test_it_is_said_once_a_method_and_kept(small, store):
    class Flat(Training):
        def __call__(self, job, emit):
            if job.method.label == "fedavg":
                emit(Warned(job.key, "all 0"))
            return super().__call__(job, emit)

    assert run(small, store, Flat()).splitlines().count("all 0") == 1
    results = read_results(store, "small")
    assert {method.label: method.warning for method in results.methods} == {"local": "", "fedavg": "all 0"}
    comparison = compare(dataclasses.replace(results, naive={"lag-24": PEOPLE.naive["lag-24"]}))
    assert as_markdown(comparison).splitlines().count("all 0") == 1
    assert json.loads(as_json(comparison))["methods"][1]["warning"] == "all 0"


@pytest.mark.parametrize(("features", "said"), [("size", 1), ("profiles", 0)])
def test_a_job_looks_at_its_distances(small, features, said):
    method = MethodConfig("ditto+prox_by_distance", distance={"features": features})
    config = settled(small, load_data(small.data))
    events = []
    run_job(Job("trial", 0, config, method, {"lr": 0.1}), events.append)
    forget_data()
    assert sum(isinstance(event, Warned) for event in events) == said
