"""What can go wrong with a tracking database, in words that say what to do."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from .errors import TrackingError

AGAIN = "Then run the same command again: what is finished is kept."


def is_locked(error: BaseException) -> bool:
    """Whether ``error`` says that another process holds the SQLite database."""
    return "database is locked" in str(error) or "database table is locked" in str(error)


def explain(error: Exception, uri: str, folder: Path, doing: str) -> Exception:
    """The :class:`TrackingError` for a known trouble, else ``error`` itself.

    Args:
        error: what MLflow, SQLAlchemy, sqlite3 or the file system raised.
        uri: the tracking store.
        folder: the tracking folder.
        doing: what was under way, such as ``"writing metrics"``.
    """
    advice = _advice(error, uri, folder)
    if advice is None:
        return error
    return TrackingError(f"{advice} (While {doing}.)")


# what the libraries say -> what to tell the user; the first that fits
_TROUBLES = (
    (
        ("database is locked", "database table is locked"),
        "The tracking database {uri} is locked by another process, and stayed so while we waited. "
        f"Close what holds it (a database shell, a backup, another study). {AGAIN}",
    ),
    (
        ("disk is full", "No space left"),
        f"The disk that holds {{folder}} is full. Free some space, or choose another --tracking.dir. {AGAIN}",
    ),
    (
        (
            "readonly database",
            "unable to open database",
            "Permission denied",
            "Read-only file system",
            "Not a directory",
        ),
        "The tracking folder {folder} cannot be written ({text}). "
        "Change its permissions, or choose another folder with --tracking.dir.",
    ),
    (
        ("not a database", "malformed"),
        "The file behind {uri} is damaged or no MLflow database. "
        "Move it away, or choose another folder with --tracking.dir.",
    ),
    (
        (") already exists. Error",),
        "The MLflow experiment {name!r} was deleted. Restore it in MLflow, remove it for good with "
        "`mlflow gc --backend-store-uri {uri}`, or choose another --name.",
    ),
    (
        ("out-of-date database schema", "Can't locate revision"),
        "The tracking database was made by another version of MLflow. Back it up and run "
        "`mlflow db upgrade {uri}`, or choose another folder with --tracking.dir.",
    ),
)


def _advice(error: Exception, uri: str, folder: Path) -> str | None:
    text = str(error)
    name = text.partition("(name=")[2].partition(") already")[0]
    for signs, advice in _TROUBLES:
        if any(sign in text for sign in signs):
            return advice.format(uri=uri, folder=folder, text=text.splitlines()[0][:120], name=name)
    return None


def check_writable(folder: Path, uri: str, wait: float) -> None:
    """Take and release the write lock of a SQLite store, so that trouble shows before any work is done.

    Args:
        folder: the tracking folder; created if missing.
        uri: the tracking store; only ``sqlite:`` ones are checked.
        wait: seconds to wait for a lock.

    Raises:
        TrackingError: the folder or the database cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"Permission denied: {str(folder)!r}")
        if uri.startswith("sqlite:///"):
            _take_lock(Path(uri.removeprefix("sqlite:///")), wait)
    except (OSError, sqlite3.Error) as error:
        raise explain(error, uri, folder, "opening the database") from error


def _take_lock(path: Path, wait: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    finally:
        connection.close()
