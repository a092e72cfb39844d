"""All clients of a wide, long or folder layout as one population."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from ..electricity.households import Household, HouseholdRules
from ..errors import DataError
from ..series import ClientSeries, Dropped, count_reasons, offsets_of
from .findings import Findings
from .options import OwnSpec
from .place import Placed, place
from .readings import Readings
from .sorting import Sorted, sort_readings, what_unit
from .spec import seconds_of

_WORDS = {
    "without a stamp": "have no stamp and are left out",
    "in the skipped hour": "are in the hour that the clock skips in spring and are left out",
    "without a value": "have no value and are missing readings",
    "off the grid": "are off the grid and left out",
    "duplicated": "repeat an earlier row and are left out",
    "zero": "are zero, which means missing",
    "negative": "are negative and are missing readings",
    "sorted": "were out of order and sorted",
    "from new to old": "ran from new to old and were turned round",
}


@dataclass(frozen=True, eq=False)
class Population:
    """What becomes of all clients, before rules drop any.

    Args:
        step: seconds of the grid.
        placed: the clients that could be placed, by name.
        sorted: all clients' readings in order of time, for reports; empty when not asked for.
        counts: of all clients together.
        coarser: whether the grid's step is longer than that of some readings.
    """

    step: float
    placed: tuple[Placed, ...]
    sorted: tuple[Sorted, ...]
    counts: Counter[str]
    coarser: bool = False


def place_all(readings: Readings, spec: OwnSpec, findings: Findings, *, check: bool = False) -> Population:
    """Sort every client's readings and put them on one grid; what fails is a problem of that client.

    Args:
        readings: emptied while it is read, so that they are held once.
        spec: what is what.
        findings: gets the problems.
        check: keep the sorted readings too, and take a client that fails by lenient rules, for a report on it.
    """
    whole = list[Sorted]()
    for client in sorted(readings.pieces):
        pieces = readings.pieces.pop(client)
        try:
            whole.append(sort_readings(client, list(pieces.values()), spec))
        except DataError as error:
            findings.error(("client", _cause(error)), error)
            if check:
                with suppress(DataError):
                    whole.append(sort_readings(client, list(pieces.values()), lenient(spec)))
    step = choose_step(whole, spec, findings)
    placed, counts = list[Placed](), Counter[str]()
    for item in whole if step is not None else ():
        try:
            placed.append(place(item, spec, step or 0.0))
            counts.update(placed[-1].counts)
        except DataError as error:
            findings.error(("grid", _cause(error)), error)
    coarser = any(item.step is None or item.step < 0.999 * (step or 0.0) for item in whole)
    return Population(step or 0.0, tuple(placed), tuple(whole) if check else (), counts, coarser)


def lenient(spec: OwnSpec) -> OwnSpec:
    """Return a spec that refuses nothing which a rule could decide."""
    time = replace(spec.time, order="sort", ambiguous="summer", nonexistent="missing")
    return replace(spec, time=time, duplicates="first", value=replace(spec.value, negative="keep"))


def choose_step(readings: Sequence[Sorted], spec: OwnSpec, findings: Findings) -> float | None:
    """Return the seconds of the grid: those asked for, or the step that most clients have."""
    asked = seconds_of(spec.time.step)
    if asked is not None:
        return asked
    steps = Counter(item.step for item in readings if item.step is not None)
    irregular = [item.client for item in readings if item.step is None and len(item.stamps)]
    if irregular:
        findings.problem(
            ("irregular",),
            f"time.step: stamps of client {irregular[0]!r} have no step that most neighbours share. Set time.step, such "
            "as 1h.",
            len(irregular),
        )
    return steps.most_common(1)[0][0] if steps else None


def to_series(population: Population, spec: OwnSpec, attributes: pd.DataFrame) -> ClientSeries:
    """Lay the clients that keep the rules end to end.

    Raises:
        DataError: none is left.
    """
    kept, dropped = sift(population, spec)
    if not kept:
        raise DataError(nobody_left(spec, dropped))
    lengths = [len(item.values) for item in kept]
    offsets = offsets_of(lengths)
    breaks = [int(first) + at for item, first in zip(kept, offsets, strict=False) for at in item.breaks]
    names = tuple(item.client for item in kept)
    return ClientSeries(
        name=spec.name,
        values=torch.from_numpy(np.concatenate([item.values for item in kept])),
        offsets=offsets,
        clients=names,
        attributes=attributes.reindex(index=list(names)).rename_axis(index="client"),
        starts=np.array([item.start for item in kept], "datetime64[s]"),
        step_seconds=population.step,
        unit=spec.value.to or spec.value.unit,
        rules=rules(population, spec),
        dropped=dropped,
        channel_names=(spec.value.column, *spec.covariates) if spec.covariates else (),
        known=spec.known,
        breaks=torch.tensor(breaks, dtype=torch.int64),
    )


def nobody_left(spec: OwnSpec, dropped: Sequence[Dropped]) -> str:
    """Return the words for a population without a client."""
    return (
        f"No client of {spec.name!r} is left: {count_reasons(dropped) or 'the files hold no reading'}. Loosen "
        "client.min_days, min_coverage or max_zero_share, or run `persofl data check` to see why."
    )


def sift(population: Population, spec: OwnSpec) -> tuple[list[Placed], tuple[Dropped, ...]]:
    """Return the clients that keep the rules, and the others with the reason."""
    limits = HouseholdRules(spec.client.min_days, spec.client.min_coverage, spec.client.max_zero_share)
    kept, dropped = list[Placed](), list[Dropped]()
    for item in population.placed:
        household = Household(item.client, 0, population.step, item.values[:, 0])  # type: ignore[arg-type]
        reason = limits.broken_by(household)
        if reason:
            dropped.append(Dropped(item.client, reason))
        else:
            kept.append(item)
    return kept, tuple(dropped)


def rules(population: Population, spec: OwnSpec) -> tuple[str, ...]:
    """Return what was done to the readings, in words, with counts."""
    counts, step = population.counts.copy(), population.step
    rows = f"of {counts['rows']} readings"
    counts["without a value"] = max(0, counts["without a value"] - counts["zero"] - counts["negative"])
    said = [f"{counts[cause]} {rows} {words}" for cause, words in _WORDS.items() if counts[cause]]
    if counts["conflicting"]:
        how = {"first": "the first is kept", "mean": "their mean is taken", "sum": "they are added up"}
        undecided = "duplicates says first, mean or sum"
        said.append(
            f"{counts['conflicting']} {rows} contradict another of the same stamp: {how.get(spec.duplicates, undecided)}"
        )
    if spec.time.timezone != "UTC":
        said.append(f"stamps of the clock of {spec.time.timezone} turned into UTC")
    if spec.time.stamp == "end":
        said.append("stamps mark the end of their step in the files, its beginning here")
    said.append(f"a step of {step:g} s" + (f"; {_how(spec)}" if population.coarser else ""))
    if spec.value.to not in (None, spec.value.unit):
        said.append(f"{spec.value.unit} turned into {spec.value.to}")
    if spec.time.new_run_after:
        said.append(f"a gap of more than {spec.time.new_run_after} begins a new run")
    limits = spec.client
    asked = {
        f"min_days: a client with readings for fewer than {limits.min_days:g} days is dropped": limits.min_days,
        f"min_coverage: one with less than {limits.min_coverage:.0%} of its span's readings is dropped": (
            limits.min_coverage
        ),
        f"max_zero_share: one whose readings are zero in more than {limits.max_zero_share:.0%} is dropped": (
            limits.max_zero_share < 1
        ),
    }
    return (*said, *(words for words, applies in asked.items() if applies))


def _how(spec: OwnSpec) -> str:
    auto = "sum" if what_unit(spec.value.unit) == "energy" else "mean"
    how = auto if spec.value.aggregate == "auto" else spec.value.aggregate
    return f"the readings in a step become their {how}; a step that lacks one is missing"


def _cause(error: DataError) -> str:
    """Return an error's words without names and numbers, so that many clients with one trouble are one problem."""
    words = error.problems[0].split("'")[-1] if "'" in error.problems[0] else error.problems[0]
    return "".join(letter for letter in words if letter.isalpha())[:40]
