"""The three oracles agree to rounding: values, gradients and predictions, under random shapes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from persofl.errors import PersoflError
from persofl.losses import Pinball, SquaredError, build_loss
from persofl.models import MODELS, InstanceNormalised, Linear, Shape, build_model
from persofl.oracles import Batch, build_oracle

SMALL = {
    "mlp": {"hidden": (5, 4)},
    "gru": {"hidden": 4},
    "lstm": {"hidden": 4},
    "tcn": {"hidden": 3, "layers": 2, "kernel": 3},
}


class Custom(nn.Module):
    """What a user might bring: torch's own layers and an odd forward."""

    def __init__(self, lookback, horizon):
        super().__init__()
        self.norm = nn.LayerNorm(lookback)
        self.gru = nn.GRU(1, 3, batch_first=True)
        self.head = nn.Linear(3 + lookback, horizon)
        self.unused = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        flat = self.norm(x[..., 0])
        return self.head(torch.cat([flat, self.gru(x[..., :1])[1][0]], 1))


class WithBatchNorm(nn.Module):
    def __init__(self, lookback, horizon):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(lookback, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.head = nn.Linear(6, horizon)

    def forward(self, x):
        return self.head(self.body(x[..., 0]))


def problem(shape, clients, batch, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(clients, batch, shape.lookback, shape.channels, generator=generator, dtype=dtype)
    y = torch.randn(clients, batch, shape.horizon, generator=generator, dtype=dtype)
    return Batch(x, y)


def rows_for(oracle, clients, seed=0):
    start = oracle.layout.row(oracle.module)
    noise = torch.randn(
        clients, start.numel(), generator=torch.Generator().manual_seed(seed), dtype=start.dtype
    )
    return start + 0.1 * noise


@settings(max_examples=8, deadline=None)
@given(
    clients=st.integers(1, 4),
    batch=st.integers(1, 5),
    lookback=st.integers(9, 14),
    horizon=st.integers(1, 4),
    channels=st.integers(1, 3),
    norm=st.sampled_from(["none", "plain", "affine"]),
    quantiles=st.booleans(),
)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_oracles_agree(name, clients, batch, lookback, horizon, channels, norm, quantiles):
    loss = Pinball((0.1, 0.5, 0.9)) if quantiles else SquaredError()
    shape = Shape(lookback, horizon, channels, loss.outputs)
    module = build_model(name, shape, **SMALL.get(name, {})).double()
    if norm != "none":
        module = InstanceNormalised(module, channels, affine=norm == "affine").double()
    data = problem(shape, clients, batch)
    oracles = {
        kind: build_oracle(module, loss, (data.x[0], data.y[0]), kind) for kind in ("loop", "vmap", "batched")
    }
    rows = rows_for(oracles["loop"], clients)
    reference = oracles["loop"].grad(rows.clone(), data)
    forecast = oracles["loop"].predict(rows, data.x)
    for kind in ("vmap", "batched"):
        before = rows.clone()
        losses, grads = oracles[kind].grad(rows, data)
        assert torch.equal(rows, before)
        torch.testing.assert_close(losses, reference[0], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(grads, reference[1], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(oracles[kind].predict(rows, data.x), forecast, rtol=1e-9, atol=1e-11)


class Tied(nn.Module):
    """One layer used twice, one whose output goes nowhere, one that is not used."""

    batched = True

    def __init__(self, lookback, horizon):
        super().__init__()
        self.twice, self.head = Linear(lookback, lookback), Linear(lookback, horizon)
        self.idle, self.unused = Linear(lookback, 2), Linear(3, 2)

    def forward(self, x):
        x = self.twice(torch.tanh(self.twice(x.flatten(-2))))
        self.idle(x)
        return self.head(x)


def layer_twice(shape):
    """An MLP that brings its reverse pass and goes through one layer twice."""
    model = build_model("mlp", shape, hidden=(shape.lookback, shape.lookback))
    model.body[1] = model.body[0]
    return model


ODD = {"tied": lambda shape: Tied(shape.lookback, shape.horizon), "layer twice": layer_twice}


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("name", [*sorted(MODELS), *ODD])
def test_a_step_is_a_step_along_the_gradient(name, affine):
    shape = Shape(9, 2)
    plain = ODD[name](shape) if name in ODD else build_model(name, shape, **SMALL.get(name, {}))
    module = InstanceNormalised(plain, affine=affine)
    data = problem(shape, 3, 4)
    lr = torch.tensor([[0.1], [0.0], [0.5]], dtype=torch.float64)
    oracles = [
        build_oracle(module.double(), SquaredError(), (data.x[0], data.y[0]), kind)
        for kind in ("loop", "batched")
    ]
    rows = rows_for(oracles[0], 3)
    losses, grads = oracles[0].grad(rows, data)
    for oracle in oracles:
        moved = rows.clone()
        torch.testing.assert_close(oracle.descend(moved, data, lr), losses, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(moved, rows - lr * grads, rtol=1e-9, atol=1e-11)
        assert torch.equal(moved[1], rows[1])
        torch.testing.assert_close(oracle.grad(rows, data)[1], grads, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("loss", [SquaredError(), Pinball((0.1, 0.5, 0.9))])
@pytest.mark.parametrize("name", ["linear", "dlinear", "mlp"])
def test_steps_in_a_row_are_the_loops_whatever_lies_between(name, loss):
    """The batched oracle stays tied to rows from step to step; other rows, gradients and forecasts must not confuse it."""
    shape = Shape(9, 2, outputs=loss.outputs)
    module = build_model(name, shape, **SMALL.get(name, {})).double()
    data, other = problem(shape, 3, 4), problem(shape, 3, 4, seed=1)
    lr = torch.tensor([[0.1], [0.0], [0.5]], dtype=torch.float64)
    ends = []
    for kind in ("loop", "batched"):
        oracle = build_oracle(module, loss, (data.x[0], data.y[0]), kind)
        assert getattr(oracle.module, "reversible", False)
        rows, others = rows_for(oracle, 3), rows_for(oracle, 3, seed=2)
        oracle.descend(rows, data, lr)
        oracle.descend(rows, other, lr)
        oracle.descend(others, other, lr)
        oracle.descend(rows, data, lr)
        gradient = oracle.grad(rows, data)[1]
        oracle.descend(rows, other, lr)
        forecast = oracle.predict(rows, data.x)
        oracle.descend(rows[:2], Batch(data.x[:2], data.y[:2]), lr[:2])
        oracle.descend(rows, data, lr)
        ends.append((rows, others, gradient, forecast))
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("clients", [1, 4])
@pytest.mark.parametrize("name", [*sorted(MODELS), *ODD])
def test_rows_that_are_held_end_as_the_loops(name, clients):
    """With fewer clients at the end, pulls between the steps, and other rows asked for what holding leaves alone."""
    shape = Shape(9, 2)
    module = (ODD[name](shape) if name in ODD else build_model(name, shape, **SMALL.get(name, {}))).double()
    first, last = (problem(shape, clients, 4, seed) for seed in (0, 1))
    some = max(1, clients // 2)
    lr, share = (torch.linspace(0, end, clients, dtype=torch.float64)[:, None] for end in (0.3, 0.9))
    ends = []
    for kind in ("loop", "batched"):
        oracle = build_oracle(module, SquaredError(), (first.x[0], first.y[0]), kind)
        rows, anchor = rows_for(oracle, clients), rows_for(oracle, 1, seed=3).expand(clients, -1)
        with oracle.holding(rows):
            losses = [oracle.descend(rows, first, lr)]
            oracle.pull(rows, anchor, share)
            losses.append(oracle.descend(rows, last, lr))
            fewer = rows[:some]
            losses.append(oracle.descend(fewer, Batch(first.x[:some], first.y[:some]), lr[:some]))
            oracle.pull(fewer, anchor[:some], share[:some])
        after = rows.clone()
        oracle.descend(after, last, lr)
        with oracle.holding(rows):
            oracle.descend(rows, first, lr)
            oracle.descend(after, first, lr)  # other rows are none of its business
            oracle.pull(after, anchor, share)
        ends.append((*losses, rows, after))
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_a_step_that_fails_leaves_held_rows_usable():
    shape = Shape(9, 2)
    data = problem(shape, 3, 4)
    oracle = build_oracle(
        build_model("mlp", shape).double(), SquaredError(), (data.x[0], data.y[0]), "batched"
    )
    rows, lr = rows_for(oracle, 3), torch.full((3, 1), 0.1, dtype=torch.float64)
    expected = rows.clone()
    oracle.descend(expected, data, lr)
    broken = Batch(data.x[..., :-1, :], data.y)
    with oracle.holding(rows):
        oracle.descend(rows, data, lr)
        with pytest.raises(RuntimeError):
            oracle.descend(rows, broken, lr)
    torch.testing.assert_close(rows, expected, rtol=1e-12, atol=1e-12)
    oracle.descend(rows, data, lr)
    assert not torch.equal(rows, expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_a_loss_s_own_gradient_is_autograd_s(clients, batch, horizon, quantiles):
    loss = Pinball((0.1, 0.5, 0.9)) if quantiles else SquaredError()
    target = torch.randn(clients, batch, horizon, dtype=torch.float64)
    shape = (clients, batch, horizon, *([3] if quantiles else []))
    prediction = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    expected = loss(prediction, target).mean(1)
    (gradient,) = torch.autograd.grad(expected.sum(), prediction)
    losses, ours = loss.vjp(prediction.detach().clone(), target)
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(ours, gradient)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_gradient_is_the_derivative(name):
    shape = Shape(8, 2)
    module = build_model(name, shape, **SMALL.get(name, {})).double()
    data = problem(shape, 2, 3)
    oracle = build_oracle(module, SquaredError(), (data.x[0], data.y[0]))
    rows = rows_for(oracle, 2)
    direction = torch.randn(rows.shape, generator=torch.Generator().manual_seed(1), dtype=rows.dtype)
    step = 1e-6
    slope = (
        oracle.grad(rows + step * direction, data)[0] - oracle.grad(rows - step * direction, data)[0]
    ) / (2 * step)
    torch.testing.assert_close((oracle.grad(rows, data)[1] * direction).sum(1), slope, rtol=1e-5, atol=1e-7)


def test_a_custom_module_runs_under_vmap_like_the_loop():
    data = problem(Shape(6, 2), 3, 4)
    module = Custom(6, 2).double()
    fast = build_oracle(module, SquaredError(), (data.x[0], data.y[0]))
    slow = build_oracle(module, SquaredError(), (data.x[0], data.y[0]), "loop")
    assert fast.name == "vmap"
    rows = rows_for(slow, 3)
    for got, want in zip(fast.grad(rows, data), slow.grad(rows, data), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(fast.predict(rows, data.x), slow.predict(rows, data.x), rtol=1e-9, atol=1e-11)


def test_loop_equals_plain_pytorch_with_batchnorm():
    data = problem(Shape(6, 2), 2, 8)
    module = WithBatchNorm(6, 2).double()
    oracle = build_oracle(module, SquaredError(), (data.x[0], data.y[0]), "loop")
    rows = oracle.layout.row(module).repeat(2, 1)
    losses, grads = oracle.grad(rows, data)
    loss = (module.train()(data.x[1]) - data.y[1]).square().mean()
    loss.backward()
    torch.testing.assert_close(losses[1], loss.detach())
    torch.testing.assert_close(
        grads[1, : oracle.layout.trainable], torch.cat([p.grad.reshape(-1) for p in module.parameters()])
    )
    torch.testing.assert_close(rows[1], oracle.layout.row(module))  # running statistics advanced in the row
    assert not torch.equal(rows[0], rows[1])
    assert (grads[:, oracle.layout.trainable :] == 0).all()
    torch.testing.assert_close(oracle.predict(rows, data.x)[1], module.eval()(data.x[1]).detach())


@pytest.mark.parametrize("kind", ["auto", "vmap"])
def test_batchnorm_is_named_with_its_replacement(kind):
    data = problem(Shape(6, 2), 1, 4, dtype=torch.float32)
    with pytest.raises(
        PersoflError, match=r"Layer 'body\.1' \(BatchNorm1d\).*nn\.GroupNorm\(1, 6\).*oracle='loop'"
    ):
        build_oracle(WithBatchNorm(6, 2), SquaredError(), (data.x[0], data.y[0]), kind)


def test_errors_name_the_value():
    data = problem(Shape(6, 2), 1, 4, dtype=torch.float32)
    example = (data.x[0], data.y[0])
    with pytest.raises(PersoflError, match=r"Unknown oracle 'batchd'. Did you mean 'batched'\?"):
        build_oracle(build_model("mlp", Shape(6, 2)), SquaredError(), example, "batchd")
    with pytest.raises(PersoflError, match=r"to \(4, 3\).*must give \(batch, horizon\) = \(4, 2\)"):
        build_oracle(build_model("mlp", Shape(6, 3)), SquaredError(), example)
    with pytest.raises(PersoflError, match=r"\(batch, horizon, outputs\) = \(4, 2, 3\)"):
        build_oracle(build_model("mlp", Shape(6, 2)), Pinball(), example)
    with pytest.raises(PersoflError, match="not marked"):
        build_oracle(Custom(6, 2), SquaredError(), example, "batched")
    with pytest.raises(PersoflError, match="no parameters"):
        build_oracle(nn.Identity(), SquaredError(), example)
    with pytest.raises(PersoflError, match="quantiles"):
        build_loss("pinball", quantiles=(0.9, 0.1))
