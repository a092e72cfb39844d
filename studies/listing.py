"""What there is to choose from: algorithms, modulators, data sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_methods(console: Console) -> None:
    """Algorithms with their knobs and hyperparameters, then modulators with the knob they steer."""
    from persofl.algorithms import ALGORITHMS
    from personalization import MODULATORS

    algorithms = _table("Algorithms: methods by themselves", "name", "what", "knobs", "hyperparameters")
    for name, kind in sorted(ALGORITHMS.items()):
        algorithms.add_row(name, first_line(kind), ", ".join(sorted(kind.knobs)), parameters(kind))
    console.print(algorithms)
    title = "Modulators: append to an algorithm with that knob, as in ditto+prox_by_distance"
    modulators = _table(title, "name", "formula", "knob", "hyperparameters")
    for name, modulator in sorted(MODULATORS.items()):
        modulators.add_row(name, first_line(modulator), modulator.knob, parameters(modulator))
    console.print(modulators)
    console.print("In brackets: the range that a study searches; the others keep their default unless fixed.")


def print_sources(console: Console) -> None:
    """Data sources with what they need and their options."""
    from data_loaders.registry import SOURCES, source_info

    sources = _table("Data sources", "name", "what", "clients", "needs", "attributes", "licence", "options")
    for row in source_info():
        cells = [row[key] for key in ("name", "what", "clients", "needs", "attributes", "licence")]
        sources.add_row(*cells, parameters(SOURCES[row["name"]]))
    console.print(sources)


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


def _table(title: str, *columns: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", header_style="bold", show_lines=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
