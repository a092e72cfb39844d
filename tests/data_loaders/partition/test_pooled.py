"""Partitions that deal pooled samples to new clients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import DataError
from data_loaders.partition import build_partition
from data_loaders.partition.labels import draw_table
from data_loaders.partition.pooled import apportion, fill

DEALS = {
    "iid": {},
    "dirichlet": {"alpha": 0.3},
    "unbalanced": {"alpha": 2.0, "balanced": False},
    "shards": {"shards": 2},
    "k_classes": {"classes": 2},
    "quantity": {"spread": 1.0},
    "zipf": {"law": "zipf", "spread": 1.2},
}
NAMES = {"unbalanced": "dirichlet", "zipf": "quantity"}


def build(deal, clients, **options):
    return build_partition(NAMES.get(deal, deal), clients=clients, **{**DEALS[deal], **options})


def numbers(samples):
    """Which samples lie where: the first input numbers them."""
    return samples.inputs[:, 0, 0].long()


def shares(samples):
    """Class shares of each client, (clients, classes)."""
    rows = [samples.targets[samples.rows(k)] for k in range(len(samples))]
    counts = np.stack([np.bincount(row.numpy(), minlength=len(samples.classes)) for row in rows])
    return counts / counts.sum(axis=1, keepdims=True)


def skew(samples):
    """Mean total variation between a client's class shares and the pooled ones."""
    pooled = np.bincount(samples.targets.numpy(), minlength=len(samples.classes)) / len(samples.targets)
    return np.abs(shares(samples) - pooled).sum(axis=1).mean() / 2


@pytest.mark.parametrize("deal", DEALS)
@given(
    clients=st.integers(3, 12), seed=st.integers(0, 9), grouped=st.booleans(), classes=st.sampled_from([0, 5])
)
@settings(max_examples=12, deadline=None)
def test_deals_are_disjoint_cover_and_keep_groups_with_one_client(
    make_samples, deal, clients, seed, grouped, classes
):
    groups = torch.from_numpy(np.random.default_rng(seed).integers(0, 30, 125)) if grouped else None
    samples = make_samples(classes=classes, groups=groups, times=torch.arange(125))
    dealt = build(deal, clients, seed=seed)(samples)
    assert len(dealt) == clients
    assert (dealt.lengths >= 1).all()
    order = numbers(dealt)
    left = 125 - len(order)
    assert len(order.unique()) == len(order)
    if deal != "k_classes" or 2 * clients >= (classes or 10):
        assert left == 0
    else:
        assert dealt.rules[-1] == f"partition: {left} samples belong to no client"
    # a sample takes its target and time along
    assert torch.equal(dealt.targets, samples.targets[order])
    assert torch.equal(dealt.times, order)
    if grouped:
        before = list(zip(natural(samples)[order].tolist(), groups[order].tolist(), strict=True))
        owner = natural(dealt).tolist()
        assert len(set(zip(before, owner, strict=True))) == len(set(before))
        # groups of two natural clients that shared a number are told apart
        assert len(dealt.groups.unique()) == len(set(before))


def natural(samples):
    return torch.repeat_interleave(torch.arange(len(samples)), samples.lengths)


@pytest.mark.parametrize("deal", DEALS)
def test_a_deal_depends_on_the_seed_alone(make_samples, deal):
    samples = make_samples()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 the global state that must not matter
    first = build(deal, 6, seed=4)(samples)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert build(deal, 6, seed=4)(samples).fingerprint() == first.fingerprint()
    assert build(deal, 6, seed=5)(samples).fingerprint() != first.fingerprint()


@pytest.mark.parametrize("deal", DEALS)
def test_a_deal_says_what_it_did(make_samples, deal):
    dealt = build(deal, 6, seed=4)(make_samples(rules=("made by hand",)))
    assert dealt.rules[0] == "made by hand"
    assert dealt.rules[1].startswith(f"partition: {NAMES.get(deal, deal)}")
    assert dealt.rules[1].endswith("seed 4")
    assert dealt.attributes["samples"].tolist() == dealt.lengths.tolist()
    assert dealt.attributes["natural_clients"].between(1, 3).all()


