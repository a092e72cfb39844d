"""`persofl data ...`: what there is, getting it, and what is in it."""

from __future__ import annotations

import http.server
import io
import json
import sys
import threading
import warnings
import zipfile
from types import ModuleType

import pytest

from data_loaders import SOURCES
from studies.cli import main
from studies.data_commands import source_rows
from studies.listing import documented

SOURCE = '''
"""Feeders."""

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from data_loaders import About, DataError, Dropped, Remote, find_root, register_source, series_from_table
from data_loaders.cache import cached
from dataclasses import replace


@register_source("feeders")
@dataclass(frozen=True)
class Feeders:
    """Feeders of a substation.

    Args:
        root: folder with ``feeders.csv``;
            None for what was fetched.
        clients: how many [at most].
    """

    about: ClassVar[About] = About(
        kind="feeder load", what="kW of feeders", clients="2", licence="CC BY 4.0", needs="root=FOLDER",
        attributes=("voltage",), remotes=(Remote("URL", "feeders.zip", unpack="zip"),),
    )
    root: str | None = None
    clients: int = 2

    def load(self):
        root = find_root("feeders", self.root)
        return cached(self, "feeders", root, lambda: self._read(root))

    def _read(self, root):
        if not (root / "feeders.csv").is_file():
            raise DataError(f"There is no feeders.csv in {root}.")
        table = pd.read_csv(root / "feeders.csv", index_col="time", parse_dates=True).iloc[:, : self.clients]
        known = pd.DataFrame({"voltage": "low"}, index=table.columns)
        series = series_from_table("feeders", table, unit="kW", attributes=known, rules=("as published",))
        return replace(series, dropped=(Dropped("east", "min_days: [3] days"),))
'''
TABLE = "time,north,south\n" + "".join(f"2013-01-01 {hour:02}:00,{hour},2\n" for hour in range(24))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSOFL_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield tmp_path / "home"
    SOURCES.pop("feeders", None)


@pytest.fixture
def site():
    """Serve ``feeders.zip``."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        opened.writestr("feeders.csv", TABLE)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(packed.getvalue())))
            self.end_headers()
            self.wfile.write(packed.getvalue())

        def log_message(self, *args):
            pass

    served = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}/feeders.zip"
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture
def plugin(tmp_path, request):
    url = (
        request.getfixturevalue("site")
        if "site" in request.fixturenames
        else "http://127.0.0.1:1/feeders.zip"
    )
    path = tmp_path / "feeders_source.py"
    path.write_text(SOURCE.replace("URL", url))
    return f"[{path}]"


@pytest.fixture
def download(tmp_path):
    folder = tmp_path / "download"
    folder.mkdir()
    (folder / "feeders.csv").write_text(TABLE)
    return folder


def call(*words):
    """Exit code of a command, 0 if it just returns."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return end.code
    return 0


def here(name):
    return next(row["here"] for row in source_rows() if row["name"] == name)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("list", ["NAME", "--json"]),
        ("describe", ["--root", "--options", "--rows", "--quick"]),
        ("fetch", ["--home", "--again"]),
        ("prepare", ["--from", "downloaded by hand"]),
        ("check", ["file", "--write", "--json"]),
    ],
)
def test_every_command_explains_itself(command, words, capsys):
    assert call("data", command, "--help") == 0
    out = capsys.readouterr().out
    for word in words:
        assert word.lower() in out.lower()


def test_the_list_says_kind_task_clients_licence_and_whether_it_is_here(capsys):
    assert call("data", "list") == 0
    out = capsys.readouterr().out
    for word in ("kind", "task", "clients", "licence", "size", "attributes", "here", "London"[1:]):
        assert word in out
    assert "built in" in out
    assert here("simulated") == "built in"
    assert here("london") == "no"


