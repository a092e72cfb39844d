"""What the commands of ``persofl data`` do with the options they were given."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import StudyError, nearest
from .report_data import Skew

if TYPE_CHECKING:
    from data_loaders import ClientSamples, ClientSeries, ForecastWindows
    from data_loaders.examples import ClientExamples

Options = Mapping[str, Any]
LENGTHS = (
    (168, 24),
    (48, 12),
    (12, 3),
    (3, 1),
)  # lookback and horizon to compare clients by; the first that fits
SHOWN = 20  # clients, and dropped clients, in a table


def data_list(options: Options) -> None:
    """List the data sources, or show one with its options."""
    from .commands import console
    from .listing import documented, print_source, print_sources

    _plugins(options)
    rows = source_rows()
    name = options.get("name")
    if name:
        from data_loaders import SOURCES

        if name not in SOURCES:
            raise StudyError(f"There is no data source {name!r}. {nearest(name, SOURCES)}")
        rows = [row for row in rows if row["name"] == name]
        if options.get("json"):
            _print_json({**rows[0], "options": documented(SOURCES[name])})
        else:
            print_source(rows[0], console())
    elif options.get("json"):
        _print_json(rows)
    else:
        print_sources(rows, console())


def source_rows() -> list[dict[str, str]]:
    """One row a source: what it says of itself, whether it is ``here``, and where."""
    from data_loaders import source_info

    return [{**row, **_here(row["name"], row["needs"])} for row in source_info()]


def _here(name: str, needs: str) -> dict[str, str]:
    """``"built in"``, ``"prepared"`` (here and cached), ``"fetched"``, ``"by hand"`` or ``"no"``; and the folder."""
    from data_loaders.cache import prepared_entries
    from data_loaders.errors import DataError
    from data_loaders.home import known_root, source_home

    if needs == "nothing":
        return {"here": "built in", "root": ""}
    try:
        root = known_root(name)
    except DataError:
        return {"here": "damaged", "root": str(source_home(name))}
    if root is None:
        return {"here": "no", "root": ""}
    if not root.exists():
        return {"here": "gone", "root": str(root)}
    how = "fetched" if root == source_home(name) else "by hand"
    return {"here": "prepared" if prepared_entries(name) else how, "root": str(root)}


def data_fetch(options: Options) -> None:
    """Fetch the official files of a source."""
    from data_loaders.fetch import fetch

    _plugins(options)
    home = options.get("home")
    with _plain_warnings():
        done = fetch(options["name"], home, again=bool(options.get("again")))
    for note in done.notes:
        print(note)
    new = f"Fetched {', '.join(done.new)}" if done.new else "All files were here already"
    print(f"{new}: {done.root}")
    if home:
        print(f"So that studies find it: export PERSOFL_DATA={Path(home).expanduser().resolve()}")
    print(f"Next: persofl data describe {options['name']}")


def data_prepare(options: Options) -> None:
    """Load a source from files got by hand, cache it, and say what was read and dropped."""
    from data_loaders.byhand import prepare

    from .report_data import print_facts

    _plugins(options)
    with _home(options.get("home")), _plain_warnings():
        done = prepare(options["name"], options.get("from"), **(options.get("options") or {}))
        for note in done.notes:
            print(note)
        print_facts(options["name"], done.population)
    print(f"Reads {done.root}; found from now on without root.")


def data_describe(options: Options) -> None:
    """Show what is in a source: clients, spans, gaps, classes, what was dropped, and how far the clients differ."""
    from .config import DataConfig
    from .names import build_data_source
    from .report_data import described, print_described, print_skew

    _plugins(options)
    name = options["name"]
    config = DataConfig(source=name, root=options.get("root"), options=options.get("options") or {})
    with _plain_warnings():
        population = build_data_source(config).load()
        if not options.get("json"):
            print_described(name, population, int(options.get("rows", SHOWN)))
        skew = None if options.get("quick") else _heterogeneity(population)
    if options.get("json"):
        _print_json(described(name, population, skew))
    elif skew is not None:
        print_skew(skew)


def data_check(options: Options) -> None:
    """Check a file of one's own; see docs/own_data.md."""
    from .datacheck import data_check as check

    check(options)


def _heterogeneity(population: ClientSeries | ClientSamples) -> Skew | None:
    """How far the clients differ; None where the population is too small to say."""
    from persofl.heterogeneity import heterogeneity

    try:
        how, examples = _examples(population)
        return Skew(how, heterogeneity(examples, seed=0))
    except ValueError as error:
        print(f"warning: how far the clients differ is not reported: {error}", file=sys.stderr)
        return None


def _examples(population: ClientSeries | ClientSamples) -> tuple[str, ForecastWindows | ClientExamples]:
    """What is cut from a population to compare its clients by, and how it was cut.

    Raises:
        DataError: nothing can be cut.
    """
    from data_loaders import ClientSamples, DataError, WindowSpec, make_windows
    from data_loaders.examples import make_examples
    from data_loaders.spec import SampleSpec

    if isinstance(population, ClientSamples):
        made = make_examples(population, SampleSpec(on_short="drop"))
        return f"training samples of {len(made.clients)} of {len(population)} clients", made
    best, how = None, ""
    for lookback, horizon in LENGTHS:
        with suppress(DataError):
            windows = make_windows(
                population, WindowSpec(lookback=lookback, horizon=horizon, on_short="drop")
            )
            if best is None or len(windows.clients) > len(best.clients):
                best, how = windows, f"windows of {lookback} steps, {horizon} ahead"
            if 2 * len(windows.clients) > len(population):
                break
    if best is None:
        raise DataError(
            f"no client has windows of {LENGTHS[-1][0]} steps and {LENGTHS[-1][1]} ahead in every span."
        )
    return f"{how}, {len(best.clients)} of {len(population)} clients", best


def _plugins(options: Options) -> None:
    from .plugins import load_plugins

    load_plugins(options.get("plugins") or [])


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False, default=str))


@contextmanager
def _home(home: str | None) -> Iterator[None]:
    """Use another home for the duration of a command."""
    before = os.environ.get("PERSOFL_DATA")
    if home:
        os.environ["PERSOFL_DATA"] = home
    try:
        yield
    finally:
        if home and before is None:
            del os.environ["PERSOFL_DATA"]
        elif home and before is not None:
            os.environ["PERSOFL_DATA"] = before


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings in one line, without the line of code that gave them."""

    def show(message: Warning | str, *rest: Any, **more: Any) -> None:
        print(f"warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield
