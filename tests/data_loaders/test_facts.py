"""What is said of a population, against counts by hand."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import ClientSamples
from data_loaders.facts import class_counts, facts, per_client

NAN = np.nan


@pytest.fixture
def series(make_series):
    arrays = [[1, NAN, NAN, 4, NAN, 0], [2, 2], [NAN, 3, 3, NAN]]
    return make_series(arrays, starts=["2013-01-01", "2013-01-03", "2012-12-31"])


def samples(**changes):
    names = ("a", "b", "nobody")
    given = {
        "name": "toy",
        "inputs": torch.zeros(6, 4, 2),
        "targets": torch.tensor([0, 0, 1, 1, 1, 1]),
        "offsets": torch.tensor([0, 4, 6, 6]),
        "clients": names,
        "attributes": pd.DataFrame(index=list(names)),
        "classes": ("yes", "no", "never"),
    }
    return ClientSamples(**{**given, **changes})


def test_gaps_are_counted_and_measured(series):
    table = per_client(series)
    assert table["gaps"].tolist() == [2, 0, 2]
    assert table["longest_gap"].tolist() == [2, 0, 1]
    assert table["observed"].tolist() == pytest.approx([0.5, 1, 0.5])
    assert "runs" not in table


def test_runs_belong_to_the_client_they_lie_in(series):
    from dataclasses import replace

    driven = replace(series, breaks=torch.tensor([2, 4, 7, 10]))
    assert per_client(driven)["runs"].tolist() == [3, 2, 2]
    assert facts(driven)["runs"] == 7
    assert facts(driven)["span"] == {"from": "2012-12-31T00:00:00"}


def test_facts_of_series(series):
    said = facts(series)
    assert (said["clients"], said["steps"], said["missing"], said["runs"]) == (
        3,
        12,
        pytest.approx(5 / 12),
        3,
    )
    assert said["span"] == {"from": "2012-12-31T00:00:00", "to": "2013-01-03T02:00:00"}
    assert said["steps of a client"] == {"fewest": 2, "median": 4.0, "most": 6}
    assert said["fingerprint"] == series.fingerprint()
    json.dumps(said)


def test_a_population_of_nobody_can_be_told(series):
    said = facts(series.select([]))
    assert (said["clients"], said["span"], said["steps of a client"]) == (0, {}, {})
    assert len(per_client(series.select([]))) == 0


def test_classes_are_counted_per_client_and_over_all():
    table = per_client(samples())
    assert table[["yes", "no", "never"]].to_numpy().tolist() == [[2, 2, 0], [0, 2, 0], [0, 0, 0]]
    assert table["entropy"].tolist() == pytest.approx([np.log(2) / np.log(3), 0, 0])
    counts = class_counts(samples())
    assert counts["samples"].tolist() == [2, 4, 0]
    assert counts["share"].tolist() == pytest.approx([1 / 3, 2 / 3, 0])
    assert counts["clients"].tolist() == [1, 2, 0]


def test_many_classes_are_counted_not_listed():
    many = samples(classes=tuple(map(str, range(40))), targets=torch.tensor([0, 9, 9, 39, 5, 5]))
    table = per_client(many)
    assert table["classes"].tolist() == [3, 1, 0]
    assert "9" not in table
    assert class_counts(many).loc["9", "samples"] == 2


def test_facts_of_samples():
    told = samples(
        groups=torch.tensor([0, 0, 1, 2, 0, 0]),
        times=torch.tensor([0, 86400, 2, 3, 4, 5]),
        official=torch.tensor([0, 0, 1, 2, -1, 2], dtype=torch.int8),
        channel_names=("mel", "delta"),
    )
    said = facts(told)
    assert said["groups that stay together"] == 4
    assert said["official split"] == {"train": 2, "validation": 1, "test": 2}
    assert said["span"] == {"from": "1970-01-01T00:00:00", "to": "1970-01-02T00:00:00"}
    assert (said["shape"], said["channels"], said["classes"]) == ("4x2", ["mel", "delta"], 3)
    table = per_client(told)
    assert str(table.loc["a", "last"]) == "1970-01-02 00:00:00"
    assert table.loc["nobody", ["first", "last"]].isna().all()


def test_moments_of_targets_that_are_numbers():
    numbers = torch.tensor([[1.0, 0], [3, 0], [5, 0], [7, 0], [2, 1], [4, 1]])
    table = per_client(samples(targets=numbers, classes=(), target_names=("kWh", "h"), unit="kWh, h"))
    assert table["kWh mean"].tolist()[:2] == [4, 3]
    assert table["kWh std"].tolist()[:2] == pytest.approx([5**0.5, 1])
    assert table["h std"].tolist()[:2] == [0, 0]
    assert np.isnan(table.loc["nobody", "kWh mean"])
    assert facts(samples(targets=numbers, classes=()))["targets"] == 2
