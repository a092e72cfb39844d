import math
from dataclasses import dataclass, fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization import (
    DISTANCES,
    DistanceKind,
    Distances,
    ExactDistance,
    SlicedDistance,
    build_distance,
    combine,
    distance_to_population,
    register_distance,
    summarise,
)

KINDS = ["sliced", "gaussian"]


def clients(sizes=(40, 25, 60, 40), features=3, dtype=torch.float32, shift=2.0):
    g = torch.Generator().manual_seed(0)
    drawn = [torch.randn(n, features, generator=g, dtype=torch.float64) for n in sizes]
    drawn[0] = drawn[0] + shift
    return [x.to(dtype) for x in drawn]


def columns(distances):
    return [getattr(distances, f.name) for f in fields(distances)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_field_is_finite_and_in_the_features_dtype(kind, dtype):
    d = distance_to_population(clients(dtype=dtype), kind, draws=16)
    assert d.n.tolist() == [40, 25, 60, 40]
    for x in columns(d):
        assert x.shape == (4,)
        assert torch.isfinite(x).all()
        assert x.dtype == {id(d.n): torch.int64, id(d.converged): torch.bool}.get(id(x), dtype)
    assert d.converged.all()
    assert (d.std_error > 0).all()
    assert d.relative.argmax() == 0
    assert d.p_value[0] < 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gate", [0.0, 1.0])
def test_fields_keep_their_relations(kind, gate):
    d = distance_to_population(clients((30,) * 12, dtype=torch.float64), kind, draws=32, gate=gate)
    plain = (d.value**2 - d.null_mean).clamp_min(0).sqrt()
    assert torch.allclose(d.calibrated, torch.where(d.z >= gate, plain, 0.0))
    assert torch.allclose(d.z, (d.value**2 - d.null_mean) / d.null_std)
    if d.calibrated.quantile(0.5) > 0:
        assert torch.allclose(d.relative, d.calibrated / d.calibrated.quantile(0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_protocol_step_by_step(kind):
    features, built = clients(), build_distance(kind)
    own = [built.statistics(x) for x in features]
    up = [summarise(o, len(x)) for o, x in zip(own, features, strict=True)]
    total = combine(up)
    alone = torch.stack([built.squared(o, total.without(u).mean()) for o, u in zip(own, up, strict=True)])
    assert torch.allclose(
        distance_to_population(features, kind, draws=4).value, alone.sqrt().float(), rtol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_does_not_depend_on_the_order_of_clients_or_samples(kind):
    features = clients(dtype=torch.float64)
    order = [2, 0, 3, 1]
    one = distance_to_population(features, kind, draws=8)
    two = distance_to_population([features[k].flip(0) for k in order], kind, draws=8)
    for a, b in zip(columns(one.select(order)), columns(two), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


@given(scale=st.floats(0.01, 100), move=st.floats(-5, 5))
@settings(deadline=None, max_examples=10)
def test_relative_distances_have_no_unit(scale, move):
    features = clients(dtype=torch.float64)
    one = distance_to_population(features, draws=8, projections=8)
    two = distance_to_population([scale * (x + move) for x in features], draws=8, projections=8)
    assert torch.allclose(one.value * scale, two.value)
    assert torch.allclose(one.relative, two.relative, rtol=1e-4)
    assert torch.allclose(one.p_value, two.p_value, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_standardised_distances_ignore_the_scale_of_a_feature(kind):
    features, stretch = clients(dtype=torch.float64), torch.tensor([1.0, 1000.0, 1e-3])
    one = distance_to_population(features, kind, standardise=True, draws=8)
    two = distance_to_population([x * stretch + 7 for x in features], kind, standardise=True, draws=8)
    assert torch.allclose(one.value, two.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 3.0, 0.1])
@pytest.mark.parametrize("standardise", [False, True])
def test_constant_features_are_zero_apart(kind, value, standardise):
    features = [torch.full((n, 3), value) for n in (2, 5, 9)]
    d = distance_to_population(features, kind, draws=4, standardise=standardise)
    assert torch.equal(d.calibrated, torch.zeros(3))
    assert torch.equal(d.relative, torch.zeros(3))
    assert torch.equal(d.p_value, torch.ones(3))


@pytest.mark.parametrize("kind", KINDS)
def test_identical_clients_are_zero_apart(kind):
    x = torch.randn(50, 4)
    d = distance_to_population([x] * 5, kind, draws=8)
    assert torch.equal(d.value, torch.zeros(5))
    assert torch.equal(d.relative, torch.zeros(5))


@pytest.mark.parametrize("kind", KINDS)
def test_constant_clients_that_differ_do_not_give_nan(kind):
    d = distance_to_population([torch.full((4, 2), float(k)) for k in range(3)], kind, draws=4)
    assert all(torch.isfinite(x).all() for x in columns(d))
    assert d.relative[0] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_two_rows_and_more_features_than_rows_are_enough(kind):
    d = distance_to_population([torch.randn(2, 10) for _ in range(5)], kind, draws=8)
    assert all(torch.isfinite(x).all() for x in columns(d))


@pytest.mark.parametrize("kind", KINDS)
def test_one_client_has_nobody_to_differ_from(kind):
    d = distance_to_population([torch.randn(30, 3)], kind)
    assert (float(d.value), float(d.relative), float(d.p_value), int(d.n)) == (0, 0, 1, 30)


def test_the_seed_decides():
    features = clients()
    one, two = (distance_to_population(features, seed=1, draws=8) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(columns(one), columns(two), strict=True))
    assert not torch.equal(one.value, distance_to_population(features, seed=2, draws=8).value)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    features = clients()
    distance_to_population(features, draws=4)
    assert torch.equal(torch.rand(1), expected)


def test_select_and_permuted():
    d = distance_to_population(clients((10, 20, 30, 40, 50)), draws=8)
    assert torch.equal(d.select([3, 1]).value, d.value[[3, 1]])
    assert torch.equal(d.select(d.n > 25).n, torch.tensor([30, 40, 50]))
    shuffled = d.permuted(1)
    assert torch.equal(shuffled.n, d.n)
    assert torch.equal(shuffled.relative.sort().values, d.relative.sort().values)
    assert any(not torch.equal(d.permuted(seed).value, d.value) for seed in range(5))
    assert torch.equal(shuffled.value, d.permuted(1).value)
    # The fields of one client stay together.
    where = [int((d.value == v).nonzero()[0, 0]) for v in shuffled.value]
    assert torch.equal(d.p_value[where], shuffled.p_value)


def test_fields_of_unlike_length_are_refused():
    x = torch.zeros(3)
    with pytest.raises(ValueError, match=r"Distances\.relative has shape \(2,\)"):
        Distances(x, x, x, x, x, x, x, torch.zeros(2))


def test_to_moves_all_but_keeps_counts_whole():
    d = distance_to_population(clients(), draws=4).to(torch.float64)
    assert d.value.dtype == d.std_error.dtype == torch.float64
    assert d.n.dtype == torch.int64
    assert d.converged.dtype == torch.bool


def test_what_nobody_said_is_unknown_and_moves_along():
    x = torch.arange(3.0)
    d = Distances(x, x, x, x, x, torch.arange(3), x, x)
    assert torch.equal(d.std_error, torch.full((3,), torch.inf))
    assert d.converged.all()
    known = Distances(x, x, x, x, x, torch.arange(3), x, x, x / 10, x < 2)
    shuffled = known.permuted(1)
    assert torch.equal(shuffled.std_error, shuffled.value / 10)
    assert torch.equal(shuffled.converged, shuffled.value < 2)
    assert known.select([2]).converged.tolist() == [False]


def test_a_distance_is_one_class():
    @register_distance("mean_gap_for_test")
    @dataclass(frozen=True)
    class MeanGap(DistanceKind):
        def statistics(self, samples):
            return {"mean": samples.mean(-2), "spread": samples.std(-2)}

        def squared(self, own, reference):
            return (own["mean"] - reference["mean"]).square().sum(-1)

        def draw(self, reference, n, draws, generator):
            noise = torch.randn(draws, len(reference["mean"]), generator=generator) / n**0.5
            return {"mean": reference["mean"] + noise * reference["spread"]}

    try:
        d = distance_to_population(clients(), "mean_gap_for_test", draws=16)
        assert float(d.calibrated[0]) == pytest.approx(2 * 3**0.5, rel=0.2)
    finally:
        del DISTANCES["mean_gap_for_test"]


BAD = [
    ([], "features is empty"),
    (
        [torch.randn(5, 2), torch.randn(1, 2)],
        r"Client 1 has 1 sample\(s\); a distribution needs at least two",
    ),
    ([torch.randn(5, 2), torch.randn(5, 3)], "Client 1 has 3 features, the first client 2"),
    ([torch.randn(5, 2), torch.randn(5, 2).double()], "Client 1 has features in torch.float64"),
    (
        [torch.tensor([[1.0], [float("nan")]])],
        r"Client 0 has 1 NaN or infinite value\(s\), the first in row 1",
    ),
    ([torch.tensor([[1.0], [float("inf")]])], "Client 0 has 1 NaN or infinite"),
    ([torch.arange(6).reshape(3, 2)], "Client 0 has features of type torch.int64"),
    ([torch.randn(5)], r"Client 0 has features of shape \(5,\)"),
    ([torch.randn(5, 0)], r"Client 0 has features of shape \(5, 0\)"),
]


@pytest.mark.parametrize(("features", "message"), BAD)
def test_bad_features_name_the_client_and_the_cure(features, message):
    with pytest.raises(ValueError, match=message):
        distance_to_population(features)


def test_errors_use_the_clients_names():
    with pytest.raises(ValueError, match="Client 'MAC000016' has 1 sample"):
        distance_to_population({"MAC000002": torch.randn(5, 2), "MAC000016": torch.randn(1, 2)})


def test_clients_come_in_any_iterable():
    listed = clients()
    expected = distance_to_population(listed)
    for given_as in ((x for x in listed), dict(zip("abcd", listed, strict=True)), tuple(listed)):
        assert torch.equal(distance_to_population(given_as).value, expected.value)
    with pytest.raises(ValueError, match="type int; give one"):
        distance_to_population(3)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("slicd", {}, "Unknown distance 'slicd'; did you mean 'sliced'"),
        ("sliced", {"projection": 3}, "did you mean 'projections'"),
        ("sliced", {"order": 0.5}, r"order=0\.5"),
        ("sliced", {"quantiles": 0}, "quantiles=0 is no whole number of at least 2"),
        ("gaussian", {"order": 2}, "Unknown option of distance 'gaussian' 'order'"),
        (SlicedDistance(), {"order": 2}, "come with a distance already built"),
    ],
)
def test_bad_kinds_and_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        distance_to_population(clients(), kind, **options)


def test_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="belongs to SlicedDistance"):

        @register_distance("sliced")
        class Other(SlicedDistance):
            pass


@pytest.mark.slow
def test_a_city_of_one_law_is_calibrated():
    g = torch.Generator().manual_seed(0)
    found = distance_to_population(list(torch.randn(5567, 200, 24, generator=g)))
    assert float((found.p_value < 0.05).float().mean()) == pytest.approx(0.05, abs=0.015)
    assert abs(float(found.z.mean())) < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate": math.nan}, "gate=nan is no number: give a z-score"),
        ({"kind": "max_sliced", "order": math.inf}, "order=inf must be at least 1 and finite"),
        ({"order": math.inf}, "order=inf is no Wasserstein order"),
        ({"projections": 2.5}, "projections=2.5: give a whole number"),
        ({"quantiles": "many"}, "quantiles='many': give a whole number"),
        ({"kind": ExactDistance}, "is no distance; give a name"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        distance_to_population([torch.randn(5, 2) for _ in range(3)], **change)


def test_values_whose_squares_overflow_are_refused_and_large_ones_are_not():
    features = [torch.randn(9, 2, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    with pytest.raises(ValueError, match=r"too large for distances in torch\.float32"):
        distance_to_population([x * 1e19 for x in features])
    for large in ([x * 1e15 for x in features], [x.double() * 1e29 for x in features]):
        found = distance_to_population(large)
        assert torch.isfinite(found.value).all()
        assert torch.isfinite(found.std_error).all()