def test_the_list_for_programs_is_json(capsys):
    assert call("data", "list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(SOURCES)
    assert rows["simulated"]["here"] == "built in"
    assert rows["london"]["licence"] == "CC BY 4.0"


def test_one_source_shows_its_options_with_what_they_do(plugin, capsys):
    assert call("data", "list", "feeders", "--plugins", plugin) == 0
    out = capsys.readouterr().out
    for words in (
        "feeder load",
        "clients=2",
        "how many [at most].",
        "folder with feeders.csv; None for what was",
    ):
        assert words in out
    assert call("data", "list", "feeders", "--json") == 0
    assert json.loads(capsys.readouterr().out)["options"]["clients"] == "how many [at most]."
    assert call("data", "list", "feders") == 2
    assert "Did you mean 'feeders'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_option_of_every_source_is_documented(name):
    from dataclasses import fields

    said = documented(SOURCES[name])
    assert [field.name for field in fields(SOURCES[name]) if field.init and not said.get(field.name)] == []


def test_fetching_then_describing_then_it_is_prepared(plugin, site, home, capsys):
    assert call("data", "fetch", "feeders", "--plugins", plugin) == 0
    out, error = capsys.readouterr()
    assert "feeders.zip: no checksum is published; recorded" in out
    assert f"Fetched feeders.zip: {home / 'feeders'}" in out
    assert "Next: persofl data describe feeders" in out
    assert "fetch feeders.zip" in error
    assert here("feeders") == "fetched"
    assert call("data", "fetch", "feeders") == 0
    assert "All files were here already" in capsys.readouterr().out
    assert call("data", "describe", "feeders", "--quick") == 0
    assert here("feeders") == "prepared"


def test_fetching_into_another_home_says_how_studies_find_it(plugin, site, home, tmp_path, capsys):
    assert call("data", "fetch", "feeders", "--plugins", plugin, "--home", tmp_path / "disk") == 0
    assert f"export PERSOFL_DATA={tmp_path / 'disk'}" in capsys.readouterr().out
    assert (tmp_path / "disk" / "feeders" / "feeders.csv").is_file()
    assert not home.exists()


def test_what_was_downloaded_by_hand_is_prepared_and_found_again(plugin, download, home, capsys):
    assert call("data", "prepare", "feeders", "--plugins", plugin, "--from", download) == 0
    out = capsys.readouterr().out
    for words in (
        "rule: as published",
        "1 left out: 1 by min_days",
        "east: min_days: [3] days",
        f"Reads {download}",
    ):
        assert words in out
    assert here("feeders") == "prepared"
    assert call("data", "describe", "feeders", "--quick", "--options.clients", "1") == 0
    assert "south" not in capsys.readouterr().out
    for path in download.iterdir():
        path.unlink()
    download.rmdir()
    assert here("feeders") == "gone"
    assert call("data", "describe", "feeders") == 2
    assert "is no longer there" in capsys.readouterr().err


def test_preparing_in_another_home_leaves_this_one_alone(plugin, download, home, tmp_path):
    words = ["--plugins", plugin, "--from", download, "--home", tmp_path / "disk"]
    assert call("data", "prepare", "feeders", *words) == 0
    assert (tmp_path / "disk" / "feeders" / "manifest.json").is_file()
    assert not home.exists()


def test_describing_tells_gaps_statistics_attributes_and_how_far_clients_differ(capsys):
    words = ["--options.clients", 6, "--options.days", 30, "--options.missing", 0.05, "--rows", 2]
    assert call("data", "describe", "simulated", *words) == 0
    out = capsys.readouterr().out
    for words in (
        "longest_gap",
        "archetype",
        "... and 4 more clients",
        "How far the clients differ (windows of 48 steps, 12 ahead, 6 of 6 clients)",
        "told apart",
    ):
        assert words in out
    assert call("data", "describe", "simulated", "--options.clients", 6, "--rows", 0, "--quick") == 0
    out = capsys.readouterr().out
    assert "more clients" not in out
    assert "differ (" not in out


def test_describing_for_programs_is_json(plugin, download, capsys):
    assert call("data", "describe", "feeders", "--root", download, "--plugins", plugin, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["facts"]["clients"] == 2
    assert said["dropped"] == [{"client": "east", "reason": "min_days: [3] days"}]
    assert [row["client"] for row in said["per_client"]] == ["north", "south"]
    assert said["per_client"][0]["voltage"] == "low"
    assert said["heterogeneity"]["of"].startswith("windows of 3 steps, 1 ahead, 2 of 2 clients")


def test_classes_are_counted(capsys):
    assert call("data", "describe", "speakers", "--options.clients", 2, "--quick") == 0
    out = capsys.readouterr().out
    for words in ("Classes", "share", "entropy"):
        assert words in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetch", "sensit"], "persofl data prepare sensit --from FOLDER"),
        (["fetch", "simulated"], "needs no files"),
        (["fetch", "lodon"], "Did you mean 'london'?"),
        (["describe", "lodon"], "Did you mean 'london'?"),
        (["describe", "london"], "persofl data fetch london"),
        (["describe", "simulated", "--options.client", "3"], "Did you mean 'clients'?"),
        (["prepare", "london", "--from", "nowhere"], "There is no file or folder"),
        (["prepare", "simulated", "--from", "."], "nothing to prepare"),
        (["prepare", "london"], "persofl data fetch london"),
    ],
)
def test_errors_are_one_message_with_code_2_and_no_traceback(words, message, capsys):
    assert call("data", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert "Traceback" not in error


def test_warnings_are_one_line_without_code(plugin, download, home, capsys):
    home.write_text("a file where the folder should be")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call("data", "describe", "feeders", "--root", download, "--plugins", plugin, "--quick") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: What was read cannot be kept in")


def test_a_check_is_passed_on_with_its_options(monkeypatch, capsys):
    seen, module = [], ModuleType("studies.datacheck")
    module.data_check = seen.append
    monkeypatch.setitem(sys.modules, "studies.datacheck", module)
    assert call("data", "check", "mine.yaml", "--json") == 0
    assert seen[0]["file"] == "mine.yaml"
    assert seen[0]["json"] is True
