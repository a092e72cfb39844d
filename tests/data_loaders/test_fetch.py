"""Downloads from a server on this machine: cut and taken up again, checked, unpacked once, and nothing wrong kept."""

import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from collections import namedtuple
from dataclasses import dataclass
from typing import ClassVar

import pytest

from data_loaders import SOURCES, About, DataError, Remote, find_root, register_source
from data_loaders.download import _CHUNK, Patience
from data_loaders.fetch import fetch
from data_loaders.manifest import read_json

QUICK = Patience(tries=3, first_wait=0, longest_wait=0)
DATA = os.urandom(3_000_000)
SHA = hashlib.sha256(DATA).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``; ``server.cuts`` says after how many bytes to hang up, one a request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        if server.answers:
            status, headers = server.answers.pop(0)
            self.send_response(status)
            for key, value in {"Content-Length": "0", **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            return
        if self.path not in server.files:
            self.send_error(404)
            return
        self.send_file(server.files[self.path], server.tag)

    def send_file(self, data, tag):
        begin, wanted = 0, self.headers.get("Range")
        unchanged = self.headers.get("If-Range") in (None, tag)
        if wanted and unchanged and self.server.ranges:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        if begin >= len(data) > 0 and begin:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        if tag:
            self.send_header("ETag", tag)
        if self.server.says_length:
            self.send_header("Content-Length", str(len(data) - begin))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(data)
        self.wfile.write(data[begin : begin + cut])
        if begin + cut < len(data):
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.files, served.asked, served.cuts, served.answers = {"/data.bin": DATA}, [], [], []
    served.tag, served.ranges, served.says_length = '"v1"', True, True
    served.url = f"http://127.0.0.1:{served.server_port}"
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSOFL_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "home"


@pytest.fixture
def source(monkeypatch):
    """Register a source with these official files, for the length of a test."""
    monkeypatch.setattr("data_loaders.registry.SOURCES", SOURCES)

    def make(*remotes, **about):
        @dataclass(frozen=True)
        class Toy:
            about: ClassVar[About]
            root: str | None = None

            def load(self):
                raise NotImplementedError

        Toy.about = About(licence="CC BY 4.0", attribution="Toy et al.", remotes=remotes, **about)
        SOURCES.pop("toy", None)
        register_source("toy")(Toy)
        return "toy"

    yield make
    SOURCES.pop("toy", None)


def remote(server, path="/data.bin", name="data.bin", sha256=SHA, **rest):
    return Remote(server.url + path, name, sha256, **rest)


def get(name, **options):
    return fetch(name, progress=False, patience=QUICK, **options)


def left(home):
    """Files in a source's folder, beside the manifest and the lock."""
    paths = (
        path.relative_to(home / "toy").as_posix() for path in (home / "toy").rglob("*") if path.is_file()
    )
    return {path for path in paths if path not in ("manifest.json", "downloads/.lock")}


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return buffer.getvalue()


def test_a_file_arrives_checked_and_written_down_and_is_not_fetched_twice(server, source, home):
    name = source(remote(server, size=len(DATA)))
    done = get(name)
    assert (home / "toy" / "data.bin").read_bytes() == DATA
    assert (done.root, done.new, done.notes) == (home / "toy", ("data.bin",), ())
    assert find_root(name, None) == done.root
    said = read_json(home / "toy" / "manifest.json")
    assert (said["source"], said["licence"], said["attribution"]) == ("toy", "CC BY 4.0", "Toy et al.")
    (file,) = said["files"]
    assert (file["sha256"], file["published"], file["size"]) == (SHA, True, len(DATA))
    assert file["url"].startswith("http://127.0.0.1")
    assert get(name).new == ()
    assert len(server.asked) == 1
    assert get(name, again=True).new == ("data.bin",)
    assert len(server.asked) == 2


def test_a_file_that_was_removed_or_a_new_address_is_fetched_again(server, source, home):
    get(source(remote(server)))
    (home / "toy" / "data.bin").unlink()
    assert get("toy").new == ("data.bin",)
    server.files["/newer.bin"] = DATA[::-1]
    newer = remote(server, "/newer.bin", sha256=hashlib.sha256(DATA[::-1]).hexdigest())
    assert get(source(newer)).new == ("data.bin",)
    assert (home / "toy" / "data.bin").read_bytes() == DATA[::-1]


@pytest.mark.parametrize("tag", ['"v1"', 'W/"weak"', None])
def test_a_cut_connection_is_taken_up_where_it_was(server, source, home, tag):
    server.tag, server.cuts, seen = tag, [1_000_000, 500_000], []

    def steps(step):
        return lambda done, total: seen.append((step, done, total))

    fetch(source(remote(server)), progress=steps, patience=QUICK)
    assert (home / "toy" / "data.bin").read_bytes() == DATA
    first, second, third = (wanted for _, wanted in server.asked)
    second, third = (int(wanted.removeprefix("bytes=").rstrip("-")) for wanted in (second, third))
    assert first is None
    assert 1_000_000 - _CHUNK < second <= 1_000_000
    assert second + 500_000 - _CHUNK < third <= second + 500_000
    assert seen == sorted(seen)
    assert seen[-1] == ("fetch data.bin", len(DATA), len(DATA))
    assert left(home) == {"data.bin"}


def test_a_later_command_goes_on_too(server, source, home):
    name = source(remote(server))
    server.cuts, server.answers = [1_000_000], []
    with pytest.raises(
        DataError, match=r"run the same command again. 983.0 kB have arrived; it goes on from there"
    ):
        fetch(name, progress=False, patience=Patience(tries=1))
    assert left(home) == {"downloads/data.bin.part", "downloads/data.bin.part.json"}
    assert get(name).new == ("data.bin",)
    assert server.asked[-1] == ("/data.bin", f"bytes={15 * _CHUNK}-")
    assert left(home) == {"data.bin"}


def test_a_server_without_ranges_sends_all_of_it_again(server, source, home):
    server.ranges, server.cuts = False, [2_000_000]
    get(source(remote(server)))
    assert (home / "toy" / "data.bin").read_bytes() == DATA


def test_a_server_that_says_no_length_is_believed_when_the_checksum_is_right(server, source, home):
    server.says_length = False
    get(source(remote(server)))
    assert (home / "toy" / "data.bin").read_bytes() == DATA


@pytest.mark.parametrize("tag", ['"v1"', None])
def test_a_file_that_changed_between_two_tries_is_not_patched_together(server, source, home, tag):
    name, other = source(remote(server, sha256=None)), os.urandom(2_500_000)
    server.cuts, server.tag = [1_000_000], tag
    with pytest.raises(DataError, match="cut"):
        fetch(name, progress=False, patience=Patience(tries=1))
    server.files["/data.bin"], server.tag = other, tag and '"v2"'
    get(name)
    assert (home / "toy" / "data.bin").read_bytes() == other


def test_a_part_that_was_whole_already_is_taken(server, source, home):
    name = source(remote(server))
    server.cuts = [1_000_000]
    with pytest.raises(DataError, match="cut"):
        fetch(name, progress=False, patience=Patience(tries=1))
    (home / "toy" / "downloads" / "data.bin.part").write_bytes(DATA)
    get(name)
    assert server.asked[-1] == ("/data.bin", f"bytes={len(DATA)}-")
    assert (home / "toy" / "data.bin").read_bytes() == DATA


def test_a_wrong_checksum_says_both_and_keeps_nothing(server, source, home):
    name = source(remote(server, sha256="0" * 64))
    with pytest.raises(DataError, match=f"expected SHA-256 {'0' * 64}, got {SHA}. Nothing was kept"):
        get(name)
    assert left(home) == set()
    with pytest.raises(DataError, match="there are no data under"):
        find_root(name, None)


def test_another_size_than_published_is_told_before_it_is_downloaded(server, source, home):
    with pytest.raises(DataError, match="the server has 3,000,000 bytes and 5 were published"):
        get(source(remote(server, size=5)))
    assert left(home) == set()


def test_without_a_published_checksum_the_first_one_is_recorded_and_a_change_is_told(server, source, home):
    name = source(remote(server, sha256=None))
    (note,) = get(name).notes
    assert f"no checksum is published; recorded: 3.0 MB, SHA-256 {SHA}" in note
    assert read_json(home / "toy" / "manifest.json")["files"][0]["published"] is False
    assert get(name).notes == ()
    server.files["/data.bin"] = b"newer"
    (note,) = get(name, again=True).notes
    assert "differs from the one that arrived on 20" in note
    assert SHA in note


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [("/nowhere.bin", None, "404"), ("/data.bin", 403, "403"), ("/data.bin", 410, "410")],
)
def test_what_is_not_given_out_is_told_at_once(server, source, home, path, status, words):
    server.answers = [(status, {})] if status else []
    with pytest.raises(DataError, match=rf"answers {words} .*persofl data prepare toy --from FOLDER"):
        get(source(remote(server, path)))
    assert len(server.asked) == 1
    assert left(home) == set()


