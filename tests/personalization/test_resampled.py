import numpy as np
import pytest
import torch
from scipy.stats import kstest, spearmanr

from personalization import build_distance, distance_to_population, fit_null, pairwise_distances
from personalization.null import Null, p_value
from personalization.resampled import deals_needed, dealt
from personalization.sampled import Pool

KINDS = [("sliced", {}), ("gaussian", {}), ("gaussian", {"diagonal": True})]
F = 4


def heavy(g, n):
    return torch.exp(0.9 * torch.randn(n, F, generator=g, dtype=torch.float64))


def clustered(g, n):
    centres = 4 * torch.eye(3, F, dtype=torch.float64)
    return torch.randn(n, F, generator=g, dtype=torch.float64) + centres[torch.randint(3, (n,), generator=g)]


def population(law, seed, clients=200, sizes=(30, 3000)):
    n = np.exp(np.random.default_rng(seed).uniform(*np.log(sizes), clients)).astype(int)
    g = torch.Generator().manual_seed(seed)
    return [law(g, int(m)) for m in n], n


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("law", [heavy, clustered])
def test_p_values_are_uniform_whatever_the_law(kind, options, law):
    p, follows = [], []
    for seed in range(3):
        features, n = population(law, seed)
        found = distance_to_population(features, kind, null_from="pool", seed=seed, **options)
        p.append(found.p_value.numpy())
        follows.append(spearmanr(found.calibrated, n).statistic)
    assert kstest(np.concatenate(p), "uniform").pvalue > 0.01
    assert abs(np.mean(follows)) < 0.1


