"""The parsers of ``persofl data``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

OPTIONS = "of the source: --options.clients 40; see persofl data list NAME"


def add_data_commands(data: ArgumentParser) -> None:
    """Add list, describe, fetch, prepare and check."""
    inner = data.add_subcommands(metavar="COMMAND", required=True)
    inner.add_subcommand("list", _list(), help="which sources there are, and whether they are here")
    inner.add_subcommand(
        "describe", _describe(), help="clients, spans, gaps, classes, how far clients differ"
    )
    inner.add_subcommand("fetch", _fetch(), help="download a source's official files")
    inner.add_subcommand("prepare", _prepare(), help="use files that you downloaded by hand")
    inner.add_subcommand("check", _check(), help="look at data of your own")


def _list() -> ArgumentParser:
    parser = _parser(
        "List the data sources: what their clients are, task, number of clients, licence, size, attributes, and "
        "whether they are here (built in, fetched, by hand, prepared, no). With NAME, one source and its options."
    )
    parser.add_argument("name", type=str, nargs="?", help="one source, with its options")
    _json(parser)
    return parser


def _describe() -> ArgumentParser:
    parser = _parser(
        "Load a source and show clients, spans, gaps, classes, statistics of each client, what was dropped and why, and "
        "how far the clients differ."
    )
    parser.add_argument("name", type=str, help="of the source, see persofl data list")
    parser.add_argument("--root", type=str, help="folder or file; what was fetched or prepared by default")
    parser.add_argument("--options", type=dict[str, Any], help=OPTIONS)
    parser.add_argument("--rows", type=int, help="clients shown one by one, 0 for all (default: 20)")
    parser.add_argument("--quick", action="store_true", help="leave out how far the clients differ")
    _json(parser)
    return parser


def _fetch() -> ArgumentParser:
    parser = _parser(
        "Download a source's official files, check their SHA-256, and unpack them. A download that was cut goes on where "
        "it was; files that are here are left alone."
    )
    parser.add_argument("name", type=str, help="of the source, see persofl data list")
    parser.add_argument(
        "--home", type=str, help="folder for data (default: $PERSOFL_DATA or ~/.cache/persofl)"
    )
    parser.add_argument("--again", action="store_true", help="download what is here already, too")
    _plugins(parser)
    return parser


def _prepare() -> ArgumentParser:
    parser = _parser(
        "Use files that you downloaded by hand: archives are unpacked into the home, a folder is remembered where it lies. "
        "They are read once, cached, and found again by every study without root."
    )
    parser.add_argument("name", type=str, help="of the source, see persofl data list")
    parser.add_argument("--from", type=str, help="folder, file or archive; what is here already by default")
    parser.add_argument(
        "--home", type=str, help="folder for data (default: $PERSOFL_DATA or ~/.cache/persofl)"
    )
    parser.add_argument("--options", type=dict[str, Any], help=OPTIONS)
    _plugins(parser)
    return parser


def _check() -> ArgumentParser:
    parser = _parser(
        "Look at data of your own: FILE is a YAML that says what is what, or a table for which one is suggested. Reports "
        "clients, spans, step, gaps, clock changes, duplicates, units, and what would be dropped; see docs/own_data.md."
    )
    parser.add_argument("file", type=str, help="YAML file, or a table")
    parser.add_argument("--write", type=str, help="write the suggested YAML to this file")
    _json(parser)
    return parser


def _parser(description: str) -> ArgumentParser:
    from .usage import Parser

    return Parser(description=description)


def _json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    _plugins(parser)


def _plugins(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--plugins", type=list[str], help="files that register sources of your own: [mine.py]"
    )
