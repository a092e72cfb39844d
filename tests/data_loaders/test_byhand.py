"""Files got by hand: remembered where they lie, or unpacked, and only once they can be read."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest

from data_loaders import (
    SOURCES,
    About,
    DataError,
    Remote,
    build_source,
    find_root,
    register_source,
    series_from_table,
)
from data_loaders.byhand import prepare
from data_loaders.cache import cached, prepared_entries
from data_loaders.manifest import read_json

TABLE = "time,a,b\n" + "".join(f"2013-01-0{day},{day},2\n" for day in range(1, 7))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSOFL_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def source():
    """A source that reads ``load.csv``, with these official files."""

    def make(*remotes):
        @dataclass(frozen=True)
        class Toy:
            about: ClassVar[About]
            root: str | None = None
            clients: int = 2

            def load(self):
                root = find_root("toy", self.root)
                return cached(self, "toy", root, lambda: self.read(root))

            def read(self, root):
                file = root if root.is_file() else root / "load.csv"
                if not file.is_file():
                    raise DataError(f"There is no load.csv in {root}.")
                table = pd.read_csv(file, index_col="time", parse_dates=True)
                return series_from_table("toy", table.iloc[:, : self.clients], unit="kWh")

        Toy.about = About(licence="CC BY 4.0", needs="root=FOLDER", remotes=remotes)
        SOURCES.pop("toy", None)
        register_source("toy")(Toy)
        return "toy"

    yield make
    SOURCES.pop("toy", None)


@pytest.fixture
def download(tmp_path):
    folder = tmp_path / "download"
    folder.mkdir()
    (folder / "load.csv").write_text(TABLE)
    return folder


def zipped(path):
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("load.csv", TABLE)
    return path


def test_a_folder_is_remembered_and_cached_and_nothing_is_copied(source, download, home):
    done = prepare(source(), download, progress=False)
    assert done.population.clients == ("a", "b")
    assert done.root == download == find_root("toy", None)
    assert not (home / "toy" / "load.csv").exists()
    assert len(prepared_entries("toy")) == 1
    assert build_source("toy").load().fingerprint() == done.population.fingerprint()
    assert read_json(home / "toy" / "manifest.json")["licence"] == "CC BY 4.0"


def test_a_relative_folder_is_remembered_whole_and_one_file_will_do(source, download, monkeypatch):
    monkeypatch.chdir(download.parent)
    assert prepare(source(), "download", progress=False).root == download
    assert prepare("toy", "download/load.csv", progress=False).root == download / "load.csv"
    assert build_source("toy").load().clients == ("a", "b")


def test_what_cannot_be_read_is_not_remembered(source, download, tmp_path):
    name = source()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no load\.csv"):
        prepare(name, tmp_path / "empty", progress=False)
    with pytest.raises(DataError, match="there are no data under"):
        find_root(name, None)
    with pytest.raises(DataError, match=r"There is no file or folder .*nowhere"):
        prepare(name, tmp_path / "nowhere", progress=False)


def test_options_go_to_the_source(source, download):
    assert prepare(source(), download, progress=False, clients=1).population.clients == ("a",)
    with pytest.raises(DataError, match="has no option 'client'"):
        prepare("toy", download, progress=False, client=1)


def test_without_a_folder_what_is_here_is_prepared(source, download, home):
    name = source()
    with pytest.raises(DataError, match="persofl data fetch toy"):
        prepare(name, progress=False)
    (home / "toy").mkdir(parents=True)
    (home / "toy" / "load.csv").write_text(TABLE)
    assert prepare(name, progress=False).root == home / "toy"


def test_a_folder_that_is_the_sources_own_is_not_remembered_as_another(source, home):
    (home / "toy").mkdir(parents=True)
    (home / "toy" / "load.csv").write_text(TABLE)
    prepare(source(), home / "toy", progress=False)
    assert "root" not in read_json(home / "toy" / "manifest.json")
    assert find_root("toy", None) == home / "toy"


@pytest.mark.parametrize("whole", [True, False])
def test_an_official_archive_is_checked_and_unpacked_and_stays(source, tmp_path, home, whole):
    archive = zipped(tmp_path / "official.zip")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    name = source(Remote("https://example.org/official.zip", "official.zip", digest, unpack="zip"))
    done = prepare(name, archive if whole else tmp_path, progress=False)
    assert done.notes == ("official.zip: SHA-256 as published; unpacked.",)
    assert (home / "toy" / "load.csv").read_text() == TABLE
    assert archive.is_file()
    assert find_root(name, None) == home / "toy"


def test_another_version_of_an_archive_is_used_and_told(source, tmp_path):
    archive = zipped(tmp_path / "official.zip")
    name = source(Remote("https://example.org/official.zip", "official.zip", "0" * 64, unpack="zip"))
    (note,) = prepare(name, archive, progress=False).notes
    assert f"published is {'0' * 64}: another version, or a damaged one" in note


def test_any_archive_will_do(source, tmp_path, home):
    (note,) = prepare(source(), zipped(tmp_path / "from a colleague.zip"), progress=False).notes
    assert "no checksum is published; SHA-256" in note
    assert (home / "toy" / "load.csv").is_file()


def test_an_archive_that_the_source_reads_itself_is_left_packed(source, download, tmp_path, home):
    archive = download / "official.7z"
    archive.write_bytes(b"7z\xbc\xaf'\x1c")
    prepare(source(Remote("https://example.org/official.7z", "official.7z")), download, progress=False)
    assert find_root("toy", None) == download
    assert not Path(home / "toy" / "official.7z").exists()


def test_a_source_that_reads_no_files_has_nothing_to_prepare(tmp_path):
    with pytest.raises(DataError, match=r"reads no downloaded files.*It needs nothing"):
        prepare("simulated", tmp_path)
    with pytest.raises(DataError, match="Did you mean 'simulated'"):
        prepare("simulatd", tmp_path)
