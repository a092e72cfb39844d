"""What each command does with the options it was given."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import TrackingConfig
from .errors import StudyError
from .yamlfile import overlaid, read_study

if TYPE_CHECKING:
    from rich.console import Console

Options = Mapping[str, Any]
OWN = ("file", "config", "fresh")


def study_run(options: Options) -> None:
    """Run a study and print its comparison."""
    from .names import study_config
    from .report import print_report
    from .study import run

    source, raw = _study_raw(options)
    config = study_config(raw, source)
    out = console()
    done = run(config, out, fresh=bool(options.get("fresh")))
    print_report(done.comparison, out)
    where = "" if config.tracking.dir == "mlruns" else f" --tracking.dir {config.tracking.dir}"
    out.print(f"\nReport and plots: {done.folder}", highlight=False)
    out.print(f"Again, from MLflow: persofl study show {config.name}{where}", highlight=False)
    out.print(
        f"Every trial and seed in the MLflow UI: persofl ui{where}   (data in {Path(config.tracking.dir).resolve()})",
        highlight=False,
        soft_wrap=True,
    )


def study_show(options: Options) -> None:
    """Print a comparison read back from MLflow; without a name, the studies there are."""
    from .report import as_json, as_markdown, compare, print_report
    from .results import _is_study, read_results
    from .tracking import open_store

    store = open_store(_tracking(options))
    if not options.get("name"):
        known = sorted(name for name in store.experiments() if _is_study(store, name))
        raise StudyError(
            f"Which study? In {store.uri} there are: {', '.join(known)}. persofl study show {known[0]}"
            if known
            else f"There is no study in {store.uri} yet. Run one: persofl study run demo."
        )
    results = read_results(store, options["name"])
    comparison = compare(results, options.get("group_by"), options.get("against"))
    if options.get("json"):
        print(as_json(comparison))
    elif options.get("markdown"):
        print(as_markdown(comparison))
    else:
        print_report(comparison, console())


def train(options: Options) -> None:
    """Train one method with one seed."""
    from .names import study_config
    from .single import train_once

    over = {key: value for key, value in options.items() if key not in OWN}
    source = options.get("config")
    raw = overlaid(read_study(source) if source else {}, over)
    resume = bool(raw.pop("resume", False))
    train_once(study_config(_train_raw(raw), source or "command line"), console(), resume=resume)


def methods(options: Options) -> None:
    """List algorithms and modulators."""
    from .listing import print_methods
    from .plugins import load_plugins

    load_plugins(options.get("plugins") or [])
    print_methods(console())


def ui(options: Options) -> None:
    """Serve the MLflow UI until interrupted."""
    from .tracking import open_store

    folder = _tracking(options)
    store = open_store(folder)
    port = options.get("port", 5000)
    place = (folder / "artifacts").resolve().as_uri()
    words = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    words += ["--backend-store-uri", store.uri, "--default-artifact-root", place]
    if _taken(port):
        raise StudyError(f"Port {port} is taken. Try --port {port + 1}.")
    print(f"MLflow UI: http://127.0.0.1:{port} over {store.uri}; Ctrl-C ends it.", flush=True)
    code = _serve(words)
    if code not in (0, -signal.SIGINT, -signal.SIGTERM, 130, 143):
        raise StudyError(f"The MLflow UI ended with code {code}; its own words are above.")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _serve(words: list[str]) -> int:
    """Run a server with its children until it or this process is asked to end, and leave none of them behind."""
    server = subprocess.Popen(words, start_new_session=True)

    def end(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return server.wait()
    finally:
        end(0, None)
        for number, handler in before.items():
            signal.signal(number, handler)


def console() -> Console:
    """Standard output; wide where it is no terminal, so that tables in logs keep their columns."""
    from rich.console import Console

    out = Console()
    return out if out.is_terminal else Console(width=160)


def _study_raw(options: Options) -> tuple[str, dict[str, Any]]:
    """The raw study: FILE, then ``--config``, then flags."""
    sources = [source for source in (options.get("file"), options.get("config")) if source]
    if not sources:
        raise StudyError(
            "Which study? Give a YAML file, or the name of a shipped one: persofl study run demo."
        )
    raw: dict[str, Any] = {}
    for source in sources:
        raw = overlaid(raw, read_study(source))
    over = {key: value for key, value in options.items() if key not in OWN}
    return " + ".join([*sources, *(["flags"] if over else [])]), overlaid(raw, over)


def _train_raw(raw: dict[str, Any]) -> dict[str, Any]:
    """The keys of `persofl train` as those of a study with one method and one seed."""
    rest = {"name": "train", **raw}
    method = {"name": rest.pop("method", "fedavg"), "fixed": rest.pop("params", {})}
    method["distance"] = rest.pop("distance", {})
    seed = rest.pop("seed", 0)
    return {**rest, "methods": [method], "seeds": [seed]}


def _tracking(options: Options) -> Path:
    return Path((options.get("tracking") or {}).get("dir", TrackingConfig.dir))
