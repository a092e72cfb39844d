"""One process at a time works on a study; the kernel frees the lock however that process ends."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StudyError


def slug(name: str) -> str:
    """A file name for ``name``: letters, digits, and ``+ - _ .``; anything else becomes ``_`` and a hash of the whole."""
    plain = re.sub(r"[^A-Za-z0-9+._-]+", "_", name).strip(".")
    return plain if plain == name else f"{plain}_{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold an advisory lock on ``path`` for the duration of the block.

    Whoever holds it knows that every run still marked RUNNING was left by a process that is gone, with no guess
    from process numbers, which containers use again and again.

    Raises:
        StudyError: another process holds it.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise StudyError(
                f"{what} is already running ({file.read().strip() or 'another process'}). "
                "Wait for it, stop it, or give this one another --name."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
