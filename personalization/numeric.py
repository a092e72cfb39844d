"""Small numerical helpers: roots with a gradient at zero, sorting, double precision, grouping by size."""

from __future__ import annotations

import math
import operator
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor


def safe_root(x: Tensor, order: float = 2.0) -> Tensor:
    """``max(x, 0) ** (1 / order)`` whose gradient at zero is zero instead of infinite; NaN stays NaN.

    Args:
        x: any shape.
        order: which root, at least 1.

    Returns:
        The shape of ``x``.
    """
    positive = ~(x <= 0)
    return torch.where(positive, torch.where(positive, x, 1.0) ** (1 / order), 0.0)


def power_unit(x: Tensor, order: float, axes: int | tuple[int, ...]) -> Tensor:
    """What to divide by so that powers of ``x`` neither overflow nor all vanish: the largest over the axes, which stay.

    1 where the powers are harmless, so that ordinary numbers are left as they are to the last bit.
    """
    largest = x.detach().abs().amax(axes, keepdim=True)
    far = order * largest.log2().abs() > math.log2(torch.finfo(x.dtype).max) / 1.5
    return torch.where(far & (largest > 0) & largest.isfinite(), largest, 1.0)


def single(samples: Sequence[Tensor]) -> list[Tensor]:
    """Samples in half precision as float32, whose range holds their squares' sums; others as they are."""
    return [x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in samples]


def narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In another floating dtype; what is too large for it is its largest number, and what is infinite stays so."""
    limit = torch.finfo(dtype).max
    if limit >= torch.finfo(x.dtype).max:
        return x.to(dtype)
    return torch.where(x.isinf(), x, x.clamp(-limit, limit)).to(dtype)


def for_squares(dtype: torch.dtype) -> torch.dtype:
    """The dtype of squares beside distances of another: float32 at least, for half precision ends at 256 squared."""
    return torch.promote_types(dtype, torch.float32)


def wide(x: Tensor) -> Tensor:
    """The tensor in float64 where its device has that, so that subtracting a sum's own part loses nothing."""
    return x if x.device.type == "mps" else x.double()


def sort_last(x: Tensor) -> Tensor:
    """Sort along the last axis; differentiable where asked for.

    NumPy's vectorised sort takes a fifteenth of torch's time on a CPU (71 million float32 in rows of 200: .24
    s against 3.5 s), so it is used where no gradient is needed.
    """
    if x.device.type != "cpu" or (x.requires_grad and torch.is_grad_enabled()):
        return x.sort(dim=-1).values
    if x.dtype not in (torch.float32, torch.float64):
        return x.sort(dim=-1).values
    return torch.from_numpy(np.sort(x.detach().numpy(), axis=-1))


def argsort_last(x: Tensor) -> Tensor:
    """Order along the last axis, int64; on a CPU NumPy's, which takes half of torch's time."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return x.argsort(dim=-1)
    return torch.from_numpy(np.argsort(x.detach().numpy(), axis=-1))


def seeded(seed: int, purpose: str) -> torch.Generator:
    """A generator of its own for each purpose, so that a caller's data drawn from the same seed stay independent."""
    return torch.Generator().manual_seed((_whole(seed) * 1_000_003 + zlib.crc32(purpose.encode())) % 2**63)


def generator_of(seed: int) -> torch.Generator:
    """The generator of a seed as torch makes it, of any whole number: torch refuses what 64 bits do not hold."""
    return torch.Generator().manual_seed(_whole(seed) % 2**64)


def _whole(seed: object) -> int:
    try:
        return operator.index(seed)  # type: ignore[arg-type]
    except TypeError as error:
        raise ValueError(f"seed={seed!r} is no whole number; give one.") from error