def test_iid_clients_are_of_one_size_and_alike(make_samples):
    dealt = build("iid", 10)(make_samples(lengths=(4003,)))
    assert set(dealt.lengths.tolist()) == {400, 401}
    # total variation of 400 draws from five equal classes: sqrt(2 p (1 - p) / (pi n)) a class
    assert skew(dealt) == pytest.approx(2.5 * np.sqrt(2 * 0.2 * 0.8 / (np.pi * 400)), rel=0.35)


@pytest.mark.parametrize("deal", ["dirichlet", "unbalanced"])
def test_a_smaller_alpha_skews_labels_more(make_samples, deal):
    samples = make_samples(lengths=(4000,))
    skews = [skew(build(deal, 20, alpha=alpha)(samples)) for alpha in (0.1, 1.0, 100.0)]
    assert skews[0] > 0.5 > skews[1] > 0.15 > skews[2]
    assert skews[2] < skew(build("iid", 20)(samples)) + 0.05


def test_a_balanced_dirichlet_has_hsus_moments(make_samples):
    """Shares have the population's mean and the Dirichlet law's variance, p (1 - p) / (alpha C + 1)."""
    samples = make_samples(lengths=(20000,), classes=4)
    dealt = build("dirichlet", 400, alpha=1.0)(samples)
    assert set(dealt.lengths.tolist()) == {50}
    variance = 0.25 * 0.75 * (1 / 5 + (1 - 1 / 5) / 50)
    assert shares(dealt).var(axis=0).mean() == pytest.approx(variance, rel=0.15)


def test_an_infinite_alpha_gives_everyone_the_populations_shares(make_samples):
    samples = make_samples(lengths=(4000,))
    table = shares(build("unbalanced", 10, alpha=1e9)(samples))
    assert np.abs(table - table.mean(axis=0)).max() < 0.01


@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 6), st.floats(1e-4, 10))
@settings(max_examples=100, deadline=None)
def test_drawn_tables_use_up_the_stock(seed, clients, classes, alpha):
    rng = np.random.default_rng(seed)
    stock = rng.integers(0, 30, classes) + (np.arange(classes) == 0)
    sizes = apportion(np.ones(clients), int(stock.sum()))
    wishes = rng.dirichlet(np.full(classes, alpha), clients)
    wishes = np.where(np.isfinite(wishes).all(axis=1, keepdims=True), wishes, 1 / classes)
    table = draw_table(wishes, sizes, stock, rng)
    assert (table >= 0).all()
    assert table.sum(axis=1).tolist() == sizes.tolist()
    assert table.sum(axis=0).tolist() == stock.tolist()


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=9), st.integers(0, 500), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_apportioned_numbers_add_up_and_keep_the_ratio(weights, spare, at_least):
    weights, total = np.array(weights), spare + at_least * len(weights)
    sizes = apportion(weights, total, at_least)
    assert sizes.sum() == total
    assert (np.abs(sizes - at_least - spare * weights / weights.sum()) < 1 + 1e-9).all()


def test_filling_follows_the_table():
    labels = np.array([0, 2, 1, 2, 2, 0, 1])
    table = np.array([[1, 0, 2], [0, 2, 1]])
    owners = fill(table, labels, np.random.default_rng(0))
    for client, row in enumerate(table):
        assert np.bincount(labels[owners == client], minlength=3).tolist() == row.tolist()
    assert (owners == -1).sum() == 1


def test_shards_hold_a_few_neighbouring_classes(make_samples):
    dealt = build("shards", 10, shards=2)(make_samples(lengths=(4000,), classes=20))
    assert dealt.lengths.tolist() == [400] * 10
    # a shard is as large as a class and so touches two of them, seldom three
    assert (shares(dealt) > 0).sum(axis=1).max() <= 6


