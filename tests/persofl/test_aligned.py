"""Embeddings and penalties on them under every oracle, against the plain module; and the method that aligns them."""

import copy

import pytest
import torch
from torch import nn

from persofl import Aligned, Ditto, FedAvg, PersoflError, Shape, build_model
from persofl.algorithms.aligned import sorted_along, squared_gap
from persofl.embedding import joined, watch_head
from persofl.layout import Layout, changing_buffers
from persofl.losses import SquaredError
from persofl.oracles import ORACLES, Batch, Penalty
from personalization import quantile_sketch, sliced_wasserstein, unit_projections

from .conftest import SMALL

TINY = {
    **SMALL,
    "dscnn": {"channels": 4, "blocks": 1, "groups": 2},
    "transformer": {"width": 8, "heads": 2, "layers": 1, "feedforward": 8},
}
STRENGTH = torch.tensor([[0.0], [0.5], [2.0]])


def problem(name, seed=0):
    """A model, rows of three clients near it, and a batch."""
    model = build_model(name, Shape(24, 6), seed=seed, **TINY[name])
    generator = torch.Generator().manual_seed(seed)
    layout = Layout.of(model)
    rows = layout.row(model) + 0.1 * torch.randn(3, layout.size, generator=generator)
    batch = Batch(torch.randn(3, 8, 24, 1, generator=generator), torch.randn(3, 8, 6, generator=generator))
    return model, layout, rows, batch


def plain(model, layout, row):
    return layout.load(copy.deepcopy(model), row)


def embedding_of(module, x):
    with watch_head(module) as seen:
        module(x)
    return joined(seen)


def mean_gap(embedding, target):
    """A penalty with a gradient that is easy to check: the squared distance of the means."""
    return (embedding.mean(-2) - target).square().sum(-1)


