"""What there is to choose from: algorithms, modulators, data sources."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_methods(console: Console) -> None:
    """Algorithms with their knobs and hyperparameters, then modulators with the knob they steer."""
    from rich.markup import escape

    from persofl.algorithms import ALGORITHMS
    from personalization import MODULATORS

    algorithms = make_table("Algorithms: methods by themselves", "name", "what", "knobs", "hyperparameters")
    for name, kind in sorted(ALGORITHMS.items()):
        algorithms.add_row(name, first_line(kind), ", ".join(sorted(kind.knobs)), escape(parameters(kind)))
    console.print(algorithms)
    title = "Modulators: append to an algorithm with that knob, as in ditto+prox_by_distance"
    modulators = make_table(title, "name", "formula", "knob", "hyperparameters")
    for name, modulator in sorted(MODULATORS.items()):
        modulators.add_row(name, first_line(modulator), modulator.knob, escape(parameters(modulator)))
    console.print(modulators)
    console.print("In brackets: the range that a study searches; the others keep their default unless fixed.")


SOURCE_COLUMNS = ("name", "kind", "task", "clients", "licence", "size", "attributes", "here")


def print_sources(rows: Sequence[Mapping[str, str]], console: Console) -> None:
    """Data sources, one row each, and whether they are on this machine.

    Args:
        rows: from :func:`studies.data_commands.source_rows`.
        console: where to.
    """
    from rich.markup import escape

    table = make_table("Data sources", *SOURCE_COLUMNS)
    for row in rows:
        table.add_row(*(escape(_shortened(row[key])) for key in SOURCE_COLUMNS))
    console.print(table)
    console.print("One source with its options: persofl data list NAME. Get it: persofl data fetch NAME.")
    console.print(
        "What is in it: persofl data describe NAME. In a study: data: {source: NAME, options: {...}}."
    )


def print_source(row: Mapping[str, str], console: Console) -> None:
    """One data source: all that is known of it, and its options."""
    from rich.markup import escape

    from data_loaders.registry import SOURCES

    table = make_table(f"Data source {row['name']}", "what", "is", lines=False)
    for key, value in row.items():
        if value:
            table.add_row(key, escape(value))
    console.print(table)
    title = "Options: --options.NAME VALUE, or data.options in a study"
    options = make_table(title, "option", "what it does", lines=False)
    kind = SOURCES[row["name"]]
    said = documented(kind)
    for field in fields(kind):
        if field.init:
            options.add_row(escape(_parameter(field)), escape(said.get(field.name, "")))
    console.print(options)


def documented(kind: type) -> dict[str, str]:
    """Descriptions of a class's arguments, read off its docstring and those of the classes it extends."""
    said: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        said |= _arguments(inspect.cleandoc(cls.__dict__.get("__doc__") or ""))
    return said


def _arguments(text: str) -> dict[str, str]:
    said, last = dict[str, str](), ""
    for line in text.partition("Args:\n")[2].partition("\n\n")[0].splitlines():
        name, colon, rest = line.strip().partition(":")
        if colon and name.isidentifier() and len(line) - len(line.lstrip()) == 4:
            last, said[name] = name, rest.strip()
        elif last:
            said[last] += f" {line.strip()}"
    return {name: words.replace("``", "") for name, words in said.items()}


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most].rpartition(',')[0]}, ..."


def first_line(kind: type) -> str:
    """First line of a class's docstring."""
    return (kind.__doc__ or "").strip().splitlines()[0] if kind.__doc__ else ""


def parameters(kind: type) -> str:
    """A dataclass's fields with default and search range, one to a line."""
    return "\n".join(_parameter(field) for field in fields(kind) if field.init)


def _parameter(field: Field[Any]) -> str:
    default = "" if field.default is MISSING else f"={field.default}"
    return f"{field.name}{default}{_range(field.metadata.get('search', {}))}"


def _range(search: Mapping[str, Any]) -> str:
    if "choices" in search:
        return f" [{', '.join(map(str, search['choices']))}]"
    if "low" not in search:
        return ""
    return f" [{search['low']:g} to {search['high']:g}{', log' if search.get('log') else ''}]"


def make_table(title: str, *columns: str, lines: bool = True) -> Table:
    """A table with these columns, whose cells are folded where they are too wide."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", header_style="bold", show_lines=lines)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