def test_every_client_has_its_k_classes_and_every_class_its_owners(make_samples):
    dealt = build("k_classes", 15, classes=2)(make_samples(lengths=(3000,), classes=10))
    owns = shares(dealt) > 0
    assert owns.sum(axis=1).tolist() == [2] * 15
    assert owns.sum(axis=0).tolist() == [3] * 10


def test_bins_stand_for_classes_of_float_targets(make_samples):
    samples = make_samples(lengths=(2000,), classes=0)
    dealt = build("k_classes", 10, classes=1, bins=10)(samples)
    spreads = [dealt.targets[dealt.rows(k), 0].std() for k in range(10)]
    assert np.mean(spreads) < 0.4 * samples.targets[:, 0].std()


@pytest.mark.parametrize(("deal", "spread"), [("quantity", 1.0), ("zipf", 1.0)])
def test_sizes_follow_their_law(make_samples, deal, spread):
    dealt = build(deal, 50, spread=spread, min_samples=2)(make_samples(lengths=(20000,)))
    sizes = dealt.lengths.sort(descending=True).values.double() - 2
    if deal == "zipf":
        ranks = torch.arange(1, 51).double()
        assert torch.allclose(sizes, 19900 / ranks / (1 / ranks).sum(), atol=1)
    else:
        assert float(sizes[sizes > 0].log().std()) == pytest.approx(spread, rel=0.35)
    equal = build(deal, 50, spread=0)(make_samples(lengths=(20000,)))
    assert equal.lengths.tolist() == [400] * 50


@pytest.mark.parametrize("deal", DEALS)
def test_what_cannot_be_dealt_is_refused(make_samples, households, deal):
    with pytest.raises(
        DataError, match="cannot give 200 clients one of 125 samples each of source 'handmade'"
    ):
        build(deal, 200)(make_samples())
    with pytest.raises(DataError, match="deals labelled samples; source 'simulated' holds series"):
        build(deal, 3)(households)
    with pytest.raises(DataError, match="clients must be at least 1, got 0"):
        build(deal, 0)


@pytest.mark.parametrize(
    ("deal", "options", "message"),
    [
        ("dirichlet", {"alpha": 0}, "alpha must be at least 1e-06, got 0"),
        ("dirichlet", {"alpha": -1.0}, "alpha must be"),
        ("dirichlet", {"seed": -1}, "seed must be at least 0, got -1"),
        ("quantity", {"law": "normal"}, "law must be 'lognormal' or 'zipf', got 'normal'"),
        ("quantity", {"spread": -1}, "spread must be between 0 and 50, got -1"),
        ("shards", {"shards": 1.5}, "shards must be a whole number, got 1.5"),
    ],
)
def test_options_out_of_range_are_refused(deal, options, message):
    with pytest.raises(DataError, match=message):
        build(deal, 3, **options)


def test_demands_beyond_the_samples_are_refused(make_samples):
    samples = make_samples()
    with pytest.raises(DataError, match="cannot give 10 clients min_samples=20 of 125 samples"):
        build("dirichlet", 10, min_samples=20)(samples)
    with pytest.raises(DataError, match="cannot give 10 clients min_samples=20 of 125 samples"):
        build("quantity", 10, min_samples=20)(samples)
    with pytest.raises(DataError, match=r"In 200 draws with alpha=0\.01 some of 20 clients"):
        build("unbalanced", 20, alpha=0.01, min_samples=5)(samples)
    with pytest.raises(DataError, match="cannot cut 125 samples into 50 x 3 shards"):
        build("shards", 50, shards=3)(samples)
    with pytest.raises(DataError, match="cannot give a client 6 of 5 classes"):
        build("k_classes", 5, classes=6)(samples)
    with pytest.raises(DataError, match="120 clients share"):
        build("k_classes", 120, classes=5)(samples)
