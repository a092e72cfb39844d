"""What is written beside data, so that one can say later what they are: source, licence, files, checksums, date."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .errors import DataError

_CHUNK = 1 << 20
_STAMPED = 200_000  # files whose own size and time are looked at; beyond, their folder's time must do


@dataclass(frozen=True)
class Inventory:
    """The files of a folder.

    Args:
        files: path below the folder, bytes and time of the last change (ns) of each; sorted by path.
        folders: beyond the bound on files: path, number of entries and time of each folder.
    """

    files: tuple[tuple[str, int, int], ...]
    folders: tuple[tuple[str, int, int], ...] = ()

    @property
    def bytes(self) -> int:
        """Sum of the sizes."""
        return sum(size for _, size, _ in self.files)

    def words(self, most: int = 1000) -> dict[str, Any]:
        """Return the count, the bytes, and names and sizes of the first ``most`` files, JSON-able."""
        named = {path: size for path, size, _ in self.files[:most]}
        return {"count": len(self.files), "bytes": self.bytes, "files": named}


def inventory(root: Path, skip: frozenset[str] = frozenset(), bound: int = _STAMPED) -> Inventory:
    """Return the files under ``root``, or the file itself; hidden ones and ``__MACOSX`` are left out.

    Args:
        root: folder or file.
        skip: names directly in ``root`` to leave out.
        bound: files looked at one by one. What lies beyond counts by its folder: adding, removing and renaming are
            seen there, writing into a file is not.

    Raises:
        OSError: a folder cannot be read.
    """
    if root.is_file():
        stat = root.stat()
        return Inventory(((root.name, stat.st_size, stat.st_mtime_ns),))
    files, folders = list[tuple[str, int, int]](), list[tuple[str, int, int]]()
    for folder, entries in _walk(root, skip):
        place = folder.relative_to(root).as_posix()
        if len(files) + len(entries) > bound:
            folders.append((place, len(entries), folder.stat().st_mtime_ns))
            continue
        for entry in entries:
            stat = entry.stat()
            path = entry.name if place == "." else f"{place}/{entry.name}"
            files.append((path, stat.st_size, stat.st_mtime_ns))
    return Inventory(tuple(sorted(files)), tuple(sorted(folders)))


def _walk(root: Path, skip: frozenset[str]) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """Yield each folder with its files, in the order of names; links to folders are followed once."""
    todo, seen = [root], {os.path.realpath(root)}
    while todo:
        folder = todo.pop()
        left_out = skip | {"__MACOSX"} if folder == root else {"__MACOSX"}
        with os.scandir(folder) as found:
            entries = sorted((e for e in found if e.name not in left_out and e.name[0] != "."), key=_name)
        for entry in reversed([entry for entry in entries if entry.is_dir()]):
            real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
            if real not in seen:
                seen.add(real)
                todo.append(Path(entry.path))
        yield folder, [entry for entry in entries if entry.is_file()]


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def provenance(name: str, about: object) -> dict[str, Any]:
    """Return what every manifest says first: source, licence, attribution, date and version of this library."""
    return {
        "source": name,
        "licence": getattr(about, "licence", ""),
        "attribution": getattr(about, "attribution", ""),
        "date": now(),
        "persofl": library_version(),
    }


def now() -> str:
    """Return the date and time, UTC, ``"2026-11-21T09:30:00+00:00"``."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def library_version() -> str:
    """Return the version of the installed distribution, ``"not installed"`` when run from its folder."""
    try:
        return version("persofl")
    except PackageNotFoundError:
        return "not installed"


def sha256_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of a file, 64 hex digits.

    Args:
        path: the file.
        progress: called with the bytes read so far.
    """
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress(done)
    return digest.hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a manifest whole or not at all, sealed with a checksum of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({**content, "seal": _seal(content)}, file, indent=1, ensure_ascii=False)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Return a manifest that :func:`write_json` wrote, without its seal.

    Raises:
        DataError: it is damaged or was changed by hand.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        seal = content.pop("seal")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}). Delete it and run the command again.") from error
    if seal != _seal(content):
        raise DataError(f"{path} was damaged or changed. Delete it and run the command again.")
    return dict(content)


def _seal(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def code_digest(files: Sequence[Path]) -> str:
    """Return a hash of source files, so that changed code is told from unchanged."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
