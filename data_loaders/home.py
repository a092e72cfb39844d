"""Where data lie on this machine: ``$PERSOFL_DATA``, or ``~/.cache/persofl``; one folder a source.

In a source's folder lie its files as they were published and unpacked, and three names of ours: ``manifest.json`` (where
the files came from), ``downloads`` (what is still on its way) and ``prepared`` (the cache).
"""

import os
import re
from pathlib import Path

from .errors import DataError
from .manifest import read_json

MANIFEST, DOWNLOADS, PREPARED = "manifest.json", "downloads", "prepared"
OURS = frozenset({MANIFEST, DOWNLOADS, PREPARED})


def data_home() -> Path:
    """Return the folder under which every source has its own."""
    return Path(os.environ.get("PERSOFL_DATA") or Path.home() / ".cache" / "persofl").expanduser()


def source_home(source: str, home: str | Path | None = None) -> Path:
    """Return the folder of one source under ``home``, by default :func:`data_home`; it need not exist."""
    plain = re.sub(r"[^\w.+-]+", "_", source).strip(".") or "_"
    return (Path(home).expanduser() if home else data_home()) / plain


def find_root(source: str, root: str | None) -> Path:
    """Return the folder or file a source reads: ``root`` if given, else what was fetched or prepared.

    Raises:
        DataError: there is nothing; says how to get it.
    """
    if root:
        path = Path(root).expanduser()
        if path.exists():
            return path
        raise DataError(f"Source {source!r}: there is no file or folder {path}. Check the path.")
    found = known_root(source)
    if found is None:
        raise DataError(
            f"Source {source!r}: there are no data under {source_home(source)}. Give root=FOLDER, or run "
            f"`persofl data fetch {source}`, or `persofl data prepare {source} --from FOLDER`."
        )
    if not found.exists():
        raise DataError(
            f"Source {source!r}: {found}, from which it was prepared, is no longer there. Put it back, or run "
            f"`persofl data prepare {source} --from FOLDER` with the new place."
        )
    return found


def known_root(source: str, home: str | Path | None = None) -> Path | None:
    """Return where the files of a source were fetched to, or the folder recorded by hand; None for neither.

    Raises:
        DataError: the manifest cannot be read.
    """
    folder = source_home(source, home)
    manifest = folder / MANIFEST
    if manifest.is_file() and (recorded := read_json(manifest).get("root")):
        return Path(recorded)
    return folder if any(path.name not in OURS for path in _children(folder)) else None


def _children(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
