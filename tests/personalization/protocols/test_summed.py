import math

import pytest
import torch
from scipy import stats

from personalization import EnergyDistance, build_distance, distance_to_population
from personalization.budget import BudgetExhaustedError, PrivacyBudget
from personalization.protocols import SERVER, GaussianNoise, PairwiseMasks, SummedReference, client
from personalization.protocols.noised import nearest_covariance, tidy


def population(sizes=(30, 60, 60, 200, 90, 2), features=4, shift=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(n, features, generator=g) for n in sizes]
    drawn[0] = drawn[0] + shift
    return drawn


@pytest.fixture(params=["sliced", "gaussian"])
def kind(request):
    options = {"projections": 16, "quantiles": 32} if request.param == "sliced" else {}
    return build_distance(request.param, **options)


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
@pytest.mark.parametrize("masks", [None, PairwiseMasks()])
def test_equals_the_distances_computed_in_one_place(kind, weighting, masks):
    features = population()
    found = SummedReference(kind=kind, weighting=weighting, masks=masks, draws=64).run(features).distances
    central = distance_to_population(features, kind, weighting=weighting, draws=64)
    for name in ("value", "null_mean", "null_std", "p_value", "calibrated", "relative"):
        assert torch.allclose(getattr(found, name), getattr(central, name), rtol=1e-3, atol=1e-4), name
    assert torch.equal(found.n, central.n)


@pytest.mark.parametrize(
    ("masks", "noise"),
    [(None, None), (PairwiseMasks(), None), (PairwiseMasks(), GaussianNoise(1.0, clip=4.0))],
)
def test_the_plan_is_the_run(kind, masks, noise):
    protocol = SummedReference(kind=kind, masks=masks, noise=noise, draws=16)
    features = population()
    ran, plan = protocol.run(features).transcript, protocol.plan([len(x) for x in features], 4)
    assert ran.outline() == plan.outline()
    assert (ran.bytes_up(), ran.bytes_down()) == (plan.bytes_up(), plan.bytes_down())


def test_claimed_bytes_are_those_of_the_messages(kind):
    transcript = SummedReference(kind=kind, draws=16).run(population()).transcript
    for message in transcript:
        actual = sum(x.numpy().tobytes().__len__() for x in message.content.values())
        assert message.bytes == actual > 0
    assert transcript.rounds == 2
    assert transcript.bytes_down() == 6 * transcript.messages[6].bytes
    assert "masked summary" in transcript.table()


def test_a_run_need_not_keep_what_it_sent(kind):
    protocol = SummedReference(kind=kind, draws=16)
    silent = protocol.run(population(), record=False).transcript
    assert all(message.content is None for message in silent)
    assert silent.outline() == protocol.run(population()).transcript.outline()


def test_the_server_sees_no_clients_own_summary(kind):
    """What it receives of one client is uniform noise, and the same whoever the client is but for the sum."""
    features = population()
    transcript = SummedReference(kind=kind, draws=16).run(features).transcript
    seen = [m for m in transcript.seen_by(SERVER) if m.what == "masked summary"]
    flat = torch.cat([x.flatten() for m in seen for name, x in m.content.items() if name != "n"])
    assert stats.kstest(flat.double() / 2.0**63, "uniform", (-1, 2)).pvalue > 1e-3
    own = torch.cat([wide.flatten() for wide in kind.statistics(features[0]).values()]).double()
    first = torch.cat([x.flatten() for name, x in seen[0].content.items() if name != "n"]).double()
    assert abs(float(torch.corrcoef(torch.stack([own, first]))[0, 1])) < 4 / math.sqrt(len(own))


def test_without_masks_the_server_reads_every_mean():
    features = population()
    protocol = SummedReference(kind=build_distance("gaussian"), masks=None, draws=16)
    content = protocol.run(features).transcript.between("client 0", SERVER)[0].content
    assert torch.allclose((content["mean"] / content["n"]).float(), features[0].mean(0), atol=1e-5)
    assert "in the clear" in protocol.learns()
    assert "No client's own statistics" in SummedReference().learns()


