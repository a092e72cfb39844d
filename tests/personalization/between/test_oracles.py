"""Each distance between samples against POT, scikit-learn, SciPy or a closed form."""

import numpy as np
import ot
import pytest
import torch
from scipy.stats import wasserstein_distance

from personalization import build_distance, bures_wasserstein, labelled, unit_projections, wasserstein_line
from personalization.between.costs import transport_cost
from personalization.between.mixture import MixtureDistance, fit_mixture
from personalization.between.sinkhorn import sinkhorn_potentials
from personalization.between.spectral import power_spectrum

F = 3


def draw(n, seed, *lead, shift=0.0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*lead, n, F, generator=g, dtype=torch.float64) + shift


def weights(n, seed):
    w = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    return w / w.sum()


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0])
def test_exact_equals_pot(order):
    x, y, a, b = draw(17, 0), draw(12, 1, shift=0.5), weights(17, 2), weights(12, 3)
    cost = ot.dist(x, y, metric="euclidean") ** order
    found, converged = build_distance("exact", order=order).between(x, y, a, b)
    assert float(found**order) == pytest.approx(float(ot.emd2(a, b, cost)), rel=1e-8)
    assert converged


@pytest.mark.parametrize("order", [1.0, 1.5, 2.0])
def test_the_line_equals_pot_and_scipy(order):
    x, y, a, b = draw(17, 0)[:, 0], draw(12, 1)[:, 0] * 2, weights(17, 2), weights(12, 3)
    found = wasserstein_line(x, y, a, b, order=order)
    assert torch.allclose(found, ot.wasserstein_1d(x, y, a, b, p=order), rtol=1e-8)
    exact, _ = build_distance("exact", order=order).between(x[:, None], y[:, None], a, b)
    assert torch.allclose(exact**order, found)
    if order == 1:
        assert float(found) == pytest.approx(wasserstein_distance(x, y, a, b))


def test_a_simplex_that_stops_early_says_so_and_stays_an_upper_bound():
    x, y = draw(80, 0), draw(70, 1, shift=1.0)
    best, _ = build_distance("exact").between(x, y)
    early, converged = build_distance("exact", iterations=5).between(x, y)
    assert not converged
    assert torch.isfinite(early)
    assert early >= best


def test_the_gradient_of_a_transport_cost_is_plan_and_potentials():
    cost, a, b = ot.dist(draw(5, 0), draw(4, 1)), weights(5, 2), weights(4, 3)
    cost.requires_grad_()
    transport_cost(cost, a, b)[0].backward()
    assert torch.allclose(cost.grad, ot.emd(a, b, cost.detach()))


@pytest.mark.parametrize("epsilon", [0.5, 5.0])
def test_sinkhorn_divergence_equals_pots_plans(epsilon):
    x, y, a, b = draw(15, 0), draw(12, 1, shift=0.5), weights(15, 2), weights(12, 3)
    kind = build_distance("sinkhorn", epsilon=epsilon, scale=1.0, tolerance=1e-10, iterations=20_000)

    def entropic(u, v, p, q):
        cost = ot.dist(u, v)
        plan = ot.sinkhorn(p, q, cost, epsilon, method="sinkhorn_log", numItermax=20_000, stopThr=1e-12)
        return (plan * cost).sum() + epsilon * (plan * (plan / (p[:, None] * q)).log()).sum()

    expected = entropic(x, y, a, b) - (entropic(x, x, a, a) + entropic(y, y, b, b)) / 2
    found, converged = kind.between(x, y, a, b)
    assert converged
    assert torch.allclose(found**2, expected, rtol=1e-5)


def test_sinkhorn_lies_between_the_exact_distance_and_that_of_means():
    x, y = draw(40, 0), 2 * draw(40, 1, shift=0.5)
    exact, _ = build_distance("exact").between(x, y)
    sharp, _ = build_distance("sinkhorn", epsilon=0.02, scale=1.0, iterations=20_000).between(x, y)
    blunt, _ = build_distance("sinkhorn", epsilon=1e5, scale=1.0).between(x, y)
    assert float(sharp) == pytest.approx(float(exact), rel=0.02)
    assert torch.allclose(blunt, (x.mean(0) - y.mean(0)).norm(), rtol=1e-3)


