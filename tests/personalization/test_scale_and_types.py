"""One rule for every distance: units, precision and containers change nothing, and what is no input is refused."""

import warnings
from dataclasses import fields

import numpy as np
import pytest
import torch

from personalization import (
    DISTANCES,
    MODULATORS,
    ExponentialMixing,
    SampleDistance,
    SlicedDistance,
    build_clustering,
    build_distance,
    build_graph,
    build_modulator,
    client_statistics,
    cosine_distance,
    distance_to_population,
    find_clusters,
    l2_distance,
    pairwise_distances,
    pairwise_of_statistics,
    pairwise_update_distances,
    update_distances,
)
from personalization.protocols import (
    ClassGaussians,
    FedWaD,
    GaussianNoise,
    QuantileSketches,
    SummedReference,
    TriangleWad,
)

SMALL = {
    "sinkhorn": {"max_samples": 24, "reference_size": 24},
    "exact": {"max_samples": 24, "reference_size": 24},
}
COLUMNS = ("value", "null_mean", "z", "p_value", "calibrated", "std_error")


def clients(name, scale=1.0, dtype=torch.float32):
    """Windows of a wave; the first client's is another one."""
    g = torch.Generator().manual_seed(0)
    found = []
    for k, n in enumerate((40, 24, 32, 24, 40)):
        wave = torch.sin(torch.arange(8) * (2.4 if k == 0 else 0.8) + 6 * torch.rand(n, 1, generator=g))
        x = scale * (wave + 0.3 * torch.randn(n, 8, generator=g) + (k == 0))
        if name.startswith("label"):
            shares = torch.tensor([0.8, 0.1, 0.1] if k == 0 else [0.3, 0.3, 0.4])
            x = torch.cat(
                [x, torch.multinomial(shares, n, replacement=True, generator=g)[:, None].float()], 1
            )
        found.append(x.to(dtype))
    return found


def both(name, features):
    options = {"draws": 32, **SMALL.get(name, {})}
    return distance_to_population(features, name, **options), pairwise_distances(features, name, **options)


@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_no_unit_changes_what_is_found(name):
    base = both(name, clients(name))
    assert float(base[0].p_value[0]) < 0.01
    degree = build_distance(name).degree / 2
    for scale in (2.0**-33, 2.0**17, 2.0**33):
        for ours, theirs in zip(both(name, clients(name, scale)), base, strict=True):
            for column in ("z", "p_value"):
                torch.testing.assert_close(
                    getattr(ours, column), getattr(theirs, column), rtol=2e-3, atol=2e-3
                )
            for column in ("value", "calibrated", "std_error"):
                expected = getattr(theirs, column) * scale**degree
                torch.testing.assert_close(
                    getattr(ours, column), expected, rtol=5e-3, atol=1e-3 * scale**degree
                )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_half_precision_is_as_good_as_its_numbers(name, dtype):
    for scale in (0.01, 1.0, 1000.0):
        half = clients(name, scale, dtype)
        for ours, theirs in zip(both(name, half), both(name, [x.float() for x in half]), strict=True):
            for column in COLUMNS:
                found = getattr(ours, column)
                assert found.dtype == (torch.float32 if column == "null_mean" else dtype)
                assert torch.isfinite(found).all(), column
            torch.testing.assert_close(ours.null_mean, theirs.null_mean)
            torch.testing.assert_close(ours.value.float(), theirs.value, rtol=1e-2, atol=1e-6)
            torch.testing.assert_close(ours.p_value.float(), theirs.p_value, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"order": 1.0}, {"order": 1.5}])
def test_judgements_of_large_numbers_are_finite_and_have_no_gradients(options):
    for scale in (1e-12, 1.0, 1e8, 1e12):
        features = [(scale * x).requires_grad_() for x in clients("sliced")]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = distance_to_population(features, draws=16, **options)
            pairs = pairwise_distances(features, draws=16, **options)
        for table in (found, pairs):
            assert not table.std_error.requires_grad
            assert not table.null_mean.requires_grad
            assert torch.isfinite(table.std_error).all()
        assert float((pairs.std_error / scale).max()) > 1e-3
        found.value.sum().backward()
        assert all(torch.isfinite(x.grad).all() for x in features)


