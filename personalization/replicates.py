r"""The noise of clients' updates, told from replicates: what a client learns from one part of its samples and from another.

The mean of R updates from R disjoint parts is the client's update; orthonormal contrasts between the R, over
:math:`\sqrt R`, have the covariance of its noise and nothing of its difference from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import check_counts
from .numeric import wide
from .parameters import check_updates, of_order_one

Updates = Tensor | Sequence[Tensor]

_MOST = 2048
"""Contrasts that are kept: from so many the noise is known well, and the null compares each with each."""
_TERMS = 32
"""Contrasts in a sum that stands for the mean of so many parts and more: their lengths have evened out."""


@dataclass(frozen=True)
class Replicates:
    """Updates over their largest number, in float64, and their noise.

    Attributes:
        n: samples, ``(clients,)`` int64.
        mean: over each client's replicates, ``(clients, P)``.
        size: the noise of a client's mean is that of one unit over it, ``(clients,)``; units are samples or parts.
        contrasts: with the noise of one unit, ``(A, P)``, those of a client side by side; empty without replicates.
        owner: whose each contrast is, ``(A,)`` int64.
        unit: what all numbers were divided by, a scalar.
        by_parts: whether sizes count parts, and the noise of a mean is the mean of that of its parts.
    """

    n: Tensor
    mean: Tensor
    size: Tensor
    contrasts: Tensor
    owner: Tensor
    unit: Tensor
    by_parts: bool = False

    def noise(self, sizes: Sequence[float], draws: int, generator: torch.Generator) -> list[Tensor]:
        """Draws of two clients' noise: coefficients of the contrasts, ``(draws, A)`` for either of two sizes.

        A client trained on many parts has a mean of noises, whose length varies less than one's.
        """
        terms = [max(1, min(_TERMS, round(size))) if self.by_parts else 1 for size in sizes]
        found = [self.contrasts.new_zeros(draws, len(self.contrasts)) for _ in sizes]
        for term in range(max(terms)):
            sign = (2 * torch.randint(2, (2, draws), generator=generator) - 1).to(self.contrasts)
            for which, columns in enumerate(self.pairs(draws, generator)):
                if term < terms[which]:
                    scale = sign[which] / (terms[which] * sizes[which]) ** 0.5
                    found[which].scatter_add_(1, columns[:, None], scale[:, None])
        return found

    def pairs(self, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Numbers of two contrasts of different clients, each ``(draws,)``."""
        count = len(self.contrasts)
        _, own = self.owner.cpu().unique_consecutive(return_counts=True)
        own, end = own.repeat_interleave(own), own.cumsum(0).repeat_interleave(own)
        first = torch.randint(count, (draws,), generator=generator)
        # Any of the others', from the end of the client's own on.
        step = (torch.rand(draws, generator=generator, dtype=torch.float64) * (count - own[first])).long()
        second = (end[first] + step) % count
        return first.to(self.owner.device), second.to(self.owner.device)


def replicates_of(updates: Updates, n: Tensor | Sequence[int]) -> Replicates:
    """Read updates with or without replicates.

    Args:
        updates: see :func:`personalization.update_distances`.
        n: samples, one number a client.

    Raises:
        ValueError: as there.
    """
    if not isinstance(updates, Tensor):
        return _of_parts(updates, n)
    count = updates.shape[1] if updates.ndim == 3 else 0
    if count == 1:
        raise ValueError(
            "updates has one replicate a client, which shows no noise; give (clients, parameters), or train every "
            "client on two or more disjoint parts of its samples."
        )
    check_updates(updates.flatten(1) if count else updates)
    counts = check_counts(n, len(updates), max(1, count)).to(updates.device)
    rows, unit = of_order_one(updates.detach())
    size, none = wide(counts), rows.new_empty(0, rows.shape[-1])
    if not count:
        return Replicates(counts, rows, size, none, counts.new_empty(0), unit)
    raw = (helmert(count).to(rows) @ rows) / count**0.5
    size = effective_size(size, raw.square().sum(-1).mean(1))
    contrasts = (raw * size.sqrt()[:, None, None]).flatten(0, 1)
    owner = torch.arange(len(rows), device=rows.device).repeat_interleave(count - 1)
    return _thinned(Replicates(counts, rows.mean(1), size, contrasts, owner, unit))