def test_sinkhorn_that_is_stopped_early_says_so_and_is_no_nan():
    x, y = draw(30, 0), 50 * draw(20, 1, shift=5.0)
    found, converged = build_distance("sinkhorn", epsilon=1e-4, iterations=1).between(x, y)
    assert not converged
    assert torch.isfinite(found)


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_sinkhorn_has_converged_where_the_error_of_the_margins_is_within_the_tolerance(factor):
    x, y = draw(30, 0), draw(20, 1, shift=0.5)
    a, b = weights(30, 2), weights(20, 3)
    cost, epsilon = ot.dist(x, y)[None], torch.full((1, 1, 1), 0.05, dtype=torch.float64)
    error = float(sinkhorn_potentials(cost, a[None], b[None], epsilon, iterations=100)[2])
    assert 1e-4 < error < 0.1  # annealed to the end, but stopped before the margins met
    kind = build_distance("sinkhorn", epsilon=0.05, scale=1.0, iterations=100, tolerance=factor * error)
    assert bool(kind.between(x, y, a, b)[1]) == (factor > 1)


def test_potentials_give_a_plan_with_the_margins():
    cost, a, b = ot.dist(draw(9, 0), draw(7, 1))[None], weights(9, 2)[None], weights(7, 3)[None]
    f, g, error = sinkhorn_potentials(cost, a, b, torch.tensor([[[0.3]]]).double(), tolerance=1e-8)
    plan = a[..., None] * b[..., None, :] * torch.exp((f[..., None] + g[..., None, :] - cost) / 0.3)
    assert float(error) <= 1e-8
    assert torch.allclose(plan.sum(-1), a, atol=1e-7)
    assert torch.allclose(plan.sum(-2), b, atol=1e-7)


def test_max_sliced_finds_the_one_feature_that_changed():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 20, generator=g, dtype=torch.float64)
    y = x[torch.randperm(200, generator=g)].clone()
    y[:, 7] = 3 * y[:, 7]
    kind = build_distance("max_sliced", projections=8)
    along = ot.wasserstein_1d(x[:, 7], y[:, 7], p=2) ** 0.5
    assert float(kind.between(x, y)[0]) >= float(along) * 0.999


@pytest.mark.parametrize("order", [1.0, 2.0])
def test_max_sliced_is_no_less_than_pots_best_direction(order):
    x, y = draw(40, 0), draw(30, 1, shift=0.4) * torch.tensor([1.0, 2.0, 1.0])
    found, _ = build_distance("max_sliced", order=order, projections=32).between(x, y)
    directions = unit_projections(F, 2000, seed=5).double().T
    best = ot.max_sliced_wasserstein_distance(x, y, projections=directions, p=order)
    assert found >= 0.999 * best
    assert found <= build_distance("exact", order=order).between(x, y)[0] + 1e-9


def test_the_gradient_of_max_sliced_points_along_the_shift():
    x = draw(20, 0).requires_grad_()
    move = torch.tensor([3.0, 0.0, 4.0]).double()
    build_distance("max_sliced").between(x, x.detach() + move)[0].backward()
    assert torch.allclose(x.grad.sum(0), -move / 5, atol=1e-6)


def test_mmd_equals_its_definition():
    x, y, h = draw(9, 0), draw(7, 1, shift=1.0), 1.3

    def gram(u, v):
        return torch.exp(-ot.dist(u, v) / (2 * h**2))

    biased = gram(x, x).mean() + gram(y, y).mean() - 2 * gram(x, y).mean()
    within = [(gram(z, z).sum() - len(z)) / (len(z) * (len(z) - 1)) for z in (x, y)]
    unbiased = within[0] + within[1] - 2 * gram(x, y).mean()
    assert torch.allclose(build_distance("mmd", bandwidth=h).between(x, y)[0] ** 2, biased)
    found, _ = build_distance("mmd", bandwidth=h, unbiased=True).between(x, y)
    assert torch.allclose(found**2, unbiased)


