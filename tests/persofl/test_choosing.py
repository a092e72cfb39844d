"""Methods whose clients choose a model on their validation span: what they train, choose, and never see."""

import dataclasses

import pytest
import torch

from data_loaders import ForecastWindows, SimulatedHouseholds, WindowSpec, make_windows
from persofl import BestOf, Ditto, FedAvg, PersoflError, TunedDitto, parse_method
from persofl.algorithms import Blend
from persofl.choosing import choices, chosen_rows
from persofl.evaluation import (
    client_experts,
    client_rows,
    evaluate,
    evaluate_clients,
    population_metrics,
)

from .people import speakers
from .test_engine_tasks import network

EVERYONE = torch.arange(6)
COMMON = {"lr": 0.2, "local_steps": 3, "personal_steps": 4}
GRID = (30.0, 1.0, 0.0)


@pytest.fixture
def trained(federate):
    """A federation whose candidates are strewn about its first row, for each client another is best."""

    def build(algorithm=None, spread=0.3, **options):
        federation = federate(algorithm or TunedDitto(grid=GRID, **COMMON), **options)
        server = federation.initial_row()
        clients = len(federation.data)
        generator = torch.Generator().manual_seed(5)
        names = federation.algorithm.new_client(server.expand(clients, -1), federation.personaliser.whole)
        rows = {
            name: server + spread * torch.randn(clients, server.shape[1], generator=generator).to(server)
            for name in names
        }
        federation.store.write(torch.arange(clients), rows)
        return federation, server

    return build


def error_of(federation, row, client, span="validation", half=None):
    """Mean absolute scaled error, or mean loss of classes, of one model on one client's span, the slow way."""
    data, alone = federation.data, torch.tensor([client])
    count = int(data.count(span)[client])
    x, y = data.gather(data.positions(span, alone, torch.arange(count)[None])[0])
    output = federation.oracle.predict(row[None], x[None])[0]
    loss = federation.oracle.loss
    error = (loss.point(output) - y).abs().mean(1) if federation.task.floats else loss(output, y)
    later = torch.arange(count) >= (count + 1) // 2
    return float(error[torch.ones_like(later) if half is None else later == bool(half)].sum())


def best_of(federation, experts, client, half=None):
    errors = [error_of(federation, rows[client], client, half=half) for rows in experts]
    return min(range(len(errors)), key=errors.__getitem__)


# --- what is trained ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prox", [0.0, 0.7, 30.0])
def test_a_grid_of_one_is_ditto(prox, federate, run):
    ditto, tuned = (
        run(federate(a, cohort=0.7)) for a in (Ditto(prox=prox, **COMMON), TunedDitto(grid=(prox,), **COMMON))
    )
    assert torch.equal(tuned.predictors, ditto.predictors)
    assert torch.equal(tuned.server, ditto.server)


def test_every_strength_has_the_model_that_ditto_would_have_trained(federate, run):
    tuned = run(federate(TunedDitto(grid=GRID, **COMMON)), 3)
    for number, prox in enumerate(GRID):
        ditto = run(federate(Ditto(prox=prox, **COMMON)), 3)
        assert torch.equal(tuned.store[f"rows.personal{number}"], ditto.store["rows.personal"])
        assert torch.equal(tuned.server, ditto.server)


def test_best_of_trains_what_fedavg_and_the_blend_do(federate, run):
    own = {"lr": 0.2, "local_steps": 3, "personal_lr": 0.3, "personal_steps": 4}
    best, blend = run(federate(BestOf(**own), cohort=0.7)), run(federate(Blend(**own), cohort=0.7))
    fedavg = run(federate(FedAvg(lr=0.2, local_steps=3), cohort=0.7))
    assert torch.equal(best.store["rows.personal"], blend.store["rows.personal"])
    assert torch.equal(best.server, fedavg.server)
    for client, row in enumerate(best.predictors):
        assert torch.equal(row, best.server[0]) or torch.equal(row, best.store["rows.personal"][client])


# --- what is chosen ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm", [TunedDitto(grid=GRID, **COMMON), BestOf(**COMMON)], ids=["tuned_ditto", "best_of"]
)
def test_each_client_takes_what_is_best_on_its_validation_span(algorithm, trained):
    federation, server = trained(algorithm, spread=0.1)
    experts = client_experts(federation, server, EVERYONE)
    choice = choices(federation, experts, EVERYONE, "test")
    expected = [best_of(federation, experts, client) for client in range(6)]
    assert choice.tolist() == [[number, number] for number in expected]
    assert len(set(expected)) > 1
    rows = client_rows(federation, server, EVERYONE)
    for client, number in enumerate(expected):
        assert torch.equal(rows[client], experts[number][client])


def test_classes_choose_by_the_loss(trained, federate):
    data = speakers()
    federation, server = trained(data=data, model=network(data), loss=None)
    experts = client_experts(federation, server, EVERYONE)
    expected = [best_of(federation, experts, client) for client in range(6)]
    assert choices(federation, experts, EVERYONE, "test")[:, 0].tolist() == expected