@pytest.mark.parametrize("oracle", sorted(ORACLES))
@pytest.mark.parametrize("name", sorted(TINY))
def test_embeddings_are_those_of_the_plain_module(name, oracle):
    model, layout, rows, batch = problem(name)
    got = ORACLES[oracle](model, layout, SquaredError()).embed(rows, batch.x)
    for client in range(3):
        with torch.no_grad():
            want = embedding_of(plain(model, layout, rows[client]), batch.x[client])
        torch.testing.assert_close(got[client], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("oracle", sorted(ORACLES))
@pytest.mark.parametrize("name", sorted(TINY))
def test_a_penalty_is_in_the_gradient_and_not_in_the_loss(name, oracle):
    model, layout, rows, batch = problem(name)
    built = ORACLES[oracle](model, layout, SquaredError())
    target = built.embed(rows, batch.x).mean(1) - 0.3
    losses, grads = built.grad(rows.clone(), batch, Penalty(mean_gap, target, STRENGTH))
    for client in range(3):
        module = plain(model, layout, rows[client])
        with watch_head(module) as seen:
            loss = SquaredError()(module(batch.x[client]), batch.y[client]).mean()
        total = loss + STRENGTH[client, 0] * mean_gap(joined(seen), target[client])
        want = torch.autograd.grad(total, list(module.parameters()))
        torch.testing.assert_close(losses[client], loss.detach(), rtol=1e-4, atol=1e-5)
        flat = torch.cat([part.reshape(-1) for part in want])
        torch.testing.assert_close(grads[client], flat, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("oracle", sorted(ORACLES))
def test_the_sliced_penalty_is_the_same_under_every_oracle(oracle):
    model, layout, rows, batch = problem("gru")
    directions = unit_projections(4, 16)
    results = []
    for name in ("loop", oracle):
        built = ORACLES[name](model, layout, SquaredError())
        target = sorted_along(directions, built.embed(layout.row(model).expand(3, -1), batch.x))
        penalty = Penalty(lambda own, to: squared_gap(directions, own, to), target, STRENGTH)
        results.append(built.grad(rows.clone(), batch, penalty))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("oracle", sorted(ORACLES))
def test_no_strength_is_no_penalty_and_nothing_is_left_behind(oracle):
    model, layout, rows, batch = problem("mlp")
    built = ORACLES[oracle](model, layout, SquaredError())
    penalty = Penalty(mean_gap, torch.zeros(3, 8), torch.zeros(3, 1))
    before = built.grad(rows.clone(), batch)
    torch.testing.assert_close(built.grad(rows.clone(), batch, penalty), before, rtol=1e-5, atol=1e-7)
    built.embed(rows, batch.x)
    assert all(torch.equal(*pair) for pair in zip(built.grad(rows.clone(), batch), before, strict=True))


def test_embedding_between_two_steps_does_not_disturb_them():
    """The batched oracle keeps its module tied to the rows of a phase."""
    model, layout, rows, batch = problem("mlp")
    built = ORACLES["batched"](model, layout, SquaredError())
    lr, plainly, between = torch.full((3, 1), 0.1), rows.clone(), rows.clone()
    for _ in range(2):
        built.descend(plainly, batch, lr)
    built.descend(between, batch, lr)
    built.embed(rows, batch.x)
    built.descend(between, batch, lr)
    assert torch.equal(between, plainly)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(-2), nn.Linear(24, 5), nn.BatchNorm1d(5))
        self.head = nn.Linear(5, 6)

    def forward(self, x):
        return self.head(self.body(x))


def test_embedding_leaves_statistics_alone():
    model = Normed()
    x = torch.randn(3, 8, 24, 1, generator=torch.Generator().manual_seed(0))
    layout = Layout.of(model, changing_buffers(model, x[0]))
    rows = layout.row(model).repeat(3, 1)
    before = rows.clone()
    got = ORACLES["loop"](model, layout, SquaredError()).embed(rows, x)
    assert torch.equal(rows, before)
    torch.testing.assert_close(
        got.mean(1), torch.zeros(3, 5), rtol=0, atol=1e-5
    )  # of the batch, as in training


@pytest.mark.parametrize("oracle", ["loop", "vmap"])
def test_a_model_without_a_head_has_nothing_to_align(oracle, federate, run):
    model = nn.Sequential(nn.Flatten(-2), nn.Linear(24, 6))
    with pytest.raises(PersoflError, match="Sequential has no layer called 'head'"):
        run(federate(Aligned(), model=model, oracle=oracle), 1)


# --- the gap -----------------------------------------------------------------------------------------------


def test_the_gap_is_the_squared_sliced_distance_of_the_batches():
    generator = torch.Generator().manual_seed(2)
    own, other = torch.randn(2, 4, 16, 5, generator=generator, dtype=torch.float64)
    directions = unit_projections(5, 24, like=own)
    levels = (torch.arange(16) + 0.5) / 16
    sketches = [quantile_sketch(x, directions, levels) for x in (own, other)]
    got = squared_gap(directions, own, sorted_along(directions, other))
    torch.testing.assert_close(got, sliced_wasserstein(*sketches) ** 2)
    assert (
        squared_gap(directions, own[:, torch.randperm(16)], sketches[0]) < 1e-20
    ).all()  # a law has no order


def test_the_gap_has_the_gradient_of_finite_differences():
    generator = torch.Generator().manual_seed(3)
    own, other = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    directions = unit_projections(3, 7, like=own)
    target = sorted_along(directions, other)
    assert torch.autograd.gradcheck(lambda x: squared_gap(directions, x, target), own.requires_grad_())


def test_where_the_laws_agree_the_gap_pulls_nowhere():
    own = torch.randn(6, 3, generator=torch.Generator().manual_seed(4)).requires_grad_()
    directions = unit_projections(3, 7)
    squared_gap(directions, own, sorted_along(directions, own.detach())).backward()
    assert own.grad.eq(0).all()


# --- the method --------------------------------------------------------------------------------------------

COMMON = {"local_steps": 4, "personal_steps": 6}


def test_without_the_pull_the_personal_model_trains_alone(federate, run):
    aligned, ditto = (run(federate(a), 3) for a in (Aligned(align=0.0, **COMMON), Ditto(prox=0.0, **COMMON)))
    torch.testing.assert_close(aligned.predictors, ditto.predictors, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("align", [0.0, 3.0])
def test_the_server_sees_fedavg(align, federate, run):
    aligned, fedavg = run(federate(Aligned(align=align, **COMMON))), run(federate(FedAvg(local_steps=4)))
    assert torch.equal(aligned.server, fedavg.server)


@pytest.mark.parametrize("oracle", sorted(ORACLES))
def test_a_stronger_pull_keeps_embeddings_nearer_to_the_anchors(oracle, federate, run):
    """It acts on the gradient: the gap after training falls with its strength."""
    gaps = []
    for align in (0.0, 0.3, 3.0):
        federation = federate(Aligned(align=align, **COMMON), oracle=oracle)
        outcome = run(federation, 1)
        x, _ = federation.data.gather(
            federation.data.positions("validation", torch.arange(6), torch.arange(4).expand(6, -1))
        )
        own = federation.oracle.embed(outcome.predictors.to(x), x)
        anchors = federation.oracle.embed(outcome.servers[0].to(x).expand(6, -1), x)
        directions = unit_projections(own.shape[-1], 64, like=own)
        gaps.append(squared_gap(directions, own, sorted_along(directions, anchors)).mean())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.5 * gaps[0]


def test_a_model_that_is_its_head_is_left_alone(federate, run):
    one, other = (run(federate(Aligned(align=a, **COMMON), model="dlinear")) for a in (0.0, 5.0))
    torch.testing.assert_close(one.predictors, other.predictors)


def test_bad_fields_come_in_one_message():
    with pytest.raises(
        PersoflError, match=r"align=-1: must not be negative; .*projections=0: give at least 1"
    ):
        Aligned(align=-1, projections=0)
