"""Opening files so that what goes wrong is said in our words: no permission, an empty file, a pointer to a file."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

from ..errors import DataError

_POINTER = b"version https://git-lfs"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file inside the block into a :class:`DataError` that names it."""
    try:
        yield
    except PermissionError as error:
        file = error.filename or path
        raise DataError(
            f"File {file} may not be read. Give yourself permission: chmod u+r '{file}'."
        ) from error
    except (BadZipFile, zlib.error) as error:
        raise DataError(f"File {path} is no whole zip archive ({error}). Download it again.") from error
    except (OSError, EOFError) as error:
        raise DataError(f"File {path} cannot be read: {error}. Download it again.") from error


def check_start(path: Path) -> None:
    """Refuse an empty file and what git leaves where it did not fetch a large one.

    Raises:
        DataError: names the file and what to do.
    """
    with readable(path), path.open("rb") as file:
        start = file.read(len(_POINTER))
    if not start.strip():
        raise DataError(f"File {path} is empty. Download it again.")
    if start == _POINTER:
        raise DataError(
            f"File {path} is a pointer to a large file, not the file. Run `git lfs pull` in that checkout, or "
            "download the file itself."
        )


def find_file(root: Path, name: str) -> Path:
    """Return the file called ``name`` in the folder ``root`` or below, the first by path, checked by :func:`check_start`.

    Raises:
        DataError: there is none, or it is empty or a pointer.
    """
    found = sorted(root.rglob(name)) if root.is_dir() else []
    if not found:
        raise DataError(f"There is no {name} in {root} or below. Point root at the folder that holds it.")
    check_start(found[0])
    return found[0]
