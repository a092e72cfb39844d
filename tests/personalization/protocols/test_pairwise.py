"""Protocols that compare pairs: equal to the central computation, to rounding or within their bound."""

import itertools
import math

import ot
import pytest
import torch

from personalization import bures_wasserstein, moments
from personalization.budget import PrivacyBudget
from personalization.protocols import (
    SERVER,
    ClassGaussians,
    FedWaD,
    GaussianNoise,
    QuantileSketches,
    TriangleWad,
)
from personalization.protocols.interpolation import gaussian_points, interpolant, wasserstein
from personalization.sketch import midpoint_levels, quantile_sketches, unit_projections
from personalization.sliced import sliced_wasserstein

NOISE = GaussianNoise(1.0, clip=4.0)
PROTOCOLS = [
    FedWaD(rounds=3),
    FedWaD(rounds=2, support=7, noise=NOISE),
    TriangleWad(),
    TriangleWad(support=9, noise=NOISE),
    QuantileSketches(projections=8, quantiles=16),
    QuantileSketches(projections=8, quantiles=16, noise=NOISE),
    ClassGaussians(),
    ClassGaussians(diagonal=True),
    ClassGaussians(noise=NOISE),
]


def population(sizes=(20, 20, 20), features=3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(100 + seed)  # not the protocols' own draws
    return [
        (torch.randn(n, features, generator=g, dtype=torch.float64) * (1 + k / 2) + k).to(dtype)
        for k, n in enumerate(sizes)
    ]


def exact(features):
    def w2(x, y):
        return math.sqrt(max(0.0, ot.emd2([], [], ot.dist(x.double().numpy(), y.double().numpy()))))

    return torch.tensor([[w2(x, y) for y in features] for x in features], dtype=torch.float64)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_plan_is_the_run_and_bytes_are_those_of_the_messages(protocol, dtype):
    features = population((12, 20, 7), dtype=dtype)
    transcript = protocol.run(features).transcript
    plan = protocol.plan([12, 20, 7], 3, dtype=dtype)
    assert transcript.outline() == plan.outline()
    assert all(m.content is None for m in plan)
    for message in transcript:
        assert message.bytes == sum(len(x.numpy().tobytes()) for x in message.content.values()) > 0
    assert (
        transcript.bytes_up() == plan.bytes_up() == sum(m.bytes for m in transcript if m.receiver == SERVER)
    )
    assert len(transcript.table().splitlines()) >= 1


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
def test_pairwise_is_finite_symmetric_and_zero_on_the_diagonal(protocol):
    for features in (population((12, 20, 7)), [torch.ones(5, 2)] * 3, [torch.zeros(2, 1), torch.ones(9, 1)]):
        d = protocol.run(features).pairwise
        assert torch.isfinite(d).all()
        torch.testing.assert_close(d, d.T)  # a product of sketches is symmetric to rounding
        assert float(d.diagonal().abs().max()) == 0
        assert d.dtype == features[0].dtype


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
def test_a_run_depends_on_its_seeds_alone(protocol):
    features = population((12, 20, 7))
    torch.manual_seed(1)
    one = protocol.run(features).pairwise
    torch.manual_seed(2)
    assert torch.equal(one, protocol.run(features, record=False).pairwise)


# FedWaD


@pytest.mark.parametrize("seed", range(3))
def test_fedwad_converges_to_w2(seed):
    features = population(seed=seed)
    true = exact(features)
    few, many = (FedWaD(rounds=r).run(features, record=False).pairwise for r in (1, 40))
    off = ~torch.eye(3, dtype=torch.bool)
    assert (few[off] >= true[off] - 1e-9).all()
    assert ((many - true)[off] >= -1e-9).all()
    assert ((many / true - 1)[off] < 5e-3).all()
    assert ((many - true)[off] <= (few - true)[off] + 1e-9).all()


def test_fedwad_never_gets_worse_and_a_constant_share_stops_too_early():
    features = population((30, 30), features=5)
    values = [
        float(FedWaD(rounds=r, share=0.5).run(features, record=False).pairwise[0, 1])
        for r in (1, 2, 4, 8, 30)
    ]
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(values))
    true = float(exact(features)[0, 1])
    free = float(FedWaD(rounds=40).run(features, record=False).pairwise[0, 1])
    assert free - true < 0.2 * (values[-1] - true)


