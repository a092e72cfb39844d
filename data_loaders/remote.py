"""What a source says of its official files, so that they can be fetched and checked."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Remote:
    """One official file.

    Args:
        url: where it is published.
        name: of the file on disk.
        sha256: of the file; None where nobody published one that we could check.
        size: bytes; None where unknown.
        unpack: how it is packed.
        members: patterns (``fnmatch``) of the members worth unpacking; none for all.
    """

    url: str
    name: str
    sha256: str | None = None
    size: int | None = None
    unpack: Literal["no", "zip", "tar", "7z"] = "no"
    members: tuple[str, ...] = ()
