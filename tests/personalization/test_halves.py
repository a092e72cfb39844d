"""A null corrected by what clients see between halves of their own samples."""

import pytest
import torch
from scipy.stats import kstest, spearmanr
from torch.testing import assert_close

from personalization import build_distance, distance_to_population, halves, pairwise_distances
from personalization.halves import BINS, corrected, half_counts, half_null, knots, of_knots
from personalization.null import Null, fit_null
from personalization.protocols import GaussianNoise, PairwiseMasks, SummedReference
from personalization.reference import combine

F = 6
SLICED = {"projections": 16, "quantiles": 32}


def clusters(apart, wide):
    """A law of days of three kinds, which neither moments nor a copula of single features tell."""
    centres = apart * torch.randn(3, F, generator=torch.Generator().manual_seed(1))
    return lambda n, g: wide * torch.randn(n, F, generator=g) + centres[torch.randint(3, (n,), generator=g)]


clustered, tight = clusters(1.5, 0.5), clusters(3.0, 0.3)


def heavy(n, g):
    return torch.randn(n, F, generator=g).mul(0.8).exp()


def normal(n, g):
    return torch.randn(n, F, generator=g)


def population(law, clients=120, low=30, high=1000, seed=0):
    g = torch.Generator().manual_seed(seed)
    sizes = torch.exp(torch.empty(clients).uniform_(*torch.tensor([low, high]).log().tolist(), generator=g))
    return [law(int(n), g) for n in sizes]


def judged(law, kind, null_from, seeds=4):
    options = SLICED if kind == "sliced" else {}
    found = [
        distance_to_population(population(law, seed=seed), kind, null_from=null_from, seed=seed, **options)
        for seed in range(seeds)
    ]
    return torch.cat([d.z for d in found]), torch.cat([d.p_value for d in found]), found


@pytest.mark.parametrize("kind", ["sliced", "gaussian"])
@pytest.mark.parametrize("law", [clustered, heavy, normal])
def test_p_values_are_uniform_and_no_distance_knows_its_sample_size(law, kind):
    z, p, found = judged(law, kind, "halves")
    assert abs(float(z.mean())) < 0.2
    assert 0.8 < float(z.std()) < 1.6
    assert kstest(p.numpy(), "uniform").statistic < 0.11  # 1 % of 480 independent ones: .074
    ranks = [spearmanr(d.calibrated, d.n).statistic for d in found]
    assert abs(sum(ranks) / len(ranks)) < 0.15


@pytest.mark.parametrize(("law", "kind"), [(tight, "sliced"), (tight, "gaussian"), (heavy, "sliced")])
def test_where_the_law_of_sums_fails_halves_mend_it(law, kind):
    off, right = (judged(law, kind, null_from)[1] for null_from in ("law", "halves"))
    off, right = (kstest(p.numpy(), "uniform").statistic for p in (off, right))
    assert right < 0.7 * off


def test_a_difference_between_clients_changes_no_count():
    """Halves of one client share its shift, so that the null stays the same and the shift is found."""
    features = population(normal, clients=40, high=200)
    moved = [x + 5 * (k % 2) for k, x in enumerate(features)]
    kind = build_distance("sliced", **SLICED)
    law = half_null(kind, kind.statistics(torch.cat(features)), torch.tensor([30, 200]), draws=64, seed=0)
    one, other = (half_counts(kind, samples, law, seed=0) for samples in (features, moved))
    assert_close(one, other)
    assert float(distance_to_population(moved, kind, null_from="halves").p_value.max()) < 1e-4


def test_counts_are_whole_and_in_the_row_of_their_size():
    kind = build_distance("gaussian")
    samples = [torch.randn(n, F) for n in (3, 40, 400)]
    law = half_null(kind, kind.statistics(torch.randn(500, F)), torch.tensor([3, 40, 400]), draws=32, seed=0)
    counts = half_counts(kind, samples, law, seed=0, splits=5)
    assert counts.shape == (3, len(law.sizes), BINS)
    assert counts.sum((1, 2)).tolist() == [0, 5, 5]  # three samples have no halves
    assert torch.equal(counts, counts.round())
    rows = counts.sum(2).argmax(1)
    assert abs(float(law.sizes[rows[1]].log() - torch.tensor(20.0).log())) < 0.6
    assert float(law.sizes[rows[2]]) == float(law.sizes[-1])


