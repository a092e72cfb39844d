"""Prepared populations: back bit by bit, never half written, read anew when anything changed."""

import errno
import json
import os
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import ClientSeries, DataError
from data_loaders import cache as module
from data_loaders.cache import KEPT, cached, prepared_entries
from data_loaders.manifest import read_json

from .toys import NAMES, Reader, Toy, assert_equal, attributes, samples, series


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSOFL_DATA", str(tmp_path / "home"))
    monkeypatch.delenv("PERSOFL_NO_CACHE", raising=False)
    monkeypatch.setattr(module, "_told", set())
    return tmp_path / "home"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "raw"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "load.csv").write_text("1;2")
    return folder


def assert_silent(act):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return act()


POPULATIONS = {
    "series": series(),
    "plain series": series(
        breaks=torch.zeros(0, dtype=torch.int64), channel_names=(), known=(), rules=(), dropped=()
    ),
    "no attributes": series(attributes=pd.DataFrame(index=list(NAMES))),
    "nobody": series(attributes=attributes()[["area", "tariff"]]).select([]),
    "labels": samples(),
    "no extras": samples(groups=None, times=None, official=None),
    "regression": samples(targets=torch.randn(5, 2), classes=(), target_names=("kWh", "h"), unit="kWh, h"),
}


@pytest.mark.parametrize("population", POPULATIONS.values(), ids=POPULATIONS)
def test_the_second_load_reads_no_file_and_equals_the_first_in_every_field(population, root):
    read = Reader(population)
    assert assert_silent(lambda: cached(Toy(), "toy", root, read)) is population
    assert_equal(population, assert_silent(lambda: cached(Toy(), "toy", root, read)))
    assert read.times == 1


def test_what_comes_back_can_be_written_to(root):
    cached(Toy(), "toy", root, Reader(series()))
    cached(Toy(), "toy", root, Reader(series())).values.zero_()
    assert cached(Toy(), "toy", root, Reader(None)).values.abs().nansum() > 0


def touch_later(path):
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


CHANGES = {
    "an option": (lambda root: None, {"frequency": "30min"}),
    "an option that is a tuple": (lambda root: None, {"kinds": ("a", "b")}),
    "a size": (lambda root: (root / "deep" / "load.csv").write_text("1;2;3"), {}),
    "a time": (lambda root: touch_later(root / "deep" / "load.csv"), {}),
    "a new file": (lambda root: (root / "more.csv").touch(), {}),
    "a name": (lambda root: (root / "deep").rename(root / "shallow"), {}),
}


@pytest.mark.parametrize(("change", "options"), CHANGES.values(), ids=CHANGES)
def test_whatever_changes_is_read_anew(root, change, options):
    read = Reader(series())
    cached(Toy(), "toy", root, read)
    change(root)
    cached(Toy(**options), "toy", root, read)
    assert read.times == 2


def test_a_file_named_by_an_option_counts_as_well(root, tmp_path):
    weather, read = tmp_path / "weather.csv", Reader(series())
    weather.write_text("warm")
    for text in ("warm", "colder"):
        weather.write_text(text)
        cached(Toy(weather=str(weather)), "toy", root, read)
        cached(Toy(weather=str(weather)), "toy", root, read)
    assert read.times == 2


def test_changed_code_reads_anew(root, monkeypatch):
    read = Reader(series())
    cached(Toy(), "toy", root, read)
    monkeypatch.setattr(module, "_code", lambda file: "another")
    cached(Toy(), "toy", root, read)
    assert read.times == 2


def test_a_folder_that_moved_is_known_again_and_root_is_not_part_of_the_key(root, tmp_path):
    read = Reader(series())
    cached(Toy(root=str(root)), "toy", root, read)
    moved = root.rename(tmp_path / "moved")
    cached(Toy(root=str(moved)), "toy", moved, read)
    assert read.times == 1


def test_what_is_prepared_inside_the_sources_own_folder_does_not_change_its_key(home, tmp_path):
    read, own = Reader(series()), home / "toy"
    own.mkdir(parents=True)
    (own / "load.csv").touch()
    (tmp_path / "link").symlink_to(home)
    for root in (own, own, tmp_path / "link" / "toy"):
        cached(Toy(), "toy", root, read)
    assert read.times == 1


