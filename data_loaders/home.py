"""Where data lie on this machine: ``$PERSOFL_DATA``, or ``~/.cache/persofl``; one folder a source."""

import os
from pathlib import Path

from .errors import DataError


def data_home() -> Path:
    """Return the folder under which every source has its own."""
    return Path(os.environ.get("PERSOFL_DATA") or Path.home() / ".cache" / "persofl").expanduser()


def find_root(source: str, root: str | None) -> Path:
    """Return the folder or file a source reads: ``root`` if given, else what was fetched or prepared.

    Raises:
        DataError: there is nothing; says how to get it.
    """
    path = Path(root).expanduser() if root else data_home() / source
    if path.exists():
        return path
    remedy = (
        "Check the path"
        if root
        else f"Give root=FOLDER, or run `persofl data fetch {source}`, or `persofl data prepare {source} --from FOLDER`"
    )
    raise DataError(f"Source {source!r}: there is no file or folder {path}. {remedy}.")
