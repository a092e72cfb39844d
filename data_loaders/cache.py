"""Prepared populations on disk, so that what takes minutes to parse loads in under a second.

Each lies in a folder of its own under ``data_home()/SOURCE/prepared``, named by a hash of the source's options, of the
names, sizes and times of the files it read, and of the code that reads them: whatever changes, it is read anew, and
nothing ever has to be emptied by hand. The last few of a source are kept. ``PERSOFL_NO_CACHE=1`` turns all of it off.
"""

import hashlib
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from .errors import DataError
from .home import MANIFEST, OURS, PREPARED, source_home
from .manifest import Inventory, code_digest, inventory, provenance, read_json, write_json
from .prepared import read_population, write_population
from .samples import ClientSamples
from .series import ClientSeries

Population = TypeVar("Population", ClientSeries, ClientSamples)
KEPT = 4  # prepared populations of a source; the longest unused go first
_FORMAT = 1
_STALE_SECONDS = 86400  # age at which a folder half written by a killed process is removed
_told = set[str]()


def cached(
    source: object, name: str, root: Path | Sequence[Path], read: Callable[[], Population]
) -> Population:
    """Return ``read()``, from the cache when this source with these options has read these files before.

    A prepared population that is damaged is read anew, with a warning; where the cache cannot be written, a warning
    says so once and work goes on without.

    Args:
        source: the source's dataclass; its fields but ``root`` are part of the key.
        name: of the source.
        root: what it reads, folders or files; names, sizes and times of the files are part of the key.
        read: parses the files.
    """
    if os.environ.get("PERSOFL_NO_CACHE", "") not in ("", "0"):
        return read()
    roots = [root] if isinstance(root, Path) else list(root)
    home = source_home(name)
    files = [inventory(path, OURS if path.resolve() == home.resolve() else frozenset()) for path in roots]
    entry = home / PREPARED / cache_key(source, files)
    found = _find(entry)
    if found is None:
        found = read()
        _keep(
            entry,
            found,
            {**provenance(name, getattr(source, "about", None)), **_origin(source, roots, files)},
        )
    return cast("Population", found)


def cache_key(source: object, files: Sequence[Inventory]) -> str:
    """Return the name of a prepared population, 24 hex digits."""
    options = {item.name: getattr(source, item.name) for item in fields(source) if item.name != "root"}  # type: ignore[arg-type]
    kind = type(source)
    module = getattr(sys.modules.get(kind.__module__), "__file__", None)
    parts = [_FORMAT, kind.__module__, kind.__qualname__, _code(module), _stamped(options)]
    parts += [(listed.files, listed.folders) for listed in files]
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def prepared_entries(name: str, home: str | Path | None = None) -> list[Path]:
    """Return the folders of a source's prepared populations, the last used first."""
    folder = source_home(name, home) / PREPARED
    return sorted((path.parent for path in folder.glob(f"[!.]*/{MANIFEST}")), key=_used, reverse=True)


def _stamped(options: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return options in order; those that name files with the files' sizes and times."""
    return [(key, repr(value), _stamps(value)) for key, value in sorted(options.items())]  # type: ignore[misc]


def _stamps(value: Any) -> tuple[tuple[str, int, int], ...]:
    with suppress(OSError, ValueError):  # text that is no path
        if isinstance(value, (str, Path)) and str(value) and Path(value).expanduser().is_file():
            return inventory(Path(value).expanduser()).files
    return ()


@lru_cache
def _code(module: str | None) -> str:
    """Return a hash of this package and, where a source lives outside, of its file."""
    own = list(Path(__file__).parent.rglob("*.py"))
    outside = [Path(module)] if module and Path(module) not in own and Path(module).is_file() else []
    return code_digest(own + outside)


def _origin(source: object, roots: Sequence[Path], files: Sequence[Inventory]) -> dict[str, Any]:
    options = {item.name: repr(getattr(source, item.name)) for item in fields(source)}  # type: ignore[arg-type]
    read = [{"root": str(path), **listed.words()} for path, listed in zip(roots, files, strict=True)]
    return {"options": options, "read": read}


def _find(entry: Path) -> ClientSeries | ClientSamples | None:
    """Return a prepared population; None when there is none that is whole."""
    manifest = entry / MANIFEST
    if not entry.is_dir():
        return None
    try:
        found = read_population(entry, read_json(manifest)["content"])
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        warnings.warn(
            f"The prepared data in {entry} are damaged ({error}); the files are read anew.", stacklevel=3
        )
        shutil.rmtree(entry, ignore_errors=True)
        return None
    with suppress(OSError):
        os.utime(manifest)
    return found


def _keep(entry: Path, population: ClientSeries | ClientSamples, said: dict[str, Any]) -> None:
    """Write a prepared population beside its place and move it there; warn once where that cannot be done."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".new-", dir=entry.parent, ignore_cleanup_errors=True
        ) as temporary:
            folder = Path(temporary, entry.name)
            folder.mkdir()
            content = write_population(folder, population)
            said |= {"fingerprint": population.fingerprint(), "clients": len(population)}
            write_json(folder / MANIFEST, {**said, **_words(content), "content": content})
            _move(folder, entry)
        _prune(entry)
    except (OSError, ValueError, TypeError) as error:
        _tell(entry.parent, error)


def _words(content: dict[str, Any]) -> dict[str, Any]:
    values = content["values"]
    return {"type": content["type"], "rules": values["rules"], "dropped": values["dropped"]}


def _move(folder: Path, entry: Path) -> None:
    try:
        folder.rename(entry)
    except OSError:
        if not entry.is_dir():  # another process was first, with the same content
            raise


def _prune(entry: Path) -> None:
    """Remove a source's longest unused populations, and what a killed process left long ago."""
    others = [path for path in prepared_entries(entry.parent.parent.name, entry.parents[2]) if path != entry]
    long_ago = time.time() - _STALE_SECONDS
    left = [path for path in entry.parent.glob(".new-*") if _used(path) < long_ago]
    for path in others[KEPT - 1 :] + left:
        shutil.rmtree(path, ignore_errors=True)


def _used(path: Path) -> float:
    place = path / MANIFEST
    with suppress(OSError):
        return (place if place.is_file() else path).stat().st_mtime
    return 0.0


def _tell(folder: Path, error: Exception) -> None:
    if str(folder) in _told:
        return
    _told.add(str(folder))
    remedy = "Point PERSOFL_DATA at a folder that can be written, or set PERSOFL_NO_CACHE=1"
    if isinstance(error, DataError):
        remedy = "Set PERSOFL_NO_CACHE=1"
    warnings.warn(
        f"What was read cannot be kept in {folder} ({error}); it will be parsed again each time. {remedy} to silence this.",
        stacklevel=4,
    )
