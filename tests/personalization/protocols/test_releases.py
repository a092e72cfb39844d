"""One run after another on data that changed: noise and masks of their own, paid for once, and rows that are clipped."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import kstest

from personalization import build_distance
from personalization.budget import BudgetExhaustedError, PrivacyBudget
from personalization.protocols import (
    SERVER,
    ClassGaussians,
    FedWaD,
    GaussianNoise,
    PairwiseMasks,
    QuantileSketches,
    SummedReference,
    TriangleWad,
)

CLIP = 4.0
CLIENT = GaussianNoise(1.0, clip=CLIP)
SAMPLE = GaussianNoise(1.0, clip=CLIP, unit="sample")
SLICED = build_distance("sliced", projections=8, quantiles=16)
NOISY = [
    SummedReference(kind=build_distance("gaussian"), noise=CLIENT, draws=8),
    SummedReference(kind=build_distance("gaussian"), noise=SAMPLE, draws=8),
    SummedReference(kind=SLICED, noise=SAMPLE, draws=8),
    QuantileSketches(projections=8, quantiles=16, noise=CLIENT),
    QuantileSketches(projections=8, quantiles=16, noise=SAMPLE),
    ClassGaussians(noise=CLIENT),
    ClassGaussians(noise=SAMPLE),
    TriangleWad(support=9, noise=CLIENT),
    FedWaD(rounds=2, support=7, noise=CLIENT),
]


def population(sizes=(12, 20, 7), dtype=torch.float64):
    g = torch.Generator().manual_seed(7)
    return [torch.randn(n, 3, generator=g, dtype=torch.float64).to(dtype) for n in sizes]


def told(protocol, features, **options):
    """What the server can read of a run: clients' messages or, under masks, their sum."""
    messages = protocol.run(features, **options).transcript
    masked = isinstance(protocol, SummedReference) and protocol.masks is not None
    read = [m for m in messages if (m.what == "sum of the summaries" if masked else m.receiver == SERVER)]
    drawn = ("mean", "cov", "sketch", "cloud", "distance")
    return torch.cat([m.content[x].flatten().double() for m in read for x in drawn if x in m.content])


@pytest.mark.parametrize("protocol", NOISY, ids=repr)
def test_releases_share_no_noise(protocol):
    features = population()
    changed = [features[0] + 0.01, *features[1:]]
    first, repeated, second = (
        told(protocol, x, release=r) for x, r in ((features, 0), (features, 0), (features, 1))
    )
    assert torch.equal(first, repeated)
    noise = (first - second).abs().median()
    assert noise > 10 * (first - told(protocol, changed)).abs().median(), (
        "one noise cancels: why releases have their own"
    )
    assert noise > 10 * (second - told(protocol, changed, release=1)).abs().median()
    assert not torch.equal(second, told(protocol, features, release=2))


@pytest.mark.parametrize("masks", [PairwiseMasks(), PairwiseMasks(seed=-3)])
def test_releases_share_no_masks(masks):
    protocol = SummedReference(kind=SLICED, masks=masks, draws=8)
    sent = [protocol.run(population(), release=r).transcript.messages[0].content["sketch"] for r in (0, 1)]
    apart = (sent[0] - sent[1]).flatten().double() / 2.0**63
    assert kstest(apart.numpy(), "uniform", (-1, 2)).pvalue > 1e-3
    found = [protocol.run(population(), release=r).distances.value for r in (0, 1)]
    assert torch.equal(*found)


@pytest.mark.parametrize("protocol", NOISY, ids=repr)
def test_a_release_is_paid_for_once(protocol):
    budget = PrivacyBudget(1.7, unit=protocol.noise.unit)
    protocol.run(population(), budget=budget, record=False)
    with pytest.raises(ValueError, match=r"paid for before.*Give run\(..., release=1\)"):
        protocol.run(population(), budget=budget)
    assert budget.epsilon() == pytest.approx(1.0, rel=1e-6)
    protocol.run(population(), budget=budget, record=False, release=1)
    with pytest.raises(BudgetExhaustedError, match=type(protocol).__name__):
        protocol.run(population(), budget=budget, release=2)
    assert len(budget.spent) == 2
    other = replace(protocol, noise=replace(protocol.noise, seed=5))
    other.run(population(), budget=PrivacyBudget(9.0, unit=protocol.noise.unit), record=False)


def test_what_fails_costs_nothing():
    budget = PrivacyBudget(5.0, unit="sample")
    tails = SummedReference(kind=build_distance("gaussian", diagonal=True), noise=SAMPLE)
    for call in (lambda: tails.run(population(), budget=budget), lambda: tails.plan([5, 5], 3)):
        with pytest.raises(ValueError, match="No sensitivity is known for the statistic 'tails'"):
            call()
    coarse = SummedReference(
        kind=build_distance("gaussian"),
        noise=GaussianNoise(1.0, clip=1e9, unit="sample"),
        masks=PairwiseMasks(bits=50),
    )
    with pytest.raises(ValueError, match="could overflow"):
        coarse.run([1e8 * x for x in population()], budget=budget)
    labels = [torch.zeros(2, dtype=torch.int64)] * 3
    with pytest.raises(ValueError, match="labels of shape"):
        ClassGaussians(noise=SAMPLE).run(population(), labels=labels, budget=budget)
    assert budget.epsilon() == 0.0


@pytest.mark.parametrize("protocol", NOISY, ids=repr)
def test_a_row_counts_for_no_more_than_the_clip(protocol):
    """The sensitivities hold for rows within the ball alone: one far outside is sent as its nearest point there."""
    features, direction = population(), torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    sent = []
    for length in (CLIP, 1e6):
        features[1][3] = length * direction
        sent.append(told(protocol, features))
    torch.testing.assert_close(*sent, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("protocol", [*NOISY, *(replace(p, noise=None) for p in NOISY)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_planned_as_it_is_sent(protocol, dtype):
    sent = protocol.run(population(dtype=dtype), record=False).transcript
    assert protocol.plan([12, 20, 7], 3, dtype=dtype).outline() == sent.outline()


def test_plans_and_releases_of_nothing_are_refused():
    for call, said in (
        (lambda: ClassGaussians().plan([5, 5], 3, classes=-2), "classes=-2 is no whole number of at least 1"),
        (
            lambda: FedWaD().plan([5, 5], 3, dtype=torch.int64),
            "dtype=torch.int64: samples are floating-point",
        ),
        (lambda: FedWaD().run(population(), release=-1), "release=-1 is no whole number of at least 0"),
        (lambda: FedWaD().run(population(), release=0.5), "release=0.5 is no whole number"),
        (
            lambda: PairwiseMasks().encode({"mean": torch.tensor([[1.0], [torch.nan]])}),
            r"mean has 1 NaN or infinite value\(s\), the first at \[1, 0\]",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            call()
