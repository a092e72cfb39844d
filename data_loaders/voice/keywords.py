"""Which words are the classes."""

from collections.abc import Collection
from pathlib import Path

from ..errors import DataError, did_you_mean


def keyword_problems(keywords: Collection[str], known: Collection[str]) -> list[str]:
    """Return what is wrong with a choice of keywords, in sentences."""
    problems = [
        f"There is no keyword {word!r}. {did_you_mean(word, known)}" for word in keywords if word not in known
    ]
    if not keywords or len(set(keywords)) < len(keywords):
        problems.append(f"keywords must be at least one, each once, got {tuple(keywords)}.")
    return problems


def choose_classes(
    found: Collection[str], wished: Collection[str] | None, known: Collection[str], root: Path
) -> tuple[str, ...]:
    """Return the classes: those wished for, or all found in the published order, unpublished ones behind.

    Raises:
        DataError: nothing was found, or nothing for one wished for.
    """
    if not found:
        raise DataError(f"{root} holds no recording. Point root at the data set's folder.")
    lacking = [word for word in wished or () if word not in found]
    if lacking:
        raise DataError(
            f"{root} holds no recording of {', '.join(lacking)}; it has {', '.join(sorted(found))}."
        )
    if wished is not None:
        return tuple(wished)
    published = [word for word in known if word in found]
    return (*published, *sorted(set(found) - set(known)))