def test_several_roots_and_a_single_file(root, tmp_path):
    read, more = Reader(series()), tmp_path / "more.csv"
    more.touch()
    cached(Toy(), "toy", [root, more], read)
    cached(Toy(), "toy", [root, more], read)
    cached(Toy(), "toy", more, read)
    cached(Toy(), "toy", more, read)
    assert read.times == 2


@pytest.mark.parametrize("value", ["1", "yes"])
def test_the_cache_can_be_turned_off(root, home, monkeypatch, value):
    monkeypatch.setenv("PERSOFL_NO_CACHE", value)
    read = Reader(series())
    for _ in range(2):
        cached(Toy(), "toy", root, read)
    assert (read.times, home.exists()) == (2, False)


def test_the_manifest_says_what_lies_there(root):
    population = series()
    cached(Toy(frequency="30min"), "toy", root, Reader(population))
    (entry,) = prepared_entries("toy")
    said = read_json(entry / "manifest.json")
    assert said["source"] == "toy"
    assert said["licence"] == "CC BY 4.0"
    assert said["attribution"] == "Toy et al., 2020"
    assert said["fingerprint"] == population.fingerprint()
    assert said["rules"] == ["summed", 'with "quotes"']
    assert said["dropped"] == [["d", "min_days: 3"]]
    assert said["options"]["frequency"] == "'30min'"
    assert said["read"] == [{"root": str(root), "count": 1, "bytes": 3, "files": {"deep/load.csv": 3}}]
    assert said["date"].startswith("20")
    assert "persofl" in said


def cut(path):
    os.truncate(path, path.stat().st_size - 7)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


DAMAGES = {
    f"{what} {name}": (damage, name)
    for what, damage in (("cut", cut), ("flipped", flip), ("missing", Path.unlink), ("empty", lambda p: p.write_bytes(b"")))
    for name in ("values.npy", "starts.npy", "attributes.parquet")
}  # fmt: skip


@pytest.mark.parametrize(("damage", "name"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_read_anew_with_a_warning_and_then_whole_again(root, damage, name):
    read = Reader(series())
    cached(Toy(), "toy", root, read)
    damage(prepared_entries("toy")[0] / name)
    with pytest.warns(UserWarning, match="are damaged .*; the files are read anew"):
        assert_equal(cached(Toy(), "toy", root, read), read.result)
    assert_equal(cached(Toy(), "toy", root, read), read.result)
    assert read.times == 2


@pytest.mark.parametrize(
    "change", [lambda t: t[:50], lambda t: t.replace("summed", "sunned"), lambda t: "null", None]
)
def test_a_damaged_manifest_is_read_anew_with_a_warning(root, change):
    read = Reader(series())
    cached(Toy(), "toy", root, read)
    manifest = prepared_entries("toy")[0] / "manifest.json"
    manifest.write_text(change(manifest.read_text())) if change else manifest.unlink()
    with pytest.warns(UserWarning, match="damaged"):
        cached(Toy(), "toy", root, read)
    cached(Toy(), "toy", root, read)
    assert read.times == 2
    assert json.loads(manifest.read_text())["rules"][0] == "summed"


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1), MemoryError()])
@pytest.mark.parametrize("when", ["write_population", "write_json", "_move"])
def test_a_process_stopped_half_way_leaves_nothing(root, home, monkeypatch, stop, when):
    def ends(*args):
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(module, when, ends)
        with pytest.raises(type(stop)):
            cached(Toy(), "toy", root, Reader(series()))
    assert list((home / "toy" / "prepared").iterdir()) == []
    read = Reader(series())
    cached(Toy(), "toy", root, read)
    cached(Toy(), "toy", root, read)
    assert read.times == 1


