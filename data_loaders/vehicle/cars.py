"""OpenACC's offline twin: cars that follow simulated leaders, with a dial for how far they differ."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..dial import Array
from ..errors import DataError, did_you_mean, raise_if_any
from ..registry import About, register_source
from ..series import ClientSeries
from .following import LAW, NAMES, STEP, STYLES, follow_leaders, leader_speeds
from .openacc import OpenACC, follow
from .openacc_files import Drive

_DAY = 1570492800.0  # 8 October 2019, as OpenACC's
_SLOWEST, _FASTEST = 3.0, 16.0  # m/s, of leaders
_GNSS_NOISE = 0.02  # m/s
_MEAN_GAP = 15  # steps


@register_source("cars")
@dataclass(frozen=True)
class SimulatedCars:
    """Cars under the Intelligent Driver Model, each behind its own leader, in several runs at 10 Hz.

    Client ``k`` drives in style ``styles[k % len(styles)]``; it is the same car in a population of any size. Targets,
    channels and rules are those of ``openacc``, of which this is the twin.

    Args:
        clients: how many.
        runs: of each car.
        run_seconds: of each run.
        heterogeneity: the dial, 0 (all drive alike) to 1 (styles and own habits in full); every parameter lies on the
            straight line between.
        seed: of everything random, together with the numbers of client and run.
        missing: share of speeds that GNSS misses, in short gaps; about.
        styles: which, in turn.
        target: ``"speed"`` m/s, ``"gap"`` m, or ``"power"`` kW/t.
        covariates: further channels, of ``speed``, ``gap``, ``power``, ``leader_speed``.
        frequency: Hz, one that divides 10.
        resampling: ``"mean"`` of the steps, missing where one is, or ``"pick"`` the first of each.

    Raises:
        DataError: all options out of range, in one message.

    References:
        Treiber, Hennecke, Helbing, Congested traffic states in empirical observations and microscopic simulations,
        Physical Review E 62(2), 2000.
    """

    about: ClassVar[About] = About(
        kind="car following",
        what="simulated cars behind leaders at 10 Hz, with a dial for how far they differ",
        clients="any number",
        licence="Apache-2.0",
        attributes=("style", "true_distance", *NAMES, "runs", "minutes"),
    )
    grade: ClassVar[Literal["flat"]] = "flat"
    min_minutes: ClassVar[float] = 0.0
    min_run_seconds: ClassVar[float] = 0.0

    clients: int = 12
    runs: int = 4
    run_seconds: float = 150.0
    heterogeneity: float = 0.5
    seed: int = 0
    missing: float = 0.0
    styles: tuple[str, ...] = tuple(STYLES)
    target: Literal["speed", "gap", "power"] = "speed"
    covariates: tuple[str, ...] = ()
    frequency: int = 10
    resampling: Literal["mean", "pick"] = "mean"

    def __post_init__(self) -> None:
        raise_if_any(_problems(self))

    def load(self) -> ClientSeries:
        """Return the population; ``attributes`` holds each car's true parameters and distance from the law."""
        kinds = [self.styles[client % len(self.styles)] for client in range(self.clients)]
        own = np.stack(
            [np.random.default_rng([self.seed, k]).standard_normal(len(NAMES)) for k in range(self.clients)]
        )
        parameters = LAW.parameters(kinds, own, self.heterogeneity)
        series = follow("cars", self._drives(parameters), self)
        known = series.attributes[["runs", "minutes"]].copy()
        known.insert(0, "style", kinds)
        known.insert(1, "true_distance", LAW.distance(parameters, self.styles, self.heterogeneity))
        for place, name in enumerate(NAMES):
            known.insert(2 + place, name, parameters[:, place])
        rule = f"simulated with heterogeneity {self.heterogeneity:g} and seed {self.seed}"
        return replace(series, attributes=known, rules=(rule, *series.rules))

    def _drives(self, parameters: Array) -> list[Drive]:
        steps = round(self.run_seconds / STEP)
        which = [(client, run) for client in range(self.clients) for run in range(self.runs)]
        draws = [_draw([self.seed, *pair], steps) for pair in which]
        wanted, leading, driving, noise, gaps = (np.stack(part, axis=1) for part in zip(*draws, strict=True))
        leader = leader_speeds(wanted, leading)
        speed, gap = follow_leaders(np.repeat(parameters, self.runs, axis=0), leader, driving)
        speed = np.maximum(speed + _GNSS_NOISE * noise, 0)
        lost = _lost(gaps, self.missing)
        speed[lost], gap[lost] = np.nan, np.nan
        return [
            Drive(
                car=f"car{client:05d}",
                run=f"run{run + 1}",
                position=2,
                start=_DAY + run * self.run_seconds,
                speed=speed[:, place],
                gap=gap[:, place],
                leader_speed=leader[:, place],
                altitude=np.zeros(steps),
            )
            for place, (client, run) in enumerate(which)
        ]


def _draw(key: list[int], steps: int) -> tuple[Array, ...]:
    """Return one run's draws, ``(steps,)`` each, a function of ``(seed, client, run)`` alone.

    The speed its leader makes for, standard normals of the leader, the driver and GNSS, and uniforms of its gaps.
    """
    random = np.random.default_rng([*key, 1])
    changes = 2 + int(steps * STEP / 5)  # at least 5 s lie between two
    times = np.cumsum(5 + random.exponential(12, changes))
    speeds = random.uniform(_SLOWEST, _FASTEST, changes + 1)
    wanted = speeds[np.searchsorted(times, np.arange(steps) * STEP)]
    leading, driving, noise = random.standard_normal((3, steps))
    return wanted, leading, driving, noise, random.random(steps)


def _lost(uniform: Array, share: float) -> np.ndarray:
    """Return where GNSS is lost, ``(steps, cars)``: gaps of ``_MEAN_GAP`` steps; a run's ends are never lost."""
    if share == 0:
        return np.zeros(uniform.shape, np.bool_)
    begins = np.where(uniform < share / _MEAN_GAP, np.arange(len(uniform))[:, None] + _MEAN_GAP, 0)
    lost = np.arange(len(uniform))[:, None] < np.maximum.accumulate(begins, axis=0)
    lost[[0, -1]] = False
    return np.asarray(lost)


def _problems(source: SimulatedCars) -> list[str]:
    problems = [
        f"{name} must be at least {low}, got {getattr(source, name)}."
        for name, low in (("clients", 1), ("runs", 1), ("run_seconds", 1), ("seed", 0))
        if not getattr(source, name) >= low
    ]
    if not 0 <= source.heterogeneity <= 1:
        problems.append(f"heterogeneity must lie between 0 and 1, got {source.heterogeneity}.")
    if not 0 <= source.missing < 1:
        problems.append(f"missing must be a fraction in [0, 1), got {source.missing}.")
    if not source.styles:
        problems.append(f"styles must name at least one of {', '.join(STYLES)}.")
    problems += [
        f"There is no style {name!r}. {did_you_mean(name, STYLES)}"
        for name in source.styles
        if name not in STYLES
    ]
    return problems + _of_the_original(source)


def _of_the_original(source: SimulatedCars) -> list[str]:
    """Return what OpenACC says of the options that both have."""
    try:
        OpenACC(
            target=source.target,
            covariates=source.covariates,
            frequency=source.frequency,
            resampling=source.resampling,
        )
    except DataError as error:
        return list(error.problems)
    return []
