"""Trees of sound files whose names say who speaks and what."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

from ..errors import DataError
from .audio import read_sound
from .options import ClipOptions
from .population import first_speakers
from .takes import Take

_SOUND = (".wav",)


def find_below(root: Path, name: str) -> Path | None:
    """Return ``root/name``, or ``root/<one folder>/name`` (archives hold one folder on top); None without."""
    places = [root / name, *(path / name for path in sorted(root.glob("*/")))]
    return next((place for place in places if place.exists()), None)


def sound_files(
    root: Path, pattern: re.Pattern[str], expected: str, ignored: Collection[str] = ()
) -> Iterator[tuple[Path, re.Match[str]]]:
    """Yield the WAV files below ``root`` in order of name, with the match of their relative paths.

    Args:
        root: a folder.
        pattern: matches ``folder/name.wav``, relative to root, with forward slashes, whole.
        expected: the same in words, for the message.
        ignored: names of folders to pass over; hidden files and folders always are.

    Raises:
        DataError: a folder that cannot be read, or a WAV file of another name.
    """
    for folder, folders, files in os.walk(root, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if name not in ignored and not name.startswith("."))
        for name in sorted(files):
            if name.startswith(".") or not name.lower().endswith(_SOUND):
                continue
            path = Path(folder, name)
            match = pattern.fullmatch(path.relative_to(root).as_posix())
            if match is None:
                raise DataError(f"{path} is not named {expected} below {root}. Rename it or move it away.")
            yield path, match


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"Cannot read the folder {error.filename}: {error.strerror}. Check that you may (chmod u+rx)."
    ) from error


def file_take(path: Path, client: str, label: str, number: int, official: int = -1) -> Take:
    """Return the take that is the whole of a file."""
    return Take(client, label, number, str(path), partial(read_sound, path), official)


def of_first_speakers(takes: Collection[Take], options: ClipOptions) -> tuple[Counter[str], Iterator[Take]]:
    """Return how many takes each speaker has, and the takes of those asked for, speaker by speaker."""
    listed = Counter(take.client for take in takes)
    chosen = set(first_speakers(listed, options))
    kept = sorted((take for take in takes if take.client in chosen), key=lambda take: take.client)
    return listed, iter(kept)
