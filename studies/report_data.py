"""A population in tables, for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .listing import make_table

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from data_loaders import ClientSamples, ClientSeries
    from persofl.heterogeneity import Heterogeneity

SHOWN = 20  # dropped clients, classes
_ATTRIBUTES = 4  # columns of attributes beside the statistics


@dataclass(frozen=True)
class Skew:
    """How far clients differ.

    Args:
        how: what they were compared by.
        found: the comparison.
    """

    how: str
    found: Heterogeneity


def described(name: str, population: ClientSeries | ClientSamples, skew: Skew | None) -> dict[str, Any]:
    """All that is known of a population, JSON-able: facts, rules, dropped, classes, one entry a client."""
    from data_loaders.facts import class_counts, facts, per_client

    table = _beside(per_client(population), population.attributes)
    said: dict[str, Any] = {
        **_about(name),
        "facts": facts(population),
        "rules": list(population.rules),
        "dropped": [{"client": item.client, "reason": item.reason} for item in population.dropped],
        "per_client": _records(table),
    }
    if getattr(population, "classes", ()):
        said["classes"] = _records(class_counts(population))  # type: ignore[arg-type]
    if skew is not None:
        said["heterogeneity"] = {"of": skew.how, **skew.found.summary()}
    return said


def print_described(name: str, population: ClientSeries | ClientSamples, rows: int) -> None:
    """Print all that is known of a population; ``rows`` clients one by one, 0 for all."""
    from data_loaders.facts import class_counts, per_client

    from .commands import console

    out = console()
    print_facts(name, population)
    if getattr(population, "classes", ()):
        counts = class_counts(population)  # type: ignore[arg-type]
        out.print(_frame("Classes", counts.head(SHOWN)))
        _more(len(counts) - SHOWN, "classes", out)
    table = per_client(population)
    out.print(_frame("Over the clients", _summary(table)))
    attributes = population.attributes[list(population.attributes.columns[:_ATTRIBUTES])]
    shown = _beside(table, attributes)
    out.print(_frame("Clients", shown.head(rows) if rows else shown))
    _more(len(table) - rows if rows else 0, "clients (--rows 0 for all, --json for programs)", out)


def print_skew(skew: Skew) -> None:
    """Print how far the clients differ."""
    from .commands import console

    out = console()
    out.print(f"How far the clients differ ({skew.how}):", highlight=False, markup=False)
    out.print(skew.found.text(), highlight=False, markup=False)


def print_facts(name: str, population: ClientSeries | ClientSamples) -> None:
    """Print what holds of the whole population, the rules that made it, and who was left out and why."""
    from rich.markup import escape

    from data_loaders.facts import facts
    from data_loaders.series import count_reasons

    from .commands import console

    out = console()
    table = make_table(f"Data source {name}", "what", "is", lines=False)
    for key, value in {**_about(name), **facts(population)}.items():
        if value not in ("", [], {}):
            table.add_row(key, escape(_words(value)))
    out.print(table)
    for rule in population.rules:
        out.print(f"rule: {rule}", highlight=False, markup=False)
    dropped = population.dropped
    if dropped:
        out.print(f"{len(dropped)} left out: {count_reasons(dropped)}", highlight=False, markup=False)
    for item in dropped[:SHOWN]:
        out.print(f"  {item.client}: {item.reason}", highlight=False, markup=False)
    _more(len(dropped) - SHOWN, "left out", out)


def _about(name: str) -> dict[str, str]:
    from data_loaders import SOURCES

    about = SOURCES[name].about
    return {"about": about.what, "licence": about.licence, "attribution": about.attribution}


def _beside(table: pd.DataFrame, attributes: pd.DataFrame) -> pd.DataFrame:
    """Statistics and attributes of the clients; attributes of the same name say what they are."""
    return table.join(attributes.rename(columns={k: f"{k} (attribute)" for k in attributes if k in table}))


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    """Five quantiles of each column of numbers, one row a column."""
    numbers = table.select_dtypes("number")
    quantiles = numbers.quantile([0, 0.25, 0.5, 0.75, 1]).T
    quantiles.columns = ["least", "quarter", "median", "three quarters", "most"]
    return quantiles.rename_axis(index="statistic")


def _frame(title: str, frame: pd.DataFrame) -> Any:
    from rich.markup import escape

    table = make_table(title, str(frame.index.name or ""), *map(str, frame.columns), lines=False)
    for index, row in zip(frame.index, frame.itertuples(index=False), strict=True):
        table.add_row(*(escape(_words(cell)) for cell in (index, *row)))
    return table


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _more(count: int, what: str, out: Console) -> None:
    if count > 0:
        out.print(f"  ... and {count:,} more {what}", highlight=False, markup=False)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    import json

    rows: list[dict[str, Any]] = json.loads(table.reset_index().to_json(orient="records", date_format="iso"))
    return rows