def test_where_the_law_of_sums_fails():
    features, _ = population(heavy, 0, clients=300, sizes=(30, 60))
    told = [distance_to_population(features, "gaussian", null_from=null).p_value for null in ("law", "pool")]
    assert kstest(told[0].numpy(), "uniform").pvalue < 1e-3
    assert kstest(told[1].numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_small_clients_are_blunt_on_both_sides_of_a_pair(kind, options):
    z = []
    for seed in range(4):
        features, _ = population(heavy, seed, clients=40, sizes=(30, 31))
        pairs = pairwise_distances(features, kind, null_from="pool", seed=seed, **options)
        z.append(pairs.z[*torch.triu_indices(40, 40, 1)])
    assert abs(float(torch.cat(z).mean())) < 0.12
    torch.testing.assert_close(pairs.p_value, pairs.p_value.T)
    assert (pairs.p_value.diagonal() == 1).all()


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_both_nulls_agree_on_a_normal_law_and_a_shift_is_found(kind, options, weighting):
    g = torch.Generator().manual_seed(0)
    features = [torch.randn(n, F, generator=g) for n in (100, 150, 200) * 8]
    law, pool, again = (
        distance_to_population(features, kind, null_from=null, weighting=weighting, **options)
        for null in ("law", "pool", "pool")
    )
    assert torch.equal(law.value, pool.value)
    assert torch.equal(again.p_value, pool.p_value)
    torch.testing.assert_close(pool.null_mean, law.null_mean, rtol=0.15, atol=0)
    features[0] = features[0] + 1.5
    found = distance_to_population(features, kind, null_from="pool", weighting=weighting, **options)
    assert float(found.p_value[0]) < 1e-6


@pytest.mark.parametrize(("kind", "options"), [("sliced", {"projections": 16, "quantiles": 64}), *KINDS[1:]])
@pytest.mark.parametrize("weighting", ["samples", "uniform"])
@pytest.mark.parametrize("null_from", ["law", "pool"])
def test_large_clients_among_many_small_ones_are_calibrated_and_found(kind, options, weighting, null_from):
    def judged(seed, shift=0.0):
        g = torch.Generator().manual_seed(seed)
        features = [torch.randn(n, F, generator=g) for n in [20] * 20 + [1000] * 5]
        features[-1] = features[-1] + shift
        return distance_to_population(
            features, kind, weighting=weighting, null_from=null_from, seed=seed, **options
        )

    # The large clients of a population share its reference: a mean z of 8 populations has a deviation of about .25.
    found = [judged(seed) for seed in range(8)]
    z, p = (torch.stack([getattr(x, name)[20:] for x in found]) for name in ("z", "p_value"))
    assert abs(float(z.mean())) < 0.7
    assert 0.25 < float(p.median()) < 0.75
    assert float(judged(0, shift=0.6).p_value[-1]) < 1e-3


@pytest.mark.parametrize("n", [300, 1000, 5000])
def test_a_blunt_reference_is_bias_that_neither_falls_nor_grows(n):
    g = torch.Generator().manual_seed(0)
    kind = build_distance("sliced", projections=16, quantiles=64)

    def law(*shape):
        return torch.randn(*shape, F, generator=g)

    reference = {name: x.double().mean(0) for name, x in kind.statistics(law(20_000, 20)).items()}
    null = fit_null(kind, reference, [20, 60, 200, 500, 1024], largest=5000)
    mean, std, _ = (float(x[0]) for x in null.at(torch.tensor([n], dtype=torch.float64)))
    own = kind.statistics(law(200, n))
    truth = kind.squared(own, reference).double()
    assert mean == pytest.approx(float(truth.mean()), rel=0.1)
    assert std == pytest.approx(float(truth.std()), rel=0.3)
    # A reference of noise as large as the client's doubles what noise makes, and leaves the rest.
    noisy = {
        **reference,
        "sketch": reference["sketch"] + own["sketch"].flip(0) - own["sketch"].double().mean(0),
    }
    doubled, wider, _ = (float(x[0]) for x in null.at(torch.tensor([n], dtype=torch.float64), 2.0))
    truth = kind.squared(own, noisy).double()
    assert doubled == pytest.approx(float(truth.mean()), rel=0.1)
    assert wider == pytest.approx(float(truth.std()), rel=0.3)
    plain = fit_null(kind, reference, [20, 60, 200, 500, 1024])
    assert plain.bias is None


def test_many_deals_only_where_the_population_is_noisier_than_its_largest_client():
    sizes = torch.tensor([20] * 20 + [1000] * 5)
    assert deals_needed(sizes, by_rows=True) == 1
    assert 20 < deals_needed(sizes, by_rows=False) <= 50
    assert deals_needed(torch.full((1000,), 200), by_rows=False) == 1


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_constant_and_few_samples_give_no_nan(kind, options, weighting):
    for features in ([torch.ones(5, F)] * 3, [torch.zeros(2, F), torch.ones(2, F)], [torch.randn(2, F)] * 2):
        found = distance_to_population(features, kind, null_from="pool", weighting=weighting, **options)
        pairs = pairwise_distances(features, kind, null_from="pool", **options)
        for table in (found, pairs):
            for name in ("value", "z", "p_value", "calibrated", "std_error"):
                assert torch.isfinite(getattr(table, name)).all(), name
    alone = distance_to_population([torch.randn(9, F)], kind, null_from="pool", **options)
    assert alone.p_value.tolist() == [1]


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_rows_are_dealt_to_clients_of_the_same_sizes(weighting):
    features, n = population(clustered, 0, clients=9, sizes=(5, 40))
    pool = Pool.of(features, weighting, 0)
    hands = dealt(features, pool)
    assert [len(x) for x in hands] == n.tolist()
    assert torch.isin(torch.cat(hands)[:, 0], pool.rows[:, 0]).all()
    if weighting == "samples":
        assert torch.equal(torch.cat(hands)[:, 0].sort().values, pool.rows[:, 0].sort().values)


def test_chances_are_shares_of_draws_and_join_the_moments_law():
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4000, generator=g, dtype=torch.float64).sort(1).values
    sizes, one = torch.tensor([10.0, 100.0, 1000.0], dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    null = Null(sizes, one, one, one * 0.1, scores=scores)
    z = torch.linspace(-3, 6, 200, dtype=torch.float64)
    n = torch.full_like(z, 50.0)
    chance = null.chance(n, z)
    assert (chance.diff() <= 0).all()
    assert float((chance - torch.special.ndtr(-z)).abs().max()) < 0.02
    assert 0 < float(chance[-1]) < 1e-6
    plain = Null(sizes, one, one, one * 0.1).chance(n, z)
    torch.testing.assert_close(plain, p_value(z, 0 * z, 0 * z + 1, 0 * z + 0.1))
    wide = null.chance(n.reshape(20, 10), z.reshape(20, 10))
    assert torch.equal(wide.flatten(), chance)


def test_nulls_that_mean_nothing_are_refused():
    features, _ = population(clustered, 0, clients=3, sizes=(5, 9))
    for function in (distance_to_population, pairwise_distances):
        with pytest.raises(ValueError, match="did you mean 'pool'"):
            function(features, null_from="pools")
        with pytest.raises(ValueError, match="null_from='law' with EnergyDistance"):
            function(features, "energy", null_from="law")
        with pytest.raises(ValueError, match="draws=1"):
            function(features, null_from="pool", draws=1)
        by_name, plain = (function(features, "energy", null_from=null, draws=8) for null in ("pool", None))
        assert torch.equal(by_name.p_value, plain.p_value)


def test_pairs_are_judged_in_parts_of_rows(monkeypatch):
    seen, whole = [], Null.chance

    def chance(null, n, z):
        seen.append(z.shape[0])
        return whole(null, n, z)

    monkeypatch.setattr(Null, "chance", chance)
    g = torch.Generator().manual_seed(0)
    features = [torch.randn(8, 2, generator=g) for _ in range(150)]
    pairs = pairwise_distances(features, null_from="pool", draws=32, projections=4, quantiles=8)
    assert sum(seen) == 150  # every row once, never the matrix of all pairs at a time
    assert max(seen) < 100
    assert torch.equal(pairs.p_value, pairs.p_value.T)
    assert (pairs.p_value.diagonal() == 1).all()