def test_a_busy_server_is_asked_again(server, source, home):
    server.answers = [(503, {"Retry-After": "0"}), (429, {})]
    get(source(remote(server)))
    assert len(server.asked) == 3
    server.answers = [(500, {})] * 3
    with pytest.raises(DataError, match=r"answers 500 .* \(tries in a row: 3\)"):
        get("toy", again=True)


def test_waits_double_up_to_a_limit():
    assert [Patience(first_wait=1, longest_wait=5).wait(n) for n in (1, 2, 3, 4)] == [1, 2, 4, 5]


def test_no_network_is_told_with_the_address(server, source, home):
    name = source(Remote("http://127.0.0.1:1/data.bin", "data.bin", SHA))
    with pytest.raises(DataError, match=r":1/data.bin: there is no connection to the server"):
        get(name)


def test_a_disk_too_small_is_told_before_it_is_full(server, source, home, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("data_loaders.download.shutil.disk_usage", lambda path: usage(0, 0, 1_000_000))
    with pytest.raises(DataError, match=r"3.0 MB are to come, and .* has 1.0 MB free"):
        get(source(remote(server)))


def test_archives_are_unpacked_and_go_and_members_can_be_chosen(server, source, home):
    server.files["/a.zip"] = zipped({"load.csv": "1;2", "__MACOSX/._load.csv": "x", "notes.pdf": "%"})
    name = source(remote(server, "/a.zip", "a.zip", None, unpack="zip", members=("*.csv",)), remote(server))
    done = get(name)
    assert left(home) == {"load.csv", "data.bin"}
    assert done.files[0].entries == ("load.csv",)
    assert get(name).new == ()
    (home / "toy" / "load.csv").unlink()
    assert get(name).new == ("a.zip",)


def test_a_hostile_archive_leaves_nothing_and_the_next_files_are_not_fetched(server, source, home, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for path in ("good.txt", "../../evil.txt"):
            opened.addfile(tarfile.TarInfo(path))
    server.files["/a.tar.gz"] = buffer.getvalue()
    name = source(remote(server, "/a.tar.gz", "a.tar.gz", None, unpack="tar"), remote(server))
    with pytest.raises(DataError, match=r"member '../../evil.txt' points outside the folder"):
        get(name)
    assert left(home) == {"downloads/a.tar.gz"}
    assert not list(tmp_path.rglob("evil.txt"))
    with pytest.raises(DataError, match="there are no data under"):
        find_root(name, None)


def test_an_archive_that_arrived_but_could_not_be_unpacked_is_kept_until_asked_for_again(
    server, source, home
):
    server.files["/a.zip"] = b"PK\x03\x04 and no more"
    name = source(remote(server, "/a.zip", "a.zip", None, unpack="zip"))
    for _ in range(2):
        with pytest.raises(DataError, match=r"downloads/a\.zip is damaged or cut off .* Delete it"):
            get(name)
    assert len(server.asked) == 1
    server.files["/a.zip"] = zipped({"load.csv": "1;2"})
    assert get(name, again=True).new == ("a.zip",)
    assert left(home) == {"load.csv"}


def test_files_fetched_before_a_failure_are_not_fetched_again(server, source, home):
    name = source(remote(server), remote(server, "/later.bin", "sub/later.bin", None))
    with pytest.raises(DataError, match="404"):
        get(name)
    server.files["/later.bin"] = b"here now"
    assert get(name).new == ("sub/later.bin",)
    assert left(home) == {"data.bin", "sub/later.bin"}
    assert len(server.asked) == 3


def test_another_home(server, source, home, tmp_path):
    done = get(source(remote(server)), home=tmp_path / "other")
    assert done.root == tmp_path / "other" / "toy"
    assert (done.root / "data.bin").read_bytes() == DATA
    assert not home.exists()


def test_two_processes_do_not_fetch_the_same_at_once(server, source, home):
    import fcntl

    name = source(remote(server))
    (home / "toy" / "downloads").mkdir(parents=True)
    with open(home / "toy" / "downloads" / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="Another process is fetching 'toy'"):
            get(name)
    get(name)


def test_a_source_without_files_says_how_to_get_them(source):
    name = source(needs="vehicle.mat from its authors")
    with pytest.raises(DataError) as error:
        get(name)
    for words in (
        "needs vehicle.mat from its authors",
        "Toy et al.",
        "CC BY 4.0",
        "persofl data prepare toy --from FOLDER",
    ):
        assert words in str(error.value)
    with pytest.raises(DataError, match="needs no files: it is made when it is loaded"):
        get("simulated")
    with pytest.raises(DataError, match=r"no data source 'simulatd'\. Did you mean 'simulated'"):
        get("simulatd")


@pytest.mark.parametrize("bad", ["../x", "/etc/x", "prepared/x", "manifest.json"])
def test_a_file_cannot_be_named_out_of_its_folder(server, source, bad):
    with pytest.raises(DataError, match="is no name for a file"):
        get(source(remote(server, name=bad)))


def test_bars_go_to_the_error_output_and_leave_the_standard_one_clean(server, source, capfd):
    fetch(source(remote(server)), patience=QUICK)
    out, error = capfd.readouterr()
    assert out == ""
    assert "fetch data.bin" in error
