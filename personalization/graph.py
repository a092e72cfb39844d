r"""Who learns from whom: weights between all clients, from their pairwise distances and sizes.

A graph turns distances ``(clients, clients)`` into a row-stochastic matrix: row k says how much of each client's model
the client k takes. All graphs here have one parameter, a ``scale`` in units of the median distance between two clients that
differ, so that one range suits any population, and share the same limits:

    scale -> inf             every row is FedAvg's weights, n_j / N
    scale -> 0               the identity: every client alone (those at distance 0 share, by size)
    all distances 0          n_j / N at any scale
    n_j = 0                  nobody takes from j; j itself takes from the others (a client that is held out)

Give calibrated distances: raw ones are biased upwards for clients with few samples, which would cut these off most, though
they have most to gain.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from .errors import check_fields, check_options, unknown_name
from .numeric import wide

_SCALE: dict[str, Any] = {"search": {"low": 0.1, "high": 10.0, "log": True}}
_ROWS = 512
_FAR = 1e140


class Graph(ABC):
    """Maps pairwise distances and sizes to weights between clients; final classes are frozen dataclasses."""

    scale: float

    @abstractmethod
    def rows(self, scaled: Tensor, n: Tensor) -> Tensor:
        """Unnormalised weights ``(rows, clients)`` of some clients.

        Args:
            scaled: ``u / scale``, their distances to all clients in scales, ``(rows, clients)``, float64.
            n: sizes of all clients, ``(clients,)``, float64, of mean 1.
        """

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.scale > 0:
            raise ValueError(f"{type(self).__name__}: scale={self.scale} must be greater than 0.")

    def __call__(self, distances: Tensor, n: Tensor) -> Tensor:
        """The weights between all clients.

        Args:
            distances: calibrated, symmetric with a zero diagonal, ``(clients, clients)``, in any unit.
            n: samples of each client, ``(clients,)``, not negative and not all 0.

        Returns:
            ``(clients, clients)`` in the dtype of ``distances``; rows are not negative and sum to 1.

        Raises:
            ValueError: distances that are no distances, or sizes that fit no client.
        """
        check_pairwise(distances)
        sizes = _sizes(n, len(distances))
        unit = typical_distance(distances)
        # Squares of what is cut off here would be infinite; its weight is zero to rounding long before.
        scaled = ((wide(part) / unit / self.scale).clamp_max(_FAR) for part in distances.split(_ROWS))
        weights = torch.cat([self.rows(part, sizes) for part in scaled])
        return (weights / weights.sum(1, keepdim=True)).to(distances.dtype)


GRAPHS: dict[str, type[Graph]] = {}

G = TypeVar("G", bound=type[Graph])


def register_graph(name: str) -> Callable[[G], G]:
    """Class decorator that makes a graph known to :func:`build_graph` under ``name``.

    Raises:
        ValueError: another class has the name already.
    """

    def register(cls: G) -> G:
        known = GRAPHS.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"The graph name {name!r} belongs to {known.__qualname__}; choose another name.")
        GRAPHS[name] = cls
        return cls

    return register


def build_graph(name: str, **params: object) -> Graph:
    """Build a registered graph.

    Args:
        name: a key of :data:`GRAPHS`: "kernel", "inverse" or "row_qp".
        params: the class's fields.

    Raises:
        ValueError: unknown name or parameter, with the nearest known one; or a parameter out of range.
    """
    if name not in GRAPHS:
        raise unknown_name("graph", name, GRAPHS)
    check_options(GRAPHS[name], f"parameter of graph {name!r}", params)
    return GRAPHS[name](**params)


@register_graph("kernel")
@dataclass(frozen=True)
class KernelGraph(Graph):
    r"""Near clients count by size, far ones vanish: ``w_kj`` is proportional to ``n_j exp(-(u_kj / scale)^2)``.

    In [0, 1], decreasing in the distance; the client itself has ``n_k`` as its weight before normalising. The distances are
    squared, so that those within the scale hardly differ and those beyond twice the scale hardly count.

    Args:
        scale: the relative distance at which a client counts ``1/e`` of what it would at 0.
    """

    scale: float = field(default=1.0, metadata=_SCALE)

    def rows(self, scaled: Tensor, n: Tensor) -> Tensor:
        """See :class:`Graph`; the largest exponent of a row is 0, so that no row vanishes."""
        exponent = -(scaled**2)
        largest = exponent.where(n > 0, -torch.inf).amax(1, keepdim=True)
        return n * (exponent - largest).clamp_max(0).exp()


@register_graph("inverse")
@dataclass(frozen=True)
class InverseGraph(Graph):
    """Clients count by size over distance: ``w_kj`` is proportional to ``n_j / (scale + u_kj)``.

    In [0, 1], decreasing in the distance, with longer tails than the kernel: many far clients outweigh a few near ones.

    Args:
        scale: the relative distance at which a client counts half of what it would at 0.
    """

    scale: float = field(default=1.0, metadata=_SCALE)

    def rows(self, scaled: Tensor, n: Tensor) -> Tensor:
        """See :class:`Graph`."""
        return n / (1 + scaled)


@register_graph("row_qp")
@dataclass(frozen=True)
class RowQPGraph(Graph):
    r"""For each client the weights of least error: the noise of few samples against the bias of far ones.

    .. math::
        \min_{w \ge 0,\, \sum_j w_j = 1} \; \sum_j w_j^2 \frac{v}{n_j} + \Bigl(\sum_j w_j \sqrt\kappa\, D_{kj}\Bigr)^2

    The first term is the variance of a weighted mean of ``n_j`` samples of variance v, the second bounds its squared bias
    if optimal parameters lie at most ``sqrt(kappa)`` times the distance apart. Only ``kappa / v`` matters; in units of the
    median distance and the mean size it is ``1 / scale^2``.

    The weights are ``n_j max(0, 1 - D_kj / r)``: by size within a radius r, falling linearly to 0 at its rim. The set
    within it is a prefix of the clients in order of distance, so the minimum is found exactly, by one sort and no
    iterations.

    Args:
        scale: the relative distance whose bias weighs as much as the noise of a client of mean size.

    References:
        The bound that Mansour et al., Three approaches for personalization with applications to federated learning, 2020,
        and Chen et al., FedCollab: optimizing the collaboration structure in cross-silo federated learning, ICML 2023,
        trade off between clients and clusters, here a row at a time.
    """

    scale: float = field(default=1.0, metadata=_SCALE)

    def rows(self, scaled: Tensor, n: Tensor) -> Tensor:
        """See :class:`Graph`."""
        return n * rim_weights(scaled, n)


def rim_weights(bias: Tensor, n: Tensor) -> Tensor:
    r"""``1 - b_j / r`` within r, up to a factor a row: ``w / n`` at the minimum of ``sum w_j^2 / n_j + (sum w_j b_j)^2``.

    Stationarity says ``w_j = n_j max(0, m - b_j s)`` with ``s = sum w_j b_j`` and m the multiplier of the sum. Over the
    set within the rim ``s (1 + sum n b^2) = m sum n b``, so ``1 - b_j / r`` is proportional to
    ``1 + sum_i n_i b_i (b_i - b_j)``. With the clients in order of b, client j is in the set where the sum over the nearer
    ones ``sum_{i < j} n_i b_i (b_j - b_i)`` is below 1; it rises in j.

    Args:
        bias: ``(rows, clients)``, not negative.
        n: ``(clients,)``, not negative.

    Returns:
        ``(rows, clients)``, not negative; 0 beyond the rim.
    """
    ordered, order = bias.sort(dim=1)
    mass, gaps = n[order] * ordered, ordered.diff(dim=1)
    # Both sums are summed by parts: terms of one sign, so that nothing cancels.
    nearer = _from_zero((gaps * mass.cumsum(1)[:, :-1]).cumsum(1))
    inside = nearer < 1
    mass_beyond = _sum_to_the_end(mass.where(inside, 0.0))[:, 1:]
    further = _from_zero(_sum_to_the_end(gaps * mass_beyond).flip(1)).flip(1)
    share = (1 - nearer + further).where(inside, 0.0)
    return torch.empty_like(bias).scatter_(1, order, share)


def _sum_to_the_end(x: Tensor) -> Tensor:
    return x.flip(1).cumsum(1).flip(1)


def _from_zero(x: Tensor) -> Tensor:
    return torch.cat([x.new_zeros(len(x), 1), x], 1)


def typical_distance(distances: Tensor) -> Tensor:
    """Median distance between two clients that differ, a float64 scalar; 1 where no two do."""
    clients = len(distances)
    upper = wide(distances)[torch.triu(torch.ones_like(distances, dtype=torch.bool), 1)]
    positive = upper[upper > 0]
    return positive.median() if clients > 1 and len(positive) else upper.new_ones(())


def check_pairwise(distances: Tensor) -> None:
    """Refuse anything but a finite, symmetric matrix without negative values and with a zero diagonal.

    Raises:
        ValueError: says what is wrong, where, and what to do.
    """
    if not isinstance(distances, Tensor):
        raise ValueError(
            f"distances are of type {type(distances).__name__}; give a matrix, such as pairwise_distances(...).calibrated."
        )
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1] or not len(distances):
        raise ValueError(
            f"distances have shape {tuple(distances.shape)}; give all pairs, (clients, clients), of at least one client."
        )
    if not distances.is_floating_point():
        raise ValueError(f"distances are of type {distances.dtype}; convert them to a floating-point tensor.")
    bad = ~torch.isfinite(distances) | (distances < 0)
    if bad.any():
        k, j = bad.nonzero()[0].tolist()
        raise ValueError(
            f"The distance of clients {k} and {j} is {float(distances[k, j])}; give finite distances, at least 0."
        )
    slack = 1e-4 * float(distances.max())
    if float(distances.diagonal().max()) > slack or float((distances - distances.T).abs().max()) > slack:
        raise ValueError(
            "distances are not symmetric with a zero diagonal; give the distance between clients, (d + d.T) / 2 of one "
            "that depends on the order, with d.fill_diagonal_(0)."
        )


def _sizes(n: Tensor, clients: int) -> Tensor:
    """Sizes in float64, of mean 1 over the clients that have samples."""
    try:
        sizes = wide(torch.as_tensor(n))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"n is of type {type(n).__name__}; give one number of samples per client."
        ) from error
    if sizes.shape != (clients,):
        raise ValueError(
            f"n has shape {tuple(sizes.shape)}; give one number of samples per client, ({clients},)."
        )
    if not torch.isfinite(sizes).all() or (sizes < 0).any() or not (sizes > 0).any():
        raise ValueError(
            "n must be finite, at least 0, and above 0 for one client at least: the samples of each client."
        )
    return sizes / sizes[sizes > 0].mean()
