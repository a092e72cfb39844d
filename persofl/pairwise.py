"""How far clients are from each other, measured as a method says: what graphs and clusters are made of."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from personalization.pairwise import pairwise_distances

from .controls import given_distances, is_given
from .data import ClientData, facts_of
from .errors import PersoflError, unknown_name
from .features import FEATURES, MODEL_FEATURES
from .placed import HOST, placed
from .wire import ProtocolConfig, Toll, measure_pairs_by_protocol

if TYPE_CHECKING:
    from .personaliser import DistanceConfig


@dataclass(frozen=True, eq=False)
class Between:
    """Distances between all clients, as graphs and clusters use them.

    Attributes:
        calibrated: what remains beyond chance, symmetric with a zero diagonal, ``(clients, clients)``.
        z: how far each lies beyond chance, in standard deviations, ``(clients, clients)``; None where there is no null.
        known: what was found from them, kept for the next run on the same data.
        toll: what measuring them cost, where a protocol did.
    """

    calibrated: Tensor
    z: Tensor | None = None
    known: dict[Any, Any] = field(default_factory=dict, repr=False)
    toll: Toll | None = None

    def __len__(self) -> int:
        return len(self.calibrated)

    def permuted(self, seed: int) -> Between:
        """The control: the same distances, but between clients dealt at random; see ``Distances.permuted``."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        z = None if self.z is None else self.z[order][:, order]
        return Between(self.calibrated[order][:, order], z, toll=self.toll)


# A function of the data, which never change, and of the settings: measured once for all trials and seeds of a process.
_measured: WeakKeyDictionary[Any, dict[str, Between]] = WeakKeyDictionary()


def measure_pairwise(data: ClientData, config: DistanceConfig) -> Between:
    """Distances between all clients' training spans.

    Args:
        data: the population.
        config: what is compared and how; the controls ``"size"`` and ``"attribute:NAME"`` give the difference of the two
            clients' numbers.

    Raises:
        ValueError: unknown kind, features or attribute; features that change with the model; a client with too few
            samples.
    """
    data = placed(data, HOST)  # one key, wherever the run is
    try:
        known = _measured.setdefault(data, {})
    except TypeError:  # data of one's own that cannot be a key
        known = {}
    key = repr(replace(config, permute=False, deal=None))
    if key not in known:
        known[key] = _measure(data, config, facts_of(data).clients)
    if not config.permute:
        return known[key]
    if repr(config) not in known:
        known[repr(config)] = known[key].permuted(config.number)
    return known[repr(config)]


def named(features: list[Tensor], names: Sequence[str] | None) -> list[Tensor] | dict[str, Tensor]:
    """The features by their clients' names, for error messages; as they are where names do not tell clients apart."""
    if names is None or len(set(names)) < len(features):
        return features
    return dict(zip(names, features, strict=True))


def _by_protocol(features: list[Tensor], config: DistanceConfig) -> Between:
    """Raw distances: with noise, or from sketches alone, there is no null to calibrate them by."""
    protocol = ProtocolConfig.of(config.protocol)
    found, toll = measure_pairs_by_protocol(features, protocol, seed=config.seed, budget=protocol.budget())
    return Between(found, toll=toll)


def _measure(data: ClientData, config: DistanceConfig, names: Sequence[str]) -> Between:
    if is_given(config.features):
        value = given_distances(data, config.features).value
        return Between((value.unsqueeze(1) - value).abs())
    if config.features in MODEL_FEATURES:
        raise PersoflError(
            f"features={config.features!r} change with the model, but graphs and clusters are made once, before it is "
            f"trained. Choose one of {', '.join(FEATURES)}."
        )
    if config.features not in FEATURES:
        raise unknown_name("features", config.features, [*FEATURES, "size", "attribute:NAME"])
    features, own = FEATURES[config.features](data), config.options
    if config.protocol:
        return _by_protocol(features, config)
    pairs = pairwise_distances(named(features, names), config.kind, seed=config.seed, **own)
    if not pairs.converged.all():
        k, j = (~pairs.converged).nonzero()[0].tolist()
        warnings.warn(
            f"The distance of clients {names[k]!r} and {names[j]!r} did not converge.", stacklevel=2
        )
    return Between(pairs.calibrated, pairs.z)
