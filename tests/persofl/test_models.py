"""Models against torch's and pandas' own, and the invariances they promise."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from persofl import MODELS, PersoflError, Pinball, Shape, SquaredError, build_model
from persofl.layout import Layout
from persofl.models import GRU, LSTM, CausalConv, InstanceNormalised, Linear, model_options, register_model
from persofl.models.affine import stacked_affine
from persofl.models.forecast import _pooled, moving_average
from persofl.models.recurrence import gru_sequence, lstm_sequence
from persofl.oracles import Batch, build_oracle


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(got, want, **tolerance):
    torch.testing.assert_close(got, want, **tolerance)


# --- recurrent layers --------------------------------------------------------------------------------------


def torchs(ours):
    """torch's own layer with the same weights."""
    inputs, kind = ours.weight_ih.shape[0], {GRU: nn.GRU, LSTM: nn.LSTM}[type(ours)]
    theirs = kind(inputs, ours.hidden, batch_first=True).double()
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    with torch.no_grad():
        for name, value in zip(names, ours.flat_weights(), strict=True):
            getattr(theirs, name).copy_(value)
    return theirs


def last_state(layer, x):
    state = layer(x)[1]
    return (state[0] if isinstance(state, tuple) else state)[0]


@pytest.mark.parametrize("kind", [GRU, LSTM])
@pytest.mark.parametrize("inputs", [1, 3])
def test_one_model_is_torchs_layer(kind, inputs):
    torch.manual_seed(0)
    ours = kind(inputs, 5).double()
    x = randn(4, 7, inputs)
    theirs = torchs(ours)
    close(ours(x), last_state(theirs, x))
    (ours(x) ** 2).sum().backward()
    (last_state(theirs, x) ** 2).sum().backward()
    close(ours.weight_ih.grad, theirs.weight_ih_l0.grad.mT)
    close(ours.weight_hh.grad, theirs.weight_hh_l0.grad.mT)
    close(ours.bias_ih.grad, theirs.bias_ih_l0.grad)
    close(ours.bias_hh.grad, theirs.bias_hh_l0.grad)


sizes = {
    "clients": st.integers(1, 3),
    "batch": st.integers(1, 3),
    "time": st.integers(1, 4),
    "inputs": st.integers(1, 3),
    "hidden": st.integers(1, 3),
}


@pytest.mark.parametrize(("sequence", "kind"), [(gru_sequence, GRU), (lstm_sequence, LSTM)])
@settings(max_examples=10, deadline=None)
@given(**sizes)
def test_a_stack_is_torchs_layer_for_each_client(sequence, kind, clients, batch, time, inputs, hidden):
    models = [kind(inputs, hidden).double() for _ in range(clients)]
    x = randn(clients, batch, time, inputs)
    weights = [
        torch.stack([getattr(model, name).detach() for model in models])
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    want = torch.stack([last_state(torchs(model), own) for model, own in zip(models, x, strict=True)])
    close(sequence(x, *weights), want.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("sequence", "gates"), [(gru_sequence, 3), (lstm_sequence, 4)])
@settings(max_examples=8, deadline=None)
@given(**sizes)
def test_backward_by_hand_is_the_derivative(sequence, gates, clients, batch, time, inputs, hidden):
    n = gates * hidden
    shapes = [(clients, batch, time, inputs), (clients, inputs, n), (clients, hidden, n)]
    shapes += [(clients, n), (clients, n)]
    arguments = [randn(*shape, seed=k).requires_grad_() for k, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(sequence, arguments)


@settings(max_examples=10, deadline=None)
@given(
    clients=st.integers(1, 3), batch=st.integers(1, 4), inputs=st.integers(1, 4), outputs=st.integers(1, 4)
)
def test_the_affine_map_and_its_derivative(clients, batch, inputs, outputs):
    x, weight = randn(clients, batch, inputs, seed=1), randn(clients, inputs, outputs, seed=2)
    bias = randn(clients, outputs, seed=3)
    close(stacked_affine(x, weight, bias), torch.einsum("cbi,cio->cbo", x, weight) + bias[:, None])
    assert torch.autograd.gradcheck(stacked_affine, [part.requires_grad_() for part in (x, weight, bias)])


# --- weights that are used in unusual ways -----------------------------------------------------------------


class Shared(nn.Module):
    """A weight that a layer uses, and the forward once more by hand; the order decides who needs it last."""

    batched = True

    def __init__(self, first):
        super().__init__()
        self.first = first
        self.embed, self.layer, self.head = Linear(5, 5), Linear(5, 5), Linear(5, 2)

    def by_hand(self, x):
        return torch.tanh(x @ self.layer.weight.mT)

    def forward(self, x):
        x = self.embed(x.flatten(-2))
        x = self.layer(self.by_hand(x)) if self.first == "hand" else self.by_hand(self.layer(x))
        return self.head(x)


class Twice(nn.Module):
    """A layer used twice, one whose output goes nowhere, one that is not used."""

    batched = True

    def __init__(self):
        super().__init__()
        self.layer, self.idle, self.unused, self.head = Linear(5, 5), Linear(5, 3), Linear(2, 2), Linear(5, 2)

    def forward(self, x):
        x = self.layer(torch.tanh(self.layer(x.flatten(-2))))
        self.idle(x)
        return self.head(x)


@pytest.mark.parametrize(
    "module", [Twice(), Shared("hand"), Shared("layer")], ids=["twice", "by hand first", "by hand last"]
)
def test_weights_used_more_than_once(module):
    module = module.double()
    batch = Batch(randn(3, 4, 5, 1), randn(3, 4, 2, seed=1))
    loop, batched = (
        build_oracle(module, SquaredError(), (batch.x[0], batch.y[0]), kind) for kind in ("loop", "batched")
    )
    rows = loop.layout.row(module) + 0.1 * randn(3, loop.layout.size, seed=2)
    lr = torch.tensor([[0.1], [0.5], [1.0]], dtype=torch.float64)
    losses, grads = loop.grad(rows, batch)
    for _ in range(2):  # an oracle may learn from its first call
        close(batched.grad(rows, batch)[1], grads)
        moved = rows.clone()
        close(batched.descend(moved, batch, lr), losses)
        close(moved, rows - lr * grads)


# --- convolutions, moving averages, normalisation ----------------------------------------------------------


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (3, 2), (3, 9)])
def test_a_convolution_sees_the_past_only(kernel, dilation):
    torch.manual_seed(0)
    conv, x = CausalConv(2, 3, kernel, dilation).double(), randn(2, 12, 2)
    for step in range(12):
        other = x.clone()
        other[:, step] += 1
        changed = (conv(other) - conv(x)).abs().amax((0, 2)) > 1e-12
        assert changed.nonzero().flatten().tolist() == [
            step + k * dilation for k in range(kernel) if step + k * dilation < 12
        ]


