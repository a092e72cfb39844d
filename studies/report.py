"""The comparison for people (terminal, markdown) and for programs (JSON)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from .compare import control_table, group_table, paired_table, summary_table
from .errors import StudyError, nearest
from .heldout import UNSEEN, unseen_clients
from .reading import reading
from .results import MethodResult, Results

if TYPE_CHECKING:
    from rich.console import Console

REFERENCE = "fedavg"
GAPS = (
    "mean",
    "95 % of seeds",
    "95 % of clients",
    "worst decile",
    "95 % of seeds",
    "harmed",
    "95 % of seeds",
)


@dataclass(frozen=True)
class Comparison:
    """The tables of a study, all of them over the clients that train but for ``unseen``.

    Args:
        results: what was read back, held-out clients too.
        summary: see :func:`studies.compare.summary_table`; the naive predictions last.
        paired: see :func:`studies.compare.paired_table`.
        groups: see :func:`studies.compare.group_table`; empty without a client attribute.
        group_by: that attribute.
        unseen: as ``groups``, of the clients held out of training and of the others; empty where none are.
        controls: see :func:`studies.compare.control_table`; empty where no method names any.
        unseen_controls: the same over the clients held out of training; empty where none are.
        reference: the method that ``paired`` compares with.
    """

    results: Results
    summary: pd.DataFrame
    paired: pd.DataFrame
    groups: pd.DataFrame
    group_by: str
    unseen: pd.DataFrame
    controls: pd.DataFrame
    unseen_controls: pd.DataFrame
    reference: str = REFERENCE


def compare(results: Results, group_by: str | None = None, against: str | None = None) -> Comparison:
    """Compute the tables.

    Args:
        results: a study as read back.
        group_by: client attribute to break the result down by; by default the
            study's own, else the first that names 2 to 12 groups.
        against: the method that all others are compared with, ``"fedavg"`` by default.

    Raises:
        StudyError: no final seed has ended, the clients have no such attribute, or ``against`` is no method.
    """
    if results.scores.empty:
        raise StudyError(
            f"Study {results.study!r} has no final seed yet. Run it to its end: persofl study run ..."
        )
    metric, seen = results.metric, results.seen()
    summary = summary_table(seen.scores, metric)
    rows = _naive_scores(seen)
    if len(rows):
        summary = pd.concat([summary, summary_table(rows, metric).assign(seeds=0)])
    by = chosen_group(results.attributes, group_by or results.group_by)
    groups = group_table(seen.scores, metric, seen.attributes[by]) if by else pd.DataFrame()
    labels = [str(label) for label in pd.unique(seen.scores["method"])]
    if against and against not in labels:
        raise StudyError(
            f"Study {results.study!r} has no finished method {against!r}. {nearest(against, labels)}"
        )
    reference = against or REFERENCE
    paired = paired_table(seen.scores, metric, reference)
    named = {m.label: m.controls for m in results.methods}
    controls = control_table(seen.scores, metric, named)
    held_out = control_table(results.held_out(), metric, named)
    return Comparison(
        results, summary, paired, groups, by, _unseen_table(results), controls, held_out, reference
    )


def _naive_scores(results: Results) -> pd.DataFrame:
    """Per-client scores of the predictions without training, as if of methods with one seed."""
    tables = [
        t.rename_axis("client").reset_index().assign(method=n, seed=0) for n, t in results.naive.items()
    ]
    return pd.concat(tables) if tables else pd.DataFrame()


def _unseen_table(results: Results) -> pd.DataFrame:
    unseen = unseen_clients(results.attributes)
    if not unseen:
        return pd.DataFrame()
    clients = results.attributes.index
    words = pd.Series(["unseen" if str(name) in unseen else "seen" for name in clients], index=clients)
    return group_table(pd.concat([results.scores, _naive_scores(results)]), results.metric, words)


def chosen_group(attributes: pd.DataFrame, wanted: str | None) -> str:
    """The attribute to group clients by; empty if there is none that fits.

    Raises:
        StudyError: ``wanted`` is no attribute of the clients.
    """
    if wanted:
        if wanted not in attributes.columns:
            raise StudyError(
                f"The clients have no attribute {wanted!r}. {nearest(wanted, attributes.columns)}"
            )
        return wanted
    numeric = pd.api.types.is_numeric_dtype
    texts = [str(c) for c in attributes.columns if not numeric(attributes[c]) and c != UNSEEN]
    return next((name for name in texts if 2 <= attributes[name].nunique() <= 12), "")


def as_json(comparison: Comparison) -> str:
    """Everything as JSON; numbers that do not exist are ``null``."""
    results = comparison.results
    content = {
        "study": results.study,
        "metric": results.metric,
        "settings": dict(results.settings),
        "data": dict(results.facts),
        "methods": [_method_json(comparison, method) for method in results.methods],
        "naive": {name: _row(comparison.summary, name) for name in results.naive},
        "group_by": comparison.group_by,
        "groups": {str(g): _row(comparison.groups, g) for g in comparison.groups.index},
        "unseen": {str(g): _row(comparison.unseen, g) for g in comparison.unseen.index},
    }
    return json.dumps(_finite(content), indent=2)


def as_markdown(comparison: Comparison) -> str:
    """The tables as markdown."""
    results = comparison.results
    head = [
        f"# Study {results.study}",
        "",
        f"{_clients_line(results)} {_direction_line(results)}",
        "",
    ]
    tables = [f"## {title}\n\n{_markdown(columns, rows)}" for title, columns, rows in _tables(comparison)]
    return "\n".join(head) + "\n\n".join(tables) + "\n\n" + "\n\n".join(_notes(comparison)) + "\n"


def print_report(comparison: Comparison, console: Console) -> None:
    """The tables on the terminal."""
    from rich.table import Table

    console.print(_clients_line(comparison.results), highlight=False, markup=False)
    for title, columns, rows in _tables(comparison):
        table = Table(title=title, title_justify="left", header_style="bold")
        for place, column in enumerate(columns):
            table.add_column(column, justify="left" if place == 0 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for note in _notes(comparison):
        console.print(note, highlight=False, markup=False)


def _tables(comparison: Comparison) -> list[tuple[str, list[str], list[list[str]]]]:
    found = [_main_table(comparison), _params_table(comparison)]
    if len(comparison.paired):
        found.insert(1, _paired(comparison))
    if len(comparison.controls):
        found.insert(1, _controls(comparison, comparison.controls, ""))
    metric = comparison.results.metric
    if len(comparison.unseen):
        title = f"Mean {metric} of clients held out of training, and of the others (number of clients)"
        found.append(_groups(title, comparison.unseen))
    if len(comparison.unseen_controls):
        found.append(_controls(comparison, comparison.unseen_controls, ", clients held out of training"))
    if len(comparison.groups):
        title = f"Mean {metric} by {comparison.group_by} (number of clients)"
        found.append(_groups(title, comparison.groups))
    return found


def _main_table(comparison: Comparison) -> tuple[str, list[str], list[list[str]]]:
    metric = comparison.results.metric
    columns = ["method", f"mean {metric}", "95 % of seeds", "median", "std", "worst decile", "Jain"]
    columns += ["worse than local", "worse than fedavg", "harmed", "seeds"]
    rows = [
        [
            str(name),
            _number(row["mean"]),
            _span(row["mean_low"], row["mean_high"]),
            *(_number(row[c]) for c in ("median", "std", "worst_decile", "jain")),
            *(_percent(row[c]) for c in ("worse_than_local", "worse_than_fedavg", "harmed")),
            f"{int(row['seeds'])}" if row["seeds"] else "naive",
        ]
        for name, row in comparison.summary.iterrows()
    ]
    whose = ", clients that train" if len(comparison.unseen) else ""
    return f"{metric} on the test span{whose}", columns, rows


def _paired(comparison: Comparison) -> tuple[str, list[str], list[list[str]]]:
    columns = ["method", *GAPS]
    rows = [[str(name), *_gaps(row)] for name, row in comparison.paired.iterrows()]
    return f"Difference to {comparison.reference} (paired; {_better(comparison)} is better)", columns, rows


def _controls(
    comparison: Comparison, table: pd.DataFrame, whose: str
) -> tuple[str, list[str], list[list[str]]]:
    rows = [
        [str(method), str(control), *_gaps(row)]
        for (method, control), (_, row) in zip(table.index, table.iterrows(), strict=True)
    ]
    title = f"Steered against its controls{whose} (paired; {_better(comparison)} is better)"
    return title, ["method", "control", *GAPS], rows


def _gaps(row: pd.Series) -> list[str]:
    """A row of differences with their intervals, in the order of ``GAPS``."""
    harmed = [row[name] for name in ("harmed", "harmed_low", "harmed_high")]
    return [
        _number(row["mean"], signed=True),
        _span(row["mean_low"], row["mean_high"], signed=True),
        _span(row["clients_low"], row["clients_high"], signed=True),
        _number(row["worst_decile"], signed=True),
        _span(row["worst_decile_low"], row["worst_decile_high"], signed=True),
        _percent(harmed[0], signed=True),
        "-"
        if math.isnan(harmed[1])
        else f"[{_percent(harmed[1], signed=True)}, {_percent(harmed[2], signed=True)}]",
    ]


def _better(comparison: Comparison) -> str:
    """The sign of a better mean; fewer harmed clients are always better."""
    return "positive" if comparison.results.higher else "negative"


def _params_table(comparison: Comparison) -> tuple[str, list[str], list[list[str]]]:
    rows = [
        [m.label, _params(m), ", ".join(f"{n} {state}" for state, n in m.trials.items()), _clock(m.seconds)]
        for m in comparison.results.methods
    ]
    return "Chosen on the validation span", ["method", "hyperparameters", "trials", "time"], rows


def _groups(title: str, table: pd.DataFrame) -> tuple[str, list[str], list[list[str]]]:
    """Methods in rows: there are more of them than groups, and their names are longer."""
    columns = ["method", *(f"{group} ({int(n)})" for group, n in table["clients"].items())]
    rows = [[str(name), *map(_number, table[name])] for name in table.columns if name != "clients"]
    return title, columns, rows


def _notes(comparison: Comparison) -> list[str]:
    failed = [m for m in comparison.results.methods if m.reason]
    unfinished = [m.label for m in comparison.results.methods if m.status not in ("FINISHED", "FAILED")]
    notes = [f"{method.label} failed: {method.reason}" for method in failed]
    seen = comparison.results.seen()
    controls = {method.label: method.controls for method in comparison.results.methods}
    notes = [*reading(seen.scores, seen.metric, controls), *notes]
    notes += [method.warning for method in comparison.results.methods if method.warning]
    return notes + ([f"Not finished: {', '.join(unfinished)}."] if unfinished else [])


def _clients_line(results: Results) -> str:
    facts = results.facts
    dropped, unseen = len(facts["dropped"]), len(unseen_clients(results.attributes))
    return (
        f"Study {results.study}: {facts['clients']} clients of {facts['source']}"
        f"{f', {dropped} left out' if dropped else ''}"
        f"{f', {unseen} held out of training and in no table but their own' if unseen else ''}; "
        f"{_examples(results)}, {results.settings.get('training.rounds')} rounds."
    )


def _examples(results: Results) -> str:
    """What a model sees and predicts, in a few words."""
    facts, settings = results.facts, results.settings
    if facts.get("task", "forecast") == "forecast":
        return f"{settings.get('data.lookback')} -> {settings.get('data.horizon')} steps"
    inputs = " x ".join(map(str, facts["inputs"]))
    return f"{inputs} inputs" + (f", {len(results.classes)} classes" if results.classes else "")


def _direction_line(results: Results) -> str:
    if results.higher:
        return "Higher is better, but of the spread (std) and of the shares of clients that are worse off."
    return "Lower is better everywhere but for Jain."


def _method_json(comparison: Comparison, method: MethodResult) -> dict[str, Any]:
    return {
        "method": method.label,
        "status": method.status,
        "params": dict(method.params),
        "trials": dict(method.trials),
        "seconds": method.seconds,
        "reason": method.reason,
        "warning": method.warning,
        "summary": _row(comparison.summary, method.label),
        f"versus_{comparison.reference}": _row(comparison.paired, method.label),
        "versus_controls": _versus_controls(comparison, method),
    }


def _versus_controls(comparison: Comparison, method: MethodResult) -> dict[str, dict[str, float]]:
    table = comparison.controls
    return {
        str(control): {str(key): float(value) for key, value in row.items()}
        for (label, control), (_, row) in zip(table.index, table.iterrows(), strict=True)
        if label == method.label
    }


def _row(table: pd.DataFrame, name: object) -> dict[str, float] | None:
    return {str(k): float(v) for k, v in table.loc[name].items()} if name in table.index else None  # type: ignore[call-overload]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _markdown(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _params(method: MethodResult) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in method.params.items()) or "-"


def _short(value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return value
    return f"{number:.3g}"


def _number(value: float, *, signed: bool = False) -> str:
    return "-" if math.isnan(value) else f"{value:{'+' if signed else ''}.4f}"


def _span(low: float, high: float, *, signed: bool = False) -> str:
    return "-" if math.isnan(low) else f"[{_number(low, signed=signed)}, {_number(high, signed=signed)}]"


def _percent(share: float, *, signed: bool = False) -> str:
    return "-" if math.isnan(share) else f"{share:{'+' if signed else ''}.0%}"


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
