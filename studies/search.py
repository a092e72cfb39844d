"""The search for hyperparameters as pure functions of the finished trials.

Only finished trials are ever stored, each in one transaction. The next proposal depends on them, the study's seed
and the method's name alone, so that a study killed in the middle of a trial proposes the same one again and goes
on exactly as one that was not killed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .config import SearchConfig
from .errors import StudyError

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Space:
    """What is tuned of one method.

    Args:
        label: the method's label; part of the sampler's seed.
        ranges: parameter -> ``{"low", "high", "log", "step"}`` or ``{"choices"}``; empty if nothing is tuned.
        defaults: parameter -> the method's own value, which the first trial tries.
        higher: more of the objective is better, as of an accuracy.
    """

    label: str
    ranges: Mapping[str, Mapping[str, Any]]
    defaults: Mapping[str, Any]
    higher: bool = False

    def distributions(self) -> dict[str, BaseDistribution]:
        """The ranges as Optuna distributions; whole numbers where the default is one."""
        return {name: _distribution(spec, self.defaults.get(name)) for name, spec in self.ranges.items()}


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Args:
        params: what was tried.
        curve: round -> value of the objective on the validation span.
        state: ``"complete"``, ``"pruned"`` or ``"diverged"``.
        reason: why it ended early.
        run: the MLflow run that holds it.
    """

    params: Mapping[str, Any]
    curve: Mapping[int, float]
    state: str = "complete"
    reason: str = ""
    run: str = ""

    @property
    def value(self) -> float:
        """Objective at the last round; NaN for a trial that diverged or was never evaluated."""
        return self.curve[max(self.curve)] if self.curve and self.state != "diverged" else math.nan


def propose(space: Space, history: Sequence[FrozenTrial], config: SearchConfig) -> dict[str, Any]:
    """Hyperparameters of the next trial: the defaults first, then a spread over the ranges, then TPE's proposals.

    Args:
        space: what is tuned.
        history: the method's finished trials, in order.
        config: the study's search settings.
    """
    distributions = space.distributions()
    if not history:
        return {name: _clipped(space.defaults[name], dist) for name, dist in distributions.items()}
    if len(history) < config.startup:
        return {name: _spread(name, dist, len(history), config) for name, dist in distributions.items()}
    import optuna

    seed = int.from_bytes(_digest(config.seed, space.label, len(history)), "big")
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.startup)
    return dict(_study(history, higher=space.higher, sampler=sampler).ask(distributions).params)


def _spread(name: str, distribution: BaseDistribution, number: int, config: SearchConfig) -> Any:
    """A value from a Latin hypercube over the trials before TPE takes over.

    It depends on the parameter's name and not on the method: all methods try the same learning rates, so that luck
    in drawing them does not look like a difference between methods.
    """
    import numpy as np

    rng = np.random.default_rng(list(_digest(config.seed, name)))
    places = max(1, min(config.startup, config.trials) - 1)
    share = (rng.permutation(places) + rng.random(places)) / places
    return _at(distribution, float(share[(number - 1) % places]))


def _at(distribution: BaseDistribution, share: float) -> Any:
    """The value at ``share`` of the way through a range, evenly or on its logarithmic scale."""
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        return choices[int(share * len(choices))]
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    value = low * (high / low) ** share if distribution.log else low + (high - low) * share  # type: ignore[attr-defined]
    step = distribution.step  # type: ignore[attr-defined]
    return type(low)(low + round((value - low) / step) * step) if step else value


@dataclass
class Pruner:
    """Says by round whether a trial is worth its remaining rounds, given the finished ones."""

    trial: optuna.Trial | None

    @classmethod
    def of(
        cls, history: Sequence[FrozenTrial], config: SearchConfig, rounds: int, *, higher: bool = False
    ) -> Pruner:
        """A median pruner over ``history``; one that never prunes when pruning is off."""
        import optuna

        if not config.pruning:
            return cls(None)
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=config.prune_after, n_warmup_steps=math.ceil(config.warmup * rounds)
        )
        return cls(_study(history, higher=higher, pruner=pruner).ask())

    def prunes(self, round_: int, value: float) -> bool:
        """Report the objective at a round; whether to stop there."""
        if self.trial is None:
            return False
        self.trial.report(value, round_)
        return bool(self.trial.should_prune())


def frozen(outcome: Outcome, space: Space) -> FrozenTrial:
    """The finished trial as Optuna stores it.

    A trial that diverged is stored as pruned with NaN, not as failed: the sampler ignores failed trials and would
    go back to where they failed.
    """
    import optuna

    complete = outcome.state == "complete"
    curve = dict(outcome.curve)
    if outcome.state == "diverged":
        curve[max(curve, default=0) + 1] = math.nan
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED,
        value=outcome.value if complete else None,
        params=dict(outcome.params),
        distributions=space.distributions(),
        intermediate_values=curve,
        user_attrs={"state": outcome.state, "reason": outcome.reason, "run": outcome.run},
    )


def selected(label: str, history: Sequence[FrozenTrial], *, higher: bool = False) -> FrozenTrial:
    """The trial with the best objective at its last round.

    Args:
        label: of the method.
        history: its finished trials.
        higher: more of the objective is better.

    Raises:
        StudyError: no trial came to its end.
    """
    done = [
        t for t in history if t.state.name == "COMPLETE" and t.value is not None and math.isfinite(t.value)
    ]
    if not done:
        reasons = sorted({str(t.user_attrs.get("reason", "")) for t in history} - {""})
        raise StudyError(
            f"No trial of method {label!r} reached its last round ({len(history)} tried). "
            f"{' '.join(reasons[:1])} "
            "Narrow the search, for example with search.ranges: {lr: {low: 0.001, high: 0.1, log: true}}."
        )
    sign = -1 if higher else 1
    return min(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number))


def direction(*, higher: bool) -> Literal["minimize", "maximize"]:
    """Optuna's word for it."""
    return "maximize" if higher else "minimize"


def _study(history: Sequence[FrozenTrial], *, higher: bool, **parts: Any) -> optuna.Study:
    """A study in memory that knows ``history``."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction=direction(higher=higher), **parts)
    study.add_trials(list(history))
    return study


def _distribution(spec: Mapping[str, Any], default: object) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "choices" in spec:
        return CategoricalDistribution(tuple(spec["choices"]))
    log, step = bool(spec.get("log", False)), spec.get("step")
    if isinstance(default, int) and not isinstance(default, bool):
        return IntDistribution(int(spec["low"]), int(spec["high"]), log=log, step=int(step or 1))
    return FloatDistribution(float(spec["low"]), float(spec["high"]), log=log, step=step)


def _clipped(value: Any, distribution: BaseDistribution) -> Any:
    """The default, moved into the range where a study's own range leaves it out."""
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        return value if value in choices else choices[0]
    low, high = getattr(distribution, "low", value), getattr(distribution, "high", value)
    return min(max(value, low), high)


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4]
