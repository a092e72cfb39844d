"""Where members of an archive go: one folder, and the suspicion with which each of them is looked at."""

import fnmatch
import re
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from .errors import DataError

Progress = Callable[[int, int | None], None]  # bytes done, bytes in all
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Limits:
    """When an archive counts as one that blows up.

    Args:
        members: files and folders at most.
        bytes: unpacked, at most.
        ratio: unpacked bytes for each packed one, at most; ...
        free: ... but so many bytes are always allowed.
    """

    members: int = 500_000
    bytes: int = 64 << 30
    ratio: float = 200
    free: int = 256 << 20


class Sink:
    """Where members go: a folder, and the suspicion."""

    def __init__(
        self,
        archive: Path,
        folder: Path,
        patterns: tuple[str, ...],
        reserved: frozenset[str],
        limits: Limits,
        progress: Progress | None,
    ) -> None:
        self.archive, self.folder, self.patterns, self.reserved = archive, folder, patterns, reserved
        self.progress = progress
        self.limits = limits
        self.files: dict[str, str] = {}  # folded path -> path, of the files to unpack
        self._folders: set[str] = set()
        self._members = self._declared = self._expected = self._written = 0
        packed = archive.stat().st_size
        self.most = min(limits.bytes, max(limits.free, int(limits.ratio * packed)))

    def place(self, name: str, kind: str, size: int) -> Path | None:
        """Return where a member goes; None for a folder, and for what nobody asked for.

        Args:
            name: as the archive has it.
            kind: ``"file"``, ``"folder"``, or a word for what is refused.
            size: in bytes, as declared.
        """
        self._members += 1
        if self._members > self.limits.members:
            raise self.refusal(f"it has more than {self.limits.members:,} members")
        self._declared += size
        self._check_size(self._declared)
        path = self._path(name)
        if path.parts[:1] == ("__MACOSX",) or not path.parts:
            return None
        if kind not in ("file", "folder"):
            raise self.refusal(f"member {name!r} is a {kind}")
        if kind == "folder" or not self._wanted(path.as_posix()):
            return None
        self._enter(path, name)
        self._expected += size
        where = self.folder / path
        where.parent.mkdir(parents=True, exist_ok=True)
        return where

    def copy(self, source: IO[bytes], where: Path) -> None:
        """Write a member, counting its bytes."""
        with open(where, "xb") as file:
            while chunk := source.read(_CHUNK):
                self.count(len(chunk))
                file.write(chunk)

    def count(self, size: int) -> None:
        """Count bytes about to be written."""
        self._written += size
        self._check_size(self._written)
        if self.progress:
            self.progress(self._written, max(self._expected, self._written))

    def ready(self) -> None:
        """Check the room on the disk, once all sizes are known."""
        free = shutil.disk_usage(self.folder).free
        if self._expected > free:
            raise DataError(
                f"{self.archive} needs {in_bytes(self._expected)} unpacked, and {self.folder.parent} has "
                f"{in_bytes(free)} free. Make room, or point PERSOFL_DATA at a larger disk."
            )

    def refusal(self, why: str) -> DataError:
        """Return the error that says why this archive is not unpacked."""
        return DataError(
            f"{self.archive} is not unpacked: {why}. Nothing was written. "
            "Get it from its publisher; if it is as published, unpack it by hand and give the folder."
        )

    def _check_size(self, size: int) -> None:
        if size > self.most:
            packed = in_bytes(self.archive.stat().st_size)
            raise self.refusal(f"its {packed} unpack to more than {in_bytes(self.most)}")

    def _path(self, name: str) -> PurePosixPath:
        """Return a member's path, which lies inside the target."""
        plain = name.replace("\\", "/")
        path = PurePosixPath(plain)
        if path.is_absolute() or re.match(r"[A-Za-z]:", plain):
            raise self.refusal(f"member {name!r} has an absolute path")
        if ".." in path.parts:
            raise self.refusal(f"member {name!r} points outside the folder")
        if any(unicodedata.category(letter) == "Cc" for letter in plain):
            raise self.refusal(f"member {name!r} has control characters in its name")
        return path

    def _wanted(self, path: str) -> bool:
        return not self.patterns or any(fnmatch.fnmatchcase(path, pattern) for pattern in self.patterns)

    def _enter(self, path: PurePosixPath, name: str) -> None:
        """Note a file's name; two that a disk may hold for one are refused, as is a file that is a folder too."""
        folded = unicodedata.normalize("NFC", path.as_posix()).casefold()
        above = [parent.as_posix() for parent in PurePosixPath(folded).parents if parent.parts]
        if path.parts[0].casefold() in self.reserved:
            raise self.refusal(f"member {name!r} has a name that is kept for persofl's own files")
        if folded in self.files or folded in self._folders or any(folder in self.files for folder in above):
            raise self.refusal(f"member {name!r} collides with another of the same name")
        self.files[folded] = path.as_posix()
        self._folders.update(above)


def in_bytes(size: float) -> str:
    """Return a size in words, ``"261.3 MB"``."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
