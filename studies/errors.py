"""Errors of a study that its user can mend: what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class StudyError(ValueError):
    """Base: a bad configuration, a study that does not exist, one that was set up differently."""


class TrackingError(StudyError):
    """The tracking database or its folder cannot be read or written."""


class WorkerError(StudyError):
    """A worker process ended without a result."""


class StoppedError(Exception):
    """Someone asked the run to stop (Ctrl-C, SIGTERM); not a failure, and never caught as one."""


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``"Did you mean 'x'? Known: ..."``, without the question when nothing is near."""
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."


def listed(title: str, problems: list[str]) -> str:
    """Join ``problems`` under a title that counts them, one to a line."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([f"{title}: {count}", *(f"  - {problem}" for problem in problems)])