def test_a_tcn_sees_its_receptive_field_and_no_more():
    torch.manual_seed(0)
    model, x = build_model("tcn", Shape(12, 2), hidden=8, layers=2, kernel=3).double(), randn(64, 12, 1)
    gradient = torch.autograd.grad(model(x.requires_grad_()).square().sum(), x)[0].abs().amax((0, 2))
    assert (gradient[-9:] > 0).all()  # kernel ** layers
    assert (gradient[:-9] == 0).all()


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 5, 9, 26, 27, 40])
def test_a_tcn_computes_what_whole_convolutions_do(steps, kernel, layers):
    torch.manual_seed(0)
    model = build_model("tcn", Shape(steps, 3, 2), hidden=4, layers=layers, kernel=kernel).double()
    x = randn(5, steps, 2)
    hidden = model.embed(x)
    for conv in model.body:
        hidden = hidden + torch.relu(conv(hidden))  # at every step
    torch.testing.assert_close(model(x), model.head(hidden[:, -1]), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kernel", [1, 3, 4, 5, 25])
def test_the_moving_average_is_pandas(kernel):
    x = randn(2, 30, 3)
    got = moving_average(x, kernel)
    left = (kernel - 1) // 2
    for example in range(2):
        for channel in range(3):
            values = x[example, :, channel].numpy()
            padded = np.pad(values, (left, kernel - 1 - left), mode="edge")
            want = pd.Series(padded).rolling(kernel).mean().dropna().to_numpy()
            np.testing.assert_allclose(got[example, :, channel].numpy(), want, atol=1e-12)


@pytest.mark.parametrize(
    "shape", [(40, 1), (5, 40, 1), (3, 5, 40, 1), (3, 5, 40, 2), (2, 600, 1), (2, 3, 513, 2)]
)
def test_the_moving_average_has_one_value_whichever_way_it_is_computed(shape):
    x = randn(*shape)
    windows = x.mT.reshape(-1, shape[-2])
    each = torch.stack([moving_average(window.unsqueeze(-1), 25)[:, 0] for window in windows])
    torch.testing.assert_close(moving_average(x, 25).mT.reshape(-1, shape[-2]), each, atol=1e-12, rtol=0)
    torch.testing.assert_close(_pooled(x, 25), moving_average(x, 25), atol=1e-12, rtol=0)


def test_a_moving_average_first_taken_for_a_forecast_serves_training_too():
    x = randn(2, 31, 1)
    with torch.inference_mode():
        moving_average(x, 7)
    weight = torch.ones(31, 1, dtype=x.dtype, requires_grad=True)
    (weight * moving_average(x * weight, 7)).sum().backward()
    assert weight.grad.isfinite().all()


def test_the_moving_average_of_a_stack_is_each_ones():
    x = randn(4, 2, 30, 3)
    close(moving_average(x, 5), torch.stack([moving_average(own, 5) for own in x]))


def test_dlinear_is_two_affine_maps_of_trend_and_remainder():
    model, x = build_model("dlinear", Shape(10, 3, 2), kernel=3).double(), randn(4, 10, 2)
    trend = moving_average(x, 3)
    want = (x - trend).flatten(1) @ model.head["rest"].weight + model.head["rest"].bias
    want = want + trend.flatten(1) @ model.head["trend"].weight + model.head["trend"].bias
    close(model(x), want)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_instance_normalisation_commutes_with_shift_and_scale(name, outputs, affine):
    """``f(a x + b) = a f(x) + b`` in the target, up to eps; a shift of another channel changes nothing."""
    inner = build_model(name, Shape(9, 2, 2, outputs))
    model = InstanceNormalised(inner, 2, eps=1e-12, affine=affine).double()
    if affine:
        with torch.no_grad():
            model.gain.copy_(torch.tensor([1.3, 0.4]))
            model.shift.copy_(torch.tensor([0.2, -1.0]))
    x = randn(4, 9, 2)
    scale, shift = torch.tensor([3.0, 0.5]), torch.tensor([7.0, -2.0])
    close(model(x * scale + shift), 3.0 * model(x) + 7.0, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("outputs", [1, 3])
def test_learnt_normalisation_runs_as_one_model_or_as_a_stack(outputs):
    """gain and shift are stacked too; the formula is the class's."""
    inner = build_model("linear", Shape(9, 2, 2, outputs))
    model = InstanceNormalised(inner, 2, eps=1e-6, affine=True).double()
    batch = Batch(randn(3, 4, 9, 2), randn(3, 4, 2, seed=1))
    loss = SquaredError() if outputs == 1 else Pinball()
    loop, stack = (build_oracle(model, loss, (batch.x[0], batch.y[0]), kind) for kind in ("loop", "batched"))
    rows = loop.layout.row(model) + 0.1 * randn(3, loop.layout.size, seed=2)
    for got, want in zip(stack.grad(rows, batch), loop.grad(rows, batch), strict=True):
        close(got, want)
    close(stack.predict(rows, batch.x), loop.predict(rows, batch.x))
    x, own = batch.x[1], loop.layout.load(model, rows[1])
    mean, std = x.mean(1, keepdim=True), (x.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
    inside = inner((x - mean) / std * own.gain + own.shift)
    last = (-1,) + (1,) * (inside.dim() - 1)
    want = (inside - own.shift[0]) / (own.gain[0] + 1e-6)
    close(own(x), want * std[:, 0, 0].view(last) + mean[:, 0, 0].view(last))


def test_instance_normalisation_of_a_constant_window_is_finite_and_centred_there():
    model = build_model("mlp", Shape(9, 2), instance_norm=True)
    flat = model(torch.full((1, 9, 1), 5.0))
    assert flat.isfinite().all()
    assert (flat - 5).abs().max() < 0.05


def test_instance_normalisation_runs_as_its_model_does():
    class Plain(nn.Linear):
        def forward(self, x):
            return super().forward(x[..., 0])

    assert InstanceNormalised(build_model("mlp", Shape(9, 2))).batched
    assert not InstanceNormalised(Plain(9, 2)).batched


# --- building by name --------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_maps_windows_to_horizons(name, channels, outputs):
    model = build_model(name, Shape(9, 4, channels, outputs))
    got = model(randn(5, 9, channels, dtype=torch.float32))
    assert got.shape == ((5, 4) if outputs == 1 else (5, 4, outputs))
    assert model.batched
    assert model.clients_at_once >= 1
    assert MODELS[name].__doc__


@pytest.mark.parametrize("name", sorted(MODELS))
def test_initial_weights_depend_on_the_seed_only(name):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, again, other = (build_model(name, Shape(9, 2), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    rows = [Layout.of(model).row(model) for model in (one, again, other)]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_errors_name_the_nearest():
    with pytest.raises(PersoflError, match=r"Unknown model 'grru'. Did you mean 'gru'\? Known: dlinear"):
        build_model("grru", Shape(9, 2))
    with pytest.raises(PersoflError, match=r"option of model 'gru': 'hiden'. Did you mean 'hidden'\?"):
        build_model("gru", Shape(9, 2), hiden=3)
    for size in ("lookback", "horizon", "channels", "outputs"):
        with pytest.raises(PersoflError, match=f"{size}=0 for model 'mlp': give at least 1"):
            build_model("mlp", Shape(**{"lookback": 9, "horizon": 2, size: 0}))


def test_options_and_defaults():
    assert model_options("linear") == {}
    assert model_options("mlp") == {"hidden": (64,)}


def test_a_model_of_ones_own_is_built_by_name():
    @register_model("last value")
    class LastValue(nn.Module):
        """Repeat the last value, scaled."""

        def __init__(self, shape, scale=1.0):
            super().__init__()
            self.horizon, self.scale = shape.horizon, nn.Parameter(torch.tensor(scale))

        def forward(self, x):
            return self.scale * x[..., -1:, 0].expand(*x.shape[:-2], self.horizon)

    try:
        model = build_model("last value", Shape(9, 2), scale=2.0)
        x = randn(3, 9, 1)
        close(model(x), 2 * x[:, -1:, 0].expand(3, 2))
        assert model_options("last value") == {"scale": 1.0}
    finally:
        del MODELS["last value"]