def test_the_median_heuristic_is_the_median_of_distances():
    x, y = draw(11, 0), draw(8, 1)
    both = torch.cat([x, y])
    h = float(np.median(torch.pdist(both)))
    # Rows of y weigh more than those of x where the samples are unlike in size; for a pool all weigh the same.
    assert build_distance("mmd").fitted(both).bandwidth == pytest.approx(h, rel=1e-6)
    assert build_distance("mmd", bandwidth=2.0).fitted(both).bandwidth == 2.0


def test_energy_on_the_line_is_twice_the_squared_gap_of_distribution_functions():
    from scipy.stats import energy_distance

    x, y, a, b = draw(17, 0)[:, :1], draw(12, 1)[:, :1] + 1, weights(17, 2), weights(12, 3)
    found, _ = build_distance("energy").between(x, y, a, b)
    assert float(found) == pytest.approx(energy_distance(x[:, 0], y[:, 0], a, b))


@pytest.mark.parametrize("diagonal", [True, False])
def test_mixture_equals_pot_on_the_same_mixtures(diagonal):
    x = torch.cat([draw(40, 0), draw(60, 1, shift=4.0)])
    y = torch.cat([draw(50, 2, shift=-3.0), 2 * draw(30, 3, shift=3.0)])
    kind = MixtureDistance(components=2, diagonal=diagonal)
    fits = [fit_mixture(z, z.new_full((len(z),), 1 / len(z)), kind) for z in (x, y)]
    (w, m, C, _), (v, k, D, _) = ((*f[:2], f[2].diag_embed() if diagonal else f[2], f[3]) for f in fits)
    found, converged = kind.between(x, y)
    assert converged
    assert torch.allclose(found**2, ot.gmm.gmm_ot_loss(m, k, C, D, w, v), rtol=1e-6)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_mixtures_are_those_of_scikit_learn(kind):
    from sklearn.mixture import GaussianMixture

    x = torch.cat([draw(150, 0), draw(100, 1, shift=4.0)])
    options = MixtureDistance(components=2, diagonal=kind == "diag", ridge=1e-6, tolerance=1e-9)
    w, m, spread, settled = fit_mixture(x, x.new_full((len(x),), 1 / len(x)), options)
    oracle = GaussianMixture(2, covariance_type=kind, tol=1e-9, max_iter=1000, random_state=0).fit(x.numpy())
    order, other = m[:, 0].argsort(), oracle.means_[:, 0].argsort()
    assert settled
    assert np.allclose(w[order], oracle.weights_[other], atol=1e-3)
    assert np.allclose(m[order], oracle.means_[other], atol=1e-2)
    assert np.allclose(spread[order], oracle.covariances_[other], atol=2e-2)


def test_a_mixture_of_one_is_the_gaussian_distance():
    x, y = draw(50, 0), 2 * draw(60, 1, shift=1.0)
    found, _ = build_distance("mixture", components=1, diagonal=False, ridge=1e-9).between(x, y)
    moments = [(z.mean(0), torch.cov(z.T, correction=0)) for z in (x, y)]
    assert torch.allclose(found, bures_wasserstein(*moments[0], *moments[1]), rtol=1e-5)


def test_fitting_that_is_stopped_early_says_so():
    x = torch.cat([draw(40, 0), draw(60, 1, shift=1.0)])
    assert not build_distance("mixture", iterations=1).between(x, draw(50, 2))[1]


def test_sines_lie_as_far_apart_as_their_frequencies():
    t = torch.arange(48, dtype=torch.float64)
    slow, fast = (torch.sin(2 * torch.pi * k * t / 48)[None] for k in (2, 6))
    for order in (1.0, 2.0):
        found, _ = build_distance("spectral", order=order).between(slow, fast)
        assert float(found) == pytest.approx(4 / 48)
    hourly, _ = build_distance("spectral", rate=24.0).between(slow, fast)
    assert float(hourly) == pytest.approx(2.0)  # one against three cycles a day
    assert float(build_distance("spectral").between(slow, 7 * slow.roll(5, 1) + 3)[0]) < 1e-9


