"""The interface of every protocol: what it sends, what the server learns, what noise protects, and the run itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..budget import PrivacyBudget
from ..distances import Distances
from ..errors import Features, check_features
from ..numeric import single
from .noise import GaussianNoise
from .transcript import Transcript


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

    @abstractmethod
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
            ValueError: fewer than two clients, fewer than two samples or no feature.
        """

    @abstractmethod
    def run(
        self,
        features: Features,
        *,
        labels: Sequence[Tensor] | None = None,
        budget: PrivacyBudget | None = None,
        record: bool = True,
    ) -> Outcome:
        """Play all parties.

        Args:
            features: one tensor ``(n_k, F)`` per client, as for :func:`personalization.distance_to_population`.
            labels: class numbers ``(n_k,)`` per client, for :class:`ClassGaussians` alone.
            budget: pays for the noise of this run before anything is sent.
            record: keep the messages' content in the transcript, which attacks need and memory pays for.

        Raises:
            ValueError: bad features; labels where none are used; a budget without noise.
            BudgetExhaustedError: the budget does not cover the run.
        """

    def _begin(
        self,
        features: Features,
        labels: Sequence[Tensor] | None,
        budget: PrivacyBudget | None,
    ) -> list[Tensor]:
        """Check the input and pay, before anything is sent; the samples, without gradients and in float32 at least."""
        samples = self._samples(features)
        if labels is not None:
            raise ValueError(f"{type(self).__name__} uses no labels; leave them out, or use ClassGaussians.")
        self._pay(budget)
        return samples

    def _samples(self, features: Features) -> list[Tensor]:
        samples = [x.detach() for x in single(check_features(features))]
        if len(samples) < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 clients, got {len(samples)}.")
        return samples

    def _pay(self, budget: PrivacyBudget | None) -> None:
        if budget is None:
            return
        if self.noise is None:
            raise ValueError(
                f"{type(self).__name__} adds no noise, so that no budget can cover it; "
                "give noise=GaussianNoise(epsilon, ...) or leave the budget out."
            )
        budget.spend(type(self).__name__, self.noise.multiplier, unit=self.noise.unit)
