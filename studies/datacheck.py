"""`persofl data check FILE`: what data of one's own come to, and a first YAML file for those not described yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import StudyError

if TYPE_CHECKING:
    from rich.console import Console

    from data_loaders.own import CheckReport

_STYLES = {"Problems": "bold red", "Remarks": "bold yellow"}


def data_check(options: Mapping[str, Any]) -> None:
    """Print what a YAML file and its data come to; ends with code 1 where they cannot be loaded.

    Args:
        options: ``file``: a YAML file; or a CSV or parquet file, or a folder of them, that is described first.
            ``write``: the YAML file to write that description to. ``json``: print JSON, for programs.

    Raises:
        StudyError: ``write`` with a YAML file, or where a file is already.
        DataError: a file that cannot be read.
        SystemExit: with code 1, after the report, where the data cannot be loaded.
    """
    from .commands import console

    report, yaml = _report(Path(options["file"]).expanduser(), options.get("write"))
    if options.get("json"):
        print(json.dumps({**report.as_dict(), **({"yaml": yaml} if yaml else {})}, indent=2, default=str))
    else:
        out = console()
        if yaml and not options.get("write"):
            out.print(yaml, markup=False, highlight=False)
            out.print("Keep this with --write mine.yaml.\n", style="dim")
        print_check(report, out)
    if not report.ok:
        raise SystemExit(1)


def print_check(report: CheckReport, console: Console) -> None:
    """Print a report: a line a finding, the clients as a table."""
    from rich.table import Table

    for title, lines in report.sections():
        style = _STYLES.get(title, "bold")
        console.print(title, style=style, markup=False, highlight=False, soft_wrap=True)
        if title != "Clients":
            for line in lines:
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            continue
        table = Table(header_style="bold")
        for at, name in enumerate(report.client_header()):
            table.add_column(name, justify="left" if at < 2 else "right")
        for cells in report.client_rows():
            table.add_row(*cells)
        console.print(table, markup=False)
        more = len(report.clients) - len(report.client_rows())
        if more:
            console.print(f"... and {more} more with fewer gaps", highlight=False)


def _report(file: Path, write: str | None) -> tuple[CheckReport, str]:
    """Return the report, and the YAML that was guessed; empty for a file that is YAML."""
    from data_loaders.own import check_file, check_spec, guess_spec, starting_yaml

    if file.suffix.lower() in (".yaml", ".yml"):
        if write:
            raise StudyError(
                f"{file} is a YAML file already. --write is for a table: persofl data check some.csv."
            )
        return check_file(file), ""
    if write is None:
        return check_spec(guess_spec(file), file.parent / "mine.yaml"), starting_yaml(file)
    target = Path(write).expanduser()
    yaml = starting_yaml(file, target.parent)
    if target.exists():
        raise StudyError(f"There is a file {target} already. Choose another name, or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yaml, encoding="utf-8")
    return check_file(target), yaml
