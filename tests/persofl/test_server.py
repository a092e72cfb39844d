"""The server's parts: who takes part, what is done to updates, how they are averaged, and in which order."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from persofl import Ditto, FedAvg, Local, PersoflError, RoundConfig, RoundParts, run_round
from persofl.server import (
    Aggregator,
    Clip,
    Sampler,
    ServerTransform,
    UniformSampler,
    Updates,
    UpdateTransform,
    WeightedMean,
)


def updates_of(clients, size=7, seed=0, weights=None):
    generator = torch.Generator().manual_seed(seed)
    deltas = torch.randn(clients, size, generator=generator, dtype=torch.float64)
    if weights is None:
        weights = torch.rand(clients, 1, generator=generator, dtype=torch.float64) + 0.1
    return Updates(torch.arange(clients), deltas, weights, 0, seed)


problems = {"clients": st.integers(1, 9), "seed": st.integers(0, 10_000)}


@settings(max_examples=40, deadline=None)
@given(norm=st.floats(1e-3, 1e3), **problems)
def test_clip_bounds_the_length_and_keeps_the_direction(norm, clients, seed):
    updates = updates_of(clients, seed=seed)
    clipped = Clip(norm)(updates)
    before, after = updates.deltas.norm(dim=1), clipped.deltas.norm(dim=1)
    assert (after <= norm * (1 + 1e-9)).all()
    torch.testing.assert_close(after, before.clamp(max=norm))
    cosine = torch.nn.functional.cosine_similarity(updates.deltas, clipped.deltas)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    torch.testing.assert_close(Clip(norm)(clipped).deltas, clipped.deltas)  # once is enough
    assert torch.equal(clipped.weights, updates.weights)


def test_clip_leaves_zero_and_short_updates_alone():
    updates = updates_of(3).with_deltas(torch.tensor([[0.0, 0.0], [0.3, 0.4], [3.0, 4.0]]))
    want = torch.tensor([[0.0, 0.0], [0.3, 0.4], [0.6, 0.8]])
    torch.testing.assert_close(Clip(1.0)(updates).deltas, want)
    assert torch.equal(Clip(100.0)(updates).deltas, updates.deltas)


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(1e-3, 1e6), **problems)
def test_the_mean_is_a_weighted_average(scale, clients, seed):
    updates = updates_of(clients, seed=seed)
    mean = WeightedMean()(updates)
    naive = sum(w * d for w, d in zip(updates.weights, updates.deltas, strict=True)) / updates.weights.sum()
    torch.testing.assert_close(mean[0], naive)
    assert (mean >= updates.deltas.min(0).values - 1e-12).all()  # within the hull, coordinate by coordinate
    assert (mean <= updates.deltas.max(0).values + 1e-12).all()
    scaled = Updates(updates.clients, updates.deltas, scale * updates.weights, 0, 0)
    torch.testing.assert_close(WeightedMean()(scaled), mean)
    order = torch.randperm(clients, generator=torch.Generator().manual_seed(seed))
    shuffled = Updates(order, updates.deltas[order], updates.weights[order], 0, 0)
    torch.testing.assert_close(WeightedMean()(shuffled), mean)


def test_the_mean_of_equal_updates_is_that_update():
    updates = updates_of(5).with_deltas(torch.arange(3.0).double().expand(5, 3))
    torch.testing.assert_close(WeightedMean()(updates), updates.deltas[:1])


def test_a_cohort_without_weight_changes_nothing():
    updates = updates_of(3, weights=torch.zeros(3, 1).double())
    assert torch.equal(WeightedMean()(updates), torch.zeros(1, 7).double())


def test_a_client_without_weight_does_not_count():
    updates = updates_of(3, weights=torch.tensor([[1.0], [0.0], [3.0]]).double())
    want = (updates.deltas[0] + 3 * updates.deltas[2]) / 4
    torch.testing.assert_close(WeightedMean()(updates)[0], want)


@settings(max_examples=60, deadline=None)
@given(
    population=st.integers(1, 300),
    fraction=st.floats(1e-4, 1.0),
    round_=st.integers(0, 10**6),
    seed=st.integers(0, 2**31),
)
def test_a_cohort_is_a_sorted_set_of_the_size_asked_for(population, fraction, round_, seed):
    cohort = UniformSampler(fraction)(population, round_, seed)
    assert len(cohort) == max(1, round(fraction * population))
    assert cohort.dtype == torch.int64
    assert (cohort.diff() > 0).all()
    assert int(cohort[0]) >= 0
    assert int(cohort[-1]) < population
    assert torch.equal(cohort, UniformSampler(fraction)(population, round_, seed))


def test_every_client_takes_part_as_often():
    rounds, population, fraction = 2000, 20, 0.3
    cohorts = [UniformSampler(fraction)(population, round_, 1) for round_ in range(rounds)]
    share = torch.bincount(torch.cat(cohorts), minlength=population) / rounds
    assert (share - fraction).abs().max() < 4.5 * math.sqrt(fraction * (1 - fraction) / rounds)
    pairs = torch.zeros(population, population)
    for cohort in cohorts:
        pairs[cohort[:, None], cohort[None]] += 1 / rounds
    expected = fraction * (0.3 * population - 1) / (population - 1)
    off = pairs[~torch.eye(population, dtype=torch.bool)]
    assert (off - expected).abs().max() < 5 * math.sqrt(expected * (1 - expected) / rounds)


def test_rounds_and_seeds_draw_other_cohorts():
    cohorts = {tuple(UniformSampler(0.5)(20, r, s).tolist()) for r in range(10) for s in range(10)}
    assert len(cohorts) > 95


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UniformSampler(0), r"cohort=0: .*above 0 and at most 1"),
        (lambda: UniformSampler(1.5), "cohort=1.5"),
        (lambda: UniformSampler(float("nan")), "cohort=nan"),
        (lambda: Clip(0), "clip=0: .*above 0"),
        (lambda: Clip(float("nan")), "clip=nan"),
    ],
)
def test_parts_refuse_values_out_of_range(build, message):
    with pytest.raises(PersoflError, match=message):
        build()


def test_a_configuration_names_all_its_problems():
    with pytest.raises(PersoflError) as error:
        RoundConfig(cohort=2, batch_size=0, chunk=0, clip=-1, weighting="sample")
    for part in ("cohort=2", "batch_size=0", "chunk=0", "clip=-1", "weighting='sample'"):
        assert part in str(error.value)


@pytest.mark.parametrize("sizes", [{"chunk": 2.5}, {"batch_size": 8.0}, {"chunk": "10"}])
def test_sizes_are_whole_numbers(sizes):
    (name,) = sizes
    with pytest.raises(PersoflError, match=rf"{name}=[\d.]+: give a whole number of at least 1"):
        RoundConfig(**sizes)


# --- parts of one's own ------------------------------------------------------------------------------------


class Log(list):
    """Parts that write down when they were called, and what they saw."""

    def parts(self):
        log = self

        class Pair(Sampler):
            def __call__(self, population, round_, seed):
                log.append(("sampler", population, round_, seed))
                return torch.tensor([1, 4])

        class Shift(UpdateTransform):
            def __init__(self, name, by):
                self.name, self.by = name, by

            def __call__(self, updates):
                log.append((self.name, updates.deltas.clone()))
                return updates.with_deltas(updates.deltas + self.by)

        class First(Aggregator):
            def __call__(self, updates):
                log.append(("aggregator", updates.deltas.clone()))
                return updates.deltas[:1]

        class Double(ServerTransform):
            def __init__(self, name):
                self.name = name

            def __call__(self, row, updates):
                log.append((self.name, row.clone()))
                return 2 * row

        return RoundParts(Pair(), (Shift("one", 1), Shift("two", 10)), First(), (Double("x"), Double("y")))


def test_parts_run_in_the_order_of_the_design(federate):
    log = Log()
    federation = federate(FedAvg(local_steps=2), parts=log.parts(), seed=5)
    given_ = []
    report = run_round(federation, federation.initial_row(), 7, given_.append)
    assert [entry[0] for entry in log] == ["sampler", "one", "two", "aggregator", "x", "y"]
    assert log[0][1:] == (6, 7, 11)
    assert report.cohort.tolist() == [1, 4]
    sent = log[1][1]
    torch.testing.assert_close(log[2][1], sent + 1)
    torch.testing.assert_close(log[3][1], sent + 11)
    torch.testing.assert_close(given_[0], 4 * (sent[:1] + 11))
    torch.testing.assert_close(report.updates.deltas, sent + 11)


def test_clipping_comes_before_transforms_of_ones_own(federate):
    log = Log()
    federation = federate(FedAvg(local_steps=2), parts=log.parts(), clip=1e-3)
    run_round(federation, federation.initial_row(), 0, lambda row: None)
    assert (log[1][1].norm(dim=1) <= 1e-3 * (1 + 1e-5)).all()


def test_clipped_clients_move_the_server_by_at_most_the_norm(federate, run):
    outcome = run(federate(Ditto(local_steps=5), clip=0.01), 3)
    for before, after in zip(outcome.servers[:-1], outcome.servers[1:], strict=True):
        assert float((after - before).norm()) <= 0.01 * (1 + 1e-4)


def test_an_endless_clip_is_no_clip(federate, run):
    clipped, plain = (run(federate(FedAvg(), **options)) for options in ({"clip": 1e9}, {}))
    assert torch.equal(clipped.server, plain.server)


def test_local_training_sends_nothing(federate):
    federation, log = federate(Local(local_steps=2), parts=Log().parts()), []
    report = run_round(federation, federation.initial_row(), 0, log.append)
    assert report.updates is None
    assert torch.equal(log[0], torch.zeros_like(log[0]))


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_weighting_by_samples_or_all_the_same(weighting, federate, population):
    federation, aggregate = federate(FedAvg(local_steps=3), weighting=weighting), []
    report = run_round(federation, federation.initial_row(), 0, aggregate.append)
    deltas = report.updates.deltas.cpu().double()
    weights = population.count("train").double() if weighting == "samples" else torch.ones(6).double()
    want = (weights[:, None] * deltas).sum(0) / weights.sum()
    torch.testing.assert_close(aggregate[0][0].cpu().double(), want, rtol=1e-5, atol=1e-7)


def test_the_server_row_is_what_the_server_optimiser_makes_of_it(federate):
    federation = federate(FedAvg(local_steps=3))
    server = federation.initial_row()
    before = server.clone()
    report = run_round(federation, server, 0, lambda row: None)
    assert torch.equal(server, before)
    assert torch.equal(report.cohort, torch.arange(6))
