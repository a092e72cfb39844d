"""Arrays, lists, whole numbers, NaN and shapes that do not fit: refused in words by every public function."""

import math

import numpy as np
import pytest
import torch

from personalization import (
    DISTANCES,
    SampleDistance,
    build_distance,
    build_graph,
    bures_squared,
    bures_wasserstein,
    calendar_cells,
    calendar_conditional,
    client_statistics,
    combine,
    daily_profiles,
    distance_to_population,
    l2_distance,
    labelled,
    matrix_root,
    midpoint_levels,
    moments,
    pairwise_distances,
    pairwise_of_statistics,
    pairwise_sliced_wasserstein,
    pooled_choices,
    quantile_sketch,
    residual_norm,
    residual_profile,
    sliced_wasserstein,
    summarise,
    unit_projections,
    wasserstein_line,
)
from personalization.budget import PrivacyBudget
from personalization.clustering import Agglomerative, KMedoids
from personalization.graph import KernelGraph
from personalization.null import fit_null, size_grid
from personalization.protocols import ClassGaussians, FedWaD, QuantileSketches, TriangleWad

ROWS, SKETCH, LINE = torch.randn(6, 3), torch.randn(4, 8), torch.tensor([0.0, 1.0])
PROJECTIONS, LEVELS, FAIR = unit_projections(3, 4), midpoint_levels(8), torch.full((2,), 0.5)
DAYS, CELLS = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
ERRORS, EXAMPLES, GRAPH = torch.rand(3, 2, 4), torch.full((3, 2), 10.0), torch.full((3, 3), 1 / 3)

TAKERS = {
    "samples of sketches": (lambda x: quantile_sketch(x, PROJECTIONS, LEVELS), ROWS),
    "projections": (lambda x: quantile_sketch(ROWS, x, LEVELS), PROJECTIONS),
    "levels": (lambda x: quantile_sketch(ROWS, PROJECTIONS, x), LEVELS),
    "moments": (moments, ROWS),
    "sketch": (lambda x: sliced_wasserstein(x, SKETCH), SKETCH),
    "other sketch": (lambda x: sliced_wasserstein(SKETCH, x), SKETCH),
    "sketches": (pairwise_sliced_wasserstein, torch.stack([SKETCH, SKETCH])),
    "root": (matrix_root, torch.eye(3)),
    "covariance": (lambda x: bures_wasserstein(ROWS[0], x, ROWS[1], torch.eye(3)), torch.eye(3)),
    "positions": (lambda x: wasserstein_line(x, LINE, FAIR, FAIR), LINE),
    "weights": (lambda x: wasserstein_line(LINE, LINE, FAIR, x), FAIR),
    "inputs": (lambda x: labelled(x, torch.zeros(6)), ROWS),
    "targets": (lambda x: labelled(ROWS, x), torch.zeros(6)),
    "values": (lambda x: daily_profiles(x, 24), torch.zeros(48)),
    "weekdays": (lambda x: calendar_cells(x, CELLS + 1), CELLS),
    "months": (lambda x: calendar_cells(CELLS, x), CELLS + 1),
    "days": (lambda x: calendar_conditional([x], [CELLS]), DAYS),
    "cells": (lambda x: calendar_conditional([DAYS], [x]), CELLS),
    "residual profile": (residual_profile, ROWS),
    "residual norm": (residual_norm, ROWS),
    "errors": (lambda x: pooled_choices(x, EXAMPLES, [GRAPH]), ERRORS),
    "examples": (lambda x: pooled_choices(ERRORS, x, [GRAPH]), EXAMPLES),
    "graphs": (lambda x: pooled_choices(ERRORS, EXAMPLES, [x]), GRAPH),
    "labels": (
        lambda x: ClassGaussians().run([ROWS, ROWS], labels=[x, x]),
        torch.zeros(6, dtype=torch.int64),
    ),
}


@pytest.mark.parametrize("name", TAKERS)
def test_arrays_lists_and_nothing_are_refused_in_words(name):
    call, given = TAKERS[name]
    call(given)
    for wrong in (given.numpy(), given.tolist(), None):
        with pytest.raises(ValueError, match=rf"is of type {type(wrong).__name__}; give a tensor"):
            call(wrong)


FLOATING = ("samples of sketches", "projections", "moments", "sketch", "sketches", "root", "residual norm")


@pytest.mark.parametrize("name", FLOATING)
def test_whole_numbers_are_no_samples(name):
    call, given = TAKERS[name]
    with pytest.raises(ValueError, match=r"is of type torch.int64; convert it to a floating-point tensor"):
        call(given.long())


NO_NAN = (
    "samples of sketches",
    "projections",
    "levels",
    "moments",
    "sketches",
    "root",
    "covariance",
    "inputs",
    "targets",
)


