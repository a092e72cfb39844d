"""Distances by protocol: the same as measured here, what noise changes and costs, and what is refused."""

import dataclasses
import math
import re

import pytest
import pytorch_lightning as pl
import torch

from persofl import (
    DistanceConfig,
    FederatedModule,
    PersoflError,
    build_model,
    measure_distances,
    parse_method,
)
from persofl.algorithms import ClusterFedAvg, Gate, Neighbours
from persofl.method import Method
from persofl.models import Shape
from persofl.pairwise import measure_pairwise
from persofl.wire import BETWEEN, ProtocolConfig, measure_by_protocol
from personalization import Distances, distance_to_population
from personalization.budget import composed_epsilon, gaussian_multiplier
from personalization.protocols import BudgetExhaustedError, PairwiseMasks, SummedReference

SUMMED = {"name": "summed_reference"}
NOISY = {**SUMMED, "epsilon": 4.0, "clip": 6.0}


@pytest.fixture
def measuring(federate):
    """A federation that measures its distances, which others are given."""

    def build(method):
        federation = federate(method)
        for given in ("distances", "pairwise", "whole"):
            federation.personaliser.__dict__.pop(given, None)
        return federation

    return build


def fit(module, rounds, checkpoint=None):
    trainer = pl.Trainer(
        max_steps=rounds,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        limit_val_batches=0,
    )
    trainer.fit(module, ckpt_path=checkpoint)
    return trainer


def personaliser(measuring, distance, method="ditto+prox_by_distance"):
    return measuring(dataclasses.replace(parse_method(method), distance=distance)).personaliser


@pytest.mark.parametrize("options", [{}, {"null_from": "halves"}])
@pytest.mark.parametrize("kind", ["sliced", "gaussian"])
def test_without_noise_a_protocol_finds_what_is_measured_here(kind, options, measuring, population):
    here = measure_distances(population, DistanceConfig(kind, options=options))
    found = personaliser(measuring, DistanceConfig(kind, options=options, protocol=SUMMED))
    near = {"rtol": 0.02, "atol": 0.01} if options else {"rtol": 1e-4, "atol": 1e-5}
    for item in dataclasses.fields(Distances):
        torch.testing.assert_close(getattr(found.distances, item.name), getattr(here, item.name), **near)


def test_the_toll_is_the_transcript_s(measuring, population):
    found = personaliser(measuring, DistanceConfig("gaussian", protocol=SUMMED))
    assert found.tolls == []
    _ = found.distances
    (toll,) = found.tolls
    features = [population.profiles(client) for client in range(len(population))]
    plan = SummedReference(kind=build("gaussian")).plan([len(x) for x in features], features[0].shape[1])
    assert toll.up == plan.bytes_up() / len(population)
    assert toll.down == plan.bytes_down() / len(population)
    assert (toll.rounds, math.isnan(toll.epsilon)) == (plan.rounds, True)
    assert "No client's own statistics" in toll.learns
    assert "squared distance" in toll.table


def build(kind):
    from personalization import build_distance

    return build_distance(kind)


def test_noise_is_a_function_of_the_seed_and_the_release(population):
    features = [population.profiles(client) for client in range(len(population))]
    config = ProtocolConfig.of(NOISY)

    def z(seed=0, release=0):
        found, _ = measure_by_protocol(features, config, "gaussian", {}, seed=seed, release=release)
        return found.value

    assert torch.equal(z(), z())
    assert not torch.equal(z(), z(release=1))
    assert not torch.equal(z(), z(seed=1))


def test_every_release_has_masks_of_its_own(population, monkeypatch):
    features = [population.profiles(client) for client in range(len(population))]
    config, encode, sent = ProtocolConfig.of(SUMMED), PairwiseMasks.encode, []
    monkeypatch.setattr(
        PairwiseMasks,
        "encode",
        lambda self, *given, **more: sent.append(encode(self, *given, **more)) or sent[-1],
    )
    for seed, release in ((0, 0), (0, 1), (1, 0), (-1, 0)):
        measure_by_protocol(features, config, "gaussian", {}, seed=seed, release=release)
    first = [messages["mean"][0] for messages in sent]
    assert not any(torch.equal(first[0], other) for other in first[1:3])


def test_less_noise_comes_closer(population):
    features = [population.profiles(client) for client in range(len(population))]
    exact = distance_to_population(features, "gaussian").value

    def error(epsilon):
        config = ProtocolConfig.of({**NOISY, "epsilon": epsilon, "clip": 1e3})
        gaps = [
            (measure_by_protocol(features, config, "gaussian", {}, seed=seed)[0].value - exact).abs().mean()
            for seed in range(3)
        ]
        return float(torch.stack(gaps).mean())

    errors = [error(epsilon) for epsilon in (1e3, 1e6, 1e9)]
    assert errors[0] > errors[1] > errors[2]


