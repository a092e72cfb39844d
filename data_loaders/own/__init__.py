"""Data of one's own: tables, folders and clips described by a short YAML file."""

from .check import check_file, check_spec
from .guess import guess, guess_spec, starting_yaml
from .options import OwnSpec
from .report import CheckReport
from .source import Own
from .spec import read_spec, spec_of, write_spec

__all__ = [
    "CheckReport",
    "Own",
    "OwnSpec",
    "check_file",
    "check_spec",
    "guess",
    "guess_spec",
    "read_spec",
    "spec_of",
    "starting_yaml",
    "write_spec",
]
