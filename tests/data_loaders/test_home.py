"""Where data lie: the home, a folder recorded by hand, and errors that say how to get what is missing."""

import pytest

from data_loaders import DataError, data_home, find_root
from data_loaders.home import MANIFEST, known_root, source_home
from data_loaders.manifest import inventory, read_json, sha256_of, write_json


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSOFL_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_home_is_what_the_environment_says_else_in_the_cache_folder(home, monkeypatch, tmp_path):
    assert data_home() == home
    monkeypatch.delenv("PERSOFL_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_home() == tmp_path / ".cache" / "persofl"


@pytest.mark.parametrize(
    ("name", "folder"), [("uci", "uci"), ("../../etc", "_.._etc"), ("my data/é", "my_data_é"), ("..", "_")]
)
def test_a_source_stays_in_a_folder_of_its_own_whatever_its_name(home, name, folder):
    assert source_home(name) == home / folder


def test_a_root_that_is_given_is_used_and_must_exist(home, tmp_path):
    assert find_root("london", str(tmp_path)) == tmp_path
    with pytest.raises(DataError, match=r"'london': there is no file or folder .*nowhere\. Check the path\."):
        find_root("london", str(tmp_path / "nowhere"))


def test_nothing_fetched_says_all_three_ways_to_get_it(home):
    for made in (False, True):  # a home with nothing but our own folders holds no data either
        if made:
            (home / "london" / "prepared" / "abc").mkdir(parents=True)
            (home / "london" / "downloads").mkdir()
        with pytest.raises(DataError) as error:
            find_root("london", None)
        for way in ("root=FOLDER", "persofl data fetch london", "persofl data prepare london --from FOLDER"):
            assert way in str(error.value)


def test_what_was_fetched_is_found_and_a_recorded_folder_goes_first(home, tmp_path):
    (home / "london").mkdir(parents=True)
    (home / "london" / "load.csv").write_text("1")
    assert find_root("london", None) == home / "london"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_json(home / "london" / MANIFEST, {"root": str(elsewhere)})
    assert find_root("london", None) == elsewhere == known_root("london")
    elsewhere.rmdir()
    with pytest.raises(DataError, match="elsewhere, from which it was prepared, is no longer there"):
        find_root("london", None)


@pytest.mark.parametrize(
    "damage", [lambda text: text[:20], lambda text: text.replace("one", "two"), lambda _: "[]"]
)
def test_a_manifest_that_was_damaged_is_refused(tmp_path, damage):
    path = tmp_path / "deep" / MANIFEST
    write_json(path, {"root": "one", "é": [1, None]})
    assert read_json(path) == {"root": "one", "é": [1, None]}
    assert [item.name for item in path.parent.iterdir()] == [MANIFEST]
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match="damaged"):
        read_json(path)


def test_a_manifest_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / MANIFEST
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == [MANIFEST]


def test_an_inventory_lists_files_with_size_and_time_but_not_hidden_ones(tmp_path):
    for name in ("b/2.csv", "a.csv", ".git/x", "__MACOSX/y", "prepared/z", "b/prepared/w"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    listed = inventory(tmp_path, frozenset({"prepared"}))
    assert [path for path, _, _ in listed.files] == ["a.csv", "b/2.csv", "b/prepared/w"]
    assert listed.words(most=1) == {"count": 3, "bytes": 24, "files": {"a.csv": 5}}
    assert inventory(tmp_path / "a.csv").files[0][:2] == ("a.csv", 5)


def test_beyond_the_bound_a_folder_counts_as_a_whole(tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(5):
        (tmp_path / "many" / str(number)).touch()
    (tmp_path / "one").touch()
    before = inventory(tmp_path, bound=3)
    assert [path for path, _, _ in before.files] == ["one"]
    assert [(path, count) for path, count, _ in before.folders] == [("many", 5)]
    (tmp_path / "many" / "5").touch()
    assert inventory(tmp_path, bound=3) != before


def test_a_checksum_is_sha256_and_tells_how_far_it_is(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    seen = []
    assert sha256_of(tmp_path / "abc", seen.append).startswith("ba7816bf8f01cfea414140de5dae2223")
    assert seen == [3]