def test_releases_add_up_and_the_limit_holds(measuring):
    config = DistanceConfig(
        "gaussian", "residuals", refresh=1, protocol={**NOISY, "clip": 3.0, "limit": 6.5, "delta": 1e-5}
    )
    found = personaliser(measuring, config)
    server = torch.zeros(1, found._oracle.layout.size)
    found.refresh(0, server)
    found.refresh(1, server)
    multiplier = gaussian_multiplier(4.0, 1e-5)
    entry = found._budget.spent[0]
    assert entry.multiplier == pytest.approx(multiplier)
    assert found.tolls[-1].epsilon == pytest.approx(composed_epsilon([entry, entry], 1e-5))
    assert found.tolls[0].epsilon == pytest.approx(4.0)
    before = found.distances
    with pytest.raises(BudgetExhaustedError, match=r"beyond the limit of 6.5"):
        found.refresh(2, server)
    assert found.distances is before
    assert len(found.tolls) == 2


def test_a_run_that_goes_on_has_spent_what_it_spent(measuring):
    config = DistanceConfig("gaussian", "residuals", refresh=1, protocol={**NOISY, "clip": 3.0})
    one, other = personaliser(measuring, config), personaliser(measuring, config)
    server = torch.zeros(1, one._oracle.layout.size)
    for round_ in range(3):
        one.refresh(round_, server)
    other.load_state_dict(one.state_dict())
    assert [toll.epsilon for toll in other.tolls] == pytest.approx([toll.epsilon for toll in one.tolls])
    one.refresh(3, server)
    other.refresh(3, server)
    assert torch.equal(one.distances.value, other.distances.value)  # the noise of the fourth release
    assert one.tolls[-1].epsilon == pytest.approx(other.tolls[-1].epsilon)


def test_training_resumes_equal_with_noisy_refreshes(population, tmp_path):
    distance = DistanceConfig("gaussian", "residuals", refresh=2, protocol={**NOISY, "clip": 3.0})
    method = dataclasses.replace(parse_method("ditto+prox_by_distance"), distance=distance)

    def module():
        model = build_model("mlp", Shape(*population.shape[:2]), seed=0, hidden=(5,))
        return FederatedModule(population, model, method)

    whole, first, second = module(), module(), module()
    fit(whole, 5)
    fit(first, 3).save_checkpoint(tmp_path / "half.ckpt")
    fit(second, 5, tmp_path / "half.ckpt")
    assert torch.equal(whole.server, second.server)
    assert [t.epsilon for t in whole.federation.personaliser.tolls] == pytest.approx(
        [t.epsilon for t in second.federation.personaliser.tolls]
    )


@pytest.mark.parametrize("name", sorted(BETWEEN))
def test_graphs_and_gates_take_protocols_between_clients(name, population):
    between = measure_pairwise(population, DistanceConfig(protocol={"name": name}))
    clients = len(population)
    assert between.calibrated.shape == (clients, clients)
    torch.testing.assert_close(between.calibrated, between.calibrated.T)
    assert (between.calibrated.diagonal() == 0).all()
    assert between.toll.up > 0
    assert between.permuted(1).toll == between.toll


@pytest.mark.parametrize("algorithm", [Neighbours(), ClusterFedAvg(), Gate()])
def test_methods_between_clients_run_by_protocol(algorithm, measuring, run):
    config = DistanceConfig(protocol={"name": "quantile_sketches"})
    federation = measuring(Method(algorithm, distance=config))
    run(federation)
    (toll,) = federation.personaliser.tolls
    assert toll.up == 64 * 128 * 4


@pytest.mark.parametrize(
    ("protocol", "problem"),
    [
        ({"name": "summed"}, "Unknown protocol 'summed'"),
        ({"nam": "summed_reference"}, "Unknown key of protocol 'nam'"),
        ({"epsilon": 2.0}, "protocol needs a name: summed_reference"),
        ({**SUMMED, "epsilon": -1.0}, "epsilon=-1"),
        ({**SUMMED, "epsilon": 1.0, "unit": "meter"}, "unit='meter'"),
        ({**SUMMED, "limit": 3.0}, "without epsilon there is none"),
        ({**SUMMED, "epsilon": 1.0, "clip": 0.0}, "clip=0"),
    ],
)
def test_bad_protocols_are_refused_before_anything_runs(protocol, problem):
    with pytest.raises(ValueError, match=problem):
        DistanceConfig(protocol=protocol)


