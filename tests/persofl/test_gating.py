"""Mixing several models: the weights tried, what they are worth the slow way, whose evidence counts, and what is unseen."""

import pytest
import torch

from persofl import FedAvg, FederatedModule, build_model
from persofl.algorithms import Gate
from persofl.blending import Mixed
from persofl.evaluation import client_experts, evaluate, group_curves, population_gate, weighed
from persofl.gating import Curves, mixed, mixtures
from persofl.models import Shape
from persofl.personaliser import DistanceConfig
from personalization.pooling import pooled_choices

EVERYONE = torch.arange(6)
COMMON = {"lr": 0.2, "local_steps": 3, "personal_lr": 0.2, "personal_steps": 3, "tune_lr": 0.1}


@pytest.fixture
def trained(federate):
    """A federation of six clients whose own models moved away from the server's row."""

    def build(pool="neighbours", **options):
        federation = federate(Gate(pool=pool, **COMMON), **options)
        server = federation.initial_row()
        generator = torch.Generator().manual_seed(0)
        own = server + 0.3 * torch.randn(6, server.shape[1], generator=generator).to(server)
        federation.store.write(EVERYONE, {"own": own})
        return federation, server

    return build


@pytest.mark.parametrize(
    ("experts", "parts", "count"), [(1, 10, 1), (2, 10, 11), (3, 10, 66), (3, 4, 15), (4, 3, 20)]
)
def test_mixtures_are_all_shares(experts, parts, count):
    weights = mixtures(experts, parts)
    assert weights.shape == (count, experts)
    assert len({tuple(row) for row in (weights * parts).round().int().tolist()}) == count
    torch.testing.assert_close(weights.sum(1), torch.ones(count))
    assert weights[0].tolist() == [1.0] + [0.0] * (experts - 1)


@pytest.mark.parametrize("trailing", [(4,), (4, 3)])
def test_outputs_are_mixed_example_by_example(trailing):
    outputs = [torch.randn(2, 5, *trailing) for _ in range(3)]
    weights = torch.rand(2, 5, 3)
    got = mixed(outputs, weights)
    for client in range(2):
        for example in range(5):
            want = sum(weights[client, example, k] * outputs[k][client, example] for k in range(3))
            torch.testing.assert_close(got[client, example], want)
    one = torch.tensor([0.0, 1.0, 0.0])
    assert torch.equal(mixed(outputs, one), outputs[1])


def test_curves_are_errors_of_mixed_predictions(trained):
    federation, server = trained()
    curves = group_curves(federation, server, EVERYONE)
    experts = client_experts(federation, server, EVERYONE)
    data = federation.data
    for client in range(6):
        count = int(data.count("validation")[client])
        x, y = data.gather(data.positions("validation", torch.tensor([client]), torch.arange(count)[None])[0])
        outputs = [federation.oracle.predict(rows[client : client + 1], x[None])[0] for rows in experts]
        later = torch.arange(count) >= (count + 1) // 2
        assert curves.examples[client].tolist() == [int((~later).sum()), int(later.sum())]
        for number in (0, 17, 65):
            output = sum(w * o for w, o in zip(curves.weights[number].tolist(), outputs, strict=True))
            errors = (output - y).abs().mean(1)
            for half in (0, 1):
                want = float(errors[later == bool(half)].sum())
                assert float(curves.errors[client, half, number]) == pytest.approx(want, rel=1e-4, abs=1e-5)


def test_groups_of_clients_make_the_same_gate(trained):
    federation, server = trained()
    whole = population_gate(federation, server, [EVERYONE])
    parts = population_gate(federation, server, EVERYONE.split(4))
    for span in ("validation", "test"):
        assert torch.equal(whole.of(EVERYONE, span), parts.of(EVERYONE, span))