def test_fedwad_with_unlike_sizes_stays_above_w2_and_near():
    features = population((20, 31, 8))
    ratio = FedWaD(rounds=20).run(features, record=False).pairwise / exact(features)
    off = ~torch.eye(3, dtype=torch.bool)
    assert ((ratio[off] > 1 - 1e-9) & (ratio[off] < 1.1)).all()


def test_fedwad_meets_half_way_along_a_line():
    """Along a line the plans sort: after one round the cloud is a share of the way from the first to the midpoint."""
    x, y = (z.sort(0).values for z in population((15, 15), features=1))
    first = gaussian_points(15, 1, 7, x).sort(0).values
    cloud = 0.4 * first + 0.6 * (x + y) / 2
    expected = sum(float((cloud - z).square().mean().sqrt()) for z in (x, y))
    found = FedWaD(rounds=1, share=0.6, seed=7).run([x, y]).pairwise
    assert float(found[0, 1]) == pytest.approx(expected)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
def test_an_interpolant_lies_on_the_geodesic(t):
    x, y = population((15, 15))
    between = interpolant(x, y, t)
    total = wasserstein(x, y)
    assert wasserstein(x, between) == pytest.approx(t * total)
    assert wasserstein(between, y) == pytest.approx((1 - t) * total)


# TriangleWad


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_trianglewad_keeps_its_bound(share, seed):
    features = population((15, 15, 15, 15), features=4, seed=seed)
    outcome = TriangleWad(share=share, seed=seed).run(features)
    error = outcome.pairwise - exact(features)
    assert float(error.min()) > -1e-6, "curvature makes it larger, never smaller"
    assert (error <= outcome.bound + 1e-6).all()
    assert outcome.transcript.rounds == 1


@pytest.mark.parametrize("share", [0.25, 0.8])
def test_the_bound_of_trianglewad_is_its_formula(share):
    features = population((15, 15, 15))
    protocol = TriangleWad(share=share, seed=3)
    gamma = protocol.reference([15] * 3, features[0])
    to_gamma = exact([gamma, *features])[0, 1:]
    expected = 2 * (1 - share) / share * (to_gamma[:, None] + to_gamma).fill_diagonal_(0)
    assert torch.allclose(protocol.run(features).bound, expected)


def test_trianglewad_is_exact_at_the_samples_and_for_one_feature():
    features = population((15, 15, 15))
    near = TriangleWad(share=0.999).run(features).pairwise
    assert torch.allclose(near, exact(features), rtol=1e-3, atol=1e-6)
    line = population((15, 15, 15), features=1)  # Along a line W2 is flat.
    assert torch.allclose(TriangleWad(share=0.3).run(line).pairwise, exact(line), rtol=1e-6, atol=1e-6)


# Quantile sketches


@pytest.mark.parametrize("order", [1.0, 2.0])
def test_sketches_give_the_sliced_distance(order):
    features = population((16, 32, 64))
    protocol = QuantileSketches(projections=12, quantiles=64, order=order, seed=3)
    found = protocol.run(features).pairwise
    directions = unit_projections(3, 12, seed=3, like=features[0])
    s = quantile_sketches(features, directions, midpoint_levels(64))
    for i in range(3):
        for j in range(3):
            assert float(found[i, j]) == pytest.approx(
                float(sliced_wasserstein(s[i], s[j], order=order)), abs=1e-6
            )
    # The sizes divide the number of levels, so that the sketches hold all of the samples.
    x, y = (f.numpy() for f in features[:2])
    oracle = ot.sliced_wasserstein_distance(x, y, projections=directions.T.numpy(), p=order)
    assert float(found[0, 1]) == pytest.approx(float(oracle), rel=1e-6)


