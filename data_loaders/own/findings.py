"""What reading found: problems that stop a load, all of them together, and remarks that do not."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import DataError

_SHOWN = 20


@dataclass
class Findings:
    """Collected while reading, so that one run reports every problem.

    Args:
        problems: key -> first sentence about it and how often it occurred.
        remarks: what a user should know, in sentences.
        counts: rows read and left out, by cause.
    """

    problems: dict[tuple[str, ...], tuple[str, int]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def problem(self, key: tuple[str, ...], text: str | Callable[[], str], times: int = 1) -> None:
        """Record a problem; of several with one key the first is told, the others are counted.

        Args:
            key: the same for problems that one sentence can stand for.
            text: the sentence, or what makes it where that takes a look at the file.
            times: how often it occurs.
        """
        told, before = self.problems.get(key, ("", 0))
        told = told or (text if isinstance(text, str) else text())
        self.problems[key] = (told, before + times)

    def remark(self, text: str) -> None:
        """Record a remark once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def error(self, key: tuple[str, ...], error: DataError) -> None:
        """Record what another part of the package refused."""
        self.problem(key, " ".join(error.problems))

    def sentences(self) -> list[str]:
        """Return the problems, one sentence or two each."""
        return [
            text if times == 1 else f"{text} ({times - 1:,} more like it.)"
            for text, times in self.problems.values()
        ]

    def raise_if_any(self) -> None:
        """Raise one :class:`DataError` with the problems found so far."""
        found = self.sentences()
        if len(found) > _SHOWN:
            more = f"... and {len(found) - _SHOWN} more problems; `persofl data check` lists them."
            found = [*found[:_SHOWN], more]
        if found:
            raise DataError(*found)
