"""The default: clients send sums, hidden by secure aggregation, and compare themselves with what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..calibration import Measured, calibrate
from ..distances import Distances
from ..errors import (
    check_counts,
    check_draws,
    check_features,
    check_fields,
    check_gate,
)
from ..halves import KNOTS, corrected, half_null, knots
from ..kind import DistanceKind, Statistics
from ..null import Null, fit_null, size_grid
from ..numeric import rounding, single, size_groups, wide
from ..population import client_statistics
from ..reference import Summary, Weighting, check_weighting, client_weights, summarise
from ..sketch import unit_projections
from ..sliced import SlicedDistance
from .base import Outcome, Protocol
from .checks import check_answers, check_total
from .halved import check_law, check_sum, counted, exchanged, planned
from .masks import PairwiseMasks
from .noise import (
    GaussianNoise,
    client_bound,
    clip_block,
    clip_rows,
    noised_names,
    sample_sensitivity,
)
from .noised import NoisedReference, tidy
from .transcript import EVERYONE, SERVER, Message, Piece, Route, Transcript, client

_POINTS = 8


@dataclass(frozen=True, kw_only=True)
class SummedReference(Protocol):
    """Distance of every client to the population of the others, from sums only.

    Round 1: each client sends its weighted statistics, masked; the server adds them up and sends the sum to all. Each
    subtracts its own part and compares itself. Round 2: the squared distance and its variance go up, two numbers;
    with noise they stay, since they would tell more than the noise hides, and the null comes down instead. For a null from
    ``"halves"`` the law's comes down with the sum, and masked counts of the clients' halves go up in round 2.

    Args:
        kind: the distance, one of those that need only sums.
        weighting: of the clients in the population. With ``noise``, "uniform" keeps the sensitivity of the sum at one
            client's; with "samples" the largest client sets it.
        masks: secure aggregation; None lets the server see every summary.
        noise: None tells the exact sum. Each client adds its share, so that the sum has it all; needs ``masks``.
        draws: of the null, per size.
        gate: the z-score below which a distance counts as none.
        seed: of the null.
        null_from: the null's law, ``"law"`` as sums describe it, or corrected by ``"halves"``, see
            :mod:`personalization.halves`.

    Raises:
        ValueError: noise without masks, or with halves, whose counts it does not hide.
    """

    kind: DistanceKind = field(default_factory=SlicedDistance)
    weighting: Weighting = "samples"
    masks: PairwiseMasks | None = field(default_factory=PairwiseMasks)
    noise: GaussianNoise | None = None
    draws: int = 256
    gate: float = 1.0
    seed: int = 0
    null_from: str = "law"

    def __post_init__(self) -> None:
        check_fields(self)
        check_law(self.null_from, noised=self.noise is not None)
        if not isinstance(self.kind, DistanceKind):
            raise ValueError(
                f"SummedReference: kind={self.kind!r} is no distance of sums; take SlicedDistance() or GaussianDistance()."
            )
        if self.noise is not None and self.masks is None:
            raise ValueError(
                "SummedReference: each client adds only its share of the noise, which protects nobody without masks; "
                "leave masks at PairwiseMasks()."
            )
        for name, kind in (("noise", GaussianNoise), ("masks", PairwiseMasks)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"SummedReference: {name}={value!r}; give {kind.__name__}(...), or None.")
        check_weighting(self.weighting)
        check_draws(self.draws)
        check_gate(self.gate)

    def learns(self) -> str:
        """What the server learns."""
        if self.masks is None:
            return "Each client's sample count, mean, covariance, tail index and sketch in the clear, and its distance."
        shared = "Sample counts, and the sum of all clients' statistics"
        if self.noise is not None:
            return (
                f"{shared} with noise, {self.noise.statement()} against the server and the other clients; no distance. "
                "A client that conspires with the server removes its own share of the noise."
            )
        if self.null_from == "halves":
            shared += "; of all together, how often halves of their own samples lie how far apart"
        return (
            f"{shared}; of one client, its squared distance and that number's variance. No client's own statistics, "
            "unless the server conspires with all its neighbours. With two clients each learns the other's summary."
        )

    def _plan(
        self, sizes: Sequence[int], features: int, dtype: torch.dtype, classes: int
    ) -> Sequence[Message]:
        """The messages of a run; their size depends on the features alone."""
        self.scales(sizes, features)  # refuses statistics that no noise is known for
        own = self._sent(self.kind.statistics(torch.zeros(2, features, dtype=dtype)))
        up = torch.float64 if self.masks is None else torch.int64
        counted = Piece("n", (), torch.int64)
        sums = tuple(Piece(name, tuple(x.shape), up) for name, x in own.items())
        scalars = tuple(Piece(name, (), torch.float64) for name in ("weight", "noise"))
        total = (*scalars, *(Piece(name, tuple(x.shape), torch.float64) for name, x in own.items()))
        clients = range(len(sizes))
        messages = [self._up(k).of((counted, *sums)) for k in clients]
        messages.append(_TOTAL.of(total))
        if self.null_from == "halves":
            messages += planned(sizes, masked=self.masks is not None)
        if self.noise is None:
            answer = tuple(Piece(name, (), torch.float64) for name in ("squared", "variance"))
            messages += [_answer(k).of(answer) for k in clients]
        else:
            grid = len(_grid(torch.tensor(sizes)))
            null = tuple(Piece(name, (grid,), torch.float64) for name in KNOTS)
            messages.append(_NULL.of(null))
        return messages

    def _play(self, samples: list[Tensor], labels: list[Tensor], *, record: bool) -> Outcome:
        """Play all parties; ``distances`` equals :func:`personalization.distance_to_population` without noise.

        With noise ``distances`` is what the clients know, each for itself, and the unit of ``relative`` is the
        resolution, which is public, instead of the population's median, which nobody knows.
        """
        if self.noise is not None:
            samples = [clip_rows(x, self.noise.clip) for x in samples]
        n = torch.tensor([len(x) for x in samples], device=samples[0].device)
        own = self._sent(client_statistics(self.kind, samples))
        scales = self.scales(n.tolist(), samples[0].shape[1])
        summaries = summarise(own, n, weighting=self.weighting)
        ups = self._messages(summaries, scales)
        messages = [
            self._up(k).carry({"n": n[k], **{name: x[k] for name, x in ups.items()}}, record=record)
            for k in range(len(n))
        ]
        total = self._total(ups, n)
        down = {"weight": total.weight, "noise": total.noise, **total.totals}
        messages.append(_TOTAL.carry(down, record=record))
        squared, variance = self._compare(samples, own, summaries, total, scales)
        null = self._null(total, scales, n)
        if self.null_from == "halves":
            law = self._half_null(total, n)
            more, counts = exchanged(self.kind, samples, law, self.masks, seed=self.seed, record=record)
            messages, null = messages + more, corrected(null, law, counts)
        distances = self._judge(total, n, squared, variance, null, dtype=samples[0].dtype)
        if self.noise is None:
            messages += [
                _answer(k).carry({"squared": squared[k], "variance": variance[k]}, record=record)
                for k in range(len(n))
            ]
        else:
            messages.append(_NULL.carry(knots(null), record=record))
            distances = _publicly_scaled(distances)
        return Outcome(Transcript(tuple(messages), len(n)), distances=distances)

    def summary(self, samples: Tensor) -> Summary:
        """In a federation of one's own, on a client: what goes up, to be added to the others'.

        Raises:
            ValueError: samples that no distance can be measured of; a protocol with noise, which this has not.
        """
        if self.noise is not None:
            raise ValueError(
                "SummedReference: summary() is exact, and noise=... would promise what it does not protect. Play the "
                "parties with run(), or leave the noise out."
            )
        (samples,) = single(check_features([samples]))
        return summarise(self.kind.statistics(samples), len(samples), weighting=self.weighting)

    def answer(self, samples: Tensor, total: Summary) -> tuple[Tensor, Tensor]:
        """There, on a client again: its squared distance to the others and that number's variance, scalars.

        A client that is alone has distance 0.

        Raises:
            ValueError: samples that no distance can be measured of; a sum of other features, of another kind, or with NaN.
        """
        (samples,) = single(check_features([samples]))
        check_total(total, self.kind, samples.shape[1])
        own = {name: x[None] for name, x in self.kind.statistics(samples).items()}
        summary = summarise(own, torch.tensor([len(samples)]), weighting=self.weighting)
        if float(total.weight) <= float(summary.weight[0]):
            return wide(samples).new_zeros(()), wide(samples).new_zeros(())
        squared, variance = self._compare([samples], own, summary, total, {})
        return squared[0], variance[0]

    def halves(self, total: Summary, n: Tensor) -> dict[str, Tensor]:
        """There, on the server: what goes down with the sum for ``null_from="halves"``, each ``(sizes,)``."""
        check_total(total, self.kind)
        return knots(self._half_null(total, check_counts(n, len(n), least=2)))

    def counts(self, samples: Tensor, total: Summary, halves: Mapping[str, Tensor]) -> Tensor:
        """There, on a client: what goes up for it, ``(sizes, 128)``, to be added to the others'."""
        (samples,) = single(check_features([samples]))
        check_total(total, self.kind, samples.shape[1])
        return counted(self.kind, samples, total.mean(), halves, seed=self.seed)

    def judge(
        self, total: Summary, n: Tensor, squared: Tensor, variance: Tensor, counts: Tensor | None = None
    ) -> Distances:
        """There, on the server: the clients' calibrated distances from their answers ``(clients,)``, float64.

        Raises:
            ValueError: counts that fit no client, or not the sum; an answer that is negative, NaN or infinite; no sum of
                the counts of halves, one that is none, or one that nobody asked for.
        """
        if (counts is None) == (self.null_from == "halves"):
            needs = "without" if self.null_from == "law" else "with"
            raise ValueError(
                f"null_from={self.null_from!r} is judged {needs} the sum of the clients' counts()."
            )
        check_total(total, self.kind)
        n = check_answers(total, n, (squared, variance), self.weighting)
        if len(n) == 1 and float(total.weight) <= float(
            client_weights(n, self.weighting)
        ):  # nobody to be far from
            zero, one = torch.zeros_like(squared), torch.ones_like(squared)
            return Distances(squared, zero, zero, zero, one, n, squared, zero)
        null = self._null(total, {}, n)
        if counts is not None:
            law = self._half_null(total, n)
            null = corrected(null, law, check_sum(counts, law))
        return self._judge(total, n, squared, variance, null, dtype=squared.dtype)

    def scales(self, sizes: Sequence[int], features: int) -> dict[str, float]:
        """Standard deviation of the noise in the sum, by statistic; empty without noise.

        The statistics are one release: each is scaled to sensitivity 1, together they have the root of their number.
        """
        if self.noise is None:
            return {}
        own = self._sent(self.kind.statistics(torch.zeros(2, features)))
        names = noised_names(own)
        bounds = {name: self.sensitivity(name, sizes, features, tuple(own[name].shape)) for name in names}
        return {name: self.noise.scale(bound, len(names)) for name, bound in bounds.items()}

    def sensitivity(self, name: str, sizes: Sequence[int], features: int, shape: tuple[int, ...]) -> float:
        """How far one unit can move a statistic's weighted sum, in L2; see :mod:`personalization.protocols.noise`."""
        if self.noise is None:
            raise ValueError("Without noise there is no clip, and without a clip no bound.")
        weights = client_weights(torch.tensor(sizes), self.weighting).tolist()
        if self.noise.unit == "client":
            return float(max(weights)) * client_bound(name, shape, features, self.noise.clip)
        directions, levels = torch.zeros(1, features), 1
        if isinstance(self.kind, SlicedDistance):
            directions = unit_projections(features, self.kind.projections, seed=self.kind.seed)
            levels = self.kind.quantiles
        clip = self.noise.clip
        return max(
            float(w) * sample_sensitivity(name, n, clip, directions=directions, levels=levels)
            for w, n in zip(weights, sizes, strict=True)
        )

    def _up(self, k: int) -> Route:
        return Route(1, client(k), SERVER, "summary" if self.masks is None else "masked summary")

    def _sent(self, own: Statistics) -> Statistics:
        """What of a client's statistics crosses the wire, clipped where noise protects it."""
        if self.noise is None:
            return own
        sent = {name: x for name, x in own.items() if name != "tail"}
        if self.noise.unit == "sample" or sent["mean"].ndim == 1:
            return sent
        for name in noised_names(sent):
            shape, features = tuple(sent[name].shape[1:]), sent["mean"].shape[-1]
            sent[name] = clip_block(sent[name], client_bound(name, shape, features, self.noise.clip))
        return sent

    def _messages(self, summaries: Summary, scales: dict[str, float]) -> Statistics:
        """What goes up, ``(clients, ...)``: the weighted statistics, each with its share of noise, masked."""
        ups = dict(summaries.totals)
        clients = len(summaries.weight)
        for position, (name, scale) in enumerate(scales.items()):
            if self.noise is not None:
                share = self.noise.draw(tuple(ups[name].shape), scale / clients**0.5, position)
                ups[name] = ups[name] + share.to(ups[name])
        if self.masks is None:
            return ups
        for name in ("sketch", "cov"):
            # A covariance that is the rounding of its mean is none.
            if name in ups and float(ups[name].abs().max()) > 1e-12 * float(ups["mean"].abs().max()) ** 2:
                self.masks.refuse_coarse(name, ups[name])
        return self.masks.encode(ups)

    def _total(self, ups: Statistics, n: Tensor) -> Summary:
        """What the server has of them: their sum, and the weights, which follow from the sample counts."""
        total = {name: x.sum(0) for name, x in ups.items()}
        if self.masks is not None:
            total = {name: wide(x) for name, x in self.masks.decode(total).items()}
        counts = wide(n)
        weight = client_weights(counts, self.weighting)
        return Summary(weight.sum(), (weight**2 / counts).sum(), total)

    def _compare(
        self,
        samples: Sequence[Tensor],
        own: Statistics,
        summaries: Summary,
        total: Summary,
        scales: Mapping[str, float],
    ) -> tuple[Tensor, Tensor]:
        """On each client, without itself: squared distance and its variance, ``(clients,)``."""
        squared = wide(samples[0]).new_zeros(len(samples))
        variance = squared.clone()
        for who, x in size_groups(samples, 1_000_000):
            index = torch.tensor(who, device=x.device)
            part = Summary(summaries.weight[index], summaries.noise[index], _rows(summaries.totals, index))
            others = total.without(part)
            reference = others.mean()
            if self.noise is not None:
                # Clients of one size have one weight, and with it one noise in the mean of the others.
                reference = tidy(reference, {name: s / float(others.weight[0]) for name, s in scales.items()})
            squared[index] = wide(self.kind.squared(_rows(own, index), reference))
            variance[index] = wide(self.kind.linear_variance(x, _rows(own, index), reference))
        return torch.where(squared > rounding(samples, self.kind.degree), squared, 0.0), variance

    def _judge(
        self,
        total: Summary,
        n: Tensor,
        squared: Tensor,
        variance: Tensor,
        null: Null,
        *,
        dtype: torch.dtype,
    ) -> Distances:
        weight = client_weights(wide(n), self.weighting)
        others = (total.weight - weight) ** 2 / (total.noise - weight**2 / n)
        measured = Measured(squared, variance, torch.ones_like(squared, dtype=torch.bool))
        return calibrate(measured, 1 / (1 / n + 1 / others), n, null, gate=self.gate, dtype=dtype)

    def _half_null(self, total: Summary, n: Tensor) -> Null:
        return half_null(self.kind, total.mean(), n, draws=self.draws, seed=self.seed)

    def _null(self, total: Summary, scales: dict[str, float], n: Tensor) -> Null:
        """The null, on the server: the noise in the reference belongs to it."""
        kind, reference = self.kind, total.mean()
        if self.noise is not None:
            spread = {name: scale / float(total.weight) for name, scale in scales.items()}
            reference = tidy(reference, spread)
            kind = NoisedReference(kind, spread, self.noise)
        # With noise its part of the null stays for every n as well, and is not told from the samples'.
        largest = None if self.noise is not None else float(n.max())
        return fit_null(kind, reference, _grid(n), draws=self.draws, seed=self.seed, largest=largest)


_TOTAL = Route(1, SERVER, EVERYONE, "sum of the summaries")
_NULL = Route(1, SERVER, EVERYONE, "null")


def _answer(k: int) -> Route:
    return Route(2, client(k), SERVER, "squared distance")


def _grid(n: Tensor) -> list[int]:
    return size_grid(float(n.min()), float(n.max()), points=_POINTS)


def _rows(statistics: Statistics, index: Tensor) -> Statistics:
    return {name: x[index] for name, x in statistics.items()}


def _publicly_scaled(distances: Distances) -> Distances:
    unit = distances.null_std.clamp_min(0).sqrt().quantile(0.5)
    return replace(distances, relative=distances.calibrated / torch.where(unit > 0, unit, 1.0))