def test_spectra_are_laws_and_constant_windows_have_no_rhythm():
    x = torch.cat([draw(6, 0), torch.full((2, F), 0.1, dtype=torch.float64)])
    spectrum = power_spectrum(x, x.new_full((8,), 1 / 8))
    assert float(spectrum.sum()) == pytest.approx(1)
    assert float(spectrum[0]) == pytest.approx(0.25)


def pairs(n, seed, classes=3):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=g)
    return draw(n, seed) + y[:, None], y


def test_label_aware_equals_pot_on_its_own_cost():
    (z, y), (u, v) = pairs(30, 0), pairs(25, 1)
    cost = ot.dist(z, u)
    for i in range(30):
        for j in range(25):
            one, two = z[y == y[i]], u[v == v[j]]
            laws = [(s.mean(0), torch.cov(s.T, correction=0)) for s in (one, two)]
            cost[i, j] += 2.0 * bures_wasserstein(*laws[0], *laws[1]) ** 2
    expected = ot.emd2([], [], cost) ** 0.5
    found, converged = build_distance("label_aware", label_weight=2.0).between(labelled(z, y), labelled(u, v))
    assert converged
    assert torch.allclose(found, expected, rtol=1e-6)


def test_label_aware_sees_a_swap_of_labels_but_not_new_names():
    z, y = pairs(60, 0, classes=2)
    one, swapped = labelled(z, y), labelled(z, (y + (z[:, 0] > 0.5)) % 2)
    kind, inputs = build_distance("label_aware"), build_distance("exact")
    assert float(inputs.between(one[:, :F], swapped[:, :F])[0]) < 1e-6
    assert kind.between(one, swapped)[0] > 0.1
    assert float(kind.between(one, labelled(z, y + 5))[0]) < 1e-6
    assert float(kind.between(one, labelled(z, 1 - y))[0]) < 1e-6


def test_label_aware_without_label_weight_is_exact():
    (z, y), (u, v) = pairs(12, 0), pairs(9, 1)
    found, _ = build_distance("label_aware", label_weight=0.0).between(labelled(z, y), labelled(u, v))
    assert torch.allclose(found, build_distance("exact").between(z, u)[0])


def test_joint_equals_pot_on_its_own_cost():
    (z, y), (u, v) = pairs(12, 0), pairs(9, 1)
    y, v = y.double() / 3, v.double() / 3
    cost = ot.dist(z, u) + 4.0 * (y[:, None] - v) ** 2
    found, _ = build_distance("joint", beta=4.0).between(labelled(z, y), labelled(u, v))
    assert torch.allclose(found, ot.emd2([], [], cost) ** 0.5)


def test_label_shares_have_closed_forms():
    y, v = torch.tensor([0, 0, 1, 2]), torch.tensor([2, 2])
    x, z = labelled(draw(4, 0), y), labelled(draw(2, 1), v)
    assert float(build_distance("label_marginal").between(x, z)[0]) == pytest.approx(0.75)
    assert float(build_distance("label_marginal", metric="w1").between(x, z)[0]) == pytest.approx(1.25)


def test_targets_must_be_classes_with_inputs_beside_them():
    with pytest.raises(ValueError, match=r"class 0\.5 in the last column"):
        build_distance("label_aware").between(
            labelled(draw(3, 1), torch.full((3,), 0.5)), draw(4, 0)[:, :1].repeat(1, F + 1)
        )
    with pytest.raises(ValueError, match="hold no input beside 1 target"):
        build_distance("joint").between(draw(4, 0)[:, :1], draw(4, 1)[:, :1])
    with pytest.raises(ValueError, match="one row of targets per row of inputs"):
        labelled(draw(4, 0), torch.zeros(5))
    with pytest.raises(ValueError, match="have no spectrum"):
        build_distance("spectral").between(draw(4, 0)[:, :1], draw(4, 1)[:, :1])
