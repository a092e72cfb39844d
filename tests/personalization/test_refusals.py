"""What the public functions refuse, and the degenerate values that they document instead."""

import numpy as np
import pytest
import torch

from personalization import (
    GaussianDistance,
    SlicedDistance,
    build_distance,
    build_modulator,
    bures_wasserstein,
    distance_to_population,
    labelled,
    moments,
    quantile_sketch,
    sliced_wasserstein,
    wasserstein_line,
)
from personalization.distances import Distances
from personalization.features import calendar_conditional
from personalization.numeric import safe_root
from personalization.protocols import ClassGaussians, FedWaD, GaussianNoise, PairwiseMasks, SummedReference
from personalization.reference import combine
from personalization.sketch import midpoint_levels, unit_projections


def clients(count=6, n=60, features=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, features, generator=generator, dtype=torch.float64) for _ in range(count)]


# --- the fixed point of secure sums ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "weighting", "floor"),
    [
        (SlicedDistance(projections=8), "samples", 1e-3),  # which sends a covariance too
        (GaussianDistance(), "samples", 1e-3),
        (GaussianDistance(), "uniform", 1e-2),
    ],
)
def test_sums_of_a_small_scale_are_right_or_refused(kind, weighting, floor):
    """Rounded to steps of 2^-24, small covariances would be none: everybody would lie infinitely far."""
    for scale in 10.0 ** -torch.arange(8):
        samples = [x * scale for x in clients()]
        here = distance_to_population(samples, kind, weighting=weighting)
        protocol = SummedReference(kind=kind, weighting=weighting)
        if scale < floor:
            with pytest.raises(ValueError, match="Standardise the features"):
                protocol.run(samples)
            continue
        found = protocol.run(samples).distances
        torch.testing.assert_close(found.z, here.z, rtol=0.05, atol=0.05)


def test_the_refusal_says_which_bits_would_do():
    samples = [x * 1e-5 for x in clients()]
    with pytest.raises(ValueError, match=r"cov is .* bits=24 round .* masks with bits=(\d+)") as error:
        SummedReference(kind=GaussianDistance()).run(samples)
    bits = int(str(error.value).rsplit("bits=", 1)[1].rstrip("."))
    found = SummedReference(kind=GaussianDistance(), masks=PairwiseMasks(bits=bits)).run(samples).distances
    torch.testing.assert_close(found.z, distance_to_population(samples, "gaussian").z, rtol=0.05, atol=0.05)


def test_constant_features_are_no_small_scale():
    samples = [torch.full((30, 2), 0.1, dtype=torch.float64) for _ in range(4)]
    found = SummedReference(kind=GaussianDistance()).run(samples).distances
    assert torch.equal(found.value, torch.zeros_like(found.value))


# --- a federation by hand ----------------------------------------------------------------------------------


def by_hand(protocol, samples):
    total = combine(protocol.summary(x) for x in samples)
    squared, variance = (
        torch.stack(part) for part in zip(*(protocol.answer(x, total) for x in samples), strict=True)
    )
    return protocol.judge(total, torch.tensor([len(x) for x in samples]), squared, variance)


@pytest.mark.parametrize("scale", [1.0, 3e3])
def test_half_precision_by_hand_is_computed_in_full(scale):
    samples = [(x * scale).half() for x in clients()]
    protocol = SummedReference(kind=SlicedDistance(projections=8))
    torch.testing.assert_close(
        by_hand(protocol, samples).z.float(),
        distance_to_population(samples, SlicedDistance(projections=8)).z.float(),
        rtol=1e-2,
        atol=1e-2,
    )


def test_one_client_by_hand_is_at_no_distance():
    protocol = SummedReference(kind=GaussianDistance())
    (samples,) = clients(1)
    found = by_hand(protocol, [samples])
    alone = distance_to_population([samples], "gaussian")
    assert float(found.value) == float(alone.value) == 0
    assert float(found.p_value) == float(alone.p_value) == 1


