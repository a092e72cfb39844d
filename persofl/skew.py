"""What clients differ in: label laws against a permutation null, sizes, and scores of one pooled linear model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabelSkew:
    """How far each client's label law lies from that of all others; all ``(clients,)``, in [0, 1].

    Attributes:
        tv: total variation distance.
        js: Jensen-Shannon distance, the root of the divergence in bits.
        tv_null: mean total variation of as many labels drawn from all clients' labels, to those left.
        js_null: likewise.
        p_value: chance of such a Jensen-Shannon distance under that null.
    """

    tv: Array
    js: Array
    tv_null: Array
    js_null: Array
    p_value: Array


def label_skew(counts: npt.NDArray[np.int64], *, draws: int = 200, seed: int = 0) -> LabelSkew:
    """Compare each client's labels with those of all others.

    The null is exact: a client of n labels drawn without replacement from the pooled ones, against the rest.

    Args:
        counts: ``(clients, classes)`` labels of each class.
        draws: of the null, for each size of client that occurs.
        seed: of the draws.

    Returns:
        NaN for a client without labels or without others.
    """
    total, n = counts.sum(axis=0), counts.sum(axis=1)
    tv, js = _distances(counts, total - counts)
    columns = [tv, js, *(np.full(len(n), np.nan) for _ in range(3))]
    for size in np.unique(n[np.isfinite(tv)]):
        who = np.flatnonzero(n == size)
        rng = np.random.default_rng([seed, int(size)])
        drawn = rng.multivariate_hypergeometric(total, int(size), size=draws)
        tv_null, js_null = _distances(drawn, total - drawn)
        beyond = (js_null >= js[who, None] - 1e-12).sum(axis=1)
        columns[2][who], columns[3][who] = tv_null.mean(), js_null.mean()
        columns[4][who] = (1 + beyond) / (1 + draws)
    return LabelSkew(*columns)


def _distances(own: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Total variation and Jensen-Shannon distance of counts ``(..., classes)``; NaN where either side is empty."""
    with np.errstate(invalid="ignore", divide="ignore"):
        p, q = (part / part.sum(axis=-1, keepdims=True) for part in (own, others))
        middle = (p + q) / 2
        terms = [np.where(part > 0, part * np.log2(part / middle), 0.0).sum(axis=-1) for part in (p, q)]
        tv = np.abs(p - q).sum(axis=-1) / 2
    js = np.sqrt(np.maximum((terms[0] + terms[1]) / 2, 0))
    return tv, np.where(np.isnan(tv), np.nan, js)


def gini(sizes: npt.NDArray[np.int64]) -> float:
    """Gini coefficient of sizes ``(clients,)``: 0 all alike, towards 1 one client has all."""
    ordered, count = np.sort(sizes).astype(float), len(sizes)
    if not ordered.sum():
        return 0.0
    return float(
        2 * (np.arange(1, count + 1) * ordered).sum() / (count * ordered.sum()) - (count + 1) / count
    )


def principal(features: Sequence[Tensor], most: int) -> list[Tensor]:
    """Whitened principal components ``(n_k, <= most)`` of all clients' features ``(n_k, F)``, float32.

    Mean and covariance are sums over clients. Directions that hold less than 1e-9 of the variance are left out.
    """
    count = sum(len(x) for x in features)
    mean = torch.stack([x.double().sum(0) for x in features]).sum(0) / count
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for x in features:
        centred = x.double() - mean
        covariance += centred.T @ centred / count
    values, vectors = torch.linalg.eigh(covariance)
    keep = values > 1e-9 * values.sum().clamp_min(1e-30)
    axes = (vectors[:, keep] / values[keep].sqrt())[:, -most:]
    return [((x.double() - mean) @ axes).float() for x in features]


def scores(inputs: Sequence[Tensor], targets: Sequence[Tensor], *, ridge: float = 1e-3) -> list[Tensor]:
    r"""Per-sample scores of one linear model fitted to all clients: residuals and their products with the inputs.

    .. math:: r = y - W z - b, \qquad s = (r,\; r \otimes z)

    Over the whole population their mean is zero, that is what fitting means. A client whose scores have another law
    relates targets to inputs in another way: products show it even where the laws of inputs, targets and residuals
    agree (a flipped sign, classes that change places).

    Args:
        inputs: ``(n_k, p)`` whitened, see :func:`principal`.
        targets: ``(n_k, q)``.
        ridge: penalty on ``W``, in units of the inputs' variance.

    Returns:
        ``(n_k, q' (1 + p))``, residuals whitened over all clients and cut to at most 8 directions.
    """
    count, width = sum(len(x) for x in inputs), inputs[0].shape[1] + 1
    outer = torch.zeros(width, width, dtype=torch.float64)
    cross = torch.zeros(width, targets[0].shape[1], dtype=torch.float64)
    for z, y in zip(inputs, targets, strict=True):
        design = _with_intercept(z)
        outer += design.T @ design / count
        cross += design.T @ y.double() / count
    penalty = torch.full((width,), ridge, dtype=torch.float64)
    penalty[-1] = 0
    weight = torch.linalg.solve(outer + penalty.diag(), cross)
    residuals = [y.double() - _with_intercept(z) @ weight for z, y in zip(inputs, targets, strict=True)]
    short = principal(residuals, 8)
    products = [(r[:, :, None] * z[:, None, :]).flatten(1) for r, z in zip(short, inputs, strict=True)]
    return [torch.cat(pair, 1) for pair in zip(short, products, strict=True)]


def _with_intercept(z: Tensor) -> Tensor:
    return torch.cat([z.double(), torch.ones(len(z), 1, dtype=torch.float64)], 1)
