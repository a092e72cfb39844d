"""Data of one's own: tables, folders and clips described by a short YAML file."""

from .options import OwnSpec
from .source import Own
from .spec import read_spec, spec_of, write_spec

__all__ = ["Own", "OwnSpec", "read_spec", "spec_of", "write_spec"]
