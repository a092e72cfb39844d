"""Distances measured by a protocol: what crosses the wire, what it costs of a privacy budget, and the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from personalization import Distances
from personalization.kind import AnyDistance, DistanceKind
from personalization.population import build_kind
from personalization.protocols import (
    ClassGaussians,
    FedWaD,
    GaussianNoise,
    Outcome,
    PairwiseMasks,
    PrivacyBudget,
    Protocol,
    QuantileSketches,
    SummedReference,
    TriangleWad,
)
from personalization.samples import SampleDistance

from .errors import PersoflError, unknown_name

TO_POPULATION = ("summed_reference",)
"""Protocols that compare each client with the population."""
BETWEEN: Mapping[str, type[Protocol]] = {
    "quantile_sketches": QuantileSketches,
    "feature_gaussians": ClassGaussians,
    "triangle_wad": TriangleWad,
    "fedwad": FedWaD,
}
"""Protocols that compare clients with each other, for graphs, clusters and gates."""
OF_SUMS = ("weighting", "draws", "gate", "null_from")
"""Options of a comparison with the population, beside those of its kind."""


@dataclass(frozen=True)
class ProtocolConfig:
    """How distances are measured without sharing samples.

    Attributes:
        name: ``"summed_reference"``, or for distances between clients one of ``BETWEEN``.
        epsilon: of one measurement; None adds no noise.
        delta: of the guarantee, and of the run's budget.
        clip: norm that a sample's features are clipped to; None takes 1.5 times the root of their number.
        unit: what noise protects, one ``"client"`` or one ``"sample"``.
        limit: the largest epsilon that the run may spend; by default only counted.
        options: of the protocol itself, such as ``projections`` of sketches or ``rounds`` of FedWaD; what is compared with
            the population is the distance's own ``kind`` and ``options``.
    """

    name: str
    epsilon: float | None = None
    delta: float = 1e-5
    clip: float | None = None
    unit: str = "sample"
    limit: float = math.inf
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = [*TO_POPULATION, *BETWEEN]
        if self.name not in known:
            raise unknown_name("protocol", self.name, known)
        for key in ("epsilon", "delta", "clip", "limit"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise PersoflError(f"protocol {self.name!r}: {key}={value!r} is not a number.")
        if self.epsilon is None and self.limit != math.inf:
            raise PersoflError(
                f"protocol {self.name!r}: limit={self.limit:g} counts noise, and without epsilon there is none. Give "
                "epsilon, or leave limit out."
            )
        self.noise(1, 0)  # refuses what is out of range
        self.budget()
        if self.name in BETWEEN:
            self.between(1, 0)
        elif self.options:
            raise PersoflError(
                f"protocol {self.name!r} has no options of its own ({', '.join(sorted(self.options))}); give those of the "
                "distance, and weighting, draws, gate and null_from, in distance.options."
            )

    @staticmethod
    def of(given: Mapping[str, Any]) -> ProtocolConfig:
        """From keys and values, as a study's file has them.

        Raises:
            PersoflError: an unknown key, no name, or a value out of range.
        """
        known = [item.name for item in fields(ProtocolConfig)]
        for key in given:
            if key not in known:
                raise unknown_name("key of protocol", str(key), known)
        if "name" not in given:
            raise PersoflError(f"protocol needs a name: {', '.join([*TO_POPULATION, *BETWEEN])}.")
        return ProtocolConfig(**given)

    def check_null(self, null_from: str | None) -> None:
        """Whether distances to the population can be judged so, see :func:`personalization.distance_to_population`.

        Raises:
            PersoflError: by samples in one place, or by exact counts beside noise.
        """
        if null_from == "pool":
            raise PersoflError(
                "distance.options.null_from='pool' judges by samples in one place; with protocol "
                f"{self.name!r} they stay with the clients: take 'halves', which needs sums only, or leave it out."
            )
        if null_from == "halves" and self.epsilon is not None:
            raise PersoflError(
                "distance.options.null_from='halves' sends exact counts, which the noise of epsilon does not hide. Leave "
                "one of them out."
            )

    def noise(self, features: int, seed: int) -> GaussianNoise | None:
        """The noise of a run's first release; None without epsilon."""
        if self.epsilon is None:
            return None
        clip = self.clip if self.clip is not None else 1.5 * math.sqrt(features)
        unit: Any = self.unit
        return GaussianNoise(self.epsilon, self.delta, clip, unit, seed=seed * 1_000_003)

    def between(self, features: int, seed: int) -> Protocol:
        """The protocol between clients whose samples have so many features.

        Raises:
            PersoflError: a protocol that only compares with the population, an option that it does not have.
            ValueError: an option out of range.
        """
        if self.name not in BETWEEN:
            raise PersoflError(
                f"protocol {self.name!r} compares each client with the population; graphs, clusters and gates need one of "
                f"{', '.join(BETWEEN)}."
            )
        kind = BETWEEN[self.name]
        known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
        for option in self.options:
            if option not in known - {"seed", "noise"}:
                raise unknown_name(f"option of protocol {self.name!r}", option, known - {"seed", "noise"})
        given = {"seed": seed, "noise": self.noise(features, seed), **self.options}
        return kind(**{name: value for name, value in given.items() if name in known})

    def budget(self) -> PrivacyBudget | None:
        """A budget from which nothing was spent; None without noise."""
        return None if self.epsilon is None else PrivacyBudget(self.limit, self.delta, self.unit)


