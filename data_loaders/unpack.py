"""Archives unpacked with suspicion: nothing outside the target, no links, no bombs, all of it or nothing.

What an archive says of itself is looked at first and never believed: names are checked one by one, and bytes are counted as
they are written. Everything goes into a folder beside the target, and is moved into it at the end.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .archives import READERS, archive_kind
from .errors import DataError
from .sink import Limits, Progress, Sink

_STALE_SECONDS = 86400  # age at which what a killed process left beside a target is removed


def unpack(
    archive: Path,
    target: Path,
    *,
    members: Sequence[str] = (),
    reserved: frozenset[str] = frozenset(),
    limits: Limits = Limits(),  # noqa: B008
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Unpack a zip, tar (.gz, .bz2, .xz) or 7z archive into ``target``, beside what is there already.

    Args:
        archive: the file; how it is packed is seen from its first bytes.
        target: folder, made if need be; files of the same name in it are replaced.
        members: patterns (``fnmatch``) of the members to unpack; none for all.
        reserved: names directly in ``target`` that no member may have.
        limits: when to stop.
        progress: called with the bytes done and to do.

    Returns:
        Paths of the files below ``target``.

    Raises:
        DataError: a member that would land elsewhere, a link or device, two members with one name, an archive that blows
            up, is damaged, encrypted or compressed in a way that cannot be read here; ``target`` is left as it was.
    """
    kind = archive_kind(archive)
    if kind is None:
        raise DataError(
            f"{archive} is no zip, tar or 7z archive. It may be a page with an error; look inside."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = f".{target.name}-unpack-"
    _sweep(target.parent, beside)
    with tempfile.TemporaryDirectory(prefix=beside, dir=target.parent, ignore_cleanup_errors=True) as folder:
        sink = Sink(archive, Path(folder), tuple(members), reserved, limits, progress)
        with _damage_named(archive):
            READERS[kind](archive, sink)
        if not sink.files:
            wanted = f" that matches {', '.join(members)}" if members else ""
            raise DataError(f"{archive} holds no file{wanted}. Get it again; it may have changed.")
        target.mkdir(exist_ok=True)
        _merge(Path(folder), target)
    return tuple(sorted(sink.files.values()))


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    """Turn what the readers of archives raise into an error that names the archive."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # whatever a parser meets in a file that is not as it should be
        if isinstance(error, OSError) and error.errno is not None:
            raise
        text = f"{archive} is damaged or cut off ({str(error) or type(error).__name__}). Delete it and get it again."
        raise DataError(text) from error


def _sweep(folder: Path, beginning: str) -> None:
    long_ago = time.time() - _STALE_SECONDS
    for path in folder.glob(f"{beginning}*"):
        if path.stat().st_mtime < long_ago:
            shutil.rmtree(path, ignore_errors=True)


def _merge(folder: Path, target: Path) -> None:
    """Move what lies in a folder into another; what is there under the same name is replaced."""
    for path in sorted(folder.iterdir()):
        place = target / path.name
        if path.is_dir() and place.is_dir() and not place.is_symlink():
            _merge(path, place)
            continue
        if path.is_dir() and (place.exists() or place.is_symlink()):
            place.unlink()
        elif place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        path.replace(place)