def test_what_a_protocol_cannot_measure_is_refused(measuring, population):
    with pytest.raises(PersoflError, match="are given, so that no protocol"):
        DistanceConfig(features="size", protocol=SUMMED)
    with pytest.raises(PersoflError, match="needs the samples in one place"):
        _ = personaliser(measuring, DistanceConfig("energy", protocol=SUMMED)).distances
    with pytest.raises(PersoflError, match="compares clients with each other"):
        _ = personaliser(measuring, DistanceConfig(protocol={"name": "quantile_sketches"})).distances
    with pytest.raises(PersoflError, match="graphs, clusters and gates need one of"):
        measure_pairwise(population, DistanceConfig(protocol=SUMMED))
    limited = DistanceConfig(protocol={"name": "quantile_sketches", "epsilon": 2.0, "limit": 1.0})
    with pytest.raises(BudgetExhaustedError):
        measure_pairwise(population, limited)


# --- refused before anything is measured -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distance", "problem"),
    [
        ({"kind": "energi"}, "Unknown distance 'energi'; did you mean 'energy'"),
        ({"options": {"foo": 1}}, "Unknown option of distance 'sliced' 'foo'"),
        ({"features": "nonsense"}, "Unknown features 'nonsense'"),
        ({"deal": 3}, "deal=3 deals nothing without permute"),
        ({"features": "conditional", "protocol": SUMMED}, "sums over all clients before a protocol starts"),
        ({"options": {"null_from": "pol"}}, "did you mean 'pool'"),
        ({"options": {"null_from": "pool"}, "protocol": SUMMED}, "they stay with the clients: take 'halves'"),
        ({"options": {"null_from": "halves"}, "protocol": NOISY}, "does not hide"),
        ({"kind": "energy", "protocol": SUMMED}, "needs the samples in one place"),
        ({"kind": "energy", "protocol": {"name": "quantile_sketches"}}, "kind and options have no effect"),
        ({"options": {"projections": 8}, "protocol": {"name": "fedwad"}}, "kind and options have no effect"),
        (
            {"protocol": {"name": "fedwad", "options": {"steps": 3}}},
            "Unknown option of protocol 'fedwad' 'steps'",
        ),
        ({"protocol": {"name": "fedwad", "epsilon": 1.0}}, "use unit='client'"),
        ({"protocol": {**SUMMED, "options": {"draws": 3}}}, "has no options of its own"),
        ({"protocol": {**SUMMED, "epsilon": "two"}}, "epsilon='two' is not a number"),
    ],
)
def test_settings_that_cannot_work_or_do_nothing_are_refused_at_once(distance, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        DistanceConfig(**distance)


@pytest.mark.parametrize(
    ("name", "params", "protocol", "problem"),
    [
        ("neighbours", {}, "summed_reference", "its algorithm compares clients with each other"),
        (
            "ditto+prox_by_distance",
            {},
            "fedwad",
            "its modulators ask how far each client is from the population",
        ),
        ("gate+lr_by_distance", {}, "summed_reference", "no protocol serves both"),
        ("gate+lr_by_distance", {}, "quantile_sketches", "no protocol serves both"),
    ],
)
def test_a_protocol_must_find_the_distances_that_a_method_asks_for(name, params, protocol, problem):
    with pytest.raises(PersoflError, match=problem):
        parse_method(name, params, DistanceConfig(protocol={"name": protocol}))


@pytest.mark.parametrize("name", ["neighbours", "cluster_fedavg", "gate+work_by_distance"])
def test_halves_judge_no_pairs_and_say_so_before_anything_is_trained(name):
    halves = DistanceConfig(options={"null_from": "halves"})
    with pytest.raises(PersoflError, match="judges distances to the population only"):
        parse_method(name, distance=halves)
    parse_method("finetune+work_by_distance", distance=halves)


def test_a_gate_without_neighbours_is_served_by_the_population_s_protocol():
    parse_method("gate+lr_by_distance", {"pool": "everyone"}, DistanceConfig(protocol=SUMMED))


def test_a_protocol_takes_options_of_its_own(population):
    few, many = (
        measure_pairwise(
            population, DistanceConfig(protocol={"name": "quantile_sketches", "options": {"projections": n}})
        )
        for n in (4, 16)
    )
    assert many.toll.up > 3 * few.toll.up
    assert not torch.equal(many.calibrated, few.calibrated)


def test_a_budget_that_rounds_will_exceed_is_refused_before_the_first(population):
    distance = DistanceConfig("gaussian", "residuals", refresh=1, protocol={**NOISY, "limit": 6.0})
    method = dataclasses.replace(parse_method("ditto+prox_by_distance"), distance=distance)

    def module():
        return FederatedModule(
            population, build_model("mlp", Shape(*population.shape[:2]), hidden=(5,)), method
        )

    short, long = module(), module()
    fit(short, 2)
    with pytest.raises(BudgetExhaustedError, match="x 5 would bring epsilon"):
        fit(long, 5)
    assert len(short.federation.personaliser.tolls) >= 2
    assert long.federation.personaliser.tolls == []  # nothing was sent
