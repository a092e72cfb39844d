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
    daily_profiles,
    distance_to_population,
    labelled,
    matrix_root,
    midpoint_levels,
    moments,
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
