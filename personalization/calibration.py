"""Calibration: what is left of a squared distance once its null (:mod:`personalization.null`) is off, and its error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .distances import Distances
from .null import Null, z_score
from .numeric import for_squares, narrowed, safe_root


@dataclass(frozen=True)
class Measured:
    """What was measured of clients or of pairs, before it is judged; every field has one shape.

    Attributes:
        squared: distances squared, float64.
        variance: of ``squared`` to first order in the client's samples, float64.
        converged: whether the solver did, bool.
    """

    squared: Tensor
    variance: Tensor
    converged: Tensor


def relative_scale(calibrated: Tensor, null_std: Tensor) -> Tensor:
    """Distances in units of the population's median: the typical client has 1.

    Where the median is zero (more than half of the clients cannot be told from the population) the unit is the
    resolution, the median of ``sqrt(null_std)``; where that is zero too (the null does not vary), the mean of
    the positive distances; and where none is positive, all are 0.
    """
    positive = calibrated > 0
    mean = calibrated.sum() / positive.sum().clamp_min(1)
    unit = calibrated.quantile(0.5)
    for substitute in (null_std.clamp_min(0).sqrt().quantile(0.5), mean):
        unit = torch.where(unit > 0, unit, substitute)
    return torch.where(positive, calibrated / torch.where(unit > 0, unit, 1.0), 0.0)


def calibrate(
    measured: Measured, size: Tensor, n: Tensor, null: Null, *, gate: float = 1.0, dtype: torch.dtype
) -> Distances:
    """Judge squared distances by their null.

    Args:
        measured: the squared distances of the clients.
        size: effective sample sizes, the reference's noise included, ``(clients,)``.
        n: the clients' own sample counts, int64.
        null: from :func:`fit_null`.
        gate: the z-score below which a distance counts as none. Without it (``gate=0``) nearly half of the
            clients of one law keep a positive rest, the larger the fewer their samples.
        dtype: of the result; of the null's moments float32 at least.
    """
    inflation = n / size
    scaled = Measured(measured.squared, measured.variance * inflation, measured.converged)
    return judge(scaled, null, n, n, inflation=inflation, gate=gate, dtype=dtype)


def judge(
    measured: Measured,
    null: Null,
    size: Tensor,
    n: Tensor,
    *,
    gate: float,
    dtype: torch.dtype,
    inflation: Tensor | float = 1.0,
) -> Distances:
    """Judge squared distances by their null.

    Args:
        measured: the squared distances of the clients.
        null: of theirs.
        size: where on the null's grid each client is, ``(clients,)``.
        n: the clients' own sample counts, int64.
        gate: see :func:`calibrate`.
        dtype: of the result; of the null's moments float32 at least.
        inflation: of the variance of noise in the null, see :meth:`Null.at`.
    """
    squared = measured.squared
    at = size.to(null.sizes)
    noise = inflation.to(at) if isinstance(inflation, Tensor) else inflation
    mean, std = (x.to(squared.device) for x in null.at(at, noise)[:2])
    z = z_score(squared, mean, std)
    chance = null.chance(at, z.to(at)).to(squared)
    calibrated = torch.where(z >= gate, safe_root(squared - mean), 0.0)
    columns = {
        "value": safe_root(squared),
        "null_mean": mean,
        "null_std": std,
        "z": z,
        "p_value": torch.where(std > 0, chance, (squared <= mean).to(squared.dtype)),
        "calibrated": calibrated,
        "relative": relative_scale(calibrated, std),
        "std_error": standard_error(squared.detach(), measured.variance, std),
    }
    squares = {"null_mean": for_squares(dtype), "null_std": for_squares(dtype)}
    found = {name: narrowed(x, squares.get(name, dtype)) for name, x in columns.items()}
    return Distances(n=n, converged=measured.converged, **found)


def standard_error(squared: Tensor, variance: Tensor, null_std: Tensor) -> Tensor:
    r"""Standard error of a distance from the variance of its square, by the delta method.

    .. math:: \mathrm{se}(d) = \frac{s}{2d} \text{ but at most } \sqrt s, \qquad
              s^2 = \max(s_0^2,\; v - s_0^2)

    v is the estimated variance of the first-order term. Noise of the size of the null enters it twice over (for a
    Gaussian quadratic form ``E v = true linear variance + 2 s_0^2``) and the square itself once, hence the
    difference. The bound is that of a root: ``|sqrt a - sqrt b| <= sqrt |a - b|``.

    Args:
        squared: distances squared, any shape.
        variance: v.
        null_std: s_0.
    """
    spread = torch.maximum(variance - null_std.square(), null_std.square()).clamp_min(0).sqrt()
    distance = safe_root(squared)
    plain = spread / (2 * torch.where(distance > 0, distance, 1.0))
    return torch.where(distance > 0, torch.minimum(plain, safe_root(spread)), safe_root(spread))
