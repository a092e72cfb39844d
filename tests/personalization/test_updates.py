import numpy as np
import pytest
import torch
from scipy.stats import kstest, spearmanr

from personalization import (
    cosine_distance,
    l2_distance,
    pairwise_update_distances,
    update_distances,
)
from personalization.replicates import effective_size, helmert, replicates_of
from personalization.updates import _compared

METRICS = ["cosine", "l2"]
P = 30


def population(seed=0, clients=100, sizes=(30, 3000), replicates=2, step=0.0, shift=0.0, dtype=torch.float64):
    """Updates that are means of samples, as of one step of a linear model; every fourth client moved."""
    g = torch.Generator().manual_seed(seed)
    n = np.exp(np.random.default_rng(seed).uniform(*np.log(sizes), clients)).astype(int)
    mix = torch.randn(P, P, generator=g, dtype=torch.float64) / P**0.5
    common = torch.randn(P, generator=g, dtype=torch.float64)
    rows = []
    for k, m in enumerate(n):
        x = torch.randn(replicates, int(m) // replicates, P, generator=g, dtype=torch.float64) @ mix
        steps = step * replicates**0.5 * torch.randn(replicates, P, generator=g, dtype=torch.float64) @ mix
        rows.append(x.mean(1) + steps + common + shift * (k % 4 == 0) * torch.eye(P, dtype=torch.float64)[0])
    return torch.stack(rows).to(dtype), torch.from_numpy(n)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("options", [{}, {"replicates": 3}, {"step": 0.03}, {"sizes": (30, 31)}])
def test_without_a_difference_nothing_follows_the_size_and_p_values_are_uniform(metric, options):
    p, follows = [], []
    for seed in range(5):
        updates, n = population(seed, **options)
        found = update_distances(updates, n, metric, seed=seed)
        p.append(found.p_value.numpy())
        if "sizes" not in options:
            assert spearmanr(found.value, n).statistic < -0.8
            follows.append(spearmanr(found.calibrated, n).statistic)
    assert kstest(np.concatenate(p), "uniform").pvalue > 0.01
    assert abs(np.mean(follows or [0.0])) < 0.1


@pytest.mark.parametrize("metric", METRICS)
def test_power_grows_with_n(metric):
    found = [update_distances(*population(1, sizes=(m, m + 1), shift=0.3), metric) for m in (30, 300, 3000)]
    power = [float((d.p_value[::4] < 0.05).double().mean()) for d in found]
    assert power[0] < power[1] < power[2] == 1
    pairs = pairwise_update_distances(*population(1, sizes=(1000, 1001), shift=1.0), metric)
    assert float(pairs.p_value[0, 1:4].max()) < 1e-3


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_standard_errors_are_the_spread_of_repeated_updates(metric, shift):
    g = torch.Generator().manual_seed(0)
    n = torch.tensor([50] * 15 + [300] * 15)
    centre = torch.randn(P, generator=g, dtype=torch.float64)
    moved = shift * (torch.arange(30) % 2)[:, None, None] * torch.eye(P, dtype=torch.float64)[0]
    alone, pairs = [], []
    for _ in range(60):
        noise = torch.randn(30, 2, P, generator=g, dtype=torch.float64) / (n / 2).sqrt()[:, None, None]
        updates = centre + moved + noise
        found, both = update_distances(updates, n, metric), pairwise_update_distances(updates, n, metric)
        alone.append(torch.stack([found.value, found.std_error]))
        pairs.append(torch.stack([both.value[:15:2, 15:], both.std_error[:15:2, 15:]]))
    for values, errors in (torch.stack(x).unbind(1) for x in (alone, pairs)):
        ratio = float(errors.mean(0).mean() / values.std(0).mean())
        assert 0.8 < ratio < (1.7 if shift == 0 else 1.25)


@pytest.mark.parametrize(("metric", "plain"), [("cosine", cosine_distance), ("l2", l2_distance)])
def test_variances_are_those_of_the_noise_along_the_gradient(metric, plain):
    """Of pairs and of clients to others, ``E <gradient of d^2, noise>^2`` over the contrasts that tell the noise."""
    learned, _ = _compared(*population(clients=70, sizes=(30, 300)), metric, 1.0, 2)
    u, contrasts = learned.told.mean[:4].requires_grad_(), learned.told.contrasts
    squared = 2 * plain(u, pairwise=True) if metric == "cosine" else plain(u, pairwise=True).square()
    found = learned.pair_variance(learned.pairwise())[:4, :4]
    for i, j in ((0, 1), (1, 0), (2, 3)):
        (slope,) = torch.autograd.grad(squared[i, j], u, retain_graph=True)
        expected = (contrasts @ slope[i]).square().mean()
        torch.testing.assert_close(found[i, j], expected)
        one, two = u[i].detach(), u[j].detach()
        again = learned.variance((contrasts @ one)[:, None], (contrasts @ two)[:, None], one, two)
        torch.testing.assert_close(again, expected[None])


@pytest.mark.parametrize(("metric", "plain"), [("cosine", cosine_distance), ("l2", l2_distance)])
def test_values_are_those_of_the_mean_update(metric, plain):
    updates, n = population(clients=9)
    found = update_distances(updates, n, metric)
    value = found.value.square() / 2 if metric == "cosine" else found.value
    torch.testing.assert_close(value, plain(updates.mean(1), weights=n))
    pairs = pairwise_update_distances(updates, n, metric)
    value = pairs.value.square() / 2 if metric == "cosine" else pairs.value
    torch.testing.assert_close(value, plain(updates.mean(1), pairwise=True))
    once, equal = update_distances(updates.mean(1), n, metric), torch.ones(9)
    torch.testing.assert_close(once.value, found.value)
    assert torch.equal(once.calibrated, once.value)
    assert (once.p_value == 1).all()
    assert torch.isinf(once.std_error).all()
    bare = pairwise_update_distances(updates.mean(1), n, metric)
    torch.testing.assert_close(bare.value, pairs.value)
    assert (bare.p_value == 1).all()
    assert not bare.z.any()
    value = update_distances(updates, n, metric, weights=equal).value
    value = value.square() / 2 if metric == "cosine" else value
    torch.testing.assert_close(value, plain(updates.mean(1)))


@pytest.mark.parametrize("metric", METRICS)
def test_symmetries(metric):
    updates, n = population(clients=12)
    pairs = pairwise_update_distances(updates, n, metric)
    for name in ("value", "null_mean", "z", "p_value", "calibrated", "std_error"):
        matrix = getattr(pairs, name)
        torch.testing.assert_close(matrix, matrix.T)
    base = update_distances(updates, n, metric)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(update_distances(updates[order], n[order], metric).value, base.value[order])
    turn = torch.linalg.qr(torch.randn(P, P, dtype=torch.float64)).Q
    torch.testing.assert_close(update_distances(updates.flip(1), n, metric).value, base.value)
    for moved in (updates @ turn, torch.cat([updates, 0 * updates], -1)):
        again = update_distances(moved, n, metric)
        for name in ("value", "z", "p_value", "std_error"):
            torch.testing.assert_close(getattr(again, name), getattr(base, name), rtol=1e-5, atol=1e-9)
    longer = update_distances(3 * updates, n, metric)
    torch.testing.assert_close(longer.value, base.value * (3 if metric == "l2" else 1))
    torch.testing.assert_close(longer.p_value, base.p_value, rtol=1e-5, atol=1e-9)
    if metric == "l2":
        torch.testing.assert_close(update_distances(updates + 5, n, metric).z, base.z, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("metric", METRICS)
def test_degenerate_updates_have_documented_values(metric):
    updates, n = population(clients=6)
    one = update_distances(updates[:1], n[:1], metric)
    assert one.value.tolist() == [0]
    assert one.p_value.tolist() == [1]
    assert one.std_error.tolist() == [0]
    assert pairwise_update_distances(updates[:1], n[:1], metric).value.tolist() == [[0]]
    for same in (updates[:1, :1].expand(6, 2, P), torch.zeros(6, 2, P)):
        found, pairs = (f(same, n, metric) for f in (update_distances, pairwise_update_distances))
        assert not found.value.any()
        assert (found.p_value == 1).all()
        assert not found.calibrated.any()
        assert not pairs.value.any()
        assert (pairs.p_value == 1).all()
    nowhere = updates.clone()
    nowhere[2] = 0
    for found in (update_distances(nowhere, n, metric), pairwise_update_distances(nowhere, n, metric)):
        assert all(
            torch.isfinite(getattr(found, name)).all() for name in ("value", "z", "p_value", "std_error")
        )
    quiet = updates[:, :1].expand(6, 2, P)  # replicates agree, clients do not: every difference is one
    assert (update_distances(quiet, n, metric).p_value == 0).all()
    narrow = update_distances(updates.float(), n.tolist(), metric)
    assert narrow.value.dtype == torch.float32
    assert narrow.n.dtype == torch.int64


def test_noise_that_samples_do_not_lessen_is_found_and_only_where_there_is_some():
    n = torch.logspace(1.5, 3.5, 60, dtype=torch.float64)
    draws = torch.distributions.Gamma(20.0, 20.0)
    torch.manual_seed(0)
    assert sum(torch.equal(effective_size(n, draws.sample((60,)) / n), n) for _ in range(20)) >= 15
    n = torch.logspace(1.5, 3.5, 400, dtype=torch.float64)
    found = effective_size(n, draws.sample((400,)) * (1 / n + 1 / 200))
    torch.testing.assert_close(found, 1 / (1 / n + 1 / 200), rtol=0.15, atol=0)


@pytest.mark.parametrize("replicates", [2, 3, 7])
def test_contrasts_are_orthonormal_and_blind_to_what_replicates_share(replicates):
    rows = helmert(replicates)
    torch.testing.assert_close(rows @ rows.T, torch.eye(replicates - 1, dtype=torch.float64))
    assert float(rows.sum(1).abs().max()) < 1e-12


def test_trained_models_are_judged_right():
    """Logistic regressions after 20 steps from one anchor, each client on its two halves; a quarter has another rule."""
    g = torch.Generator().manual_seed(0)
    clients, features = 80, 10
    n = torch.randint(15, 400, (clients,), generator=g) * 2
    rule = torch.randn(features, generator=g)
    updates = torch.zeros(clients, 2, features)
    for k, m in enumerate(n.tolist()):
        own = rule.clone()
        own[0] = own[0] + 3 * (k % 4 == 0)
        x = torch.randn(2, m // 2, features, generator=g)
        y = torch.bernoulli(torch.sigmoid(x @ own), generator=g)
        for _ in range(20):
            gap = torch.sigmoid((x @ updates[k].unsqueeze(-1)).squeeze(-1)) - y
            updates[k] -= 0.5 * (gap.unsqueeze(-1) * x).mean(1)
    plain = torch.arange(clients) % 4 != 0
    for metric in METRICS:
        found = update_distances(updates, n, metric)
        few, many = n < 300, n >= 300
        assert float(found.p_value[~plain & many].median()) < 1e-3
        # The others' mean leans to the moved quarter, so that a plain client's difference is small, not none.
        assert found.calibrated[plain & few].mean() < 0.4 * found.calibrated[~plain & few].mean()
        same = update_distances(updates[plain], n[plain], metric)
        assert kstest(same.p_value.double().numpy(), "uniform").pvalue > 0.01


def networks(parts, size, g, steps=100, hidden=32, rule=None):
    """Updates of tanh networks of one hidden layer, full batches from one anchor, ``(parts, parameters)``."""
    anchor = torch.Generator().manual_seed(7)
    first = (torch.randn(8, hidden, generator=anchor) / 8**0.5).repeat(parts, 1, 1)
    second = (torch.randn(hidden, 1, generator=anchor) / hidden**0.5).repeat(parts, 1, 1)
    start = torch.cat([first.flatten(1), second.flatten(1)], 1)
    rule = torch.ones(8, 1) / 8**0.5 if rule is None else rule
    x = torch.randn(parts, size, 8, generator=g)
    y = torch.sin(3 * x @ rule) + 0.5 * torch.randn(parts, size, 1, generator=g)
    for _ in range(steps):
        hold = torch.tanh(x @ first)
        gap = 2 * (hold @ second - y) / size
        down = x.mT @ ((gap @ second.mT) * (1 - hold**2))
        first, second = first - 0.1 * down, second - 0.1 * hold.mT @ gap
    return start - torch.cat([first.flatten(1), second.flatten(1)], 1)


@pytest.mark.parametrize("metric", METRICS)
def test_networks_trained_on_parts_of_one_size_are_judged_right(metric):
    """Parts that differ in size would make small clients look far: what few samples teach is another function."""
    p, follows = [], []
    for seed in range(6):
        g = torch.Generator().manual_seed(seed)
        n = torch.randint(30, 600, (60,), generator=g)
        found = update_distances([networks(int(m) // 15, 15, g) for m in n], n, metric, seed=seed)
        p.append(found.p_value.double().numpy())
        follows.append(spearmanr(found.calibrated, n).statistic)
    assert kstest(np.concatenate(p), "uniform").pvalue > 0.01
    assert abs(np.mean(follows)) < 0.1
    other, long = -torch.ones(8, 1) / 8**0.5, torch.full((60,), 600)
    moved = [networks(40, 15, g, rule=other if k % 4 == 0 else None) for k in range(60)]
    found, pairs = (f(moved, long, metric) for f in (update_distances, pairwise_update_distances))
    assert float(found.p_value[::4].max()) < 0.05
    assert float(pairs.p_value[::4, 1].median()) < 0.02


@pytest.mark.parametrize("metric", METRICS)
def test_as_many_parts_for_all_are_the_tensor_of_them(metric):
    updates, _ = population(clients=12, replicates=3)
    n = torch.full((12,), 90)
    for function in (update_distances, pairwise_update_distances):
        with pytest.warns(UserWarning, match="24 contrasts"):
            whole, parts = function(updates, n, metric), function(list(updates), n, metric)
        torch.testing.assert_close(parts.value, whole.value)
        # the same mean noise, of parts or of samples; a mean of three noises varies less in length than one
        torch.testing.assert_close(parts.null_mean, whole.null_mean, rtol=0.1, atol=1e-9)
    alone = update_distances([u[:1] for u in updates], n, metric)
    torch.testing.assert_close(alone.value, update_distances(updates[:, 0], n, metric).value)
    assert (alone.p_value == 1).all()


def test_many_contrasts_are_thinned_and_belong_to_the_right_clients():
    g = torch.Generator().manual_seed(0)
    parts = [
        torch.randn(int(r), 4, generator=g) + k
        for k, r in enumerate(torch.randint(1, 200, (90,), generator=g))
    ]
    told = replicates_of(parts, [999] * 90)
    assert len(told.contrasts) == 2048
    first, second = told.pairs(20_000, g)
    assert not (told.owner[first] == told.owner[second]).any()
    assert len(second.unique()) > 1900
    few = replicates_of(parts[:3], [999] * 3)
    raw = helmert(len(parts[1])) @ parts[1].double() / few.unit
    torch.testing.assert_close(few.contrasts[few.owner == 1], raw)


@pytest.mark.parametrize("function", [update_distances, pairwise_update_distances])
def test_bad_parts_are_refused(function):
    updates, n = population(clients=5)
    good = list(updates)
    cases = [
        (([*good[:4], good[4][:, :7]], n), r"Client 4 has updates of shape \(2, 7\)"),
        (([*good[:4], good[4].float()], n), "Client 4 has updates of torch.float32"),
        (([good[0][:0], *good[1:]], n), "Client 0 has 0 parts"),
        (([good[0] / 0, *good[1:]], n), "Client 0 has 2 parts of torch.float64, NaN"),
        (([good[0], *(u[:1] for u in good[1:])], n), "Only one client has two or more parts"),
        ((good, [1, 9, 9, 9, 9]), "Client 0 has n=1 samples and 2 parts"),
        (([], []), "without clients"),
        ((None, n), "NoneType"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            function(*arguments)


@pytest.mark.parametrize("function", [update_distances, pairwise_update_distances])
def test_bad_updates_are_refused(function):
    updates, n = population(clients=5)
    broken = updates.clone()
    broken[3, 1, 2] = float("nan")
    cases = [
        ((broken, n), "Client 3 has NaN or infinite parameters"),
        ((updates[:, :1], n), "one replicate a client"),
        ((updates[0, 0], n), r"shape \(30,\)"),
        ((updates.long(), n), r"type torch\.int64"),
        ((updates, n[:4]), "give 5 whole numbers"),
        ((updates, n * 0), "at least 2, one a client"),
        ((updates, n.double()), "whole numbers"),
        ((updates, n, "cosinus"), "did you mean 'cosine'"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            function(*arguments)
    with pytest.raises(ValueError, match="draws=1"):
        function(updates, n, draws=1)
    with pytest.raises(ValueError, match="gate"):
        function(updates, n, gate=float("nan"))
    with pytest.raises(ValueError, match="give 5 finite ones"):
        update_distances(updates, n, weights=torch.ones(4))


def test_one_client_alone_lies_nowhere_else():
    for updates in (torch.randn(1, 2, 5), [torch.randn(2, 5)], [torch.randn(3, 5)]):
        assert float(update_distances(updates, [10]).value) == 0
