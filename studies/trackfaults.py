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


def _advice(error: Exception, uri: str, folder: Path) -> str | None:
    text = str(error)
    if is_locked(error):
        return (
            f"The tracking database {uri} is locked by another process, and stayed so while we waited. "
            f"Close what holds it (a database shell, a backup, another study). {AGAIN}"
        )
    if "disk is full" in text or "No space left" in text:
        return f"The disk that holds {folder} is full. Free some space, or choose another --tracking.dir. {AGAIN}"
    unwritable = (
        "readonly database",
        "unable to open database",
        "Permission denied",
        "Read-only file system",
        "Not a directory",
    )
    if any(words in text for words in unwritable):
        return (
            f"The tracking folder {folder} cannot be written ({text.splitlines()[0]:.120}). "
            "Change its permissions, or choose another folder with --tracking.dir."
        )
    if "not a database" in text or "malformed" in text:
        return (
            f"The file behind {uri} is damaged or no MLflow database. "
            "Move it away, or choose another folder with --tracking.dir."
        )
    if "Experiment(name=" in text and "already exists" in text:
        name = text.partition("(name=")[2].partition(") already")[0]
        return (
            f"The MLflow experiment {name!r} was deleted. Restore it in MLflow, remove it for good with "
            f"`mlflow gc --backend-store-uri {uri}`, or choose another --name."
        )
    if "out-of-date database schema" in text or "Can't locate revision" in text:
        return (
            f"The tracking database was made by another version of MLflow. Back it up and run "
            f"`mlflow db upgrade {uri}`, or choose another folder with --tracking.dir."
        )
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
