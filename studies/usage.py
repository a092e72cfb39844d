"""What a command line says when it is wrong: the one thing that is, the nearest right word, and where to read on."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import NoReturn

from jsonargparse import ArgumentParser

from .errors import nearest

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list, such as [0, 1]",
    "dict": "keys and values, such as {a: 1}",
    "NoneType": "null",
}


class Parser(ArgumentParser):
    """A parser whose errors are one message, without a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and leave with code 2."""
        more = f"More: {_command(self, message)} --help"
        print(f"error: {explain(self, message)}", more, sep="\n", file=sys.stderr)
        sys.exit(2)


def _command(parser: ArgumentParser, message: str) -> str:
    """The command whose help to read; what is missing from a command is told by the outermost parser."""
    missing = re.search(r'(?:required: |expected ")([\w.]+)', message)
    words = missing[1].split(".")[:-1] if missing else []
    return " ".join([parser.prog.replace(" [options]", ""), *words])


def explain(parser: ArgumentParser, message: str) -> str:
    """The parser's message in plain words; as it is where there are none for it."""
    rewritten = (rule(parser, message) for rule in (_flags, _choice, _value, _missing, _unread))
    return next((text for text in rewritten if text), message)


def _flags(parser: ArgumentParser, message: str) -> str:
    """Flags and words that the parser does not know."""
    _, found, rest = message.partition("unrecognized arguments: ")
    if not found:
        return ""
    words = rest.split()
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    if not flags:
        return f"{parser.prog.replace(' [options]', '')} takes no further word, got {rest!r}."
    return "\n".join(f"There is no flag {flag}. {_near(flag, list(_options(parser)))}" for flag in flags)


def _near(flag: str, known: list[str]) -> str:
    """The nearest flag; all of them are in the help."""
    whole = nearest(flag, known).partition(" Known: ")[0]
    if whole.startswith("Did"):
        return whole
    inner = {option.rpartition(".")[2]: option for option in known if "." in option}
    return f"Did you mean '{inner[flag[2:]]}'?" if flag[2:] in inner else "See --help for those there are."


def _options(parser: ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))


def _choice(parser: ArgumentParser, message: str) -> str:
    found = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
    if not found:
        return ""
    known = re.findall(r"[\w-]+", found[2])
    return f"There is no command {found[1]!r}. {nearest(found[1], known)}"


def _value(parser: ArgumentParser, message: str) -> str:
    """A value of the wrong type."""
    found = re.search(r'Parser key "([^"]+)":\s+(Expected|Does not validate)', message)
    if not found:
        return ""
    got = re.search(r"(?:Got value|Given value): (.*)", message, re.DOTALL)
    kinds = list(
        dict.fromkeys(_kind(text) for text in re.findall(r"Expected an? (.*?)(?:\. Got|\n|$)", message))
    )
    if not got or not kinds:
        return ""
    return f"--{found[1]} must be {' or '.join(kinds)}, got {got[1].strip()!r}."


def _kind(text: str) -> str:
    if found := re.match(r"<class '(\w+)'>", text):
        return _KINDS.get(found[1], found[1])
    choices = re.match(r"typing\.Literal\[(.*)\]", text)
    return f"one of {choices[1]}" if choices else text


def _missing(parser: ArgumentParser, message: str) -> str:
    """A command, a word or a value that is not there."""
    if found := re.search(r'expected "[\w.]*subcommand" to be one of \{(.*)\}', message):
        return f"Which command? Give one of: {found[1].replace(',', ', ')}."
    if found := re.search(r"arguments are required: (.*)", message):
        words = ", ".join(word.rpartition(".")[2].upper() for word in found[1].split(", "))
        return f"{words} is missing."
    if found := re.search(r"argument (--\S+): expected one argument", message):
        return f"{found[1]} needs a value."
    return ""


def _unread(parser: ArgumentParser, message: str) -> str:
    """A group of settings for which something else was given."""
    found = re.search(r'Parser key "([^"]+)":\s+Unable to load config \'(.*)\'', message)
    if not found:
        return ""
    return f"--{found[1]} takes keys and values, or a YAML file of them, got {found[2]!r}. One key: --{found[1]}.KEY VALUE."