def test_by_hand_nothing_broken_goes_up_or_is_judged():
    protocol = SummedReference(kind=GaussianDistance())
    samples = clients()
    total = combine(protocol.summary(x) for x in samples)
    bad = samples[0].clone()
    bad[3, 1] = torch.nan
    for call in (protocol.summary, lambda x: protocol.answer(x, total)):
        with pytest.raises(ValueError, match="1 NaN or infinite"):
            call(bad)
        with pytest.raises(ValueError, match="floating-point"):
            call(torch.ones(5, 4, dtype=torch.int64))
        with pytest.raises(ValueError, match="ndarray"):
            call(np.ones((5, 4)))
    ones = torch.ones(6, dtype=torch.float64)
    with pytest.raises(ValueError, match="Client 2 answered nan"):
        protocol.judge(total, [60] * 6, torch.where(torch.arange(6) == 2, torch.nan, ones), ones)
    with pytest.raises(ValueError, match="whole numbers of samples"):
        protocol.judge(total, torch.full((6,), 0.5), ones, ones)


def test_noise_that_would_not_be_added_is_refused():
    with pytest.raises(ValueError, match="is exact, and noise"):
        SummedReference(noise=GaussianNoise(0.1)).summary(clients()[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weighting": "sample"}, "did you mean 'samples'"),
        ({"draws": 0}, "draws=0"),
        ({"gate": float("nan")}, "gate=nan"),
        ({"noise": 1.0}, "noise=1.0; give GaussianNoise"),
        ({"masks": True}, "masks=True; give PairwiseMasks"),
    ],
)
def test_options_of_a_protocol_are_checked_when_it_is_built(options, words):
    with pytest.raises(ValueError, match=words):
        SummedReference(**options)


def test_protocols_refuse_options_of_another_sort():
    for build in (
        lambda: FedWaD(rounds=1.5),
        lambda: PairwiseMasks(bits=1.5),
        lambda: GaussianNoise(1.0, clip="3"),
    ):
        with pytest.raises(ValueError, match="give a"):
            build()


def test_class_numbers_that_would_fill_memory_are_refused():
    samples = clients(2)
    labels = [torch.zeros(60, dtype=torch.int64), torch.full((60,), 10**7)]
    with pytest.raises(ValueError, match="number the classes from 0"):
        ClassGaussians().run(samples, labels=labels)


# --- functions ---------------------------------------------------------------------------------------------


def test_nan_is_no_distance_of_zero():
    nan, eye, line = torch.tensor([torch.nan]), torch.eye(1), torch.full((2,), 0.5)
    assert torch.isnan(safe_root(nan))
    refused = {
        "sketch": lambda: sliced_wasserstein(torch.full((4, 8), torch.nan), torch.zeros(4, 8)),
        "mean": lambda: bures_wasserstein(nan, eye, torch.zeros(1), eye),
        "cov": lambda: bures_wasserstein(torch.zeros(1), eye * torch.nan, torch.zeros(1), eye),
        "samples": lambda: moments(torch.full((3, 2), torch.inf)),
        "x": lambda: wasserstein_line(torch.tensor([0.0, torch.nan]), torch.zeros(2), line, line),
    }
    for name, call in refused.items():
        with pytest.raises(ValueError, match=f"{name} has .* NaN or infinite"):
            call()
    with pytest.raises(ValueError, match="samples has 1 NaN"):
        quantile_sketch(torch.tensor([[torch.nan], [0.0]]), unit_projections(1, 2), midpoint_levels(4))


def test_distances_of_many_run_under_vmap():
    x, y = torch.randn(3, 4, 8), torch.randn(3, 4, 8)
    assert torch.equal(torch.func.vmap(sliced_wasserstein)(x, y), sliced_wasserstein(x, y))


@pytest.mark.parametrize("weights", [[2.0, 2.0], [1.5, -0.5], [0.0, 0.0]])
def test_weights_on_the_line_sum_to_one(weights):
    x, fair = torch.tensor([0.0, 1.0]), torch.full((2,), 0.5)
    with pytest.raises(ValueError, match="y_weights sum to"):
        wasserstein_line(x, x, fair, torch.tensor(weights))