def test_large_clients_are_halved_split_by_split_and_count_the_same(monkeypatch):
    kind, rows = build_distance("gaussian"), []
    samples = [torch.randn(n, F) for n in (40, 57)]
    law = half_null(kind, kind.statistics(torch.cat(samples)), torch.tensor([40, 57]), draws=32, seed=0)
    whole = half_counts(kind, samples, law, seed=0)
    monkeypatch.setattr(halves, "_BATCH_VALUES", 3 * 57 * F)
    statistics = type(kind).statistics
    monkeypatch.setattr(
        type(kind), "statistics", lambda self, x: (rows.append(x.shape[:-1].numel()), statistics(self, x))[1]
    )
    assert torch.equal(half_counts(kind, samples, law, seed=0), whole)
    assert max(rows) <= 3 * 57 / 2  # of eight halvings, three at a time


def test_counts_of_the_law_itself_leave_the_null_as_it_is():
    kind = build_distance("sliced", **SLICED)
    g = torch.Generator().manual_seed(3)
    samples = [normal(60, g) for _ in range(400)]
    reference = kind.statistics(torch.cat(samples))
    n = torch.full((400,), 60)
    law = half_null(kind, reference, n, draws=1024, seed=0)
    null = fit_null(kind, reference, [60], draws=256)
    found = corrected(null, law, half_counts(kind, samples, law, seed=0).sum(0))
    assert_close(found.mean, null.mean, rtol=0.03, atol=0)
    assert_close(found.std, null.std, rtol=0.15, atol=0)
    assert found.scores is None  # and of the shape that its moments say


@pytest.mark.parametrize("few", [0, 7])
def test_too_few_halves_correct_nothing(few):
    kind = build_distance("gaussian")
    samples = [torch.randn(40, F) for _ in range(8)]
    reference = kind.statistics(torch.cat(samples))
    law = half_null(kind, reference, torch.full((8,), 40), draws=16, seed=0)
    null = fit_null(kind, reference, [40], draws=16)
    counts = half_counts(kind, samples[:few], law, seed=0).sum(0) if few else torch.zeros(1, BINS)
    assert corrected(null, law, counts) is null


@pytest.mark.parametrize("sizes", [[2, 5], [3] * 30, [40] * 7, [4] * 7 + [3] * 9])
def test_below_eight_clients_of_four_samples_the_law_stays(sizes):
    features = [heavy(n, torch.Generator().manual_seed(k)) for k, n in enumerate(sizes)]
    law, halves = (distance_to_population(features, null_from=x, draws=16) for x in ("law", "halves"))
    assert_close(halves.p_value, law.p_value)


def test_a_law_without_noise_corrects_nothing():
    zero = torch.zeros(1, dtype=torch.float64)
    law = Null(zero + 20, zero, zero, zero)
    null = Null(zero + 40, zero, zero, zero)
    assert corrected(null, law, torch.ones(1, BINS)) is null
    found = distance_to_population([torch.ones(30, 2) for _ in range(12)], "sliced", null_from="halves")
    assert float(found.value.abs().max()) == 0
    assert float(found.p_value.min()) == 1


def test_knots_and_the_reference_are_the_null():
    kind = build_distance("sliced", **SLICED)
    reference = kind.statistics(torch.randn(200, F))
    law = half_null(kind, reference, torch.tensor([30, 300]), draws=32, seed=0)
    n = torch.tensor([15.0, 31.0, 150.0], dtype=torch.float64)
    for got, want in zip(of_knots(kind, reference, knots(law)).at(n), law.at(n), strict=True):
        assert_close(got, want)


# --- the protocol ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [None, PairwiseMasks()])
@pytest.mark.parametrize("name", ["sliced", "gaussian"])
def test_the_protocol_finds_what_one_place_does(name, masks):
    kind = build_distance(name, **(SLICED if name == "sliced" else {}))
    features = population(heavy, clients=24, high=120)
    protocol = SummedReference(kind=kind, masks=masks, draws=64, null_from="halves")
    outcome = protocol.run(features)
    central = distance_to_population(features, kind, draws=64, null_from="halves")
    assert_close(outcome.distances.z, central.z, rtol=0.02, atol=0.02)
    assert_close(outcome.distances.p_value, central.p_value, rtol=0.02, atol=0.02)
    plan = protocol.plan([len(x) for x in features], F)
    assert outcome.transcript.outline() == plan.outline()
    assert outcome.transcript.bytes_up() == plan.bytes_up()
    counts = [m for m in outcome.transcript if "counts of halves" in m.what]
    assert len(counts) == 24
    if masks is not None:
        assert "halves of their own samples" in protocol.learns()  # of one client the server sees noise
        sent = torch.cat([m.content["counts"].flatten() for m in counts]).double() / 2.0**63
        assert kstest(sent[::7].numpy(), "uniform", (-1, 2)).pvalue > 1e-3