@pytest.mark.parametrize("name", sorted(DISTANCES))
@pytest.mark.parametrize("null_from", ["law", "halves", "pool"])
def test_no_judgement_of_any_kind_has_a_gradient(name, null_from):
    if null_from != "pool" and isinstance(build_distance(name), SampleDistance):
        return
    options = {"draws": 8, "null_from": null_from, **SMALL.get(name, {})}
    features = [x.requires_grad_() for x in clients(name)]
    for function in (distance_to_population, *([] if null_from == "halves" else [pairwise_distances])):
        table = function(features, name, **options)
        for column in ("null_mean", "std_error", *(["null_std"] if hasattr(table, "null_std") else [])):
            assert not getattr(table, column).requires_grad, column
        if table.value.requires_grad:
            (slope,) = torch.autograd.grad(table.value.sum(), features[:1])
            assert torch.isfinite(slope).all()


def test_tables_keep_their_numbers_in_a_narrower_dtype():
    apart = [torch.zeros(4, 2), torch.ones(4, 2), torch.ones(4, 2)]
    for table in (distance_to_population(apart), pairwise_distances(apart, calibrated=False)):
        half = table.to(torch.float16)
        assert torch.isfinite(half.z).all()
        assert torch.equal(half.std_error.isinf(), table.std_error.isinf())
        assert torch.equal(half.to(torch.float64).value, half.value.double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_squares_beside_half_precision_say_what_z_says(dtype):
    features = [(3000 * x).to(dtype) for x in clients("sliced")]
    updates = (50 * torch.randn(24, 2, 90, generator=torch.Generator().manual_seed(0))).to(dtype)
    for table in (
        distance_to_population(features, draws=32),
        pairwise_distances(features, draws=32),
        *(f(updates, [22] * 24, "l2") for f in (update_distances, pairwise_update_distances)),
        distance_to_population(features[:1]),
    ):
        assert table.value.dtype == dtype
        assert table.null_mean.dtype == torch.float32
        excess = table.value.float() ** 2 - table.null_mean
        sure = table.z.abs() > 0.5  # nearer to none, the digits of half precision do not tell the sign
        assert torch.equal(excess[sure].sign(), table.z[sure].float().sign())


@pytest.mark.parametrize("scale", [1e-170, 1.0, 1e140])
@pytest.mark.parametrize("function", [update_distances, pairwise_update_distances])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_updates_of_any_size(metric, function, scale):
    g = torch.Generator().manual_seed(0)
    updates = torch.randn(24, 2, 6, generator=g, dtype=torch.float64) / 10 + torch.randn(6, generator=g)
    n = torch.arange(20, 44)
    base, found = (function(x, n, metric) for x in (updates, scale * updates))
    unit = scale if metric == "l2" else 1.0
    torch.testing.assert_close(found.value, base.value * unit, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.p_value, base.p_value, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.std_error, base.std_error * unit, rtol=1e-9, atol=0)
    if function is update_distances:
        heavy = function(updates, n, metric, weights=[1e200] * 24)
        torch.testing.assert_close(
            heavy.p_value, function(updates, n, metric, weights=torch.ones(24)).p_value
        )


def test_bare_distances_of_updates_of_any_size_and_equal_ones():
    u = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for pairwise in (False, True):
        torch.testing.assert_close(
            l2_distance(1e160 * u, pairwise=pairwise) / 1e160, l2_distance(u, pairwise=pairwise)
        )
    same = u[:1].expand(3, 4).clone().requires_grad_()
    l2_distance(same).sum().backward()
    assert torch.isfinite(same.grad).all()
    with pytest.raises(ValueError, match="cannot hold"):
        update_distances(1e200 * u, [9] * 5, "l2")


def test_few_contrasts_are_warned_of():
    g = torch.Generator().manual_seed(0)
    for function in (update_distances, pairwise_update_distances):
        with pytest.warns(UserWarning, match="5 contrasts between parts"):
            function(torch.randn(5, 2, 4, generator=g), [10] * 5)


# --- what is no input --------------------------------------------------------------------------------------

ODD = ("2", 2.5, None, True, float("nan"))


@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_options_of_another_sort_are_refused(name):
    for option in fields(DISTANCES[name]):
        wrong = {
            "int": ODD,
            "float": ("2", None, True, float("nan")),
            "float | None": ("2", True),
            "bool": ("2", 1, None),
        }
        for value in wrong.get(str(option.type), ()):
            with pytest.raises(ValueError, match=f"{option.name}="):
                build_distance(name, **{option.name: value})


@pytest.mark.parametrize("name", sorted(MODULATORS))
def test_parameters_of_another_sort_are_refused(name):
    for parameter in fields(MODULATORS[name]):
        if parameter.type in ("int", "float"):
            with pytest.raises(ValueError, match=f"{parameter.name}='2': give a"):
                build_modulator(name, **{parameter.name: "2"})


def test_other_settings_of_another_sort_are_refused():
    features = clients("sliced")
    for function in (distance_to_population, pairwise_distances):
        for kind in ("sliced", "energy"):
            with pytest.raises(ValueError, match=r"draws=2\.5 is no whole number"):
                function(features, kind, draws=2.5)
            with pytest.raises(ValueError, match="gate='x' is no number"):
                function(features, kind, gate="x")
        with pytest.raises(ValueError, match=r"seed=1\.5"):
            function(features, seed=1.5)
    with pytest.raises(ValueError, match="scale='1': give a number"):
        build_graph("kernel", scale="1")
    with pytest.raises(ValueError, match="did you mean 'linkage'"):
        build_clustering("agglomerative", linkag="average")
    with pytest.raises(ValueError, match="epsilon='1': give a number"):
        GaussianNoise("1")


@pytest.mark.parametrize("features", [None, 3, "ab", {torch.zeros(3, 2)}])
def test_what_holds_no_clients_is_refused(features):
    for function in (distance_to_population, pairwise_distances):
        with pytest.raises(ValueError, match="in a list"):
            function(features)


def test_tables_and_arrays_where_tensors_belong():
    pairs = pairwise_distances(clients("sliced"), draws=8)
    with pytest.raises(ValueError, match=r"type Pairwise; give a matrix, such as .*\.calibrated"):
        find_clusters(pairs)
    with pytest.raises(ValueError, match="type Pairwise"):
        build_graph("kernel")(pairs, pairs.n)
    for function in (cosine_distance, l2_distance, lambda u: update_distances(u, [3, 3])):
        with pytest.raises(ValueError, match="give a tensor"):
            function([[1.0, 2.0], [3.0, 4.0]])
    updates = torch.randn(3, 2, 4)
    for n in ((x for x in (5, 5, 5)), None, "abc", [True] * 3, [1, 1, 1], [5, 5]):
        with pytest.raises(ValueError, match="whole numbers of samples"):
            update_distances(updates, n)
    base = torch.full((5, 1), torch.nan)
    with pytest.raises(ValueError, match="base of client 0 is NaN"):
        build_modulator("prox_by_distance")(base, distance_to_population(clients("sliced"), draws=8))


def test_statistics_that_fit_no_client_are_refused():
    kind = build_distance("sliced", projections=4, quantiles=8)
    own = client_statistics(kind, clients("sliced"))
    for n in ([0] * 5, [9] * 4, [9.0] * 5):
        with pytest.raises(ValueError, match="give 5 whole numbers"):
            pairwise_of_statistics(own, kind, n)
    with pytest.raises(ValueError, match="SlicedDistance has statistics sketch"):
        pairwise_of_statistics({"mean": own["mean"]}, kind, [9] * 5)
    with pytest.raises(ValueError, match="gate=nan"):
        pairwise_of_statistics(own, kind, [9] * 5, gate=float("nan"))
    assert torch.isfinite(pairwise_of_statistics(own, kind, [40, 24, 32, 24, 40], draws=8).z).all()


@pytest.mark.parametrize(
    "protocol",
    [
        SummedReference(draws=8),
        QuantileSketches(projections=4),
        ClassGaussians(),
        TriangleWad(),
        FedWaD(rounds=1),
    ],
    ids=lambda protocol: type(protocol).__name__,
)
def test_protocols_take_what_distances_take(protocol):
    plain = protocol.run(clients("sliced"))
    expected = plain.distances.value if plain.distances else plain.pairwise
    for given_as in (
        (x for x in clients("sliced")),
        dict(enumerate(clients("sliced"))),
        [x.requires_grad_() for x in clients("sliced")],
    ):
        outcome = protocol.run(given_as)
        found = outcome.distances.value if outcome.distances else outcome.pairwise
        torch.testing.assert_close(found, expected)
    half = [300 * x.half() for x in clients("sliced")]
    found, expected = (
        outcome.distances.value if outcome.distances else outcome.pairwise
        for outcome in (protocol.run(half), protocol.run([x.float() for x in half]))
    )
    torch.testing.assert_close(found, expected)


def like_clients(sizes, dtype, shift=0.0, apart=0.0, groups=2):
    """Clients of one law, all ``shift`` away from zero; one group of them lies ``apart`` from the other."""
    g = torch.Generator().manual_seed(0)
    drawn = [torch.randn(n, 5, generator=g, dtype=torch.float64) for n in sizes]
    return [(x + shift + apart * (k % groups == 0)).to(dtype) for k, x in enumerate(drawn)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("groups", "apart"), [(99, 1e4), (99, 1e5), (99, 1e6), (2, 1e4), (2, 1e5)])
def test_clients_far_from_the_others_leave_these_as_they_are(dtype, groups, apart):
    sizes = [100] * 10
    near = pairwise_distances(like_clients(sizes, torch.float64))
    features = like_clients(sizes, dtype, apart=apart, groups=groups)
    member = torch.arange(10) % groups == 0
    same = (member[:, None] == member) & ~torch.eye(10, dtype=torch.bool)
    pairs = pairwise_distances(features)
    for name in ("value", "std_error"):
        found, expected = (getattr(x, name)[same].double() for x in (pairs, near))
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0)
    assert float(pairs.z[same].max()) < 4
    assert float(pairs.p_value[same].median()) > 0.3
    assert float(pairs.p_value[~same & ~torch.eye(10, dtype=torch.bool)].max()) < 1e-6
    graded = pairwise_distances([x.requires_grad_() for x in features], calibrated=False)
    torch.testing.assert_close(graded.value.detach()[same], pairs.value[same], rtol=1e-2, atol=0)