def test_noise_in_sketches_has_the_stated_deviation_and_its_part_is_taken_out():
    features = population((40,) * 12, seed=4)
    noise = GaussianNoise(2.0, clip=8.0)
    protocol = QuantileSketches(projections=32, quantiles=64, noise=noise)
    silent = QuantileSketches(projections=32, quantiles=64)
    sent = [
        torch.stack([m.content["sketch"] for m in p.run(features).transcript]) for p in (protocol, silent)
    ]
    scale = float(protocol.scales([40], 3)[0])
    gap = (sent[0] - sent[1]) / scale  # No sketch of theirs is long enough to be clipped.
    assert float(gap.std()) == pytest.approx(1.0, rel=0.03)
    squared = torch.cdist(sent[0].flatten(1), sent[0].flatten(1)).square() / sent[0][0].numel()
    truth = silent.run(features).pairwise.square()
    off = ~torch.eye(12, dtype=torch.bool)
    assert float((squared - truth)[off].mean()) == pytest.approx(2 * scale**2, rel=0.05)


@pytest.mark.parametrize("n", [3, 16, 50])
def test_no_sample_moves_a_sketch_by_more_than_its_sensitivity(n):
    noise = GaussianNoise(1.0, clip=2.0, unit="sample")
    protocol = QuantileSketches(projections=20, quantiles=16, noise=noise)
    bound = float(protocol.scales([n], 3)[0]) / noise.multiplier
    silent = QuantileSketches(projections=20, quantiles=16)
    g = torch.Generator().manual_seed(n)
    worst = 0.0
    for left in range(1, n):
        # Two heaps at the ends of the ball, and one sample that goes from one to the other.
        edge = 2 * torch.nn.functional.normalize(torch.randn(3, generator=g), dim=0)
        x = torch.where(torch.arange(n)[:, None] < left, edge, -edge)
        y = x.clone()
        y[0] = -x[0]
        one, two = silent.run([x, y]).transcript
        worst = max(worst, float((one.content["sketch"] - two.content["sketch"]).norm()))
    assert 0.5 * bound < worst <= bound * (1 + 1e-5)


# Gaussians


def test_one_class_is_the_bures_distance():
    features = population((30, 40, 50))
    found = ClassGaussians().run(features).pairwise
    for i in range(3):
        for j in range(i):
            expected = bures_wasserstein(*moments(features[i]), *moments(features[j]))
            assert float(found[i, j]) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("diagonal", [False, True])
def test_classes_are_transported_to_classes(diagonal):
    """MW2 against one linear programme written out, and against unequal class weights."""
    g = torch.Generator().manual_seed(0)
    features = [torch.randn(n, 2, generator=g, dtype=torch.float64) for n in (30, 40)]
    labels = [torch.arange(30) % 3, (torch.arange(40) % 4).clamp(max=2)]
    features = [x + 2 * y[:, None] for x, y in zip(features, labels, strict=True)]
    found = float(ClassGaussians(diagonal=diagonal).run(features, labels=labels).pairwise[0, 1])
    laws = [[moments(x[y == c]) for c in range(3)] for x, y in zip(features, labels, strict=True)]
    if diagonal:
        laws = [[(m, torch.diag(c.diagonal())) for m, c in law] for law in laws]
    cost = [[float(bures_wasserstein(*a, *b)) ** 2 for b in laws[1]] for a in laws[0]]
    weights = [torch.bincount(y).double() / len(y) for y in labels]
    expected = ot.emd2(
        weights[0].numpy(), weights[1].numpy(), torch.tensor(cost, dtype=torch.float64).numpy()
    )
    assert found == pytest.approx(math.sqrt(expected), rel=1e-6)


def test_the_names_of_classes_do_not_matter_and_empty_ones_are_left_out():
    features = population((30, 30))
    labels = [torch.arange(30) % 2] * 2
    swapped = [labels[0], 5 - labels[1]]
    one = ClassGaussians().run(features, labels=labels).pairwise
    assert torch.allclose(one, ClassGaussians().run(features, labels=swapped).pairwise)
    single = [torch.tensor([0] * 29 + [1]), labels[1]]
    assert torch.isfinite(ClassGaussians().run(features, labels=single).pairwise).all()


