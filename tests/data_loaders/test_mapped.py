"""A population in a file is the population in memory, and memory does not hold it."""

import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import ClientSeries, DataError, SimulatedHouseholds, WindowSpec, make_windows, map_series
from data_loaders.mapped import MappedFile

SPEC = WindowSpec(lookback=24, horizon=6)


@pytest.fixture(scope="module")
def whole():
    return SimulatedHouseholds(clients=7, days=30, min_days=10, seed=3, missing=0.02).load()


def same(one, other):
    for field in fields(ClientSeries):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=field.name)
        elif isinstance(a, pd.DataFrame):
            pd.testing.assert_frame_equal(a, b)
        else:
            assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, field.name


def cut(series, sizes):
    first = 0
    for size in sizes:
        yield series.select(range(first, first + size))
        first += size


@pytest.mark.parametrize("sizes", [[7], [3, 4], [1, 0, 5, 1]])
def test_parts_that_are_mapped_are_the_whole(sizes, whole, tmp_path):
    same(map_series(cut(whole, sizes), tmp_path), whole)
    assert [file.name for file in tmp_path.iterdir()] == ["series.f32"]


def test_breaks_move_with_their_part(whole, tmp_path):
    broken = replace(whole, breaks=torch.tensor([5, int(whole.offsets[4]) + 30]))
    same(map_series(cut(broken, [2, 5]), tmp_path), broken)


def test_rules_and_dropped_clients_of_all_parts_are_kept(whole, tmp_path):
    from data_loaders import Dropped

    first, second = cut(whole, [3, 4])
    first = replace(first, rules=("a", "b"), dropped=(Dropped("x", "a: 1"),))
    second = replace(second, rules=("b", "c"), dropped=(Dropped("y", "c: 2"),))
    found = map_series([first, second], tmp_path)
    assert found.rules == ("a", "b", "c")
    assert [item.client for item in found.dropped] == ["x", "y"]


def test_mapped_windows_are_those_of_memory(whole, tmp_path):
    here = make_windows(whole, SPEC)
    there = make_windows(map_series(cut(whole, [3, 4]), tmp_path), SPEC, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"series.f32", "scaled.f32"}
    for span in ("train", "validation", "test"):
        assert torch.equal(here.count(span), there.count(span))
        clients, ranks = torch.arange(len(here)), torch.zeros(len(here), 2).long()
        for a, b in zip(
            *(data.gather(data.positions(span, clients, ranks)) for data in (here, there)), strict=True
        ):
            assert torch.equal(a, b)
    for client in range(len(here)):
        assert torch.equal(here.features(client), there.features(client))


def test_a_write_to_what_is_mapped_stays_in_memory(whole, tmp_path):
    found = map_series([whole], tmp_path)
    found.values[0] = 99.0
    assert float(found.values[0]) == 99
    assert np.fromfile(tmp_path / "series.f32", dtype=np.float32)[0] == float(whole.values[0])


def test_a_second_file_leaves_the_first_readable(whole, tmp_path):
    first, second = cut(whole, [3, 4])
    found = map_series([first], tmp_path)
    map_series([second], tmp_path)
    torch.testing.assert_close(found.values, first.values, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unit": "W"}, "a part has unit='W', the first one 'kWh'"),
        ({"step_seconds": 60}, "step_seconds=60"),
        ({"name": "others"}, "name='others'"),
    ],
)
def test_parts_that_differ_are_refused_and_the_older_file_is_kept(change, words, whole, tmp_path):
    before = map_series([whole], tmp_path)
    first, second = cut(whole, [3, 4])
    with pytest.raises(DataError, match=words):
        map_series([first, replace(second, **change)], tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["series.f32"]
    same(before, whole)


def test_a_client_in_two_parts_is_named(whole, tmp_path):
    first, _ = cut(whole, [3, 4])
    with pytest.raises(DataError, match=f"client {first.clients[0]!r} is in two parts"):
        map_series([first, first], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_part_is_refused(tmp_path):
    with pytest.raises(DataError, match="no part"):
        map_series([], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_parts_are_made_leaves_no_file(whole, tmp_path):
    def parts():
        yield whole
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        map_series(parts(), tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_is_told_and_keeps_the_older_file(whole, tmp_path, monkeypatch):
    before = map_series([whole], tmp_path)
    monkeypatch.setattr(MappedFile, "_open", lambda self: Path("/dev/full").open("wb"))  # noqa: SIM115
    with pytest.raises(OSError, match=r"No space left on device, after \d+ MB: .*series.f32"):
        map_series([whole], tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["series.f32"]
    same(before, whole)


def test_what_killed_processes_left_is_removed_and_what_others_write_is_not(whole, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, ours = (tmp_path / f"series.f32.{number}.new" for number in (gone.pid, os.getppid()))
    left.touch()
    ours.touch()
    map_series(whole, tmp_path)
    assert not left.exists()
    assert ours.exists()


def test_what_is_no_series_and_no_folder_is_refused(whole, tmp_path):
    with pytest.raises(DataError, match="A part is of type Tensor"):
        map_series([whole.values], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file is a file; give a folder for series.f32"):
        map_series(whole, tmp_path / "file")


def test_a_file_of_nothing_is_no_values(tmp_path):
    with MappedFile(tmp_path, "empty.f32") as file:
        values = file.finish(3)
    assert values.shape == (0, 3)


MEMORY = """
import sys
import torch
from data_loaders import SimulatedHouseholds, WindowSpec, make_windows, map_series
from dataclasses import replace

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))

def parts(count):
    one = SimulatedHouseholds(clients=40, days=400, min_days=400).load()
    for k in range(count):
        names = tuple(f"{k}-{name}" for name in one.clients)
        yield replace(one, clients=names, attributes=one.attributes.set_axis(list(names)))

spec, folder = WindowSpec(), sys.argv[1]
make_windows(map_series(parts(1), folder), spec, folder)  # what is loaded once
before = anonymous()
windows = make_windows(map_series(parts(25), folder), spec, folder)
clients = torch.arange(len(windows))
windows.gather(windows.positions("train", clients, torch.zeros(len(windows), 1).long()))
print(anonymous() - before, windows.series.values.nbytes / 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_memory_holds_names_and_offsets_and_not_the_values(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    grown, values = map(float, done.stdout.split())
    assert values > 30
    assert grown < values / 3
