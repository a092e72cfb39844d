"""Several rows on the server: clusters and graphs at their limits, cohorts, clients held out, controls, robust rules."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from persofl import (
    FedAvg,
    Local,
    PersoflError,
    RoundParts,
    run_round,
)
from persofl.algorithms import (
    Algorithm,
    ClusterFedAvg,
    FineTune,
    Gate,
    GatedNeighbours,
    Neighbours,
    Phase,
    TunedNeighbours,
)
from persofl.algorithms.base import shared_step
from persofl.evaluation import client_experts
from persofl.method import method_params, parse_method, search_space
from persofl.personaliser import DistanceConfig
from persofl.routes import Routes, RowPerClient
from persofl.server import Aggregator, Updates, WeightedMean

GROUPS = ([0, 2, 3], [1, 4, 5])


def close(got, want, rtol=1e-4, atol=1e-5):
    torch.testing.assert_close(got.cpu(), want.cpu(), rtol=rtol, atol=atol, equal_nan=True)


# --- limits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cohort", [0.5, 1.0])
def test_one_cluster_is_fedavg_to_the_bit(cohort, federate, run):
    fedavg = run(federate(FedAvg(local_steps=4), cohort=cohort), 3)
    one = run(federate(ClusterFedAvg(local_steps=4, max_clusters=1), cohort=cohort), 3)
    for got, want in zip(one.servers, fedavg.servers, strict=True):
        assert torch.equal(got, want)
    assert torch.equal(one.predictors, fedavg.predictors)


def test_clusters_share_a_model_and_differ(federate, run):
    federation = federate(ClusterFedAvg(local_steps=4))
    outcome = run(federation, 3)
    assert federation.routes.labels.tolist() == [0, 1, 0, 0, 1, 1]
    assert outcome.server.shape[0] == 2
    for group, row in zip(GROUPS, outcome.server, strict=True):
        assert torch.equal(outcome.predictors[group], row.expand(3, -1))
    assert not torch.allclose(outcome.server[0], outcome.server[1], atol=1e-3)


@pytest.mark.parametrize("graph", ["kernel", "inverse", "row_qp"])
def test_a_graph_without_end_is_fedavg(graph, federate, run):
    fedavg = run(federate(FedAvg(local_steps=4)), 3)
    outcome = run(federate(Neighbours(local_steps=4, graph=graph, scale=math.inf)), 3)
    close(outcome.predictors, fedavg.predictors)
    for got, want in zip(outcome.losses, fedavg.losses, strict=True):
        close(got, want)


@pytest.mark.parametrize(("graph", "cohort"), [("kernel", 0.5), ("kernel", 1), ("inverse", 1), ("row_qp", 1)])
def test_a_graph_without_neighbours_is_local_training(graph, cohort, federate, run):
    """Of part of the clients too where far ones count nothing at all; else newcomers start from what little they count."""
    alone = run(federate(Local(local_steps=4), cohort=cohort), 4)
    outcome = run(federate(Neighbours(local_steps=4, graph=graph, scale=1e-9), cohort=cohort), 4)
    close(outcome.predictors, alone.predictors)
    for got, want in zip(outcome.losses, alone.losses, strict=True):
        close(got, want)


def test_near_clients_end_with_near_models(federate, run):
    outcome = run(federate(Neighbours(local_steps=4, scale=0.5)), 3)
    apart = torch.cdist(outcome.predictors, outcome.predictors)
    within = max(float(apart[group][:, group].max()) for group in GROUPS)
    assert within < float(apart[GROUPS[0]][:, GROUPS[1]].min())


def test_tuned_neighbours_lie_between_neighbours_and_finetune(federate, run):
    steps = {"local_steps": 4, "personal_lr": 0.05}
    plain = run(federate(Neighbours(local_steps=4, scale=0.5)), 3)
    untuned = run(federate(TunedNeighbours(**steps, scale=0.5, personal_steps=0)), 3)
    assert torch.equal(untuned.predictors, plain.predictors)
    tuned = run(federate(TunedNeighbours(**steps, scale=0.5, personal_steps=5)), 3)
    assert torch.equal(tuned.server, plain.server)  # what is tuned stays with the client
    assert not torch.allclose(tuned.predictors, plain.predictors, atol=1e-3)
    finetune = run(federate(FineTune(**steps, personal_steps=5)), 3)
    endless = run(federate(TunedNeighbours(**steps, scale=math.inf, personal_steps=5)), 3)
    close(endless.predictors, finetune.predictors)


def test_gated_neighbours_lie_between_neighbours_and_the_gate(federate, run):
    steps = {"lr": 0.2, "local_steps": 4, "personal_lr": 0.2, "personal_steps": 3, "tune_lr": 0.1}
    near = {"graph": "kernel", "scale": 0.5}
    plain = run(federate(Neighbours(lr=0.2, local_steps=4, **near)), 3)
    federation = federate(GatedNeighbours(**steps, **near))
    gated = run(federation, 3)
    assert torch.equal(gated.server, plain.server)  # what is mixed stays with the client
    average, tuned, own = client_experts(federation, gated.server, torch.arange(6), 3)
    close(average, plain.predictors)
    gate = federate(Gate(**steps))
    whole = run(gate, 3)
    close(
        own, client_experts(gate, whole.server, torch.arange(6), 3)[2]
    )  # alone is alone, whoever else is averaged
    assert not torch.allclose(tuned, average, atol=1e-3)
    endless = federate(GatedNeighbours(**steps, scale=math.inf))
    sent = run(endless, 3)
    for one, other in zip(
        client_experts(endless, sent.server, torch.arange(6), 3),
        client_experts(gate, whole.server, torch.arange(6), 3),
        strict=True,
    ):
        close(one, other)


def test_a_server_of_too_few_rows_is_refused(federate):
    federation = federate(Neighbours(local_steps=1))
    row = federation.initial_row()
    with pytest.raises(
        PersoflError, match=r"has 1 row\(s\), and 'neighbours' keeps 6; start from federation.initial_rows"
    ):
        run_round(federation, row, 0, row.sub_)


# --- cohorts, clients held out -----------------------------------------------------------------------------


def test_a_row_is_what_its_client_sent_last(federate):
    federation = federate(Neighbours(local_steps=3), cohort=0.5)
    server, sent = federation.initial_rows(), {}
    for round_ in range(9):
        anchors = federation.routes.anchors(server, torch.arange(6), federation.store.seen)
        before = server.clone()
        report = run_round(federation, server, round_, server.sub_)
        sent |= dict(zip(report.cohort.tolist(), anchors[report.cohort] - report.updates.deltas, strict=True))
        absent = [client for client in range(6) if client not in report.cohort]
        assert torch.equal(server[absent], before[absent])
        for client, model in sent.items():
            close(server[client], model)
    assert len(sent) == 6


def test_those_that_sent_nothing_count_for_nobody():
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.0, 0.6, 0.4]])
    routes, server = RowPerClient(3, lambda: weights), torch.tensor([[1.0], [10.0], [100.0]])
    sent = torch.tensor([True, False, True])
    got = routes.anchors(server, torch.tensor([2, 0, 1]), sent)
    close(got, torch.tensor([[100.0], [(0.5 + 20) / 0.7], [(0.1 + 10) / 0.2]]))
    nobody = routes.anchors(server, torch.arange(3), torch.zeros(3, dtype=torch.bool))
    assert torch.equal(nobody, server)


def test_a_cluster_without_a_client_in_the_cohort_keeps_its_model(federate):
    federation = federate(ClusterFedAvg(local_steps=3), cohort=0.2)  # one client a round
    server = federation.initial_rows()
    for round_ in range(4):
        before = server.clone()
        report = run_round(federation, server, round_, server.sub_)
        own = int(federation.routes.rows_of(report.cohort)[0])
        assert torch.equal(server[1 - own], before[1 - own])
        assert not torch.equal(server[own], before[own])


@pytest.fixture
def held_out(population):
    """The population with clients 3 and 4 held out."""
    import copy

    data, series = copy.copy(population), copy.copy(population.series)
    table = series.attributes.copy()
    table["unseen"] = [k in (3, 4) for k in range(6)]
    object.__setattr__(series, "attributes", table)
    object.__setattr__(data, "series", series)
    return data


def test_a_client_held_out_has_the_model_of_the_nearest_cluster(held_out, federate, run):
    federation = federate(ClusterFedAvg(local_steps=3, max_clusters=2), held_out)
    outcome = run(federation, 2)
    assert not federation.store.seen[[3, 4]].any()
    assert federation.routes.labels.tolist() == [0, 1, 0, 0, 1, 1]
    assert torch.equal(outcome.predictors[3], outcome.predictors[0])
    assert torch.equal(outcome.predictors[4], outcome.predictors[1])


def test_a_client_held_out_takes_from_its_neighbours_and_gives_nothing(held_out, federate, run):
    federation = federate(Neighbours(local_steps=3, scale=0.3), held_out)
    outcome = run(federation, 2)
    weights = federation.routes.weights
    assert (weights[:, [3, 4]] == 0).all()
    close(outcome.predictors, weights @ outcome.server)
    assert float(weights[3, [0, 2]].sum()) > 0.99
    assert float(weights[4, [1, 5]].sum()) > 0.99


# --- aggregation row by row --------------------------------------------------------------------------------


def updates_of(shares, seed=0, parameters=5):
    generator = torch.Generator().manual_seed(seed)
    cohort = shares.shape[1]
    deltas = torch.randn(cohort, parameters, generator=generator)
    weights = torch.rand(cohort, 1, generator=generator) + 0.1
    return Updates(torch.arange(cohort), deltas, weights, 0, 0, shares=shares)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 10_000), st.booleans())
def test_the_mean_of_all_rows_is_that_of_each(rows, cohort, seed, soft):
    generator = torch.Generator().manual_seed(seed)
    own = torch.randint(rows, (cohort,), generator=generator)
    shares = (own == torch.arange(rows)[:, None]).float()
    if soft:
        shares = torch.rand(rows, cohort, generator=generator) * (
            torch.rand(rows, cohort, generator=generator) > 0.4
        )
    updates = updates_of(shares, seed)
    got = WeightedMean().rows(updates)
    close(got, Aggregator.rows(WeightedMean(), updates))
    for row, share in enumerate(shares):
        weight = share.double() * updates.weights[:, 0].double()
        want = weight @ updates.deltas.double() / weight.sum() if weight.sum() > 0 else torch.zeros(5)
        close(got[row], want.float())


class Median(Aggregator):
    def __call__(self, updates):
        return updates.deltas.median(0, keepdim=True).values


def test_a_robust_rule_of_ones_own_works_row_by_row(federate):
    federation = federate(ClusterFedAvg(local_steps=3), parts=RoundParts(aggregator=Median()))
    given_ = []
    report = run_round(federation, federation.initial_rows(), 0, given_.append)
    for row, group in enumerate(GROUPS):
        assert torch.equal(given_[0][row], report.updates.deltas[group].median(0).values)


def test_a_rows_updates_take_their_payload_along():
    updates = updates_of(torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]))
    updates.payload["size"] = torch.tensor([3.0, 4.0, 5.0])
    own = updates.to_row(0)
    assert own.clients.tolist() == [0, 2]
    assert own.payload["size"].tolist() == [3.0, 5.0]
    close(own.weights, updates.weights[[0, 2]] * torch.tensor([[1.0], [0.5]]))
    assert own.shares is None
    assert own.to_row(0) is own


def test_clipping_bounds_what_a_client_sends_beyond_its_anchor(federate):
    federation = federate(Neighbours(local_steps=5), clip=0.01)
    server = federation.initial_rows()
    for round_ in range(3):
        anchors = federation.routes.anchors(server, torch.arange(6), federation.store.seen)
        run_round(federation, server, round_, server.sub_)
        assert ((server - anchors).norm(dim=1) <= 0.01 * (1 + 1e-4)).all()


def test_shared_rows_of_ones_own(federate, run):
    """Two rows that learn from everyone, from which two halves start: both are FedAvg."""

    class Halves(Routes):
        count = 2

        def rows_of(self, clients):
            return clients % 2

        def shares(self, cohort):
            return torch.ones(2, len(cohort))

    @dataclass(frozen=True, kw_only=True)
    class Both(Algorithm):
        def phases(self):
            return (Phase("shared", "local_steps", shared_step),)

        def routes(self, relations):
            return Halves()

    both, fedavg = run(federate(Both(local_steps=3)), 3), run(federate(FedAvg(local_steps=3)), 3)
    close(both.server, fedavg.server.expand(2, -1))
    close(both.predictors, fedavg.predictors)


# --- names, checkpoints ------------------------------------------------------------------------------------


def test_methods_are_tuned_by_name():
    assert set(search_space("cluster_fedavg")) == {"lr"}
    assert search_space("neighbours").keys() == {"lr", "graph", "scale"}
    assert search_space("neighbours")["graph"] == {"choices": ["kernel", "inverse", "row_qp"]}
    assert search_space("tuned_neighbours").keys() == {
        "lr",
        "graph",
        "scale",
        "personal_lr",
        "personal_steps",
    }
    method = parse_method("neighbours", {"graph": "row_qp", "scale": 0.3}, DistanceConfig(kind="gaussian"))
    assert method.algorithm == Neighbours(graph="row_qp", scale=0.3)
    assert method_params(parse_method("cluster_fedavg", {"max_clusters": 4}))["max_clusters"] == 4


def test_bad_options_come_in_one_message():
    with pytest.raises(PersoflError) as error:
        ClusterFedAvg(method="spectrum", choose="best", max_clusters=0)
    for part in (
        "method=spectrum: choose of agglomerative",
        "choose=best",
        "max_clusters=0: give at least 1",
    ):
        assert part in str(error.value)
    with pytest.raises(
        PersoflError, match=r"scale=-1.0: must be positive; personal_steps=-1: must not be negative"
    ):
        TunedNeighbours(scale=-1.0, personal_steps=-1)
    with pytest.raises(PersoflError, match=r"graph=kernels: choose of inverse, kernel, row_qp; scale=0"):
        Neighbours(graph="kernels", scale=0)


def test_a_checkpoint_with_other_clusters_is_refused(module, tmp_path, trainer):
    first = module(ClusterFedAvg(local_steps=2))
    assert first.server.shape[0] == 2
    runner = trainer(1)
    runner.fit(first)
    runner.save_checkpoint(tmp_path / "two.ckpt")
    with pytest.raises(PersoflError, match=r"server has 2 rows, this run's 1: other clusters or clients"):
        trainer(2).fit(
            module(ClusterFedAvg(local_steps=2, max_clusters=1)),
            ckpt_path=tmp_path / "two.ckpt",
            weights_only=True,
        )


def test_an_old_checkpoint_of_one_row_still_loads(module, tmp_path, trainer):
    """What a checkpoint of FedAvg held before there were several rows, it holds now."""
    first = module("fedavg")
    runner = trainer(2)
    runner.fit(first)
    runner.save_checkpoint(tmp_path / "one.ckpt")
    saved = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert saved["state_dict"]["server"].shape[0] == 1
    assert set(saved["state_dict"]) == {"server", "rounds"}
    assert {"clients", "method", "names"} <= set(saved)
    again = module("fedavg")
    trainer(2).fit(again, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert torch.equal(again.server, first.server)
