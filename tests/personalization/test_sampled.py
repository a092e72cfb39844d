"""Distances to a population by samples: the reference, the permutation null, and what every kind must survive."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy.stats import kstest, spearmanr

from personalization import DISTANCES, SampleDistance, build_distance, distance_to_population, labelled
from personalization.sampled import Pool, thinned

NAMES = sorted(name for name, cls in DISTANCES.items() if issubclass(cls, SampleDistance))
CLASSES = ("label_aware", "label_marginal")
FAST = {"draws": 8, "reference_size": 40}


def clients(name="energy", sizes=(40, 25, 60, 40), dtype=torch.float32, shift=2.0):
    g = torch.Generator().manual_seed(0)
    drawn = [torch.randn(n, 4, generator=g, dtype=torch.float64) for n in sizes]
    drawn[0] = drawn[0] + shift
    if name == "spectral":
        drawn[0] = drawn[0] + 5 * torch.tensor([1.0, -1.0, 1.0, -1.0])  # the highest frequency there is
    if name in CLASSES:
        classes = [torch.randint(3, (n,), generator=g) for n in sizes]
        classes[0] = torch.zeros(sizes[0])
        drawn = [labelled(x, y) for x, y in zip(drawn, classes, strict=True)]
    return [x.to(dtype) for x in drawn]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_kind_fills_every_field(name, dtype):
    d = distance_to_population(clients(name, dtype=dtype), name, **FAST)
    assert d.n.tolist() == [40, 25, 60, 40]
    for f in fields(d):
        x = getattr(d, f.name)
        assert x.shape == (4,)
        assert torch.isfinite(x).all(), f.name
    assert (d.value.dtype, d.std_error.dtype) == (dtype, dtype)
    assert d.converged.all()
    assert (d.std_error > 0).all()
    assert d.z.argmax() == 0
    assert d.p_value[0] < 0.1
    assert d.relative.argmax() == 0


@pytest.mark.parametrize("name", NAMES)
def test_constant_and_identical_clients_are_zero_apart(name):
    constant = [torch.full((n, 4), 3.0) for n in (2, 5, 9)]
    d = distance_to_population(constant, name, standardise=True, **FAST)
    assert not d.calibrated.any()
    assert torch.equal(d.p_value, torch.ones(3))
    assert not d.relative.any()


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(CLASSES)))
def test_two_rows_and_constant_clients_that_differ_give_no_nan(name):
    g = torch.Generator().manual_seed(0)
    few = [torch.randn(2, 10, generator=g) for _ in range(5)]
    apart = [torch.full((4, 2), float(k)) for k in range(3)]
    for features in (few, apart):
        d = distance_to_population(features, name, **FAST)
        assert all(torch.isfinite(getattr(d, f.name)).all() for f in fields(d))


def test_a_solver_that_does_not_converge_is_reported_and_no_nan():
    d = distance_to_population(clients(), "exact", iterations=2, **FAST)
    assert not d.converged.any()
    assert torch.isfinite(d.value).all()
    d = distance_to_population(clients(), "sinkhorn", iterations=1, epsilon=0.01, **FAST)
    assert not d.converged.all()
    assert torch.isfinite(d.value).all()


def test_the_value_is_the_distance_to_the_drawn_reference():
    features = clients()
    kind = build_distance("energy", reference_size=30)
    pool = Pool.of(features, "samples", 3)
    d = distance_to_population(features, kind, seed=3, draws=8)
    assert torch.allclose(d.value[1], kind.between(features[1], pool.others(1, 30))[0])


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_nobody_is_in_their_own_reference(weighting):
    features = [torch.full((n, 1), float(k)) for k, n in enumerate((50, 3, 20, 200))]
    pool = Pool.of(features, weighting, 0)
    for k in range(4):
        others = pool.others(k, 60)
        assert not (others == k).any()
        assert len(others) == min(60, 273 - len(features[k]))
    shares = torch.bincount(pool.others(1, 100).long().flatten(), minlength=4)
    if weighting == "uniform":
        assert (shares[[0, 2, 3]] > 15).all()
    else:
        assert shares[3] > 50


def test_references_of_rows_have_no_row_twice_and_differ_between_clients():
    features = list(torch.arange(400.0).reshape(4, 100, 1))
    pool = Pool.of(features, "samples", 0)
    assert len(pool.others(0, 300).unique()) == 300
    assert not torch.equal(pool.others(0, 50), pool.others(1, 50))
    assert torch.equal(pool.others(0, 50), Pool.of(features, "samples", 0).others(0, 50))
    x, y = pool.halves(30, 70, 5, torch.Generator().manual_seed(0))
    assert (x.shape, y.shape) == ((5, 30, 1), (5, 70, 1))
    assert all(len(torch.cat([a, b]).unique()) == 100 for a, b in zip(x, y, strict=True))


def test_large_clients_are_thinned_and_say_their_full_size():
    x = torch.arange(100.0)[:, None]
    assert torch.equal(thinned(x, 100, 0), x)
    few = thinned(x, 10, 0)
    assert len(few.unique()) == 10
    assert torch.equal(few, thinned(x, 10, 0))
    d = distance_to_population(clients(), "energy", max_samples=20, **FAST)
    assert d.n.tolist() == [40, 25, 60, 40]


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, two, other = (distance_to_population(clients(), "mmd", seed=s, **FAST) for s in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.z, two.z)
    assert not torch.equal(one.z, other.z)


def test_standardising_leaves_class_numbers_alone():
    features = clients("label_aware")
    stretched = [torch.cat([1000 * x[:, :4] + 7, x[:, 4:]], 1) for x in features]
    one, two = (
        distance_to_population(x, "label_aware", standardise=True, **FAST) for x in (features, stretched)
    )
    assert torch.allclose(one.value, two.value, rtol=1e-3)


def test_sample_counts_are_no_distance_and_p_values_are_uniform():
    # 4 populations of 100: the mean of 4 rank correlations has a standard error of .05 without any dependence.
    ranks, p = [], []
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        n = np.exp(np.random.default_rng(seed).uniform(np.log(30), np.log(3000), 100)).astype(int)
        features = [torch.exp(0.7 * torch.randn(int(m), 3, generator=g)) for m in n]
        d = distance_to_population(features, "energy", seed=seed, reference_size=256, max_samples=256)
        assert spearmanr(d.value, n).statistic < -0.5
        ranks.append(spearmanr(d.calibrated, n).statistic)
        p.append(d.p_value)
    assert abs(np.mean(ranks)) < 0.1
    assert kstest(torch.cat(p), "uniform").pvalue > 0.01


@pytest.mark.parametrize("name", ["energy", "mmd", "sinkhorn"])
def test_power_grows_with_samples(name):
    g = torch.Generator().manual_seed(0)
    n = [20] * 24 + [200] * 24
    features = [torch.randn(m, 3, generator=g) + (0.35 if k % 4 == 0 else 0) for k, m in enumerate(n)]
    p = distance_to_population(features, name, draws=32, reference_size=200).p_value[::4]
    assert p[6:].mean() < 0.2 * p[:6].mean()
    assert (p[6:] < 0.05).all()


@pytest.mark.parametrize("name", ["exact", "energy", "mmd", "sinkhorn", "max_sliced", "mixture"])
def test_standard_errors_are_the_spread_of_repeated_samples(name):
    g = torch.Generator().manual_seed(0)
    kind = build_distance(name, **({"iterations": 30} if name == "max_sliced" else {}))
    x = torch.randn(40, 60, 2, generator=g) + 0.8
    y = torch.randn(80, 2, generator=g)
    kind = kind.fitted(torch.cat([x.flatten(0, 1), y]))
    squared = kind.between(x, y)[0].square().double()
    # 40 repetitions know their spread to 11 %.
    assert 0.65 < float(kind.linear_variance(x, y).mean().sqrt() / squared.std()) < 1.35
    y = y.expand(40, 80, 2)
    both = kind.linear_variance(x, y) + kind.linear_variance(y, x)
    # Duals of a transport plan are not unique and the ascent to a direction starts elsewhere.
    loose = {"exact": 0.05, "max_sliced": 0.15}.get(name, 1e-4)
    torch.testing.assert_close(kind.pair_variance(x, y), both, rtol=loose, atol=1e-9)


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="reference_size=1 must be at least 2"):
        distance_to_population(clients(), "energy", reference_size=1)
    with pytest.raises(ValueError, match="draws=1 is no whole number of at least 2: a null"):
        distance_to_population(clients(), "energy", draws=1)
    with pytest.raises(ValueError, match="did you mean 'uniform'"):
        distance_to_population(clients(), "energy", weighting="uniforn")
    with pytest.raises(
        ValueError, match="Unknown option of distance 'mmd' 'bandwith'; did you mean 'bandwidth'"
    ):
        distance_to_population(clients(), "mmd", bandwith=2)
    with pytest.raises(ValueError, match=r"class .* is no class number"):
        distance_to_population(clients(), "label_aware", **FAST)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_kind_is_calibrated(name):
    """Clients of one law: p-values are uniform, and the calibrated distance knows no sample size."""
    p, follows = [], []
    options = {"reference_size": 256, "max_samples": 256, "draws": max(128, DISTANCES[name].draws)}
    for seed in range(12):
        g = torch.Generator().manual_seed(seed)
        mix = torch.randn(12, 12, generator=g) / 12**0.5
        n = np.exp(np.random.default_rng(seed).uniform(np.log(30), np.log(3000), 120)).astype(int)
        features = [torch.randn(int(m), 12, generator=g) @ mix for m in n]
        if name in CLASSES:
            features = [labelled(x, torch.randint(3, (len(x),), generator=g)) for x in features]
        found = distance_to_population(features, name, seed=seed, **options)
        p.append(found.p_value.double().numpy())
        follows.append(spearmanr(found.calibrated, n).statistic)
    assert kstest(np.concatenate(p), "uniform").pvalue > 0.01
    assert abs(np.mean(follows)) < 0.1  # 1,440 clients know a correlation to .026