@pytest.mark.parametrize("pool", ["nobody", "everyone"])
def test_whose_evidence_counts(pool, trained):
    federation, server = trained(pool)
    curves = group_curves(federation, server, EVERYONE)
    gate = population_gate(federation, server, [EVERYONE])
    everyone = torch.full((6, 6), 1 / 6, dtype=torch.float64)
    strengths = {"strengths": [0.0]} if pool == "nobody" else {}
    own = int(curves.weights[:, 2].argmax())
    assert curves.weights[own].tolist() == [0.0, 0.0, 1.0]
    expected = pooled_choices(
        curves.errors, curves.examples, [everyone], safe=(0, own), harm=federation.algorithm.harm, **strengths
    )
    assert torch.equal(gate.of(EVERYONE, "test")[:, 0], curves.weights[expected.options])
    assert torch.equal(gate.of(EVERYONE, "validation")[:, 1], curves.weights[expected.crossed[:, 1]])


def test_neighbours_are_those_of_the_distances_and_dealt_ones_others(trained):
    gates = []
    for distance in (DistanceConfig(), DistanceConfig(permute=True)):
        federation, server = trained()
        federation.personaliser._config = distance
        gates.append(population_gate(federation, server, [EVERYONE]))
        assert len(gates[-1].chosen.options) == 6
    assert torch.equal(gates[0].weights, gates[1].weights)


def test_the_gate_predicts_no_worse_than_its_models_on_the_validation_span_it_chose_on(trained):
    federation, server = trained("nobody")
    curves = group_curves(federation, server, EVERYONE)
    chosen = curves.errors.sum(1).min(1).values
    alone = [int((curves.weights[:, k] == 1).nonzero()[0, 0]) for k in range(3)]
    assert (chosen.unsqueeze(1) <= curves.errors.sum(1)[:, alone]).all()


def test_the_server_sees_fedavg(federate, run):
    gate, fedavg = run(federate(Gate(**COMMON))), run(federate(FedAvg(lr=0.2, local_steps=3)))
    assert torch.equal(gate.server, fedavg.server)


def test_identical_clients_mix_alike(equals, federate, run):
    federation = federate(Gate(**COMMON), equals, batch_size=int(equals.count("train")[0]))
    outcome = run(federation, 2)
    gate = population_gate(federation, outcome.servers[-1], [torch.arange(len(equals))], 2)
    weights = gate.of(torch.arange(len(equals)), "test")
    assert torch.equal(weights, weights[:1].expand_as(weights))


def test_module_evaluates_as_the_functions_do_and_fits_anew_after_a_round(trained):
    federation, _ = trained()
    module = FederatedModule(
        federation.data, build_model("mlp", Shape(*federation.data.shape[:2]), hidden=(5,)), Gate(**COMMON)
    )
    server = module.server.detach()
    for span in ("validation", "test"):
        want = evaluate(module.federation, server, span)["nmae"]
        torch.testing.assert_close(
            torch.from_numpy(module.client_table(span)["nmae"].to_numpy(copy=True)), want
        )
    model = module.client_model(2)
    assert isinstance(model, Mixed)
    experts = client_experts(module.federation, server, EVERYONE)
    _, weights = weighed(module.federation, experts, EVERYONE, "test", module._gate())
    torch.testing.assert_close(model.weights, weights[2, 0])
    fitted = module._gate()
    assert module._gate() is fitted
    module._forget()
    assert module._gate() is not fitted


def test_curves_join(trained):
    federation, server = trained()
    parts = [group_curves(federation, server, group) for group in EVERYONE.split(2)]
    joined, whole = Curves.joined(parts), group_curves(federation, server, EVERYONE)
    torch.testing.assert_close(joined.errors, whole.errors)
    assert torch.equal(joined.examples, whole.examples)


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match=r"pool=all: choose of neighbours, everyone, nobody"):
        Gate(pool="all")
    with pytest.raises(ValueError, match="harm=-1"):
        Gate(harm=-1)
    with pytest.raises(ValueError, match="tune_lr=0"):
        Gate(tune_lr=0)
