"""Statistics of the calibration. Every test fixes its seeds; the bounds leave room for other ones, as stated."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, spearmanr

from personalization import (
    DistanceKind,
    build_distance,
    combine,
    distance_to_population,
    fit_null,
    size_grid,
    summarise,
)
from personalization.calibration import Measured, calibrate, relative_scale, standard_error
from personalization.null import Null, null_of, p_value, z_score

FEATURES = 6
KINDS = [("sliced", {"projections": 16, "quantiles": 64}), ("gaussian", {})]


def sizes(clients, seed, low=30, high=3000):
    exponent = np.random.default_rng(seed).uniform(np.log(low), np.log(high), clients)
    return np.exp(exponent).astype(int)


def one_law(n, seed):
    g = torch.Generator().manual_seed(seed)
    factor = torch.randn(FEATURES, FEATURES, generator=g) / FEATURES**0.5
    return [torch.randn(int(m), FEATURES, generator=g) @ factor for m in n]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_same_law_of_unequal_sizes_is_not_told_apart(kind, options):
    # 5 populations of 200 clients: the mean of 5 rank correlations has a standard error of .03 without any
    # dependence, so .1 is beyond three of them; the KS test pools 1,000 p-values at 1 %, with draws enough (1,000 a
    # size) that the null's own Monte Carlo error stays below the test's resolution.
    raw, calibrated, p = [], [], []
    for seed in range(5):
        n = sizes(200, seed)
        d = distance_to_population(one_law(n, seed), kind, seed=seed, draws=1000, **options)
        raw.append(spearmanr(d.value, n).statistic)
        calibrated.append(spearmanr(d.calibrated, n).statistic)
        p.append(d.p_value.numpy())
    assert np.mean(raw) < -0.9
    assert abs(np.mean(calibrated)) < 0.1
    assert kstest(np.concatenate(p), "uniform").pvalue > 0.01


@pytest.mark.parametrize("tail", [False, True])
def test_the_default_distance_is_calibrated_for_light_and_heavy_tails(tail):
    # One population of 300 with a seed fixed beforehand; a rank correlation without dependence has a deviation of .06.
    n = sizes(300, 11)
    features = [torch.exp(0.7 * x.clamp(-3, 3)) if tail else x for x in one_law(n, 11)]
    d = distance_to_population(features)
    assert spearmanr(d.value, n).statistic < -0.9
    assert abs(spearmanr(d.calibrated, n).statistic) < 0.1
    assert kstest(d.p_value, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_few_small_clients_are_calibrated_too(kind, options):
    # All have 30 samples, so the reference itself is made of blunt tails, and with 6 clients it is noisy as well:
    # its rough quantiles make the sliced null a little too large. The standard error of the mean is about .09.
    z = [
        distance_to_population(one_law([30] * 6, seed), kind, seed=seed, draws=200, **options).z.mean()
        for seed in range(30)
    ]
    assert abs(np.mean(z)) < 0.4


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_power_grows_with_samples_and_with_the_shift(kind, options):
    n = np.repeat([30, 100, 300, 1000], 40)
    share = []
    for shift in (0.0, 0.15, 0.4):
        features = one_law(n, 7)
        moved = [x + shift if k % 4 == 0 else x for k, x in enumerate(features)]
        d = distance_to_population(moved, kind, **options)
        found = (d.p_value < 0.05).numpy()[::4].reshape(4, 10).mean(1)
        share.append(found)
    assert share[0].mean() < 0.2
    assert share[1][-1] >= share[1][0] + 0.3
    assert share[2].mean() > share[1].mean() > share[0].mean()
    assert share[2][-1] == 1


def test_the_calibrated_distance_recovers_the_shift():
    features = one_law([400] * 60, 3)
    features[0] = features[0] + torch.tensor([1.0] + [0.0] * (FEATURES - 1))
    d = distance_to_population(features, "gaussian")
    assert float(d.calibrated[0]) == pytest.approx(1.0, abs=0.15)
    assert d.calibrated[1:].median() == 0


def test_heavy_tails_widen_the_null():
    scale = torch.exp(0.6 * torch.randn(60, 200, 1, generator=torch.Generator().manual_seed(0)))
    features = [x * s for x, s in zip(one_law([200] * 60, 1), scale, strict=True)]
    d = distance_to_population(features, "gaussian")
    assert d.z.mean().abs() < 0.8
    assert d.z.std() < 1.8


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_null_is_what_samples_of_the_law_show(kind, options):
    built = build_distance(kind, **options)
    g = torch.Generator().manual_seed(0)
    factor = torch.randn(FEATURES, FEATURES, generator=g)
    reference = combine(
        [summarise(built.statistics(torch.randn(100_000, FEATURES, generator=g) @ factor), 1)]
    ).mean()
    for n in (8, 50, 400):
        own = built.statistics(torch.randn(800, n, FEATURES, generator=g) @ factor)
        truth = built.squared(own, reference).double()
        mean, std, _ = fit_null(built, reference, [n], draws=800).at(
            torch.tensor([float(n)], dtype=torch.float64)
        )
        assert float(mean) == pytest.approx(float(truth.mean()), rel=0.08)
        assert float(std) == pytest.approx(float(truth.std()), rel=0.2)


def test_the_null_falls_like_one_over_n_beyond_its_grid():
    null = Null(
        torch.tensor([10.0, 100.0]), torch.tensor([2.0, 4.0]), torch.ones(2), torch.tensor([0.0, 2.0])
    )
    mean, std, skew = null.at(torch.tensor([5.0, 10.0, 31.6227766, 100.0, 1000.0]))
    assert torch.allclose(mean, torch.tensor([0.4, 0.2, 8**0.5 / 31.6227766, 0.04, 0.004]))
    assert torch.allclose(skew, torch.tensor([0.0, 0.0, 1.0, 2.0, 2.0]))
    assert torch.allclose(std, 1 / torch.tensor([5.0, 10.0, 31.6227766, 100.0, 1000.0]))


def test_a_grid_of_one_size_is_enough():
    null = Null(torch.tensor([50.0]), torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([1.0]))
    assert torch.allclose(null.at(torch.tensor([25.0, 50.0, 100.0]))[0], torch.tensor([0.08, 0.04, 0.02]))


@pytest.mark.parametrize(("low", "high"), [(2, 2), (1.3, 9), (30, 3000), (5000, 9000)])
def test_grids_increase_and_stay_in_bounds(low, high):
    grid = size_grid(low, high)
    assert grid == sorted(set(grid))
    assert grid[0] >= 2
    assert grid[-1] <= 1024


def test_a_null_that_does_not_vary_gives_no_nan():
    squared, zero = torch.tensor([0.0, 2.0]).double(), torch.zeros(2).double()
    assert z_score(squared, zero, zero).tolist() == [0, torch.finfo(torch.float64).max]
    assert p_value(squared, zero, zero, zero).tolist() == [1, 0]


def test_relative_unit_is_the_median_then_the_resolution_then_the_mean():
    std = torch.full((5,), 4.0)
    assert relative_scale(torch.tensor([1.0, 2, 4, 8, 0]), std).tolist() == [0.5, 1, 2, 4, 0]
    assert relative_scale(torch.tensor([0.0, 0, 0, 1, 3]), std).tolist() == [0, 0, 0, 0.5, 1.5]
    assert relative_scale(torch.tensor([0.0, 0, 0, 1, 3]), 0 * std).tolist() == [0, 0, 0, 0.5, 1.5]
    assert relative_scale(torch.zeros(5), std).tolist() == [0] * 5
    assert relative_scale(torch.tensor([0.0, 0, 1, 1]), std[:4]).tolist() == [
        0,
        0,
        2,
        2,
    ]  # half: the median is .5


def test_noise_of_the_reference_widens_null_and_errors():
    """Clients of 10 samples beside a reference of no noise, and of as much as their own: sizes of 10 and 5."""
    grid = torch.tensor([2.0, 100.0], dtype=torch.float64)
    null = Null(grid, 20 + 0 * grid, 4 + 0 * grid, 0 * grid)
    n, nine = torch.tensor([10, 10]), torch.full((2,), 9.0, dtype=torch.float64)
    measured = Measured(nine, nine / 9, nine > 0)
    found = calibrate(measured, torch.tensor([10.0, 5.0]).double(), n, null, dtype=torch.float64)
    assert found.null_mean.tolist() == pytest.approx([2, 4])
    assert found.null_std.tolist() == pytest.approx([0.4, 0.8])
    assert found.z.tolist() == pytest.approx([17.5, 6.25])
    assert found.calibrated.tolist() == pytest.approx([7**0.5, 5**0.5])
    # The variance is 1 of the client's own samples and twice that with the reference's, less the null's, over (2 d)^2.
    assert found.std_error.tolist() == pytest.approx([(1 - 0.16) ** 0.5 / 6, (2 - 0.64) ** 0.5 / 6])


@pytest.mark.parametrize("skew", [0.1, 0.5, 1.5])
def test_p_values_have_the_moments_they_were_given(skew):
    grid = torch.linspace(-8, 40, 200_001, dtype=torch.float64)
    one = torch.ones_like(grid)
    survival = p_value(grid, 0 * one, one, skew * one)
    mass, centre = -survival.diff(), (grid[1:] + grid[:-1]) / 2
    moments = [float((mass * centre**k).sum()) for k in (0, 1, 2, 3)]
    assert moments == pytest.approx([1, 0, 1, skew], abs=2e-3)


def test_too_few_draws_are_refused():
    built = build_distance("gaussian")
    with pytest.raises(ValueError, match="draws=1"):
        fit_null(built, built.statistics(torch.randn(9, 2)), [5], draws=1)


@pytest.mark.parametrize(
    ("kind", "options"), [*KINDS, ("sliced", {"order": 1.0}), ("gaussian", {"diagonal": True})]
)
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.3, 1.0), (1.0, 1.0), (0.3, 1.7)])
def test_the_standard_error_is_the_spread_of_repeated_samples(kind, options, shift, scale):
    built = build_distance(kind, **options)
    g = torch.Generator().manual_seed(0)
    reference = built.statistics(torch.randn(4000, FEATURES, generator=g))
    x = scale * torch.randn(300, 80, FEATURES, generator=g) + shift
    own = built.statistics(x)
    squared = built.squared(own, reference).double()
    _, std, _ = fit_null(built, reference, [80]).at(torch.tensor([80.0], dtype=torch.float64))
    error = standard_error(squared, built.linear_variance(x, own, reference), std.expand(300))
    # 300 repetitions know their spread to 4 %; at no difference, where the first order vanishes, errors are up to 40 %
    # too large.
    assert 0.85 < float(error.mean() / squared.sqrt().std()) < (1.45 if shift == 0 else 1.2)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_influence_agrees_with_the_jackknife(kind, options):
    built = build_distance(kind, **options)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 400, FEATURES, generator=g) + 0.5
    reference = built.statistics(torch.randn(4000, FEATURES, generator=g))
    influence = built.linear_variance(x, built.statistics(x), reference)
    jackknife = DistanceKind.linear_variance(built, x, {}, reference)
    assert float(influence.mean() / jackknife.mean()) == pytest.approx(1, abs=0.2)


def test_standard_errors_of_nothing_are_nothing():
    zero, one = torch.zeros(1), torch.ones(1)
    assert standard_error(zero, zero, zero).tolist() == [0]
    assert standard_error(zero, zero, 4 * one).tolist() == [2]
    assert standard_error(9 * one, 36 * one, zero).tolist() == [1]


def test_smoothing_keeps_a_power_law_and_averages_noise():
    n = torch.tensor([30.0, 60, 120, 240, 480, 960], dtype=torch.float64)
    noise = torch.randn(6, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = n[:, None] ** 0.5 * (1 + 0.1 * noise)
    null = null_of(n, draws)
    assert torch.allclose(null.mean, n.sqrt(), rtol=0.01)
    assert torch.allclose(null.std, 0.1 * n.sqrt(), rtol=0.1)
    exact = null_of(n[:2], draws[:2])
    assert torch.equal(exact.mean, draws[:2].mean(1))


@pytest.mark.parametrize("order", [1, 2])
def test_the_null_jumps_where_the_ranks_of_a_sketch_do(order):
    # from 63 samples to 65 at 32 levels: a null drawn at 40 and 120 that is a power law between knows nothing of it
    g = torch.Generator().manual_seed(0)
    built = build_distance("sliced", projections=16, quantiles=32, order=order)

    def law(*shape):
        return torch.randn(*shape, FEATURES, generator=g)

    reference = built.statistics(law(40_000))
    null = fit_null(built, reference, [40, 120], draws=3000)
    sizes = torch.tensor([63.0, 65.0], dtype=torch.float64)
    drawn = [n * built.squared(built.statistics(law(3000, n)), reference).double() for n in (63, 65)]
    mean, deviation = (torch.stack([f(x) for x in drawn]) for f in (torch.mean, torch.std))
    assert float(mean[1] / mean[0]) < 0.95
    found = null.at(sizes)
    assert torch.allclose(found[0] * sizes, mean, atol=float(0.1 * deviation.max()))
    assert torch.allclose(found[1] * sizes, deviation, rtol=0.12)
    plain = Null(null.sizes, null.mean, null.std, null.skew).at(sizes)[0] * sizes
    assert float(plain[0] / plain[1]) == pytest.approx(1, abs=0.02)


def test_ripples_repeat_for_equal_sizes_and_end_where_samples_are_many():
    built = build_distance("sliced")
    reference = built.statistics(torch.randn(500, FEATURES, generator=torch.Generator().manual_seed(1)))
    sizes = torch.tensor([250.0, 257, 250, 1024, 5000])
    ripple = built.ripple(reference, sizes)
    assert ripple.dtype == sizes.dtype
    assert ripple[0] == ripple[2]
    assert ripple[3] == ripple[4]
    assert float(ripple[1] / ripple[0]) < 0.95
    constant = built.statistics(torch.ones(9, FEATURES))
    assert bool((built.ripple(constant, sizes) > 0).all())


@pytest.mark.slow
@pytest.mark.parametrize("heavy", [False, True])
def test_two_thousand_p_values_are_uniform(heavy):
    p_values = []
    for seed in range(200, 210):
        g = torch.Generator().manual_seed(seed)
        factor = torch.randn(24, 24, generator=g) / 24**0.5
        sizes = np.exp(np.random.default_rng(seed).uniform(np.log(30), np.log(3000), 200)).astype(int)
        features = [torch.randn(n, 24, generator=g) @ factor for n in sizes]
        if heavy:
            features = [torch.exp(0.7 * x.clamp(-3, 3)) for x in features]
        p_values.append(distance_to_population(features, seed=seed).p_value.numpy())
    assert kstest(np.concatenate(p_values), "uniform").pvalue > 0.01
