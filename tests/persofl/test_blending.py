"""Blending two models' predictions: the weights that minimise, the halves that do not leak, and the ends."""

import pytest
import torch

from persofl import FedAvg, FederatedModule, Local, Method, build_model
from persofl.algorithms import Blend
from persofl.blending import GRID, Mixed, blend_weights, halves
from persofl.evaluation import client_experts, evaluate
from persofl.federation import RoundConfig
from persofl.models import Shape
from personalization import build_modulator

EVERYONE = torch.arange(6)


@pytest.fixture
def trained(federate):
    """A federation of six clients whose own models moved away from the server's row."""

    def build(**options):
        federation = federate(Blend(lr=0.2, local_steps=3, personal_lr=0.2, personal_steps=3, **options))
        server = federation.initial_row()
        generator = torch.Generator().manual_seed(0)
        own = server + 0.3 * torch.randn(6, server.shape[1], generator=generator).to(server)
        federation.store.write(EVERYONE, {"personal": own})
        return federation, server

    return build


def weights_of(federation, server, span="test"):
    experts = client_experts(federation, server, EVERYONE)
    return blend_weights(federation, experts, EVERYONE, federation.personaliser.plan(EVERYONE), span)


def validation_error(federation, server, client, weight, half=None):
    """Mean absolute error of one client at one weight, the slow way."""
    data, alone = federation.data, torch.tensor([client])
    count = int(data.count("validation")[client])
    x, y = data.gather(data.positions("validation", alone, torch.arange(count)[None])[0])
    experts = client_experts(federation, server, alone)
    outputs = [federation.oracle.predict(rows, x[None])[0] for rows in experts]
    errors = ((1 - weight) * outputs[0] + weight * outputs[1] - y).abs().mean(1)
    later = torch.arange(count) >= (count + 1) // 2
    chosen = torch.ones(count, dtype=torch.bool) if half is None else later == bool(half)
    return float(errors[chosen].sum())


def test_full_trust_takes_the_best_weight_of_the_validation_span(trained):
    federation, server = trained(trust=1.0)
    weights = weights_of(federation, server)
    assert torch.equal(weights[:, 0], weights[:, 1])
    for client in range(6):
        errors = [validation_error(federation, server, client, float(a)) for a in GRID]
        assert float(weights[client, 0]) == pytest.approx(
            float(GRID[min(range(len(GRID)), key=errors.__getitem__)])
        )
    assert len(set(weights[:, 0].tolist())) > 1


def test_each_half_of_the_validation_span_takes_the_other_s_choice(trained):
    federation, server = trained(trust=1.0)
    weights = weights_of(federation, server, "validation")
    for client in range(6):
        for half in (0, 1):
            errors = [validation_error(federation, server, client, float(a), 1 - half) for a in GRID]
            best = float(GRID[min(range(len(GRID)), key=errors.__getitem__)])
            assert float(weights[client, half]) == pytest.approx(best)


@pytest.mark.parametrize(("trust", "mix"), [(0.0, 0.3), (0.25, 0.8)])
def test_trust_shrinks_the_choice_towards_the_mix(trust, mix, trained):
    federation, server = trained(trust=trust, mix=mix)
    best, server = weights_of(*trained(trust=1.0)), server
    torch.testing.assert_close(weights_of(federation, server), (1 - trust) * mix + trust * best)


def test_a_steered_mix_is_where_the_shrinkage_leads(federate):
    method = Method(
        Blend(lr=0.2, local_steps=2, trust=0.0, mix=0.5), (build_modulator("mix_by_trend", slope=0.9),)
    )
    federation = federate(method)
    weights = weights_of(federation, federation.initial_row())
    torch.testing.assert_close(weights[:, :1], federation.personaliser.plan(EVERYONE).mix.cpu())
    assert weights[:, 0].std() > 0


@pytest.mark.parametrize(
    ("mix", "like"), [(0.0, FedAvg(lr=0.1, local_steps=4)), (1.0, Local(lr=0.1, local_steps=4))]
)
def test_a_blend_at_its_ends_is_fedavg_and_local(mix, like, equals, federate, run):
    blend = Blend(lr=0.1, local_steps=4, personal_lr=0.1, personal_steps=4, mix=mix, trust=0.0)
    ends, size = [], int(equals.count("train")[0])
    for algorithm in (blend, like):
        federation = federate(
            algorithm, equals, batch_size=size
        )  # full batches: the streams' names do not matter
        outcome = run(federation, 3)
        ends.append(evaluate(federation, outcome.servers[-1], "test", 3)["nmae"])
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_the_server_sees_fedavg(federate, run):
    blend, fedavg = run(federate(Blend(lr=0.1, local_steps=4))), run(federate(FedAvg(lr=0.1, local_steps=4)))
    assert torch.equal(blend.server, fedavg.server)


@pytest.mark.parametrize(("count", "firsts"), [(1, 1), (2, 1), (5, 3), (6, 3)])
def test_halves_follow_time(count, firsts):
    assert halves(torch.arange(count)[None], torch.tensor([[count]])).tolist() == [
        [0] * firsts + [1] * (count - firsts)
    ]


def test_a_client_s_model_blends_as_its_evaluation_does(trained):
    federation, _ = trained(trust=1.0)
    module = FederatedModule(
        federation.data,
        build_model("mlp", Shape(*federation.data.shape[:2]), hidden=(5,)),
        Blend(trust=1.0),
        config=RoundConfig(),
    )
    model = module.client_model(2)
    assert isinstance(model, Mixed)
    experts = client_experts(module.federation, module.server.detach(), EVERYONE)
    weights = blend_weights(
        module.federation, experts, EVERYONE, module.federation.personaliser.plan(EVERYONE), "test"
    )
    torch.testing.assert_close(model.weights, torch.stack([1 - weights[2, 0], weights[2, 0]]))
    data = module.federation.data
    x, _ = data.gather(data.positions("test", torch.tensor([2]), torch.arange(3)[None])[0])
    with torch.no_grad():
        first, second = (part(x) for part in model.models)
        torch.testing.assert_close(model(x), torch.lerp(first, second, weights[2, 0]))


def test_bad_shares_are_refused():
    with pytest.raises(ValueError, match="trust=2"):
        Blend(trust=2)