@pytest.mark.parametrize("name", NO_NAN)
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_nan_goes_no_further(name, number):
    call, given = TAKERS[name]
    wrong = given.clone()
    wrong.view(-1)[1] = number
    with pytest.raises(ValueError, match=r"1 NaN or infinite value"):
        call(wrong)


def test_shapes_that_do_not_fit_are_named():
    eye = torch.eye(3)
    for call, said in (
        (lambda: moments(torch.zeros(3)), "a covariance needs at least two rows"),
        (lambda: matrix_root(torch.zeros(3)), r"matrix has shape \(3,\)"),
        (lambda: matrix_root(torch.zeros(3, 2)), r"matrix has shape \(3, 2\)"),
        (lambda: bures_wasserstein(ROWS[0], eye, ROWS[0], torch.eye(2)), r"other_cov has shape \(2, 2\)"),
        (
            lambda: bures_wasserstein(ROWS[0, :2], eye, ROWS[0], eye),
            r"cov has shape \(3, 3\) beside a mean of \(2,\)",
        ),
        (
            lambda: bures_wasserstein(torch.zeros(1), eye[:1, :1], ROWS[0], eye),
            r"other_mean has shape \(3,\) beside a mean of \(1,\)",
        ),
        (lambda: wasserstein_line(torch.zeros(3), LINE, FAIR, FAIR), "give one weight per position"),
        (lambda: wasserstein_line(torch.zeros(()), LINE, FAIR, FAIR), "give one weight per position"),
        (lambda: pairwise_sliced_wasserstein(torch.zeros(0, 4, 8)), "those of one client at least"),
        (lambda: quantile_sketch(ROWS, PROJECTIONS, LEVELS + 1), "levels go from 1.0625 to 1.9375"),
        (lambda: calendar_cells(CELLS, CELLS[:2] + 1), "one whole number of each a day"),
        (lambda: calendar_cells(CELLS / 2, CELLS + 1), "one whole number of each a day"),
        (lambda: daily_profiles(torch.zeros(48), 24.0), "steps_per_day=24.0 is no whole number"),
        (lambda: daily_profiles(torch.zeros(48), 24, first=1.5), "first=1.5 is no whole number"),
        (lambda: build_graph("kernel")(torch.zeros(3, 3), None), "n is of type NoneType"),
        (lambda: client_statistics(build_distance("gaussian"), []), "features is empty"),
        (lambda: client_statistics(build_distance("gaussian"), [np.ones((3, 2))]), "features are of"),
        (lambda: client_statistics(build_distance("gaussian"), [ROWS, ROWS[:, :2]]), "one F for all"),
        (lambda: pooled_choices(ERRORS, EXAMPLES, GRAPH), "graphs is of type Tensor; give a list"),
        (lambda: pooled_choices(ERRORS, EXAMPLES, [GRAPH], judges=[True] * 3), "judges of type list"),
        (
            lambda: pooled_choices(ERRORS, EXAMPLES, [GRAPH], strengths=[math.inf]),
            r"are finite and are not negative",
        ),
        (
            lambda: pooled_choices(ERRORS, EXAMPLES, [GRAPH], harm=math.inf),
            r"are finite and are not negative",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            call()


@pytest.mark.parametrize("number", [0, 1.5, math.nan, "4", None, True])
def test_counts_of_a_sketch_are_whole(number):
    for call in (midpoint_levels, lambda x: unit_projections(3, x), lambda x: unit_projections(x, 3)):
        with pytest.raises(ValueError, match=r"is no whole number of at least 1"):
            call(number)


def test_what_is_no_covariance_is_at_no_distance_of_zero():
    mean, eye = torch.zeros(3), torch.eye(3)
    for wrong in (-eye, torch.diag(torch.tensor([1.0, -1.0, 1.0])), torch.ones(3, 3).triu()):
        for given in ((mean, eye, mean, wrong), (mean, wrong, mean, eye)):
            with pytest.raises(ValueError, match="cov is no covariance"):
                bures_wasserstein(*given)
    singular = torch.ones(3, 3)
    assert bures_wasserstein(mean, singular, mean, singular - 1e-6 * eye) < 2e-3  # by rounding
    with pytest.raises(ValueError, match=r"other_cov has shape \(2, 2\) beside"):
        bures_squared(mean, eye, mean, eye[:2, :2])
    with pytest.raises(ValueError, match="NaN"):
        bures_squared(mean, eye, mean, eye * torch.nan)


def test_statistics_of_another_kind_make_no_pairs():
    kind, samples = build_distance("sliced", projections=8, quantiles=16), [ROWS, ROWS + 1, ROWS - 1]
    own, n = client_statistics(kind, samples), [6, 6, 6]
    for wrong, judge, said in (
        ({**own, "mean": own["mean"] * torch.nan}, kind, "own's mean has 9 NaN"),
        ({**own, "cov": own["cov"].numpy()}, kind, "own's cov is of type ndarray"),
        (
            own,
            build_distance("sliced", projections=9, quantiles=16),
            "sketch of shape .*give statistics of this",
        ),
        ({**own, "cov": own["cov"][:, :2, :2]}, build_distance("gaussian"), "cov of shape .*of this kind"),
    ):
        with pytest.raises(ValueError, match=said):
            pairwise_of_statistics(wrong, judge, n, draws=8)


def test_options_without_end_are_refused():
    for name, options in (
        ("max_sliced", {"order": math.inf}),
        ("exact", {"order": math.inf}),
        ("spectral", {"order": math.inf}),
        ("spectral", {"rate": math.inf}),
        ("mixture", {"ridge": math.inf}),
    ):
        with pytest.raises(ValueError, match=r"=inf must be .* and finite"):
            build_distance(name, **options)
    for multiplier, said in (
        (math.inf, "must be above 0 and finite"),
        ("2", "is no number"),
        (math.nan, "no number"),
    ):
        with pytest.raises(ValueError, match=said):
            PrivacyBudget(limit=3.0).spend("a release", multiplier)


@pytest.mark.parametrize("protocol", [ClassGaussians, FedWaD, QuantileSketches, TriangleWad])
def test_noise_that_is_none_protects_nobody(protocol):
    for wrong in (1.0, True, "2"):
        with pytest.raises(ValueError, match=r"noise=.*; give GaussianNoise\(...\), or None"):
            protocol(noise=wrong)
    with pytest.raises(ValueError, match="diagonal='no': give true or false"):
        ClassGaussians(diagonal="no")


@pytest.mark.parametrize("name", [name for name, cls in DISTANCES.items() if issubclass(cls, SampleDistance)])
def test_a_batch_of_no_samples_is_refused(name):
    for x, y in ((torch.zeros(0, 6, 3), ROWS), (ROWS, torch.zeros(0, 6, 3))):
        with pytest.raises(ValueError, match=r"has shape \(0, 6, 3\); .* no axis of them empty"):
            build_distance(name).between(x, y)


def test_distances_are_dealt_by_a_seed_and_are_no_whole_numbers():
    found = distance_to_population([ROWS, ROWS + 1, ROWS - 1], "gaussian")
    for seed in (1.5, -1, "1", None, True):
        with pytest.raises(ValueError, match=r"seed=.* is no whole number of at least 0"):
            found.permuted(seed)
    with pytest.raises(ValueError, match=r"Distances in torch.int64: give a floating-point dtype"):
        found.to(torch.int64)


def test_statistics_with_nan_are_summed_by_nobody():
    own = build_distance("gaussian").statistics(ROWS)
    with pytest.raises(ValueError, match="mean has 3 NaN or infinite value"):
        summarise({**own, "mean": own["mean"] * torch.nan}, len(ROWS))


def test_batches_and_dtypes_that_do_not_fit_are_named():
    eye, three, two = torch.eye(3), torch.zeros(3, 4, 8), torch.zeros(2, 4, 8)
    for call, said in (
        (
            lambda: quantile_sketch(ROWS.double(), PROJECTIONS, LEVELS),
            r"unit_projections\(\.\.\., like=samples\)",
        ),
        (lambda: sliced_wasserstein(three, two), "whose batches do not fit"),
        (lambda: sliced_wasserstein(three[..., :0], three[..., :0]), "at least one"),
        (lambda: pairwise_sliced_wasserstein(three, two.double()), "give both in one dtype"),
        (lambda: pairwise_sliced_wasserstein(three, two[0]), r"others of \(4, 8\)"),
        (lambda: bures_squared(ROWS, eye, ROWS[:2], eye), "whose batches do not fit"),
        (lambda: bures_squared(ROWS[0] * torch.nan, eye, ROWS[0], eye), "mean has 3 NaN"),
        (
            lambda: wasserstein_line(three, two, torch.full((8,), 1 / 8), torch.full((8,), 1 / 8)),
            "do not fit",
        ),
        (
            lambda: build_distance("energy").between(three, three, torch.ones(2, 4)),
            r"x_weights has shape \(2, 4\); give one per row, \(3, 4\)",
        ),
        (lambda: build_distance("energy").between(ROWS, ROWS, torch.full((6,), 1j)), "give real numbers"),
        (lambda: l2_distance(ROWS, weights=torch.full((6,), 1j)), "give 6 real numbers"),
        (lambda: labelled(ROWS[0], ROWS[0]), "one row of targets per row"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


@pytest.mark.parametrize("number", [2049, 2049.0, 1e6])
def test_classes_that_would_merge_are_refused(number):
    targets = torch.tensor([0, number] * 3)
    with pytest.raises(ValueError, match=f"float16 does not hold class {number:.0f}; convert"):
        labelled(ROWS.half(), targets)
    assert float(labelled(ROWS, targets)[1, 3]) == number
    assert labelled(ROWS.half(), targets / 3e3).isfinite().all()  # values are rounded, classes are not


def test_statistics_in_less_precision_make_no_pairs():
    kind = build_distance("sliced", projections=8, quantiles=16)
    own = client_statistics(kind, [ROWS, ROWS + 1, ROWS - 1])
    for name, dtype in (("sketch", torch.int64), ("cov", torch.float32), ("cov", torch.float16)):
        with pytest.raises(ValueError, match=f"own holds {name} in {dtype}; give it in"):
            pairwise_of_statistics({**own, name: own[name].to(dtype)}, kind, [6, 6, 6], draws=8)
    finer = pairwise_of_statistics({**own, "sketch": own["sketch"].double()}, kind, [6, 6, 6], draws=8)
    torch.testing.assert_close(
        finer.value.float(), pairwise_of_statistics(own, kind, [6, 6, 6], draws=8).value
    )
    for wrong, n, said in (
        (None, [6], "own is of type NoneType"),
        ({k: x[:0] for k, x in own.items()}, [], "give 0"),
    ):
        with pytest.raises(ValueError, match=said):
            pairwise_of_statistics(wrong, kind, n)


def test_a_null_needs_a_kind_and_sizes():
    kind = build_distance("gaussian")
    reference = summarise(kind.statistics(ROWS), 6).mean()
    for call, said in (
        (lambda: fit_null("gaussian", reference, [8]), "kind='gaussian' is no distance of sums"),
        (lambda: fit_null(kind, reference, []), "sizes is empty"),
        (lambda: fit_null(kind, reference, [8.5]), "size=8.5 is no whole number"),
        (lambda: size_grid(8, 16, points=1), "points=1 is no whole number of at least 2"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_sums_of_nobody_are_no_population():
    own = build_distance("gaussian").statistics(ROWS)
    for n in ("a", math.inf, math.nan, None):
        with pytest.raises(ValueError, match="give the number of samples, above 0"):
            summarise(own, n)
    with pytest.raises(ValueError, match="summaries is of type NoneType"):
        combine(None)
    total = summarise(own, 6)
    with pytest.raises(ValueError, match="nobody is left in it"):
        total.without(total).mean()


def test_clients_that_there_are_not_are_not_selected():
    features = [ROWS, ROWS + 1, ROWS - 1]
    for found in (distance_to_population(features, "gaussian"), pairwise_distances(features, "gaussian")):
        for wrong in ([9], [-4], [0.5], [True, False], "a", torch.tensor(1)):
            with pytest.raises(ValueError, match=r"give positions"):
                found.select(wrong)
        assert found.select([-1, 0]).n.tolist() == found.select([True, False, True]).n.tolist() == [6, 6]
        assert len(found.select([])) == 0


@pytest.mark.parametrize("seed", [2**70, -(2**70)])
def test_no_whole_number_is_too_large_a_seed(seed):
    assert unit_projections(3, 4, seed=seed).isfinite().all()
    assert torch.equal(unit_projections(3, 4, seed=-1), unit_projections(3, 4, seed=2**64 - 1))
    found = distance_to_population([ROWS, ROWS + 1, ROWS - 1], seed=seed, draws=8)
    assert len(found.permuted(abs(seed))) == 3


def test_fields_of_graphs_and_clusterings_are_checked_however_they_are_built():
    for build, said in (
        (lambda: KernelGraph(scale="1"), "KernelGraph scale='1': give a number"),
        (lambda: KernelGraph(scale=None), "KernelGraph scale=None: give a number"),
        (lambda: KMedoids(max_swaps="a"), "KMedoids max_swaps='a': give a whole number"),
        (lambda: KMedoids(max_swaps=-1), "max_swaps=-1 is no whole number of at least 0"),
        (lambda: Agglomerative(linkage=3), "Agglomerative linkage=3: give a name"),
    ):
        with pytest.raises(ValueError, match=said):
            build()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strengths": 3.0}, "strengths=3.0; give a list"),
        ({"strengths": ("a",)}, "a number in strengths='a' is no number"),
        ({"safe": 0}, "safe=0; give a list"),
        ({"safe": (0.5,)}, "an option in safe=0.5 is no whole number"),
        ({"harm": "a"}, "harm='a' is no number"),
        ({"graphs": [GRAPH, 2 * GRAPH]}, "Row 0 of graph 1 sums to 2"),
        ({"graphs": [GRAPH * 0]}, "Row 0 of graph 0 sums to 0"),
    ],
)
def test_what_a_choice_is_made_of_is_checked(options, said):
    graphs = options.pop("graphs", [GRAPH])
    with pytest.raises(ValueError, match=said):
        pooled_choices(ERRORS, EXAMPLES, graphs, **options)