def test_a_full_disk_is_told_once_and_leaves_nothing(root, home, monkeypatch):
    def full(path, array, **_):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("data_loaders.prepared.np.save", full)
    read = Reader(series())
    with pytest.warns(UserWarning, match="No space left on device.*PERSOFL_DATA"):
        assert cached(Toy(), "toy", root, read) is read.result
    assert_silent(lambda: cached(Toy(), "toy", root, read))
    assert read.times == 2
    assert list((home / "toy" / "prepared").iterdir()) == []


def test_a_home_that_cannot_be_written_is_told_once(root, home):
    home.write_text("a file where the folder should be")
    read = Reader(series())
    with pytest.warns(UserWarning, match="cannot be kept in .*parsed again each time"):
        assert cached(Toy(), "toy", root, read) is read.result
    assert_silent(lambda: cached(Toy(), "toy", root, read))


UNKEPT = {
    "an object": series(attributes=attributes().assign(mixed=[object()] * 3)),
    "a mixed column": series(
        attributes=attributes().assign(mixed=pd.Series([1, "two", None], list(NAMES), dtype=object))
    ),
    "numbered columns": series(attributes=attributes().rename(columns={"area": 1})),
    "a rule that is no text": series(rules=({"a": 1},)),
}


@pytest.mark.parametrize("population", UNKEPT.values(), ids=UNKEPT)
def test_what_would_not_come_back_as_it_was_is_not_kept(root, home, population):
    read = Reader(population)
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert cached(Toy(), "toy", root, read) is population
    assert_silent(lambda: cached(Toy(), "toy", root, read))
    assert list((home / "toy" / "prepared").iterdir()) == []


def test_an_error_of_the_files_is_the_callers_and_nothing_is_kept(root, home):
    with pytest.raises(DataError, match="line 3"):
        cached(Toy(), "toy", root, Reader(DataError("line 3 is no number")))
    assert not (home / "toy").exists()


def test_another_process_that_was_first_wins(root, monkeypatch):
    write = module.write_population

    def meanwhile(folder, population):
        noted = write(folder, population)
        if not prepared_entries("toy"):
            monkeypatch.setattr(module, "write_population", write)
            module._keep(folder.parents[1] / folder.name, population, {})
        return noted

    monkeypatch.setattr(module, "write_population", meanwhile)
    assert_silent(lambda: cached(Toy(), "toy", root, Reader(series())))
    assert len(prepared_entries("toy")) == 1
    assert_equal(cached(Toy(), "toy", root, Reader(None)), series())


def test_only_the_last_few_used_are_kept_and_old_rubbish_goes(root, home):
    rubbish, fresh = home / "toy" / "prepared" / ".new-old", home / "toy" / "prepared" / ".new-now"
    rubbish.mkdir(parents=True)
    fresh.mkdir()
    os.utime(rubbish, (0, 0))
    for number in range(KEPT + 2):
        cached(Toy(frequency=str(number)), "toy", root, Reader(series(number)))
        newest = prepared_entries("toy")[0] / "manifest.json"
        os.utime(newest, (time.time() - 1000 + number, time.time() - 1000 + number))
        if number == KEPT - 1:
            cached(Toy(frequency="0"), "toy", root, Reader(None))  # used again, so it stays
    assert len(prepared_entries("toy")) == KEPT
    assert not rubbish.exists()
    assert fresh.exists()
    cached(Toy(frequency="0"), "toy", root, Reader(None))
    again = Reader(series())
    cached(Toy(frequency="1"), "toy", root, again)
    assert again.times == 1


def test_370_meters_of_three_years_load_within_a_second(root):
    hours, meters = 3 * 8766, 370
    names = tuple(f"MT_{number:03d}" for number in range(meters))
    population = ClientSeries(
        "uci",
        torch.rand(hours * meters, 1),
        torch.arange(meters + 1) * hours,
        names,
        pd.DataFrame(index=pd.Index(names, name="client")),
        np.full(meters, np.datetime64("2012-01-01", "s")),
        3600,
        "kWh",
    )
    cached(Toy(), "uci", root, Reader(population))
    start = time.process_time()
    back = cached(Toy(), "uci", root, Reader(None))
    assert time.process_time() - start < 1
    assert torch.equal(back.values, population.values)
    shutil.rmtree(prepared_entries("uci")[0])
