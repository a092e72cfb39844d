"""Class or feature Gaussians up: a mean and a covariance per class, compared by transport between the mixtures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import check_fields, check_tensors
from ..gaussian import bures_squared, moments
from ..numeric import safe_root, wide
from .base import Outcome, Protocol
from .noise import GaussianNoise, check_noise, clip_rows, sample_sensitivity
from .noised import nearest_covariance
from .pairs import pairs
from .transcript import SERVER, Message, Piece, Route, Transcript, client

_MOST = 20_000_000  # numbers in a client's message


@dataclass(frozen=True, kw_only=True)
class ClassGaussians(Protocol):
    r"""All pairs of clients, W2 between their mixtures of class Gaussians (MW2).

    .. math:: d^2 = \min_P \sum_{cc'} P_{cc'}\, \mathrm{BW}^2(N_c, N'_{c'})

    over the couplings of the class weights. Without labels each client is one Gaussian, and d the Bures-Wasserstein
    distance. A class that a client has not has weight 0; one of a single sample has covariance 0.

    Args:
        diagonal: send variances instead of covariances.
        noise: on means and covariances; labels and counts per class are not protected. For unit "sample" a sample
            keeps its label.

    Raises:
        ValueError: an option of another sort.

    References:
        Delon and Desolneux, A Wasserstein-type distance in the space of Gaussian mixture models, SIAM J. Imaging
        Sciences 13(2), 2020.
    """

    diagonal: bool = False
    noise: GaussianNoise | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_noise(self.noise, "ClassGaussians")

    def learns(self) -> str:
        """What the server learns."""
        counts = "Every client's label counts"
        if self.noise is not None:
            return f"{counts}, and a mean and a covariance per class, {self.noise.statement()}."
        return (
            f"{counts}, and the mean and {'variances' if self.diagonal else 'covariance'} of every class; "
            "the sample itself where a class has only one, and both up to their order where it has two."
        )

    def _plan(
        self, sizes: Sequence[int], features: int, dtype: torch.dtype, classes: int
    ) -> Sequence[Message]:
        """The messages of a run: C (1 + F + F^2) numbers per client."""
        spread = (classes, features) if self.diagonal else (classes, features, features)
        pieces = (
            Piece("count", (classes,), torch.int64),
            Piece("mean", (classes, features), dtype),
            Piece("cov", spread, dtype),
        )
        return [_up(k).of(pieces) for k in range(len(sizes))]

    def _play(self, samples: list[Tensor], labels: list[Tensor], *, record: bool) -> Outcome:
        classes = max(int(y.max()) for y in labels) + 1
        sent = [self._message(x, y, classes, k) for k, (x, y) in enumerate(zip(samples, labels, strict=True))]
        messages = tuple(_up(k).carry(content, record=record) for k, content in enumerate(sent))
        return Outcome(Transcript(messages, len(sent)), pairwise=self._compare(sent))

    def scales(self, n: int, classes: int) -> tuple[float, float]:
        """Standard deviations of the noise in the mean and the covariance of a class of n samples."""
        if self.noise is None or n == 0:
            return 0.0, 0.0
        clip = self.noise.clip
        if self.noise.unit == "client":
            bounds = 2 * clip * math.sqrt(classes), math.sqrt(2 * classes) * clip**2
        else:
            none = torch.zeros(1, 1)
            bounds = (
                sample_sensitivity("mean", n, clip, directions=none, levels=1),
                sample_sensitivity("cov", n, clip, directions=none, levels=1),
            )
        return self.noise.scale(bounds[0], 2), self.noise.scale(bounds[1], 2)

    def _labels(self, samples: list[Tensor], labels: Sequence[Tensor] | None) -> list[Tensor]:
        """Refused where they are no class numbers, or not one per sample; where none are given, one class."""
        if labels is None:
            return [torch.zeros(len(x), dtype=torch.int64, device=x.device) for x in samples]
        _check_classes(samples, labels)
        return list(labels)

    def _message(self, x: Tensor, y: Tensor, classes: int, k: int) -> dict[str, Tensor]:
        samples = x if self.noise is None else clip_rows(x, self.noise.clip)
        mean = x.new_zeros(classes, x.shape[1])
        cov = x.new_zeros(classes, x.shape[1], x.shape[1])
        count = torch.bincount(y, minlength=classes)
        for c in range(classes):
            own = samples[y == c]
            if len(own) >= 2:
                mean[c], cov[c] = moments(own)
            elif len(own) == 1:
                mean[c] = own[0]
        if self.noise is not None:
            mean, cov = self._noised(mean, cov, count.tolist(), k)
        return {"count": count, "mean": mean, "cov": _diagonal(cov) if self.diagonal else cov}

    def _noised(self, mean: Tensor, cov: Tensor, count: list[int], k: int) -> tuple[Tensor, Tensor]:
        noise = self.noise
        if noise is None:
            return mean, cov
        norm = cov.flatten(1).norm(dim=1)
        if noise.unit == "client":
            cov = cov * (noise.clip**2 / norm.clamp_min(1e-30)).clamp_max(1.0)[:, None, None]
        drawn = [self.scales(n, len(count)) for n in count]
        mean = torch.stack(
            [
                m + noise.draw(tuple(m.shape), s[0], k, c, 0).to(m)
                for c, (m, s) in enumerate(zip(mean, drawn, strict=True))
            ]
        )
        cov = torch.stack(
            [
                m + noise.draw(tuple(m.shape), s[1], k, c, 1).to(m)
                for c, (m, s) in enumerate(zip(cov, drawn, strict=True))
            ]
        )
        return mean, (cov + cov.mT) / 2 if self.diagonal else nearest_covariance(cov)

    def _compare(self, sent: list[dict[str, Tensor]]) -> Tensor:
        """On the server."""
        pairwise = wide(sent[0]["mean"]).new_zeros(len(sent), len(sent))
        for i, j in pairs(len(sent)):
            pairwise[i, j] = pairwise[j, i] = self._mixture_distance(sent[i], sent[j])
        return pairwise.to(sent[0]["mean"])

    def _mixture_distance(self, one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
        import ot

        here, there = one["count"] > 0, other["count"] > 0
        a, b = wide(one["mean"])[here][:, None], wide(other["mean"])[there][None, :]
        C, D = wide(one["cov"])[here][:, None], wide(other["cov"])[there][None, :]
        if self.diagonal:
            cost = (a - b).square().sum(-1) + (safe_root(C) - safe_root(D)).square().sum(-1)
        else:
            cost = bures_squared(a.expand(len(a), b.shape[1], -1), C, b, D)
        weights = [wide(x["count"])[k] / x["count"].sum() for x, k in ((one, here), (other, there))]
        value = ot.emd2(*(w.cpu().numpy() for w in weights), cost.cpu().numpy())
        return math.sqrt(max(0.0, float(value)))


def _check_classes(features: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
    """Refuse what are no class numbers.

    Raises:
        ValueError: names the first client whose labels do not fit.
    """
    if len(labels) != len(features):
        raise ValueError(f"{len(labels)} label tensors for {len(features)} clients; give one per client.")
    for k, (x, y) in enumerate(zip(features, labels, strict=True)):
        check_tensors(**{f"labels[{k}]": y})
        if y.shape != (len(x),) or y.is_floating_point() or y.dtype == torch.bool or int(y.min()) < 0:
            raise ValueError(
                f"Client {k} has labels of shape {tuple(y.shape)} and type {y.dtype}; give one class number, "
                f"from 0, per sample, ({len(x)},) int64."
            )
    classes, width = max(int(y.max()) for y in labels) + 1, features[0].shape[1]
    if classes * width**2 > _MOST:
        raise ValueError(
            f"Class {classes - 1} makes every client send the moments of {classes:,} classes; number the classes from 0 "
            "without gaps."
        )


def _diagonal(cov: Tensor) -> Tensor:
    return cov.diagonal(dim1=-2, dim2=-1).contiguous()


def _up(k: int) -> Route:
    return Route(1, client(k), SERVER, "class Gaussians")
