"""What a distance must be able to do, and the registry that makes adding one a matter of one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar, overload

import torch
from torch import Tensor

from .errors import check_fields, check_options, unknown_name
from .numeric import grouped_jackknife, wide
from .samples import SampleDistance
from .spread import covariance_size, ratio

Statistics = dict[str, Tensor]
"""Named statistics of one client or, with a leading axis, of many; a reference is their weighted mean."""


class DistanceKind(ABC):
    """A distance to a population that is known only by the mean of its clients' statistics.

    A kind is a frozen dataclass whose fields are its options. Summing, leaving a client out, calibration and
    the relative scale are the same for every kind, see :mod:`personalization.population`. What needs the samples
    themselves is a :class:`personalization.SampleDistance`.
    """

    def __post_init__(self) -> None:
        check_fields(self)

    degree: ClassVar[float] = 2.0
    """Power of the features' unit that the squared distance has."""

    compared: ClassVar[frozenset[str] | None] = None
    """Statistics that :meth:`squared` reads, all that calibration then keeps of its draws; None for all of them."""

    @abstractmethod
    def statistics(self, samples: Tensor) -> Statistics:
        """What a client computes from its samples ``(..., n, F)`` and adds, weighted, to the population's sum."""

    @abstractmethod
    def squared(self, own: Statistics, reference: Statistics) -> Tensor:
        """Squared distance ``(...)`` of statistics to a reference; both may have leading axes."""

    @abstractmethod
    def draw(self, reference: Statistics, n: int, draws: int, generator: torch.Generator) -> Statistics:
        """Statistics, leading axis ``draws``, of samples of size n from the law that the reference describes."""

    def ripple(self, reference: Statistics, sizes: Tensor) -> Tensor:
        """How ``n d^2`` under the null goes up and down with n ``(sizes,)``, in any unit; 1 where it varies slowly.

        The null is drawn on a grid of few sizes and interpolated. What jumps between one size and the next, as
        order statistics do, is divided out before and multiplied back after.
        """
        return torch.ones_like(sizes)

    def linear_variance(self, samples: Tensor, own: Statistics, reference: Statistics) -> Tensor:
        """Variance ``(...)`` of the squared distance to first order in the samples ``(..., n, F)``, for its error.

        This default leaves out up to eight groups of samples in turn (the grouped jackknife), which costs as much as
        seven more statistics; the kinds here have an influence function instead.
        """
        return grouped_jackknife(samples, lambda x: self.squared(self.statistics(x), reference))

    def pairwise(self, own: Statistics) -> Tensor:
        """Squared distances ``(clients, clients)`` between the clients' own statistics, row by row."""
        clients = len(next(iter(own.values())))
        rows = [self.squared({name: x[k] for name, x in own.items()}, own) for k in range(clients)]
        squared = torch.stack(rows)
        return ((squared + squared.T) / 2).fill_diagonal_(0)

    def pair_variance(self, own: Statistics, reference: Statistics, generator: torch.Generator) -> Tensor:
        """Variance of squared distances to first order in one client's samples, times their number.

        Statistics are all there is of the samples. This default takes the noise of the population's law, drawn from the
        reference, along the gradient that :meth:`squared` has for autograd; the kinds here know more.

        Args:
            own: of all clients, without gradients.
            reference: the population's mean statistics.
            generator: of the draws.

        Returns:
            ``(clients, clients)``: row i for samples of client i; inf where :meth:`squared` has no gradient.
        """
        noise = standard_noise(self, reference, generator)
        clients = len(next(iter(own.values())))
        rows = [self._noise_of(k, own, noise) for k in range(clients)]
        return torch.stack(rows)

    def widening(self, own: Statistics, reference: Statistics, n: Tensor) -> Tensor:
        """By how much the deviation of the squared distance's null is larger for each client's own law, ``(clients,)``.

        That of pairs' errors is scaled so. By covariances where the statistics hold ``cov``, else 1.

        Args:
            own: of all clients.
            reference: the population's mean statistics, whose null is known.
            n: samples of the clients.
        """
        if "cov" not in own:
            return torch.ones_like(n, dtype=torch.float64)
        sizes = covariance_size(own["cov"], n), covariance_size(reference["cov"])
        return ratio(*sizes) ** (self.degree / 2)

    def _noise_of(self, k: int, own: Statistics, noise: Statistics) -> Tensor:
        with torch.enable_grad():
            clients = len(next(iter(own.values())))
            mine = {name: x[k].expand(clients, *x.shape[1:]).clone() for name, x in own.items()}
            varied = [mine[name].requires_grad_() for name in noise]
            squared = self.squared(mine, own)
            if not squared.requires_grad:
                return torch.full_like(wide(squared), torch.inf)
            slopes = torch.autograd.grad(squared.sum(), varied, allow_unused=True)
        first_order = [
            wide(slope).flatten(1) @ wide(x).flatten(1).T.to(slope.device)
            for slope, x in zip(slopes, noise.values(), strict=True)
            if slope is not None
        ]
        return torch.stack(first_order).sum(0).square().mean(1)


def standard_noise(
    kind: DistanceKind, reference: Statistics, generator: torch.Generator, *, n: int = 256, draws: int = 128
) -> Statistics:
    """Draws ``(draws, ...)`` of the noise in the statistics of n samples of the population, times ``sqrt(n)``."""
    drawn = kind.draw(reference, n, draws, generator)
    return {name: (x - x.mean(0)) * n**0.5 for name, x in drawn.items()}


AnyDistance = DistanceKind | SampleDistance

DISTANCES: dict[str, type[DistanceKind] | type[SampleDistance]] = {}

K = TypeVar("K", bound=type[DistanceKind] | type[SampleDistance])


def register_distance(name: str) -> Callable[[K], K]:
    """Class decorator that makes a kind known to :func:`build_distance` under ``name``.

    Raises:
        ValueError: another class has the name already.
    """

    def register(cls: K) -> K:
        known = DISTANCES.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(
                f"The distance name {name!r} belongs to {known.__qualname__}; choose another name."
            )
        DISTANCES[name] = cls
        return cls

    return register


@overload
def build_distance(name: Literal["sliced", "gaussian"], **options: object) -> DistanceKind: ...
@overload
def build_distance(name: str, **options: object) -> AnyDistance: ...
def build_distance(name: str, **options: object) -> AnyDistance:
    """Build a registered distance.

    Args:
        name: a key of :data:`DISTANCES`, such as "sliced", "gaussian" or "sinkhorn".
        options: the distance's fields.

    Raises:
        ValueError: unknown name or option, with the nearest known one; or an option out of range.
    """
    if name not in DISTANCES:
        raise unknown_name("distance", name, DISTANCES)
    cls = DISTANCES[name]
    check_options(cls, f"option of distance {name!r}", options)
    return cls(**options)  # type: ignore[arg-type]  # the names are checked above, the values by the class
