"""OpenACC: cars under adaptive cruise control in platoons at 10 Hz, European Commission JRC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from ..cache import cached
from ..errors import raise_if_any
from ..home import find_root
from ..registry import About, register_source
from ..series import ClientSeries
from .openacc_files import RATE, Drive, read_drives
from .traces import (
    Array,
    Layout,
    Trace,
    TraceRules,
    acceleration,
    assemble,
    resample,
    sine_of_grade,
    specific_power,
)

CHANNELS = {"speed": "m/s", "gap": "m", "power": "kW/t", "leader_speed": "m/s"}
TARGETS = ("speed", "gap", "power")
ATTRIBUTES = ("powertrain", "runs", "minutes", "position")
# ours, from the makers' names: the campaign's files do not say
BATTERY = (
    "E_TRON",
    "E-TRON",
    "I3",
    "I_PACE",
    "I-PACE",
    "TESLA",
    "GOLFE",
    "GOLF_E",
    "LEAF",
    "ZOE",
    "IONIQ_EV",
)
LEADING = ("TARGET",)


@register_source("openacc")
@dataclass(frozen=True)
class OpenACC:
    """Cars of the OpenACC campaigns; every run is a run of its car, and no window crosses runs.

    Reads the part files as published, or the prepared ``trajectories_10hz.parquet``.

    Args:
        root: folder or one part file; None for what was fetched or prepared.
        target: ``"speed"`` m/s, ``"gap"`` m to the car ahead, or ``"power"``, the tractive-power proxy, kW/t.
        covariates: further channels, of ``speed``, ``gap``, ``power``, ``leader_speed``.
        frequency: Hz, one that divides 10.
        resampling: ``"mean"`` of the steps, missing where one is, or ``"pick"`` the first of each.
        grade: of the power: ``"flat"``, or from GNSS ``"altitude"`` over 5 s.
        min_minutes: drop cars with fewer observed minutes of the target.
        min_run_seconds: leave out shorter runs.

    Raises:
        DataError: all options out of range, in one message.

    References:
        Makridis, Mattas, Anesiadou, Ciuffo, OpenACC. An open database of car-following experiments to study the properties
        of commercial ACC systems, Transportation Research C 125:103047, 2021.
    """

    about: ClassVar[About] = About(
        kind="car following",
        what="cars under adaptive cruise control at 10 Hz; speed, gap or power seconds ahead",
        clients="11 in the ZalaZONE platform campaign, some 30 in all",
        licence="CC BY 4.0",
        attributes=ATTRIBUTES,
        needs="root=FOLDER (download the part files of a campaign from "
        "https://jeodpp.jrc.ec.europa.eu/ftp/jrc-opendata/TransportExpData/JRCDBT0001/LATEST/)",
        size="some 100 MB a campaign",
        attribution="European Commission, Joint Research Centre, OpenACC (JRCDBT0001), "
        "https://data.europa.eu/89h/9702c950-c80f-4d2f-982f-44d06ea0009f; Makridis et al. (2021), "
        "Transportation Research C 125:103047",
    )

    root: str | None = None
    target: Literal["speed", "gap", "power"] = "speed"
    covariates: tuple[str, ...] = ()
    frequency: int = 10
    resampling: Literal["mean", "pick"] = "mean"
    grade: Literal["flat", "altitude"] = "flat"
    min_minutes: float = 1.0
    min_run_seconds: float = 10.0

    def __post_init__(self) -> None:
        problems = TraceRules(self.min_minutes, self.min_run_seconds).problems()
        raise_if_any(_problems(self) + problems)

    def load(self) -> ClientSeries:
        """Return the cars that keep the rules.

        Raises:
            DataError: nothing to read at ``root``, a broken file, or no car left.
        """
        root = find_root("openacc", self.root)
        return cached(self, "openacc", root, lambda: follow("openacc", read_drives(root), self))


def follow(name: str, drives: Sequence[Drive], options: Any) -> ClientSeries:
    """Return drives as the series that ``OpenACC``'s options ask for; its twin has the same."""
    wanted = (options.target, *options.covariates)
    layout = Layout(name, CHANNELS[options.target], wanted, 1 / options.frequency)
    rules = TraceRules(options.min_minutes, options.min_run_seconds)
    every = RATE // options.frequency
    traces = (
        Trace(
            drive.car,
            drive.run,
            drive.start,
            resample(_channels(drive, wanted, options.grade), every, options.resampling),
            {"position": drive.position},
        )
        for drive in drives
    )
    series, runs = assemble(layout, traces, rules)
    return replace(series, attributes=_attributes(series, runs), rules=_said(options, every) + series.rules)


def _channels(drive: Drive, wanted: Sequence[str], grade: str) -> Array:
    """Return ``(steps, channels)`` at 10 Hz."""
    columns: dict[str, Array] = {"speed": drive.speed, "gap": drive.gap, "leader_speed": drive.leader_speed}
    if "power" in wanted:
        step = 1 / RATE
        slope = sine_of_grade(drive.speed, drive.altitude, step) if grade == "altitude" else 0.0
        columns["power"] = specific_power(drive.speed, acceleration(drive.speed, step), slope)
    return np.stack([columns[name] for name in wanted], axis=1)


def _said(options: Any, every: int) -> tuple[str, ...]:
    said = ["missing GNSS is a missing value; runs stand in the order of their part numbers"]
    if isinstance(options, OpenACC):
        said.append(
            "each car is split in time by itself: a test part may have been driven in one platoon with another car's "
            "training part"
        )
    if every > 1:
        how = {"mean": f"the mean of {every} steps, missing where one is", "pick": f"every {every}th step"}
        said.append(f"{options.frequency} Hz from 10 Hz: {how[options.resampling]}")
    if "power" in (options.target, *options.covariates):
        said.append(
            "power is a proxy, v (1.1 a + 9.81 sin(grade) + 0.132) + 0.000302 v^3 kW/t, of backward differences at 10 Hz, "
            + ("grade from altitude" if options.grade == "altitude" else "on a flat road")
        )
    return tuple(said)


def _attributes(series: ClientSeries, runs: Mapping[str, Sequence[Trace]]) -> Any:
    known = series.attributes.copy()
    known.insert(0, "powertrain", [powertrain(car) for car in series.clients])
    known["position"] = [
        float(np.mean([run.known["position"] for run in runs[car]])) for car in series.clients
    ]
    return known


def powertrain(car: str) -> str:
    """Return ``"BEV"``, ``"ICE or hybrid"``, or ``"lead/target car"``: our note, from the car's name."""
    name = car.upper().replace(" ", "_")
    if any(part in name for part in LEADING):
        return "lead/target car"
    return "BEV" if any(part in name for part in BATTERY) else "ICE or hybrid"


def _problems(source: OpenACC) -> list[str]:
    problems = []
    for name, known in (
        ("target", TARGETS),
        ("resampling", ("mean", "pick")),
        ("grade", ("flat", "altitude")),
    ):
        if getattr(source, name) not in known:
            problems.append(f"{name} must be one of {', '.join(known)}, got {getattr(source, name)!r}.")
    if source.frequency < 1 or RATE % source.frequency:
        problems.append(f"frequency must be 1, 2, 5 or 10 Hz, got {source.frequency}.")
    unknown = [name for name in source.covariates if name not in CHANNELS]
    if unknown:
        problems.append(f"covariates must be of {', '.join(CHANNELS)}, got {', '.join(map(repr, unknown))}.")
    wanted = (source.target, *source.covariates)
    if len(set(wanted)) < len(wanted):
        problems.append(f"covariates must differ from the target and each other, got {', '.join(wanted)}.")
    return problems