def test_no_two_messages_of_a_client_share_masks():
    """Their difference would be that of what they hide, which tells the summary: most counts are zero."""
    protocol = SummedReference(kind=build_distance("sliced", **SLICED), draws=16, null_from="halves")
    sent = [m.content for m in protocol.run(population(normal, clients=6)).transcript if "masked" in m.what]
    summary = torch.cat([sent[0][name].flatten() for name in sent[0] if name != "n"])
    counts = sent[6]["counts"].flatten()
    shared = min(len(summary), len(counts))
    apart = (summary[:shared] - counts[:shared]).double() / 2.0**63
    assert kstest(apart.numpy(), "uniform", (-1, 2)).pvalue > 1e-3


def test_by_hand_halves_are_added_up_and_judged():
    protocol = SummedReference(kind=build_distance("sliced", **SLICED), draws=64, null_from="halves")
    samples = population(normal, clients=24, high=120)
    n = torch.tensor([len(x) for x in samples])
    total = combine(protocol.summary(x) for x in samples)
    answers = [protocol.answer(x, total) for x in samples]
    squared, variance = (torch.stack(column) for column in zip(*answers, strict=True))
    halves = protocol.halves(total, n)
    counts = sum(protocol.counts(x, total, halves) for x in samples)
    found = protocol.judge(total, n, squared, variance, counts)
    ran = protocol.run(samples).distances
    assert_close(found.value.float(), ran.value, rtol=1e-3, atol=1e-4)
    assert_close(found.null_mean.float(), ran.null_mean, rtol=0.1, atol=0)  # other halvings
    with pytest.raises(ValueError, match="with the sum of the clients"):
        protocol.judge(total, n, squared, variance)
    with pytest.raises(ValueError, match="without the sum of the clients"):
        SummedReference(kind=protocol.kind).judge(total, n, squared, variance, counts)


def test_by_hand_what_is_no_null_and_no_sum_of_counts_is_refused():
    protocol = SummedReference(kind=build_distance("sliced", **SLICED), draws=16, null_from="halves")
    samples = population(normal, clients=12, high=60)
    n = torch.tensor([len(x) for x in samples])
    total = combine(protocol.summary(x) for x in samples)
    halves = protocol.halves(total, n.tolist())
    counts = sum(protocol.counts(x, total, halves) for x in samples)
    answers = torch.ones(12, dtype=torch.float64)
    for broken, said in (
        (counts * torch.nan, "counts has .* NaN"),
        (counts - 1, "after masks are taken off"),
        (counts[:2], r"counts is \(2, 128\); give the sum"),
        (torch.stack([counts, counts]), "counts is .*; give the sum"),
        (counts.tolist(), "counts is list; give the sum"),
    ):
        with pytest.raises(ValueError, match=said):
            protocol.judge(total, n, answers, answers, broken)
    as_they_are = protocol.judge(total, n, answers, answers, counts).p_value
    assert_close(protocol.judge(total, n, answers, answers, counts.long()).p_value, as_they_are)
    for broken, said in (
        ({"mean": halves["mean"]}, "give what halves"),
        ({**halves, "mean": halves["mean"][:1]}, "give what halves"),
        ({**halves, "std": halves["std"] * torch.nan}, r"halves\['std'\] has"),
    ):
        with pytest.raises(ValueError, match=said):
            protocol.counts(samples[0], total, broken)
    with pytest.raises(ValueError, match=f"has 2 features, the sum {F}"):
        protocol.counts(samples[0][:, :2], total, halves)
    with pytest.raises(ValueError, match="whole numbers of samples"):
        protocol.halves(total, n / 2)


def test_what_halves_do_not_serve_is_refused():
    with pytest.raises(ValueError, match=r"null_from='halves' sends exact counts"):
        SummedReference(noise=GaussianNoise(1.0), null_from="halves")
    with pytest.raises(ValueError, match=r"half.*halves"):
        SummedReference(null_from="half")
    features = [torch.randn(20, 2) for _ in range(3)]
    with pytest.raises(ValueError, match="null_from='halves' with EnergyDistance"):
        distance_to_population(features, "energy", null_from="halves")
    with pytest.raises(ValueError, match="for pairs take 'law' or 'pool'"):
        pairwise_distances(features, null_from="halves")
