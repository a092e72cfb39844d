"""Options that the sources of metered energy share: the period, the rules, the clients, negative readings."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..runs import Booleans, Ints
from .households import Household, HouseholdRules

Negative = Literal["error", "missing"]


class MeterOptions(Protocol):
    """What every source of metered energy can be asked for; see :class:`~data_loaders.electricity.london.London`."""

    @property
    def start(self) -> str | None: ...  # noqa: D102
    @property
    def end(self) -> str | None: ...  # noqa: D102
    @property
    def min_days(self) -> float: ...  # noqa: D102
    @property
    def min_coverage(self) -> float: ...  # noqa: D102
    @property
    def max_zero_share(self) -> float: ...  # noqa: D102
    @property
    def clients(self) -> int | None: ...  # noqa: D102
    @property
    def negative(self) -> Negative: ...  # noqa: D102


def option_problems(source: MeterOptions) -> list[str]:
    """Return what is wrong with the shared options, in sentences."""
    problems = [
        f"{name} must be a fraction between 0 and 1, got {getattr(source, name)}."
        for name in ("min_coverage", "max_zero_share")
        if not 0 <= getattr(source, name) <= 1
    ]
    if source.min_days < 0:
        problems.append(f"min_days must not be negative, got {source.min_days}.")
    if source.clients is not None and source.clients < 1:
        problems.append(f"clients must be at least 1, or None for all, got {source.clients}.")
    problems += choice_problems("negative", source.negative, ("error", "missing"))
    return problems + _period_problems(source.start, source.end)


def choice_problems(name: str, value: object, known: tuple[object, ...]) -> list[str]:
    """Return the sentence that refuses a value that is none of the known ones, if it is."""
    listed = " or ".join(map(repr, known))
    return [] if value in known else [f"{name} must be {listed}, got {value!r}."]


def period(source: MeterOptions) -> tuple[int | None, int | None]:
    """Return start and end in seconds since 1970."""
    first, last = (None if stamp is None else _seconds(stamp) for stamp in (source.start, source.end))
    return first, last


def rules_of(source: MeterOptions, noun: str) -> HouseholdRules:
    """Return the rules on clients."""
    return HouseholdRules(source.min_days, source.min_coverage, source.max_zero_share, noun)


def period_in_words(source: MeterOptions, noun: str) -> tuple[str, ...]:
    """Return what the period and the number of clients leave out."""
    said = {
        f"period: from {source.start or 'the first'} up to {source.end or 'the last'} reading": source.start
        or source.end,
        f"clients: only the first {source.clients} {noun}s that keep the rules": source.clients,
    }
    return tuple(words for words, applies in said.items() if applies)


def sound(
    meters: Iterable[Household], negative: Negative, counts: Counter[str], noun: str
) -> Iterator[Household]:
    """Yield the meters, refusing infinite and negative readings, or counting the latter as missing.

    Args:
        meters: of consumption; each is checked when it is asked for.
        negative: ``"error"``, or ``"missing"`` to count them in ``counts["negative"]``.
        counts: written to.
        noun: what a meter is called in the message.

    Raises:
        DataError: names the meter, the value and its stamp.
    """
    for meter in meters:
        seconds = meter.start + meter.step_seconds * np.arange(len(meter.values))
        below = find_negative(meter.values[:, None], seconds, (meter.client,), negative, noun)[:, 0]
        counts["negative"] += int(below.sum())
        yield (
            replace(meter, values=np.where(below, np.float32(np.nan), meter.values)) if below.any() else meter
        )


def find_negative(
    energy: npt.NDArray[np.floating[Any]],
    seconds: Ints,
    names: Sequence[str],
    negative: Negative,
    noun: str,
    unit: str = "kWh",
    where: str = "",
) -> Booleans:
    """Return which readings are negative, ``(steps, meters)``.

    Args:
        energy: ``(steps, meters)``, NaN = missing.
        seconds: ``(steps,)`` since 1970, of each step.
        names: of the meters.
        negative: ``"error"`` or ``"missing"``.
        noun: what a meter is called in messages.
        unit: of the readings.
        where: what the message begins with, such as the file.

    Raises:
        DataError: an infinite reading, or with ``"error"`` a negative one: names the meter, the value and its stamp.
    """
    endless, below = np.isinf(energy), energy < 0
    remedies = {
        "Leave the field empty where nothing was measured.": endless,
        "It should only consume: correct the file, or take such readings as missing with negative='missing'.": below
        if negative == "error"
        else np.zeros_like(below),
    }
    for remedy, wrong in remedies.items():
        if wrong.any():
            step, meter = np.argwhere(wrong)[0]
            stamp = str(np.datetime64(int(seconds[step]), "s")).replace("T", " ")
            more = f", the first of {int(wrong.sum())} such readings" if wrong.sum() > 1 else ""
            raise DataError(
                f"{where}{noun if where else noun.capitalize()} {names[meter]!r} reads "
                f"{np.format_float_positional(energy[step, meter], trim='-')} {unit} at {stamp}{more}. {remedy}"
            )
    return np.asarray(below, np.bool_)


def negative_in_words(negative: Negative, counts: Counter[str]) -> tuple[str, ...]:
    """Return how many negative readings were left out; nothing where they are errors."""
    return (f"negative: {counts['negative']} negative readings are missing",) if negative == "missing" else ()


def _period_problems(start: str | None, end: str | None) -> list[str]:
    try:
        stamps = [_seconds(stamp) for stamp in (start, end) if stamp is not None]
    except ValueError:
        return [f"start and end must be stamps like 2013-01-01, got {start!r} and {end!r}."]
    wrong = len(stamps) == 2 and stamps[0] >= stamps[1]
    return [f"start must be before end, got {start} and {end}."] if wrong else []


def _seconds(stamp: str) -> int:
    return int(np.datetime64(stamp, "s").astype(np.int64))