@pytest.mark.parametrize("shapes", [((3, 10, 2), (8, 2)), ((10, 2), (3, 8, 2)), ((3, 1, 10, 2), (2, 8, 2))])
def test_sinkhorn_of_a_batch_is_that_of_its_pairs(shapes):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    kind = build_distance("sinkhorn")
    found, converged = kind.between(x, y)
    lead = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    assert found.shape == lead
    assert converged.all()
    xs, ys = (z.expand(*lead, *z.shape[-2:]).reshape(-1, *z.shape[-2:]) for z in (x, y))
    alone = torch.stack([kind.between(a, b)[0] for a, b in zip(xs, ys, strict=True)])
    torch.testing.assert_close(found.flatten(), alone, rtol=1e-3, atol=1e-6)


def test_batches_that_do_not_fit_are_refused_in_words():
    with pytest.raises(ValueError, match="whose batches do not fit"):
        build_distance("energy").between(torch.randn(3, 5, 2), torch.randn(2, 5, 2))
    with pytest.raises(ValueError, match="x is of type ndarray"):
        build_distance("energy").between(np.ones((5, 2)), torch.randn(5, 2))
    with pytest.raises(ValueError, match="x_weights is of type list"):
        build_distance("energy").between(torch.randn(2, 2), torch.randn(5, 2), [0.5, 0.5])


def known(u, n):
    zero = torch.zeros(len(u))
    return Distances(u, zero, zero, zero, zero + 1, n, u, u)


@pytest.mark.parametrize("name", ["mix_by_shrinkage", "prox_by_bayes"])
def test_many_samples_fit_into_half_precision(name):
    distances = known(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([100, 100_000, 70_000]))
    half = build_modulator(name)(torch.ones(3, 1).half(), distances)
    assert half.dtype == torch.float16
    torch.testing.assert_close(
        half.float(), build_modulator(name)(torch.ones(3, 1), distances), rtol=2e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    "name", ["mix_by_trend", "weight_by_distance", "depth_by_distance", "prox_by_distance"]
)
def test_a_distance_that_is_nan_steers_nobody(name):
    distances = known(torch.tensor([0.0, torch.nan, 2.0]), torch.tensor([10, 10, 10]))
    with pytest.raises(ValueError, match="distance of client 1 is NaN"):
        build_modulator(name)(torch.ones(3, 1), distances)


def test_an_infinite_distance_is_the_farthest():
    mix = build_modulator("mix_by_trend")(
        torch.full((3, 1), 0.5), known(torch.tensor([0.0, 1.0, torch.inf]), torch.ones(3))
    )
    assert mix.isfinite().all()
    assert float(mix[2]) == 1


def test_any_whole_number_is_a_seed():
    samples = clients(3)
    found = [distance_to_population(samples, seed=seed).value for seed in (3, np.int64(3))]
    assert torch.equal(*found)


def test_targets_survive_being_a_column():
    with pytest.raises(ValueError, match="cut off targets"):
        labelled(torch.ones(2, 3, dtype=torch.int64), torch.tensor([0.5, 1.7]))
    with pytest.raises(ValueError, match=r"bfloat16 does not hold class 257"):
        labelled(torch.ones(2, 3, dtype=torch.bfloat16), torch.tensor([256, 257]))
    assert labelled(torch.ones(2, 3).half(), torch.tensor([0, 2048]))[1, 3] == 2048


def test_cells_may_be_any_numbers():
    days = [torch.randn(4, 3), torch.randn(3, 3)]
    small = [torch.tensor([0, 1, 1, 2]), torch.tensor([2, 0, 1])]
    large = [torch.tensor([5, 10**9])[0] * (c + 1) for c in small]
    for a, b in zip(calendar_conditional(days, small), calendar_conditional(days, large), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="convert them to floating point"):
        calendar_conditional([torch.ones(2, 3, dtype=torch.int64)], [torch.tensor([0, 1])])