@dataclass(frozen=True)
class Toll:
    """What one measurement cost.

    Attributes:
        protocol: its name.
        up: bytes that a client sends, on average.
        down: bytes that it receives.
        rounds: round trips.
        epsilon: spent by the run so far, this measurement included; NaN without noise.
        learns: what an honest-but-curious server learns, in words.
        table: the messages by kind.
    """

    protocol: str
    up: float
    down: float
    rounds: int
    epsilon: float
    learns: str
    table: str


def measure_by_protocol(
    features: Sequence[Tensor],
    config: ProtocolConfig,
    kind: str,
    options: Mapping[str, Any],
    *,
    seed: int = 0,
    release: int = 0,
    budget: PrivacyBudget | None = None,
) -> tuple[Distances, Toll]:
    """Distances of all clients to the population of the others, as the parties would find them.

    Args:
        features: one tensor ``(n_k, F)`` per client.
        config: names a protocol of ``TO_POPULATION``.
        kind: of the distance, ``"sliced"`` or ``"gaussian"``.
        options: of the kind, and ``weighting``, ``draws``, ``gate`` and ``null_from``.
        seed: of the kind, of the null and of the noise.
        release: how many times the run measured before.
        budget: pays for the noise before anything is sent.

    Raises:
        PersoflError: a protocol between clients, or a distance that needs samples.
        BudgetExhaustedError: the budget does not cover it.
    """
    if config.name not in TO_POPULATION:
        raise PersoflError(
            f"protocol {config.name!r} compares clients with each other; to compare each with the population take "
            f"{', '.join(TO_POPULATION)}."
        )
    of_sums = {name: value for name, value in options.items() if name in OF_SUMS}
    own = {name: value for name, value in options.items() if name not in OF_SUMS}
    built = check_sums(config.name, kind, build_kind(kind, seed, own))
    noise, masks = config.noise(features[0].shape[1], seed), PairwiseMasks(seed=seed)
    protocol = SummedReference(kind=built, noise=noise, masks=masks, seed=seed, **of_sums)
    outcome = protocol.run(features, budget=budget, record=False, release=release)
    if outcome.distances is None:
        raise PersoflError(f"protocol {config.name!r} found no distances.")
    return outcome.distances, _toll(config.name, protocol, outcome, budget)


def check_sums(protocol: str, kind: str, built: AnyDistance) -> DistanceKind:
    """The distance, if a protocol of sums can compute it.

    Raises:
        PersoflError: it needs samples.
    """
    if isinstance(built, SampleDistance):
        raise PersoflError(
            f"kind={kind!r} needs the samples in one place; the protocol {protocol!r} has sums only. Take 'sliced' or "
            "'gaussian'."
        )
    return built


def measure_pairs_by_protocol(
    features: Sequence[Tensor], config: ProtocolConfig, *, seed: int = 0, budget: PrivacyBudget | None = None
) -> tuple[Tensor, Toll]:
    """Distances between all clients ``(clients, clients)``, raw, as the parties would find them.

    Args:
        features: one tensor ``(n_k, F)`` per client.
        config: names a protocol of ``BETWEEN``.
        seed: of directions, references and noise.
        budget: pays for the noise before anything is sent.

    Raises:
        PersoflError: a protocol that only compares with the population, or one that takes no noise.
        BudgetExhaustedError: the budget does not cover it.
    """
    protocol = config.between(features[0].shape[1], seed)
    outcome = protocol.run(features, budget=budget, record=False)
    if outcome.pairwise is None:
        raise PersoflError(f"protocol {config.name!r} found no distances.")
    return outcome.pairwise, _toll(config.name, protocol, outcome, budget)


def _toll(name: str, protocol: Protocol, outcome: Outcome, budget: PrivacyBudget | None) -> Toll:
    transcript = outcome.transcript
    return Toll(
        protocol=name,
        up=transcript.bytes_up() / transcript.clients,
        down=transcript.bytes_down() / transcript.clients,
        rounds=transcript.rounds,
        epsilon=math.nan if budget is None else budget.epsilon(),
        learns=protocol.learns(),
        table=transcript.table(),
    )