@pytest.mark.parametrize("unit", ["client", "sample"])
def test_noise_on_gaussians_falls_with_the_samples_where_samples_are_protected(unit):
    protocol = ClassGaussians(noise=GaussianNoise(1.0, clip=3.0, unit=unit))
    (mean, cov), (mean_more, cov_more) = protocol.scales(100, 2), protocol.scales(1000, 2)
    ratio = 10 if unit == "sample" else 1
    assert mean / mean_more == pytest.approx(ratio)
    assert cov / cov_more == pytest.approx(ratio)
    features = [population((100,) * 1, seed=s)[0] for s in range(60)]
    loud = [m.content["mean"] for m in protocol.run(features).transcript]
    faint = [m.content["mean"] for m in ClassGaussians().run(features).transcript]
    spread = float((torch.stack(loud) - torch.stack(faint)).std())
    assert spread == pytest.approx(protocol.scales(100, 1)[0], rel=0.15)


def test_all_of_a_run_is_one_release():
    """Deviations over sensitivities of one client's releases, in quadrature, give the multiplier."""
    protocol = FedWaD(rounds=4, support=6, noise=NOISE)
    cloud = NOISE.scale(2 * NOISE.clip * protocol.share_of(1) * math.sqrt(6), protocol.releases(3))
    sensitivity = 2 * NOISE.clip * protocol.share_of(1) * math.sqrt(6)
    assert protocol.releases(3) * (sensitivity / cloud) ** 2 == pytest.approx(NOISE.multiplier**-2)
    sent = [m for m in protocol.plan([6] * 3, 3) if m.sender == "client 0"]
    assert len(sent) == protocol.releases(3)
    for protocol in (p for p in PROTOCOLS if p.noise is not None):
        budget = PrivacyBudget(1.2)
        protocol.run(population((6, 6)), budget=budget)
        assert budget.epsilon() == pytest.approx(1.0, rel=1e-6)
        assert "(1, 1e-05)-differentially private for one client" in protocol.learns()


def test_noisy_clouds_have_the_stated_deviation():
    features = [x / 10 for x in population((200, 200), features=4)]
    noise = GaussianNoise(3.0, clip=2.0)
    loud, faint = TriangleWad(noise=noise).run(features), TriangleWad().run(features)
    gap = loud.transcript.messages[0].content["cloud"] - faint.transcript.messages[0].content["cloud"]
    assert float(gap.std()) == pytest.approx(noise.scale(2 * 2.0 * 0.5 * math.sqrt(200), 2), rel=0.1)
    assert loud.bound is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FedWaD(rounds=0), "rounds=0"),
        (lambda: FedWaD(support=0), "support=0"),
        (lambda: FedWaD(share=1.0), r"share=1\.0 must lie between"),
        (
            lambda: FedWaD(noise=GaussianNoise(1.0, unit="sample")),
            "one sample can change the whole transport plan",
        ),
        (lambda: TriangleWad(share=0.0), r"share=0\.0"),
        (lambda: TriangleWad(support=0), "support=0"),
        (lambda: TriangleWad(noise=GaussianNoise(1.0, unit="sample")), "use unit='client'"),
        (lambda: QuantileSketches(order=0.5), r"order=0\.5"),
        (lambda: QuantileSketches(order=1.0, noise=NOISE), "only for order 2"),
        (lambda: QuantileSketches(projections=0), "projections=0"),
        (lambda: FedWaD().run(population((5, 5)), labels=[torch.zeros(5)] * 2), "uses no labels"),
        (lambda: ClassGaussians().run(population((5,))), "at least 2 clients"),
        (lambda: ClassGaussians().run(population((5, 5)), labels=[torch.zeros(5)]), "1 label tensors for 2"),
        (
            lambda: ClassGaussians().run(
                population((5, 5)), labels=[torch.zeros(5).long(), torch.zeros(4).long()]
            ),
            r"Client 1 has labels of shape \(4,\)",
        ),
        (
            lambda: ClassGaussians().run(population((5, 5)), labels=[torch.zeros(5), torch.zeros(5)]),
            "Client 0 has labels .*float32",
        ),
        (
            lambda: ClassGaussians().run(population((5, 5)), labels=[torch.full((5,), -1)] * 2),
            "from 0, per sample",
        ),
        (lambda: TriangleWad().run([torch.tensor([[1.0], [math.nan]])] * 2), "NaN or infinite"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