def test_parties_see_what_is_theirs(kind):
    transcript = SummedReference(kind=kind, draws=16).run(population()).transcript
    seen = transcript.seen_by(client(2))
    assert [m.sender for m in seen] == [client(2), SERVER, client(2)]
    assert len(transcript.seen_by(SERVER)) == len(transcript)


# Masks


@pytest.mark.parametrize(("clients", "neighbours"), [(2, 16), (3, 1), (7, 2), (8, 4), (40, 5)])
def test_masks_cancel_in_the_sum(clients, neighbours):
    masks = PairwiseMasks(neighbours=neighbours, seed=clients)
    g = torch.Generator().manual_seed(0)
    messages = {
        "a": 1e4 * torch.randn(clients, 3, 2, generator=g, dtype=torch.float64),
        "b": torch.randn(clients, generator=g, dtype=torch.float64),
    }
    sent = masks.encode(messages)
    total = masks.decode({name: x.sum(0) for name, x in sent.items()})
    for name, x in messages.items():
        assert sent[name].dtype == torch.int64
        assert sent[name].shape == x.shape
        assert torch.allclose(total[name], x.sum(0), atol=clients * 2.0**-25, rtol=0)
        assert not torch.allclose(masks.decode(sent)[name], x, atol=1e3)


def test_everyone_shares_masks_with_neighbours_on_both_sides():
    masks = PairwiseMasks(neighbours=2)
    assert masks.partners(0, 10) == [1, 2, 8, 9]
    assert masks.partners(0, 3) == [1, 2]
    for one in range(10):
        assert all(one in masks.partners(other, 10) for other in masks.partners(one, 10))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PairwiseMasks(bits=60), "bits=60 must lie between 0 and 52"),
        (lambda: PairwiseMasks(neighbours=0), "neighbours=0 must be at least 1"),
        (lambda: PairwiseMasks().encode({"a": torch.ones(1, 2)}), "at least two"),
        (lambda: PairwiseMasks().encode({"a": torch.full((2, 2), 1e12)}), r"could overflow.*Standardise"),
        (lambda: SummedReference().run([torch.randn(5, 2)]), "needs at least 2 clients, got 1"),
        (lambda: SummedReference().run([torch.randn(5, 2)] * 2, labels=[torch.zeros(5)] * 2), "no labels"),
        (lambda: SummedReference().run([torch.randn(5, 2), torch.randn(1, 2)]), "Client 1 has 1 sample"),
        (lambda: SummedReference(masks=None, noise=GaussianNoise(1.0)), "protects nobody without masks"),
        (lambda: SummedReference(kind=EnergyDistance()), "is no distance of sums"),
        (
            lambda: SummedReference().run([torch.randn(5, 2)] * 2, budget=PrivacyBudget(1.0)),
            "adds no noise, so that no budget",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Noise


@pytest.mark.parametrize("unit", ["client", "sample"])
def test_noise_has_the_stated_deviation(kind, unit):
    features = population((50,) * 20, features=3)
    noise = GaussianNoise(2.0, clip=3.0, unit=unit)
    loud = SummedReference(kind=kind, weighting="uniform", noise=noise, draws=16)
    faint = SummedReference(
        kind=kind, weighting="uniform", noise=GaussianNoise(1e6, delta=0.5, clip=3.0, unit=unit), draws=16
    )
    sums = [p.run(features).transcript.messages[20].content for p in (loud, faint)]
    for name, scale in loud.scales([50] * 20, 3).items():
        gap = (sums[0][name] - sums[1][name]).flatten() / scale
        spread = 5 / math.sqrt(2 * len(gap))
        assert float(gap.square().mean().sqrt()) == pytest.approx(1.0, abs=max(spread, 0.0)), name
    assert torch.equal(sums[0].get("scores", torch.zeros(1)), sums[1].get("scores", torch.zeros(1)))
    assert "tail" not in sums[0]


def test_together_the_statistics_cost_what_is_stated(kind):
    """The release as one Gaussian: sensitivities over scales, in quadrature, against the multiplier."""
    protocol = SummedReference(kind=kind, noise=GaussianNoise(1.0, clip=3.0))
    scales = protocol.scales([30, 80], 3)
    shapes = {name: tuple(x.shape) for name, x in kind.statistics(torch.zeros(2, 3)).items()}
    ratios = [protocol.sensitivity(name, [30, 80], 3, shapes[name]) / s for name, s in scales.items()]
    assert math.hypot(*ratios) == pytest.approx(1 / protocol.noise.multiplier)


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_no_client_moves_the_sum_by_more_than_its_sensitivity(kind, weighting):
    protocol = SummedReference(kind=kind, weighting=weighting, noise=GaussianNoise(1.0, clip=2.0))
    features = [50 * x for x in population((20, 40, 40))]
    sent = messages(protocol, features)
    for name in protocol.scales([20, 40, 40], 4):
        bound = protocol.sensitivity(name, [20, 40, 40], 4, tuple(sent[name].shape[1:]))
        moved = sent[name].flatten(1).norm(dim=1)
        assert float(moved.max()) <= bound * (1 + 1e-5)
        assert float(moved.max()) > 0.1 * bound, "the bound is far from what happens"


def messages(protocol, features):
    """The clients' weighted, clipped statistics before noise and masks."""
    from personalization.population import client_statistics
    from personalization.protocols.noise import clip_rows
    from personalization.reference import summarise

    clipped = [clip_rows(x, protocol.noise.clip) for x in features]
    own = protocol._sent(client_statistics(protocol.kind, clipped))
    return summarise(own, torch.tensor([len(x) for x in features]), weighting=protocol.weighting).totals


@pytest.mark.parametrize("n", [3, 10, 100])
@pytest.mark.parametrize("seed", range(3))
def test_no_sample_moves_the_sum_by_more_than_its_sensitivity(kind, n, seed):
    """Replaced by its opposite at the edge of the ball, among many tries."""
    protocol = SummedReference(kind=kind, noise=GaussianNoise(1.0, clip=2.0, unit="sample"))
    g = torch.Generator().manual_seed(seed)
    others = torch.randn(n, 4, generator=g)
    edge = torch.nn.functional.normalize(torch.randn(4, generator=g), dim=0) * 2
    one, two = others.clone(), others.clone()
    one[0], two[0] = edge, -edge
    before, after = messages(protocol, [one, others]), messages(protocol, [two, others])
    for name in protocol.scales([n, n], 4):
        bound = protocol.sensitivity(name, [n, n], 4, tuple(before[name].shape[1:]))
        assert float((before[name] - after[name]).sum(0).norm()) <= bound * (1 + 1e-5), name


def test_moments_bear_one_sample_more_or_less_within_the_same_bound():
    protocol = SummedReference(
        kind=build_distance("gaussian"), noise=GaussianNoise(1.0, clip=2.0, unit="sample")
    )
    g = torch.Generator().manual_seed(1)
    worst = {"mean": 0.0, "cov": 0.0}
    for _ in range(50):
        n = int(torch.randint(3, 30, (1,), generator=g))
        x = 3 * torch.randn(n, 4, generator=g)
        before, after = messages(protocol, [x, x]), messages(protocol, [x[1:], x])
        for name in worst:
            bound = protocol.sensitivity(name, [n, n], 4, tuple(before[name].shape[1:]))
            worst[name] = max(worst[name], float((before[name] - after[name]).sum(0).norm()) / bound)
    assert all(0.1 < share <= 1 for share in worst.values()), worst


def test_a_noisy_reference_still_tells_who_differs():
    g = torch.Generator().manual_seed(0)
    features = [torch.randn(60, 4, generator=g) + (k < 10) for k in range(400)]
    noise = GaussianNoise(2.0, clip=3.5, unit="sample")
    distances = (
        SummedReference(kind=build_distance("gaussian"), noise=noise).run(features, record=False).distances
    )
    assert float(distances.z[:10].min()) > 5
    assert abs(float(distances.z[10:].mean())) < 0.5
    assert float((distances.p_value[10:] < 0.05).float().mean()) < 0.1
    assert bool(torch.isfinite(distances.relative).all())


def test_with_noise_nothing_of_one_client_goes_up_but_its_masked_message():
    protocol = SummedReference(kind=build_distance("gaussian"), noise=GaussianNoise(1.0, clip=3.0), draws=16)
    transcript = protocol.run(population()).transcript
    assert {m.what for m in transcript if m.receiver == SERVER} == {"masked summary"}
    assert "(1, 1e-05)-differentially private for one client" in protocol.learns()


def test_a_run_is_paid_for_before_anything_is_sent():
    protocol = SummedReference(kind=build_distance("gaussian"), noise=GaussianNoise(1.0, clip=3.0), draws=16)
    budget = PrivacyBudget(1.5)
    protocol.run(population(), budget=budget)
    assert budget.epsilon() == pytest.approx(1.0, rel=1e-6)
    protocol.run(population(), budget=budget, release=1)
    with pytest.raises(BudgetExhaustedError, match="SummedReference"):
        protocol.run(population(), budget=budget, release=2)
    with pytest.raises(ValueError, match="protects one client"):
        protocol.run(population(), budget=PrivacyBudget(5.0, unit="sample"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon=0"),
        ({"epsilon": 1.0, "delta": 1.0}, "delta=1"),
        ({"epsilon": 1.0, "clip": 0.0}, "clip=0"),
        ({"epsilon": 1.0, "clip": math.inf}, "clip=inf"),
        ({"epsilon": 1.0, "unit": "user"}, "unit='user'"),
    ],
)
def test_bad_noise_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GaussianNoise(**options)


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.5])
def test_tidying_brings_noisy_statistics_nearer_to_the_truth(spread):
    g = torch.Generator().manual_seed(0)
    levels = torch.special.ndtri((torch.arange(64, dtype=torch.float64) + 0.5) / 64)
    truth = {
        "sketch": levels.expand(20, 64) * torch.linspace(0.5, 2, 20, dtype=torch.float64)[:, None],
        "mean": torch.zeros(12, dtype=torch.float64),
        "cov": torch.diag(torch.linspace(0.2, 2, 12, dtype=torch.float64)),
    }
    noisy = {name: x + spread * torch.randn(x.shape, generator=g, dtype=x.dtype) for name, x in truth.items()}
    law = tidy(noisy, dict.fromkeys(truth, spread))
    assert bool((law["sketch"].diff(dim=-1) >= 0).all())
    assert float(torch.linalg.eigvalsh(law["cov"]).min()) > -1e-9
    assert float(law["cov"].trace()) == pytest.approx(float(noisy["cov"].trace()))
    assert float(law["tail"]) == 0
    for name in ("sketch", "cov"):
        before, after = ((x[name] - truth[name]).norm() for x in (noisy, law))
        assert float(after) <= float(before) * (0.75 if spread else 1) + 1e-9, name


def test_the_nearest_covariance_is_a_projection():
    g = torch.Generator().manual_seed(1)
    matrix = torch.randn(6, 5, 5, generator=g, dtype=torch.float64) + torch.eye(5)
    once = nearest_covariance(matrix)
    assert torch.allclose(nearest_covariance(once), once, atol=1e-9)
    negative = -torch.eye(3, dtype=torch.float64)
    assert torch.equal(nearest_covariance(negative), torch.zeros(3, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "unit"), [("sliced", "client"), ("sliced", "sample"), ("gaussian", "sample")]
)
def test_noise_as_large_as_the_law_finds_fewer_and_cries_no_wolf(name, unit):
    g = torch.Generator().manual_seed(0)
    features = [torch.randn(80, 6, generator=g) * torch.linspace(0.5, 1.5, 6) for _ in range(60)]
    noise = GaussianNoise(2.0, clip=4.0, unit=unit)
    protocol = SummedReference(kind=build_distance(name), weighting="uniform", noise=noise, draws=64)
    distances = protocol.run(features, record=False).distances
    assert float((distances.p_value < 0.05).float().mean()) < 0.15
    assert all(bool(torch.isfinite(x).all()) for x in (distances.value, distances.z, distances.relative))