def size_groups(features: Sequence[Tensor], limit: int) -> Iterator[tuple[list[int], Tensor]]:
    """Stack clients that have the same number of samples, so that a batch is never padded.

    Args:
        features: one tensor ``(n_k, F)`` per client.
        limit: most values a stack may hold (a larger client comes alone).

    Yields:
        Positions of the clients, and their samples ``(clients, n, F)``.
    """
    sizes: dict[int, list[int]] = defaultdict(list)
    for k, x in enumerate(features):
        sizes[len(x)].append(k)
    for n, members in sizes.items():
        step = max(1, limit // (n * features[0].shape[1]))
        for start in range(0, len(members), step):
            part = members[start : start + step]
            yield part, torch.stack([features[k] for k in part])


def grouped_jackknife(samples: Tensor, squared: Callable[[Tensor], Tensor], groups: int = 8) -> Tensor:
    """Variance ``(...)`` of a function of samples ``(..., n, F)`` by leaving out every g-th sample in turn.

    Fewer than four samples are too few to leave any out: their variance is given as 0.
    """
    n = samples.shape[-2]
    groups = min(groups, n // 2)
    if groups < 2:
        return wide(samples.new_zeros(samples.shape[:-2]))
    group = torch.arange(n, device=samples.device) % groups
    left = torch.stack([wide(squared(samples[..., group != g, :])) for g in range(groups)])
    return left.var(0, correction=0) * (groups - 1)


def typical(rows: Tensor) -> Tensor:
    """The median ``(...)`` of up to 256 of the rows ``(K, ...)``, which one far row cannot move; without gradient."""
    return rows.detach()[:: -(-len(rows) // 256)].median(0).values


def centred(rows: Tensor) -> Tensor:
    """Rows ``(K, ...)`` less a typical one; what depends on their differences only, and its gradient, is the same."""
    return rows - typical(rows)


def pairwise_squared(rows: Tensor, *, block: int = 256) -> Tensor:
    """Squared Euclidean distances between all rows ``(K, D)``, with a zero diagonal, shape ``(K, K)``.

    Blocks on and above the diagonal only, each one matrix product, so that half of the work and no copy of the result
    is needed. Rounding leaves about ``eps`` times the squared norms, so rows should be :func:`centred`; what is so near
    that this would tell (groups far from each other) is computed again: by a product in float64, or in float64 pair by
    pair.
    """
    if rows.requires_grad and torch.is_grad_enabled():  # blocks that are written into have no gradient
        exact = wide(rows)
        norms = exact.square().sum(1)
        whole = _squared_between(exact, exact, norms, norms)
        return ((whole + whole.T) / 2 * (1 - torch.eye(len(rows)).to(whole))).to(rows.dtype)
    norms = rows.square().sum(1)
    squared = rows.new_empty(len(rows), len(rows))
    for i in range(0, len(rows), block):
        for j in range(i, len(rows), block):
            part = squared[i : i + block, j : j + block]
            lots = [x[k : k + block] for x in (rows, norms) for k in (i, j)]
            torch.mm(lots[0], lots[1].T, out=part)
            part.mul_(-2).add_(lots[2][:, None]).add_(lots[3]).clamp_(min=0)
            if i == j:
                part.fill_diagonal_(torch.inf)
            _refine(part, *lots)
            if i == j:
                part.copy_((part + part.T) / 2)
            else:
                squared[j : j + block, i : i + block] = part.T
    return squared.fill_diagonal_(0)


def _squared_between(x: Tensor, y: Tensor, x_norms: Tensor, y_norms: Tensor) -> Tensor:
    return (x_norms[:, None] + y_norms - 2 * x @ y.T).clamp_min(0)


def _refine(part: Tensor, x: Tensor, y: Tensor, x_norms: Tensor, y_norms: Tensor) -> None:
    """In place, once more, the squared distances ``(n, m)`` of rows x to rows y that rounding could tell."""
    share = 1e3 * torch.finfo(part.dtype).eps  # of the norms: below, rounding makes a thousandth and more
    near = part < (share * x_norms)[:, None] + share * y_norms
    if wide(part[:0]).dtype == part.dtype:  # nothing is wider: one by one, which is slow but exact
        for i, j in (pairs.T for pairs in near.nonzero().split(256)):
            part[i, j] = (x[i] - y[j]).square().sum(1)
        return
    i, j = (near.any(axis).nonzero()[:, 0] for axis in (1, 0))
    if len(i):
        exact, others = wide(x[i]), wide(y[j])
        again = _squared_between(exact, others, exact.square().sum(1), others.square().sum(1))
        part[i[:, None], j] = torch.where(near[i][:, j], again.to(part.dtype), part[i][:, j])


def rounding(features: Sequence[Tensor], degree: float = 2.0, labels: int = 0) -> float:
    """Squared distance below which two laws differ by rounding only.

    What they differ by is measured about a common centre, so it is the spread about it that counts, of a typical
    client; unless that is within a few roundings of the centre itself, where all features are constant.

    Args:
        features: one tensor ``(n_k, F)`` per client.
        degree: power of the features' unit that the squared distance has.
        labels: how many trailing columns are no features.
    """
    dtype = features[0].dtype
    if not degree:
        return rounding_of(dtype, 1.0)
    own = [wide(x.detach())[:, : x.shape[1] - labels] for x in features]
    centre = torch.stack([x.mean(0) for x in own]).median(0).values
    spread = float(torch.stack([(x - centre).square().mean() for x in own]).quantile(0.5))
    offset = float(centre.square().mean())
    if spread <= (4 * torch.finfo(dtype).eps) ** 2 * offset:
        spread += offset
    return rounding_of(dtype, spread ** (degree / 2))


def rounding_of(dtype: torch.dtype, mean_square: float) -> float:
    """Squared distance that values of a dtype and this mean square have by rounding only."""
    return max((16 * torch.finfo(dtype).eps) ** 2, 64 * torch.finfo(torch.float64).eps) * mean_square
