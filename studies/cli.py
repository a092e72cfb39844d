"""The command line; every command lives in :mod:`studies.commands`, imported when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .cli_data import add_data_commands
from .config import (
    DataConfig,
    ModelConfig,
    SearchConfig,
    StudyConfig,
    TrackingConfig,
    TrainerConfig,
    TrainingConfig,
)
from .errors import StoppedError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

STUDY_HELP = (
    "Flags override the file; a default shown here is what holds where neither names a value. "
    "Lists are written as [0, 1] and nested keys with dots: --data.options.clients 40."
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; errors that a user can mend go to stderr in one line, with exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("PERSOFL_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    arguments = make_parser().parse_args(words, defaults=False)
    try:
        _dispatch(arguments)
    except (ValueError, OSError) as error:
        if debug:
            raise
        _leave(f"error: {_text(error)}", 2)
    except (StoppedError, KeyboardInterrupt) as stop:
        _leave(str(stop) or "Stopped.", 130)


def make_parser() -> ArgumentParser:
    """The parser with all commands."""
    from .environment import package_version
    from .usage import Parser

    parser = Parser(
        prog="persofl",
        version=package_version(),
        description="Compare personalised federated methods on energy, vehicle, voice and your own data.",
        epilog="Errors come in one line; --debug, or PERSOFL_DEBUG=1, shows where they arose.",
    )
    commands = parser.add_subcommands(metavar="COMMAND", required=True)
    commands.add_subcommand("train", _train_parser(), help="train one method with one seed")
    study = _plain("Studies: several methods, equal search budgets, several seeds, one comparison.")
    commands.add_subcommand("study", study, help="run a study, or show its comparison")
    commands.add_subcommand("methods", _methods_parser(), help="list the methods")
    data = _plain(
        "Data: which sources there are, how to get them, what is in them, and whether your own can be read."
    )
    commands.add_subcommand("data", data, help="list, fetch, prepare, describe and check data")
    commands.add_subcommand("ui", _ui_parser(), help="open the MLflow UI")
    inner = study.add_subcommands(metavar="COMMAND", required=True)
    inner.add_subcommand("run", _run_parser(), help="run a study, or what is left of it")
    inner.add_subcommand("show", _show_parser(), help="the comparison, read back from MLflow")
    add_data_commands(data)
    return parser


def _plain(description: str) -> ArgumentParser:
    from .usage import Parser

    return Parser(description=description)


def _methods_parser() -> ArgumentParser:
    parser = _plain("List algorithms and modulators.")
    parser.add_argument(
        "--plugins", type=list[str], help="files that register methods of your own: [my_method.py]"
    )
    return parser


def _train_parser() -> ArgumentParser:
    parser = _plain(
        "Train one method with one seed: progress bar with the loss, a checkpoint every few rounds, and a table of "
        f"every client's errors, all tracked in MLflow. {STUDY_HELP}"
    )
    parser.add_argument("--config", type=str, help="YAML file with these keys")
    parser.add_argument(
        "--method", type=str, help="such as fedavg or ditto+prox_by_distance (default: fedavg)"
    )
    parser.add_argument("--params", type=dict[str, Any], help="hyperparameters: --params.lr 0.1")
    parser.add_argument("--distance", type=dict[str, Any], help="of the modulators: --distance.kind gaussian")
    parser.add_argument("--seed", type=int, help="of weights, batches and cohorts (default: 0)")
    parser.add_argument("--name", type=str, help="MLflow experiment (default: train)")
    parser.add_argument(
        "--plugins", type=list[str], help="files that register methods of your own: [my_method.py]"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of this run")
    for key, kind in (("data", DataConfig), ("model", ModelConfig), ("training", TrainingConfig)):
        parser.add_argument(f"--{key}", type=kind)
    parser.add_argument("--trainer", type=TrainerConfig)
    parser.add_argument("--tracking", type=TrackingConfig)
    return parser


def _run_parser() -> ArgumentParser:
    parser = _plain(
        "Run a study; one that was stopped goes on where it was. FILE is a YAML file, or the name of a shipped study: "
        "demo or distance (simulated households), london, ev, openacc or arabic_commands (these need --data.root). "
        f"{STUDY_HELP}"
    )
    parser.add_argument("file", nargs="?", help="YAML file or name of a shipped study")
    parser.add_argument("--config", type=str, help="the same as FILE; after FILE, its keys override FILE's")
    parser.add_argument("--fresh", action="store_true", help="start over: old runs move to MLflow's bin")
    hints = {
        "name": str,
        "methods": list[Any],
        "seeds": list[int],
        "metric": str,
        "summary": str,
        "plugins": list[str],
        "leave_out": list[str],
    }
    documented = _documented(StudyConfig)
    for key, hint in {**hints, "group_by": str, "workers": int}.items():
        parser.add_argument(f"--{key}", type=hint, help=documented[key])
    parser.add_argument("--search", type=SearchConfig)
    for key, kind in (("data", DataConfig), ("model", ModelConfig), ("training", TrainingConfig)):
        parser.add_argument(f"--{key}", type=kind)
    parser.add_argument("--trainer", type=TrainerConfig)
    parser.add_argument("--tracking", type=TrackingConfig)
    return parser


def _show_parser() -> ArgumentParser:
    parser = _plain("Show the comparison of a study, read back from MLflow alone.")
    parser.add_argument(
        "name", type=str, nargs="?", help="the study's name; without it, the studies there are"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.add_argument("--markdown", action="store_true", help="as markdown")
    parser.add_argument("--group_by", type=str, help="client attribute to break the result down by")
    parser.add_argument("--against", type=str, help="method to set all others against (default: fedavg)")
    parser.add_argument("--tracking", type=TrackingConfig)
    return parser


def _ui_parser() -> ArgumentParser:
    parser = _plain("Open the MLflow UI over the tracking folder, on this machine only.")
    parser.add_argument("--port", type=int, help="TCP port (default: 5000)")
    parser.add_argument("--tracking", type=TrackingConfig)
    return parser


def _documented(cls: type) -> dict[str, str]:
    """Argument descriptions from a dataclass's docstring, so that they are written once."""
    lines = [line.strip() for line in (cls.__doc__ or "").partition("Args:")[2].splitlines()]
    return {name: text.strip() for name, _, text in (line.partition(":") for line in lines) if text}


def _dispatch(arguments: Namespace) -> None:
    from . import commands, data_commands

    given: dict[str, Any] = arguments.as_dict()
    command = given["subcommand"]
    options = given[command] or {}
    if "subcommand" in options:
        inner = options["subcommand"]
        command, options = f"{command}_{inner}", options[inner] or {}
    getattr(data_commands if command.startswith("data_") else commands, command)(options)


def _text(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"There is no file or folder {error.filename!r}."
    return str(error)


def _leave(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