def test_the_test_span_is_predicted_with_the_choice(trained):
    federation, server = trained()
    rows = client_rows(federation, server, EVERYONE)
    got = evaluate(federation, server, "test")["nmae"]
    plain = trained(BestOf(**COMMON))[0]  # one model a client, evaluated as any method's
    plain.store.write(EVERYONE, {"personal": rows})
    want = population_metrics(plain, evaluate_clients(plain, rows, EVERYONE, "test"))["nmae"]
    torch.testing.assert_close(got, want)


def test_each_half_of_the_validation_span_is_predicted_with_the_choice_of_the_other(trained):
    federation, server = trained()
    experts = client_experts(federation, server, EVERYONE)
    choice = choices(federation, experts, EVERYONE, "validation")
    errors = []
    for client in range(6):
        halves = [best_of(federation, experts, client, half=1 - half) for half in (0, 1)]
        assert choice[client].tolist() == halves
        errors.append(sum(error_of(federation, experts[halves[h]][client], client, half=h) for h in (0, 1)))
    assert (choice[:, 0] != choice[:, 1]).any()
    data = federation.data
    means = torch.tensor(errors, dtype=torch.float64) / data.count("validation")
    got = evaluate(federation, server, "validation")["mae"]
    torch.testing.assert_close(got, means * data.std[:, 0], rtol=1e-4, atol=1e-6)


def test_measured_where_it_was_chosen_it_would_look_better(trained):
    """The optimism that the halves avoid: the least of several errors is below what the choice is worth."""
    federation, server = trained()
    experts = client_experts(federation, server, EVERYONE)
    rows = client_rows(federation, server, EVERYONE)
    inside = torch.tensor([error_of(federation, rows[client], client) for client in range(6)])
    across = evaluate(federation, server, "validation")["mae"] / federation.data.std[:, 0]
    assert (inside / federation.data.count("validation") <= across + 1e-6).all()
    assert len(experts) == len(GRID)


def test_the_test_span_is_never_looked_at(trained):
    spec = WindowSpec(lookback=24, horizon=6, validation_stride=2)
    series = SimulatedHouseholds(clients=6, days=30, min_days=10, seed=3, heterogeneity=1.0).load()
    changed = series.values.clone()
    for begin, end in zip(series.offsets[:-1].tolist(), series.offsets[1:].tolist(), strict=True):
        changed[begin + spec.bounds(end - begin)["test"][0] : end] = 7.0
    picked = []
    for values in (series.values, changed):
        data: ForecastWindows = make_windows(dataclasses.replace(series, values=values), spec)
        federation, server = trained(data=data)
        picked.append(choices(federation, client_experts(federation, server, EVERYONE), EVERYONE, "test"))
    assert torch.equal(*picked)


def test_a_client_without_validation_examples_takes_the_first(trained):
    data = speakers()
    data.counts["test"][2] += data.counts["validation"][2]
    data.counts["validation"][2] = 0
    data.counts["test"][4] += data.counts["validation"][4] - 1
    data.counts["validation"][4] = 1  # the other half of which is empty
    federation, server = trained(data=data, model=network(data), loss=None)
    experts = client_experts(federation, server, EVERYONE)
    assert choices(federation, experts, EVERYONE, "test")[2].tolist() == [0, 0]
    assert choices(federation, experts, EVERYONE, "validation")[4][0] == 0


def test_choosing_rows():
    candidates = tuple(torch.full((4, 3), float(number)) for number in range(3))
    assert chosen_rows(candidates, torch.tensor([2, 0, 1, 2]))[:, 0].tolist() == [2, 0, 1, 2]
    assert candidates[0].eq(0).all()  # left as it was


# --- in the shell ------------------------------------------------------------------------------------------


def test_the_model_handed_out_is_the_one_chosen(module, trainer, population):
    built = module(parse_method("tuned_ditto", {**COMMON, "grid": GRID}))
    trainer(3).fit(built)
    federation, server = built.federation, built.server.detach()
    experts = client_experts(federation, server, EVERYONE, 3)
    for client in range(6):
        expected = experts[best_of(federation, experts, client)][client]
        assert torch.equal(federation.oracle.layout.row(built.client_model(client)), expected)


@pytest.mark.parametrize("grid", [(), (-1.0,), (1.0, 1.0), (0.1, 1.0), (float("inf"),)])
def test_a_grid_that_is_none_is_refused(grid):
    with pytest.raises(
        PersoflError, match=r"Method 'tuned_ditto': grid=.* give falling strengths, none negative"
    ):
        TunedDitto(grid=grid)


def test_a_configuration_file_may_give_the_grid_as_a_list():
    assert parse_method("tuned_ditto", {"grid": [1.0, 0.1]}).algorithm == TunedDitto(grid=(1.0, 0.1))
