"""Errors that say what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from math import isfinite


class PersoflError(ValueError):
    """Base of the errors that a user can mend: bad names, bad values, models that do not fit."""


class DivergedError(PersoflError):
    """A client's loss or weights became NaN or infinite; the state before the round is untouched."""

    def __init__(self, client: str, round_: int, loss: float, hint: str) -> None:
        self.client, self.round, self.loss, self.hint = client, round_, loss, hint
        what = f"The loss of client {client!r} became {loss}"
        if isfinite(loss):  # the last step did it
            what = f"The weights of client {client!r}, whose loss was {loss:g}, became infinite"
        super().__init__(f"{what} in round {round_}. {hint}")


def unknown_name(kind: str, name: object, known: Iterable[str]) -> PersoflError:
    """Build the error for a name that is not registered, with the nearest known ones.

    Args:
        kind: what the name should have been, such as ``"method"``.
        name: the name received.
        known: every name that would have been accepted.
    """
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return PersoflError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")
