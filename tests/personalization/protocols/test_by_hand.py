"""A federation by hand: what one party sends another is looked at before it is used."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from personalization import Summary, build_distance, combine, summarise
from personalization.protocols import (
    ClassGaussians,
    FedWaD,
    GaussianNoise,
    QuantileSketches,
    SummedReference,
    TriangleWad,
)

SLICED = build_distance("sliced", projections=8, quantiles=16)
GAUSSIAN = build_distance("gaussian")


def parties(kind=SLICED, sizes=(20, 30, 40, 25, 50, 60, 35, 45), **options):
    generator = torch.Generator().manual_seed(0)
    samples = [torch.randn(n, 3, generator=generator) for n in sizes]
    protocol = SummedReference(kind=kind, draws=16, **options)
    return protocol, samples, combine(protocol.summary(x) for x in samples), torch.tensor(sizes)


def broken(total, value=torch.nan):
    return replace(total, totals={name: x * value for name, x in total.totals.items()})


@pytest.mark.parametrize("kind", [SLICED, GAUSSIAN])
def test_a_sum_that_is_none_is_refused_by_clients_and_server(kind):
    protocol, samples, total, n = parties(kind, null_from="halves")
    law, answers = protocol.halves(total, n), torch.ones(len(n), dtype=torch.float64)
    counts = sum(protocol.counts(x, total, law) for x in samples)
    other = parties(GAUSSIAN if kind is SLICED else SLICED)[2]
    for wrong, said in (
        (broken(total), "The sum's .* has .* NaN or infinite"),
        (broken(total, torch.inf), "The sum's .* NaN or infinite"),
        (other, "use one kind, with the same options"),
        (None, "total is of type NoneType; give combine"),
        (replace(total, weight=total.weight * 0), "The sum has weight 0"),
    ):
        for call in (
            lambda wrong=wrong: protocol.answer(samples[0], wrong),
            lambda wrong=wrong: protocol.counts(samples[0], wrong, law),
            lambda wrong=wrong: protocol.halves(wrong, n),
            lambda wrong=wrong: protocol.judge(wrong, n, answers, answers, counts),
        ):
            with pytest.raises(ValueError, match=said):
                call()
    for call in (protocol.answer, lambda x, y: protocol.counts(x, y, law)):
        with pytest.raises(ValueError, match="The client has 2 features, the sum 3"):
            call(samples[0][:, :2], total)


def test_options_of_a_kind_must_be_the_same_for_all():
    _, samples, total, _ = parties()
    finer = SummedReference(kind=build_distance("sliced", projections=9, quantiles=16))
    with pytest.raises(ValueError, match=r"projections=9.*use one kind, with the same options"):
        finer.answer(samples[0], total)


def test_summaries_that_do_not_add_are_named():
    protocol, samples, _, _ = parties()
    first = protocol.summary(samples[0])
    for width in (1, 2):  # one feature would be spread over all without a word
        with pytest.raises(ValueError, match="do not add; all clients must describe"):
            combine([first, protocol.summary(samples[1][:, :width])])
    with pytest.raises(ValueError, match=r"Summary 1: sketch has .* NaN"):
        combine([first, broken(first), first])
    with pytest.raises(ValueError, match="Summary 1: weight has 1 NaN"):
        combine([first, replace(first, weight=torch.tensor(torch.nan))])
    with pytest.raises(ValueError, match="Summary 0 is of type int"):
        combine([1, 2])


def test_a_summary_needs_samples():
    own = SLICED.statistics(torch.randn(4, 10, 3))
    for n in (torch.tensor([10, 10, 0, 10]), torch.full((4,), torch.nan), torch.ones(3), -1):
        with pytest.raises(ValueError, match="the number of samples, above 0, one a client"):
            summarise(own, n)
    with pytest.raises(ValueError, match="own holds no statistics"):
        summarise({}, 10)
    assert isinstance(summarise(own, torch.full((4,), 10)), Summary)


def test_answers_that_are_none_are_refused():
    protocol, _, total, n = parties()
    ones = torch.ones(len(n), dtype=torch.float64)
    third = torch.where(torch.arange(len(n)) == 3, -1.0, ones)
    for squared, variance, said in (
        (third, ones, "Client 3 answered -1 with variance 1"),
        (ones, third, "Client 3 answered 1 with variance -1"),
        (ones, ones * torch.inf, "Client 0 answered 1 with variance inf"),
        (ones, ones[:3], r"variance is \(3,\); give a tensor with one number per client"),
        (ones.tolist(), ones, "squared is list; give a tensor"),
        (ones.numpy(), ones, "squared is ndarray; give a tensor"),
        (ones[:0], ones[:0], r"squared is \(0,\)"),
    ):
        with pytest.raises(ValueError, match=said):
            protocol.judge(total, n, squared, variance)


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_clients_outweigh_no_sum_that_they_are_part_of(weighting):
    protocol, samples, total, n = parties(weighting=weighting)
    squared, variance = (
        torch.stack(column) for column in zip(*(protocol.answer(x, total) for x in samples), strict=True)
    )
    with pytest.raises(ValueError, match="judge them by the sum that they are part of"):
        protocol.judge(total, n * 10 if weighting == "samples" else n // 10, squared, variance)
    whole = protocol.judge(total, n, squared, variance)
    for kept in (slice(0, 5), slice(2, 3)):  # the others did not answer any more
        part = protocol.judge(total, n[kept], squared[kept], variance[kept])
        assert_close(part.value, whole.value[kept])
        assert_close(part.z, whole.z[kept], rtol=0.2, atol=0.2)


def test_a_null_of_halves_that_is_none_is_refused():
    protocol, samples, total, n = parties(null_from="halves")
    law = protocol.halves(total, n)
    for wrong, said in (
        (None, "give what halves"),
        ([1.0], "give what halves"),
        ({name: x.numpy() for name, x in law.items()}, "give what halves"),
        ({name: x[:0] for name, x in law.items()}, "give what halves"),
        ({name: x[0] for name, x in law.items()}, "give what halves"),
        ({**law, "std": -law["std"]}, "a negative std"),
        ({**law, "sizes": law["sizes"] * 0}, "a size that is not above 0"),
    ):
        with pytest.raises(ValueError, match=said):
            protocol.counts(samples[0], total, wrong)
    counts = sum(protocol.counts(x, total, law) for x in samples)
    ones = torch.ones(len(n), dtype=torch.float64)
    for wrong in (counts.bool(), counts.to(torch.complex64)):
        with pytest.raises(ValueError, match=r"counts is torch\.\w+; give the sum"):
            protocol.judge(total, n, ones, ones, wrong)


@pytest.mark.parametrize(
    "protocol",
    [
        SummedReference(),
        SummedReference(null_from="halves"),
        SummedReference(noise=GaussianNoise(1.0)),
        QuantileSketches(),
        ClassGaussians(),
        TriangleWad(),
        FedWaD(rounds=1),
    ],
)
def test_a_plan_of_no_clients_is_refused(protocol):
    for sizes, features, said in (
        ([], 3, "a protocol needs at least 2"),
        ([20], 3, "a protocol needs at least 2"),
        ([20, 1], 3, r"sizes\[1\]=1 is no whole number of at least 2"),
        ([20, 1.5], 3, r"sizes\[1\]=1.5 is no whole number"),
        ([20, 20], 0, "features=0 is no whole number of at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            protocol.plan(sizes, features)
    assert protocol.plan(np.array([20, 30]), 3).clients == 2
