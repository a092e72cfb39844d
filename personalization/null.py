r"""Null calibration: what distance a client of n samples would show if its law were the population's.

Empirical distances are biased upwards, the more the fewer the samples: ``E0[d^2 | n]`` falls about as ``c / n``.
The reference is resampled on a grid of sizes; between them ``n E0`` and ``n std`` are interpolated as power laws,
and beyond them taken as constant. The reference is made of samples itself, with the noise of M of them: that
multiplies the null by ``n (1/n + 1/M)``; but not what no noise makes, such as a reference blunter than the client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import check_draws, check_whole
from .kind import DistanceKind, Statistics
from .numeric import power_unit, seeded, wide

_TIE = 1e-9
"""Share of a score by which rounding may part two that are equal."""
_TAIL = 0.05


@dataclass(frozen=True)
class Null:
    """Mean and standard deviation of ``n d^2`` under the null, and its skewness, on a grid of sizes.

    Attributes:
        sizes: the grid, increasing, ``(grid,)``, float64 as all.
        mean: in squared units of the features, ``(grid,)``.
        std: likewise.
        skew: third standardised moment, ``(grid,)``.
        ripple: of a size, by which mean and deviation are divided because it jumps between one size and the next, see
            :meth:`personalization.DistanceKind.ripple`; None where nothing does.
        scores: z-scores of the draws themselves, sorted, ``(grid, draws)``, where their law is that of the data and may
            have any shape; None where the moments tell it.
        bias: share of the mean that no noise makes, ``(grid,)``: it neither falls with n beyond the grid nor grows with the
            reference's noise; None where all is noise.
        linear: share of the variance that noise has along the bias, ``(grid,)``; None with ``bias``.
    """

    sizes: Tensor
    mean: Tensor
    std: Tensor
    skew: Tensor
    ripple: Callable[[Tensor], Tensor] | None = None
    scores: Tensor | None = None
    bias: Tensor | None = None
    linear: Tensor | None = None

    def at(self, n: Tensor, inflation: Tensor | float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, standard deviation and skewness of ``d^2`` at sizes n, any shape; ``inflation`` is of the noise alone."""
        left, right, share = self._between(n)
        mean, std = (_power_law(x[left], x[right], share) for x in (self.mean, self.std))
        scale = (1.0 if self.ripple is None else self.ripple(n)) / n
        skew = torch.lerp(self.skew[left], self.skew[right], share)
        if self.bias is None or self.linear is None:
            return mean * scale * inflation, std * scale * inflation, skew
        bias, linear = (torch.lerp(x[left], x[right], share) for x in (self.bias, self.linear))
        beyond = (n / self.sizes[-1]).clamp_min(1)
        mean = mean * ((1 - bias) * inflation + bias * beyond)
        std = std * ((1 - linear) * inflation**2 + linear * inflation * beyond) ** 0.5
        return mean * scale, std * scale, skew

    def chance(self, n: Tensor, z: Tensor) -> Tensor:
        """Chance of a z-score at least this large at sizes n, of the shape of ``z``.

        With ``scores`` the share of draws beyond, down to a twentieth; further out the moments' law, scaled to join.
        """
        left, right, share = self._between(n)
        skew = torch.lerp(self.skew[left], self.skew[right], share)
        zero, one = torch.zeros_like(z), torch.ones_like(z)
        by_moments = p_value(z, zero, one, skew)
        if self.scores is None:
            return by_moments
        level = z - _TIE * (1 + z.abs())  # of distances that jump from count to count many draws are as large
        beyond = torch.stack([1 - torch.searchsorted(row, level) / len(row) for row in self.scores]).to(z)
        rank = torch.arange(beyond[0].numel(), device=z.device).reshape(z.shape)
        flat = beyond.flatten(1)
        drawn = torch.lerp(flat[left, rank], flat[right, rank], share)
        edge = self.scores.quantile(1 - _TAIL, dim=1)
        edge = torch.lerp(edge[left], edge[right], share)
        tail = _TAIL * by_moments / p_value(edge, zero, one, skew).clamp_min(1e-300)
        return torch.where(z > edge, tail, drawn.clamp_min(_TAIL))

    def _between(self, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of sizes n, the places on the grid left and right of them, and how far between they lie, in log n."""
        knots = self.sizes.log()
        right = torch.searchsorted(self.sizes, n.contiguous()).clamp(max=len(knots) - 1)
        left = (right - 1).clamp_min(0)
        width = (knots[right] - knots[left]).clamp_min(1e-12)
        return left, right, ((n.log() - knots[left]) / width).clamp(0, 1)


def _power_law(left: Tensor, right: Tensor, share: Tensor) -> Tensor:
    """Between two positive values the line through their logarithms: a line bows above a power law by percents."""
    positive = (left > 0) & (right > 0)
    start, end = (torch.where(positive, x, 1.0).log() for x in (left, right))
    return torch.where(positive, torch.lerp(start, end, share).exp(), torch.lerp(left, right, share))


def size_grid(low: float, high: float, *, points: int = 8, cap: int = 1024) -> list[int]:
    """Whole sample sizes spaced evenly in log from ``low`` to ``high``, at least 2, none above ``cap``.

    Raises:
        ValueError: fewer than two points.
    """
    check_whole("points", points, "a grid has two ends", least=2)
    start, stop = max(2, min(cap, int(low))), max(2, min(cap, round(high)))
    steps = [start * (max(stop, start) / start) ** (i / (points - 1)) for i in range(points)]
    return sorted({round(step) for step in steps})


def fit_null(
    kind: DistanceKind,
    reference: Statistics,
    sizes: list[int],
    *,
    draws: int = 256,
    seed: int = 0,
    largest: float | None = None,
) -> Null:
    """Resample the reference at each size and measure the distance back to it.

    Args:
        kind: the distance.
        reference: the population's mean statistics, without leading axes.
        sizes: the grid, increasing, see :func:`size_grid`.
        draws: samples per size; the mean's relative error is about ``.5 / sqrt(draws)``.
        seed: of the generator.
        largest: size up to which to tell bias from noise, see :func:`drawn_null`.

    Returns:
        The null on the grid.

    Raises:
        ValueError: no kind of sums, no whole sizes of at least 2, or fewer than two draws.
    """
    if not isinstance(kind, DistanceKind):
        raise ValueError(
            f"kind={kind!r} is no distance of sums; give a DistanceKind, such as SlicedDistance()."
        )
    if not sizes:
        raise ValueError("sizes is empty; give sample sizes, such as size_grid(10, 1000) makes.")
    for n in sizes:
        check_whole("size", n, "samples of a client", least=2)
    generator = seeded(seed, "null")

    def draw(n: int, count: int) -> Statistics:
        return kind.draw(reference, n, count, generator)

    return drawn_null(Draws(kind, reference, draw, draws), sizes, largest=largest)


@dataclass(frozen=True)
class Draws:
    """How a null is drawn.

    Attributes:
        kind: the distance.
        reference: what is compared with.
        draw: of ``(n, count)`` the statistics of ``count`` samples of n.
        count: draws per size.
        rows: samples drawn at once, so that memory does not grow with draws x n; what
            is compared of all of them is kept where bias is told from noise.
    """

    kind: DistanceKind
    reference: Statistics
    draw: Callable[[int, int], Statistics]
    count: int
    rows: int = 500_000

    def squared(self, n: int, count: int, *, apart: bool) -> tuple[Tensor, Tensor]:
        """Squared distances ``(count,)`` to the reference and, if ``apart``, to the draws' own mean, else none.

        The second are of noise alone: what the first have more on average is the bias.
        """
        step = max(1, min(count, self.rows // n))
        found, kept = [], []
        for start in range(0, count, step):
            own = self.draw(n, min(step, count - start))
            found.append(wide(self.kind.squared(own, self.reference)))
            if apart:
                names = self.kind.compared or own.keys()
                kept.append({name: own[name] for name in names})
        if not apart:
            return torch.cat(found), found[0].new_zeros(0)
        own = {name: torch.cat([x[name] for x in kept]) for name in kept[0]}
        centre = {**self.reference, **{name: wide(x).mean(0) for name, x in own.items()}}
        return torch.cat(found), wide(self.kind.squared(own, centre)) * (count / (count - 1))


def drawn_null(
    draws: Draws, sizes: Sequence[int], *, largest: float | None = None, any_shape: bool = False
) -> Null:
    """The null of draws on a grid, bias told from noise up to a size.

    A reference of small clients is blunter than a large client, at any n: that part of the null neither falls with n nor
    grows with the reference's noise. Where it shows at the grid's end, sizes beyond are drawn too, for that part alone.

    Args:
        draws: how they are drawn.
        sizes: the grid, increasing.
        largest: the largest size there is; None takes all for noise.
        any_shape: see :func:`null_of`.

    Raises:
        ValueError: fewer than two draws.
    """
    check_draws(draws.count)
    apart = largest is not None
    pairs = [draws.squared(n, draws.count, apart=apart) for n in sizes]
    grid = torch.tensor(sizes, dtype=pairs[0][0].dtype, device=pairs[0][0].device)
    scaled = torch.stack([n * x for n, (x, _) in zip(sizes, pairs, strict=True)])
    null = null_of(grid, scaled, lambda n: draws.kind.ripple(draws.reference, n), any_shape=any_shape)
    if largest is None:
        return null
    shares = torch.stack([_bias(x, noise) for x, noise in pairs])
    null = replace(null, bias=shares[:, 0], linear=shares[:, 1])
    return _extended(null, draws, largest) if float(shares[-1, 0]) > 0 else null


def _bias(squared: Tensor, noise: Tensor) -> Tensor:
    """Shares of the mean that is bias and of the variance along it ``(2,)``; 0 where draws of noise would show as much."""
    bias, deviation = squared.mean() - noise.mean(), squared.std()
    if not bool(bias > 3 * deviation / len(squared)):
        return squared.new_zeros(2)
    along = 1 - noise.var() / squared.var().clamp_min(1e-300)
    return torch.stack([bias / squared.mean(), along]).clamp(0, 1)


def _extended(null: Null, draws: Draws, largest: float) -> Null:
    """With sizes beyond the grid, doubled until the largest or four times, at which noise is that of the grid's end."""
    assert null.bias is not None
    assert null.linear is not None
    last, unit = int(null.sizes[-1]), 1.0 if null.ripple is None else null.ripple(null.sizes[-1:])
    noise = null.mean[-1] * (1 - null.bias[-1])
    quadratic = null.std[-1].square() * (1 - null.linear[-1])
    rows = [null.sizes, null.mean, null.std, null.skew, null.bias, null.linear]
    for n in (last * 2**k for k in range(1, 5)):
        if n >= 2 * largest:
            break
        found, apart = draws.squared(n, max(8, min(draws.count, 500_000 // n)), apart=True)
        bias, along = _bias(found, apart)
        extra = n * found.mean() * bias / unit
        slope = n**2 * found.var() * along / unit**2
        mean, variance = noise + extra, quadratic + slope
        skew = null.skew[-1] * (quadratic / variance.clamp_min(1e-300)) ** 1.5
        column = (n, mean, variance.sqrt(), skew, extra / mean, slope / variance.clamp_min(1e-300))
        rows = [
            torch.cat([x, torch.as_tensor(y).to(x).reshape(1)]) for x, y in zip(rows, column, strict=True)
        ]
    sizes, mean, std, skew, shares, linear = rows
    more = len(sizes) - len(null.sizes)
    scores = None if null.scores is None else torch.cat([null.scores, null.scores[-1:].expand(more, -1)])
    return Null(sizes, mean, std, skew, null.ripple, scores, shares, linear)


def null_of(
    sizes: Tensor,
    scaled: Tensor,
    ripple: Callable[[Tensor], Tensor] | None = None,
    *,
    any_shape: bool = False,
    degree: int = 2,
) -> Null:
    """The null's moments on a grid, smoothed over it: what varies slowly with n need not be as noisy as its draws.

    With five sizes or more, the logarithms of mean and deviation follow the polynomial over ``log n`` of least degree
    whose residuals are noise, and the skewness a line: with eight sizes as good as three times the draws.

    Args:
        sizes: the grid, increasing, ``(grid,)``.
        scaled: draws of ``n d^2``, ``(grid, draws)``.
        ripple: see :class:`Null`.
        any_shape: keep the draws' z-scores, for laws that the moments do not tell; it takes some hundred draws.
        degree: of the polynomials at least.
    """
    if any_shape:
        null = null_of(sizes, scaled, ripple, degree=degree)
        mean, std, _ = (x[:, None] for x in null.at(sizes))
        return replace(null, scores=z_score(scaled / sizes[:, None], mean, std).sort(1).values)
    if ripple is not None:
        scaled = scaled / ripple(sizes)[:, None]
    mean, std = scaled.mean(1), scaled.std(1)
    unit = power_unit(std[:, None], 3, 1)
    cubes = (((scaled - mean[:, None]) / unit) ** 3).mean(1)
    skew = torch.where(std > 0, cubes / torch.where(std > 0, std / unit[:, 0], 1.0) ** 3, 0.0)
    if len(sizes) < 5 or not bool((std > 0).all() & (mean > 0).all()):
        return Null(sizes, mean, std, skew, ripple)
    draws = scaled.shape[1]
    noise = std / mean / draws**0.5, (skew.square() / 4 + 0.5).sqrt() / draws**0.5
    x = sizes.log()
    mean, std = (_smooth(x, y.log(), e, degree).exp() for y, e in zip((mean, std), noise, strict=True))
    return Null(sizes, mean, std, _polynomial(x, skew, 1), ripple)


def _smooth(x: Tensor, y: Tensor, noise: Tensor, least: int) -> Tensor:
    for degree in range(least, len(x) - 1):
        fitted = _polynomial(x, y, degree)
        if float(((y - fitted) / noise).square().sum()) <= 2 * (len(x) - degree - 1):
            return fitted
    return y


def _polynomial(x: Tensor, y: Tensor, degree: int) -> Tensor:
    """Least-squares polynomial through ``(x, y)``, at x."""
    basis = torch.stack([((x - x.mean()) / x.std()) ** power for power in range(degree + 1)], 1)
    fitted: Tensor = basis @ torch.linalg.lstsq(basis, y[:, None]).solution
    return fitted[:, 0]


def z_score(squared: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(d^2 - mean) / std``; where the null does not vary, 0 for a distance within it and the largest float beyond."""
    excess = squared - mean
    beyond = (excess > 0).to(squared.dtype) * torch.finfo(squared.dtype).max
    return torch.where(std > 0, excess / torch.where(std > 0, std, 1.0), beyond)


def p_value(squared: Tensor, mean: Tensor, std: Tensor, skew: Tensor) -> Tensor:
    """Chance of a distance at least this large under the null, by the shifted log-normal law with its moments.

    Against 2,000 held-out draws its error (KS .01 to .04) is that of the draws themselves, where a shifted gamma law
    reaches .12 when one direction dominates; unlike the share of draws beyond, it neither stops at ``1 / draws``
    nor jumps.

    Returns:
        In [0, 1]; where the null does not vary, 1 within it and 0 beyond.
    """
    # A skewness near zero would divide by zero below; at .1 the law is normal to the eye.
    t = 2 * torch.sinh(torch.asinh(skew.clamp_min(0.1) / 2) / 3)
    sigma = torch.log1p(t**2).sqrt()
    score = (squared - mean) / torch.where(std > 0, std, 1.0)
    normal = torch.log((1 + t * score).clamp_min(1e-300)) / sigma + sigma / 2
    return torch.where(std > 0, torch.special.ndtr(-normal), (squared <= mean).to(squared.dtype))