def _of_parts(updates: Sequence[Tensor], n: Tensor | Sequence[int]) -> Replicates:
    """Parts of one size, whose noise needs no law: the mean of R of them has one R-th of it."""
    parts = _checked_parts(updates)
    number = [len(part) for part in parts]
    counts = check_counts(n, len(parts)).to(parts[0].device)
    short = (counts < torch.tensor(number, device=counts.device)).nonzero()
    if len(short):
        k = int(short[0])
        raise ValueError(
            f"Client {k} has n={int(counts[k])} samples and {number[k]} parts of them; give at least one a part."
        )
    rows, unit = of_order_one(torch.cat(parts).detach())
    split = rows.split(number)
    contrasts = torch.cat([helmert(len(own)).to(own) @ own for own in split])
    owner = torch.arange(len(parts)).repeat_interleave(torch.tensor(number) - 1).to(rows.device)
    size = torch.tensor(number).to(rows)
    mean = torch.stack([own.mean(0) for own in split])
    return _thinned(Replicates(counts, mean, size, contrasts, owner, unit, by_parts=True))


def _checked_parts(updates: Sequence[Tensor]) -> list[Tensor]:
    parts = list(updates) if isinstance(updates, Sequence) else []
    if not parts:
        raise ValueError(
            f"updates of type {type(updates).__name__}{' without clients' * isinstance(updates, Sequence)}; give a "
            "tensor, or a list with a tensor (parts, parameters) for each client."
        )
    for k, part in enumerate(parts):
        if not isinstance(part, Tensor) or part.ndim != 2 or part.shape[1:] != parts[0].shape[1:]:
            found = (
                f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else f"type {type(part).__name__}"
            )
            raise ValueError(
                f"Client {k} has updates of {found}; give a tensor (parts, parameters), one width for all."
            )
        if part.dtype != parts[0].dtype or part.device != parts[0].device:
            raise ValueError(
                f"Client {k} has updates of {part.dtype} on {part.device}, client 0 of {parts[0].dtype} on "
                f"{parts[0].device}; give one dtype and device."
            )
        if not len(part) or not part.is_floating_point() or not torch.isfinite(part).all():
            raise ValueError(
                f"Client {k} has {len(part)} parts of {part.dtype}, NaN or infinite among them or none at all; give "
                "finite floating ones, or leave the client out."
            )
    if len(parts) > 1 and sum(len(part) > 1 for part in parts) == 1:
        raise ValueError(
            "Only one client has two or more parts, and noise is compared between clients; train more clients on parts."
        )
    return parts


def _thinned(found: Replicates) -> Replicates:
    """At most so many contrasts, evenly over the clients."""
    count = len(found.contrasts)
    if count <= _MOST:
        return found
    kept = torch.linspace(0, count - 1, _MOST, device=found.owner.device).long()
    return replace(found, contrasts=found.contrasts[kept], owner=found.owner[kept])


def helmert(count: int) -> Tensor:
    """Helmert's contrasts: ``(count - 1, count)``, orthonormal rows that sum to zero."""
    rows = torch.ones(count - 1, count, dtype=torch.float64).tril()
    k = torch.arange(1, count, dtype=torch.float64)
    rows[torch.arange(count - 1), torch.arange(1, count)] = -k
    return rows / (k * (k + 1)).sqrt()[:, None]


def effective_size(n: Tensor, noise: Tensor) -> Tensor:
    """Sizes in samples, ``1 / (1/n + c)``: c is noise that more samples do not lessen, of batches or starting points.

    c is the one under which ``noise (clients,)``, mean squared contrasts, is likeliest if it is gamma-distributed
    about ``1/n + c`` with one shape, and 0 unless that beats the law ``1/n`` by Akaike's criterion.
    """
    if not bool((noise > 0).all()) or len(n) < 3:
        return n
    floors = torch.cat([n.new_zeros(1), torch.logspace(-3, 3, 61, dtype=n.dtype).to(n) / n.median()])
    law = 1 / n + floors[:, None]
    ratio = noise / law
    level = ratio.mean(1)
    fit = -law.log().mean(1) - level.log()
    best = int(fit.argmax())
    shape = level[best].square() / ratio[best].var().clamp_min(1e-300)
    # Twice the log-likelihood gained, against two for the parameter.
    worth = 2 * len(n) * shape * (fit[best] - fit[0]) > 2
    return 1 / law[best] if bool(worth) else n
