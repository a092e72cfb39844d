"""The interface of every protocol: what it sends, what the server learns, what noise protects, and the run itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from ..budget import PrivacyBudget
from ..distances import Distances
from ..errors import Features, check_features, check_whole
from ..numeric import for_squares, single
from .checks import check_sizes
from .noise import GaussianNoise
from .transcript import Message, Transcript


@dataclass(frozen=True)
class Outcome:
    """What a protocol found out, and what was sent for it.

    Attributes:
        transcript: every message.
        distances: of each client to the population of the others, calibrated; None where the protocol only
            compares pairs.
        pairwise: distances between clients, ``(clients, clients)``, raw, in the units of the features; None where
            it only compares with the population.
        bound: upper bound on the error of ``pairwise``, likewise; None where the protocol states none.
    """

    transcript: Transcript
    distances: Distances | None = None
    pairwise: Tensor | None = None
    bound: Tensor | None = None


class Protocol(ABC):
    """A way to compute distances between parties that keep their samples.

    Final classes are frozen dataclasses. The parties follow the protocol and look at all they receive (honest but
    curious); what a party could learn beyond its result is said by :meth:`learns` and can be tried on the arrays
    that :meth:`run` records. All parties are played in one process.
    """

    noise: GaussianNoise | None

    @abstractmethod
    def learns(self) -> str:
        """What an honest-but-curious server learns about one client, in words."""

    def plan(
        self, sizes: Sequence[int], features: int, *, dtype: torch.dtype = torch.float32, classes: int = 1
    ) -> Transcript:
        """The messages of a run, with their bytes, before there is one.

        Args:
            sizes: the clients' numbers of samples.
            features: F.
            dtype: of the samples.
            classes: how many labels there are, for :class:`ClassGaussians`.

        Raises:
            ValueError: fewer than two clients, fewer than two samples, no feature or class, or no floating dtype.
        """
        check_sizes(sizes, features)
        check_whole("classes", classes, "how many labels there are")
        if not dtype.is_floating_point:
            raise ValueError(f"dtype={dtype}: samples are floating-point numbers, such as torch.float32.")
        messages = self._plan(sizes, features, for_squares(dtype), classes)
        return Transcript(tuple(messages), len(sizes))

    def run(
        self,
        features: Features,
        *,
        labels: Sequence[Tensor] | None = None,
        budget: PrivacyBudget | None = None,
        record: bool = True,
        release: int = 0,
    ) -> Outcome:
        """Play all parties.

        Args:
            features: one tensor ``(n_k, F)`` per client, as for :func:`personalization.distance_to_population`.
            labels: class numbers ``(n_k,)`` per client, for :class:`ClassGaussians` alone.
            budget: pays for the noise of this run; one that fails, or that the budget does not cover, costs nothing.
            record: keep the messages' content in the transcript, which attacks need and memory pays for.
            release: counts the runs on clients' data that may have changed since: each draws noise and masks of its own.
                Of two under the same ones, whoever sees both has the change exactly, whatever the noise.

        Raises:
            ValueError: bad features; labels where none are used; a budget without noise, or one that this noise of this
                release was paid from before.
            BudgetExhaustedError: the budget does not cover the run.
        """
        check_whole("release", release, "how many runs there were before", least=0)
        samples = self._samples(features)
        if budget is not None:
            replace(budget, spent=list(budget.spent)).spend(**self._price(release))
        outcome = self._released(release)._play(samples, self._labels(samples, labels), record=record)
        if budget is not None:
            budget.spend(**self._price(release))
        return outcome

    @abstractmethod
    def _plan(
        self, sizes: Sequence[int], features: int, dtype: torch.dtype, classes: int
    ) -> Sequence[Message]:
        """The messages of a run, of checked sizes, in the dtype that samples are sent in."""

    @abstractmethod
    def _play(self, samples: list[Tensor], labels: list[Tensor], *, record: bool) -> Outcome:
        """All parties' work on checked samples, without gradients and in float32 at least."""

    def _labels(self, samples: list[Tensor], labels: Sequence[Tensor] | None) -> list[Tensor]:
        if labels is not None:
            raise ValueError(f"{type(self).__name__} uses no labels; leave them out, or use ClassGaussians.")
        return []

    def _samples(self, features: Features) -> list[Tensor]:
        samples = [x.detach() for x in single(check_features(features))]
        if len(samples) < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 clients, got {len(samples)}.")
        return samples

    def _released(self, release: int) -> Self:
        """With the noise and the masks of a release."""
        sources = {name: getattr(self, name, None) for name in ("noise", "masks")}
        anew = {name: source.released(release) for name, source in sources.items() if source is not None}
        return replace(self, **anew) if release and anew else self  # type: ignore[type-var]

    def _price(self, release: int) -> dict[str, Any]:
        """What a run costs, as arguments of :meth:`PrivacyBudget.spend`."""
        if self.noise is None:
            raise ValueError(
                f"{type(self).__name__} adds no noise, so that no budget can cover it; "
                "give noise=GaussianNoise(epsilon, ...) or leave the budget out."
            )
        return {
            "what": type(self).__name__,
            "multiplier": self.noise.multiplier,
            "unit": self.noise.unit,
            "source": self.noise.released(release),
        }
