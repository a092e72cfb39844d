"""What a check found, as text and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..series import Dropped
from .facts import ClientFacts

_SHOWN = 12


@dataclass(frozen=True)
class CheckReport:
    """What a YAML file and its data come to.

    Args:
        file: the YAML file.
        understood: how the files are read, in words.
        problems: what stops a load; none when the data can go into a study.
        remarks: what is hardly right but stops nothing.
        files: the files with their rows and columns.
        totals: clients, span, step and further numbers of the whole population.
        clients: facts of every client (wide, long, folder).
        attributes: columns of the attributes table, clients it lacks, and names it holds beyond them.
        rules: what is done to the rows, in words.
        dropped: clients that the rules drop.
        study: a study's YAML that uses the data; empty when they cannot be loaded.
    """

    file: str
    understood: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    files: tuple[Mapping[str, Any], ...] = ()
    totals: Mapping[str, Any] = field(default_factory=dict)
    clients: tuple[ClientFacts, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    study: str = ""

    @property
    def ok(self) -> bool:
        """Whether the data load."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        return {**asdict(self), "ok": self.ok}

    def text(self) -> str:
        """Return the report as lines of text."""
        return "\n".join(line for title, lines in self.sections() for line in (title, *lines))

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each part that says something: its title and its lines."""
        verdict = "can be used" if self.ok else f"cannot be used yet: {_count(len(self.problems), 'problem')}"
        yield f"{self.file}: {verdict}", []
        if self.problems:
            yield "Problems", [f"  - {problem}" for problem in self.problems]
        if self.remarks:
            yield "Remarks", [f"  - {remark}" for remark in self.remarks]
        if self.understood:
            yield "Read as", [f"  {name}: {words}" for name, words in self.understood.items()]
        if self.files:
            rows = [
                f"  {file['file']}: {file['rows']:,} rows, {file['columns']} columns" for file in self.files
            ]
            yield _count(len(self.files), "file"), _first(rows)
        if self.totals:
            yield "Population", [f"  {name}: {_value(value)}" for name, value in self.totals.items()]
        if self.clients:
            yield "Clients", [f"  {line}" for line in self.client_lines()]
        if self.attributes:
            yield "Attributes", [f"  {name}: {_value(value)}" for name, value in self.attributes.items()]
        if self.rules:
            yield "Rules", [f"  - {rule}" for rule in self.rules]
        if self.dropped:
            yield (
                f"Would drop {_count(len(self.dropped), 'client')}",
                _first([f"  {item.client}: {item.reason}" for item in self.dropped]),
            )
        if self.study:
            yield (
                "A study with these data: save as study.yaml, then `persofl study run study.yaml`",
                [f"  {line}" for line in self.study.splitlines()],
            )

    def client_lines(self) -> list[str]:
        """Return a table of the clients with most missing first where there are many."""
        rows = [self.client_header(), *self.client_rows()]
        widths = [max(len(row[at]) for row in rows) for at in range(len(_HEADER))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        more = len(self.clients) - len(rows) + 1
        return [line.rstrip() for line in lines] + ([f"... and {more} more with fewer gaps"] if more else [])

    def client_header(self) -> tuple[str, ...]:
        """Return the titles of :meth:`client_rows`."""
        return _HEADER

    def client_rows(self) -> list[tuple[str, ...]]:
        """Return the cells of the clients worth a line."""
        return [client_cells(item) for item in self.shown_clients()]

    def shown_clients(self) -> list[ClientFacts]:
        """Return the clients worth a line: all of a few, else those with most missing."""
        if len(self.clients) <= _SHOWN:
            return list(self.clients)
        return sorted(self.clients, key=lambda item: (-item.missing, item.days, item.client))[:_SHOWN]


_HEADER = (
    "client",
    "from (UTC)",
    "days",
    "gaps",
    "longest h",
    "missing",
    "twice",
    "zero",
    "below 0",
    "kWh/day",
)


def client_cells(item: ClientFacts) -> tuple[str, ...]:
    """Return a client's facts as the cells of a table, under the header of :meth:`CheckReport.client_lines`."""
    return (
        item.client,
        item.first.replace("T", " ")[:16] or "-",
        f"{item.days:.1f}",
        str(item.gaps),
        f"{item.longest_gap_hours:g}",
        f"{item.missing:.1%}",
        str(item.duplicates + item.conflicting),
        f"{item.zeros:.1%}",
        str(item.negative),
        f"{item.per_day:.4g}" if item.per_day else "-",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _first(lines: list[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return lines if more <= 0 else [*lines[:_SHOWN], f"  ... and {more} more"]


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        shown = ", ".join(map(str, value[:_SHOWN]))
        return (shown or "none") + (f", ... ({len(value)})" if len(value) > _SHOWN else "")
    if isinstance(value, float):
        return f"{value:,.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
