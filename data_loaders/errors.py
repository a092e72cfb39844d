"""The one error of this package: what is wrong, the value received, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class DataError(ValueError):
    """Data or options that cannot be used.

    Args:
        problems: one sentence each; a caller that checks several things reports them together.

    Attributes:
        problems: the same, so that a configuration layer can merge them with its own.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def raise_if_any(problems: Iterable[str]) -> None:
    """Raise one :class:`DataError` with all ``problems``, or return when there are none."""
    found = tuple(problems)
    if found:
        raise DataError(*found)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"Did you mean 'x'? Known: ..."``, without the question when nothing is near."""
    names = sorted(known)
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."