@pytest.mark.parametrize("kind", ["sliced", "gaussian"])
def test_an_offset_common_to_all_clients_changes_little(kind):
    sizes = (50, 100, 200, 400) * 2
    for function in (distance_to_population, pairwise_distances):
        plain = function(like_clients(sizes, torch.float64), kind)
        for dtype, offset in ((torch.float32, 1e5), (torch.float32, 1e6), (torch.float64, 1e6)):
            found = function(like_clients(sizes, dtype, shift=offset), kind)
            for name in ("value", "p_value", "std_error"):
                ours, theirs = getattr(found, name).double(), getattr(plain, name)
                # Numbers at 1e6 are stored to a sixteenth in float32.
                torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.15 if name == "p_value" else 1e-2)


def test_features_that_are_constant_up_to_rounding_do_not_differ():
    ulp = 2.0**-23
    features = [torch.full((n, 3), 1000.0) * (1 + ulp * (k % 2)) for k, n in enumerate((20, 30, 40, 50))]
    for function in (distance_to_population, pairwise_distances):
        found = function(features, draws=8)
        assert not found.value.any()
        assert (found.p_value == 1).all()


def test_what_counts_as_true_or_as_one_client_s_business_is_refused_all_the_same():
    x = clients("sliced")
    g = torch.Generator().manual_seed(0)
    u = torch.randn(4, 5, generator=g)
    cases = {
        "calibrated='no': give True or False": lambda: pairwise_distances(x, calibrated="no"),
        "standardise='no': give True or False": lambda: distance_to_population(x, standardise="no"),
        "standardise=1: give True or False": lambda: pairwise_distances(x, standardise=1),
        "Unknown weighting None": lambda: distance_to_population(x, weighting=None),
        "Unknown weighting 'uniforme'; did you mean 'uniform'": lambda: distance_to_population(
            x[:1], weighting="uniforme"
        ),
        "draws=-5": lambda: distance_to_population(x[:1], draws=-5),
        "weights are of the mean of the others": lambda: l2_distance(u, pairwise=True, weights=[1.0] * 4),
        "weights='zz'; give 4 numbers": lambda: cosine_distance(u, weights="zz"),
        "give 1 finite ones, at least 0": lambda: update_distances(u[:1], [9], weights=[-3.0]),
        r"Option of SlicedDistance seed=1\.5": lambda: SlicedDistance(seed=1.5),
        "SlicedDistance projections=True": lambda: SlicedDistance(projections=True),
        "SlicedDistance order='2'": lambda: SlicedDistance(order="2"),
        "ExponentialMixing: tau='1' is no number": lambda: ExponentialMixing(tau="1"),
        "give features as a mapping": lambda: pairwise_distances(x, names=["a"] * len(x)),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
    assert SlicedDistance(projections=np.int64(3)).projections == 3


def test_statistics_that_do_not_fit_are_refused():
    kind, x = SlicedDistance(), torch.randn(4, 20, 3, generator=torch.Generator().manual_seed(0))
    own = kind.statistics(x)
    with pytest.raises(ValueError, match="EnergyDistance has no statistics"):
        pairwise_of_statistics(own, DISTANCES["energy"](), [20] * 4)
    with pytest.raises(ValueError, match="own holds scores of 2 clients"):
        pairwise_of_statistics({**own, "scores": own["scores"][:2]}, kind, [20] * 4)
