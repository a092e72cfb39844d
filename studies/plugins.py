"""A user's own methods, sources and distances: files or modules that register them when imported."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from .errors import StudyError


def load_plugins(names: Iterable[str]) -> None:
    """Import each plug-in once in this process.

    Args:
        names: paths of Python files, such as ``my_method.py``, or names of importable modules.

    Raises:
        StudyError: a file or module that is not there, or that fails when imported.
    """
    for name in names:
        try:
            _import_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise StudyError(
                f"plugins: {name!r} cannot be imported: {what}. Give a Python file or a module."
            ) from error


def _import_file(path: Path) -> None:
    full = str(path.resolve(strict=True))
    name = f"persofl_plugin_{path.stem}_{hashlib.blake2b(full.encode(), digest_size=4).hexdigest()}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None:
        raise ImportError(f"{full} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it is being made
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
