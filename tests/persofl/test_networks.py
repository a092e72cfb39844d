"""DS-CNN and transformer against networks of torch's own layers with the same weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from persofl import CrossEntropy, PersoflError, Shape, build_model
from persofl.layout import Layout
from persofl.models.norms import GroupNorm, LayerNorm
from persofl.models.transformer import EncoderLayer, attend, sinusoids
from persofl.oracles import Batch, build_oracle


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


def shaken(model, seed=0):
    """In double precision, with no weight at the one or zero it starts from."""
    model = model.double()
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            parameter += 0.2 * randn(*parameter.shape, seed=seed + place)
    return model


def same_gradients(ours, theirs, pairs, x):
    """Outputs and gradients of two networks agree, weight by weight: ``(our name, their name, to theirs)``."""
    with torch.no_grad():
        for our, their, change in pairs:
            theirs.get_parameter(their).copy_(change(ours.get_parameter(our)))
    close(ours(x), theirs(x))
    for network in (ours, theirs):
        network.zero_grad()
        (network(x) ** 2).sum().backward()
    for our, their, change in pairs:
        close(change(ours.get_parameter(our).grad), theirs.get_parameter(their).grad)
    assert {name for name, _ in ours.named_parameters()} == {our for our, _, _ in pairs}


def as_it_is(weight):
    return weight


# --- DS-CNN ------------------------------------------------------------------------------------------------


class PlainDSCNN(nn.Module):
    """The same network of nn's own layers, an image in, scores out."""

    def __init__(self, channels, blocks, kernel, stride, groups, targets):
        super().__init__()
        pad = (kernel[0] // 2, kernel[1] // 2)
        layers = [nn.Conv2d(1, channels, kernel, stride, pad, bias=False), nn.GroupNorm(groups, channels)]
        for _ in range(blocks):
            layers += [nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)]
            layers += [nn.GroupNorm(groups, channels), nn.ReLU()]
            layers += [nn.Conv2d(channels, channels, 1, bias=False), nn.GroupNorm(groups, channels)]
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(channels, targets)

    def forward(self, x):
        return self.head(self.layers(x.unsqueeze(1)))


def dscnn_pairs(blocks):
    norm = {"gain": "weight", "shift": "bias"}
    pairs = [("stem.weight", "layers.0.weight", as_it_is)]
    pairs += [(f"norm.{our}", f"layers.1.{their}", as_it_is) for our, their in norm.items()]
    for block in range(blocks):
        first = 3 + 6 * block
        for layer, place in (("depthwise", first), ("pointwise", first + 3)):
            pairs.append((f"body.{block}.{layer}.weight", f"layers.{place}.weight", as_it_is))
        for layer, place in (("inner", first + 1), ("outer", first + 4)):
            pairs += [
                (f"body.{block}.{layer}.{our}", f"layers.{place}.{their}", as_it_is)
                for our, their in norm.items()
            ]
    return [*pairs, ("head.weight", "head.weight", torch.t), ("head.bias", "head.bias", as_it_is)]


@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [
        ((20, 8), (10, 4), (2, 2)),
        ((7, 3), (3, 3), (1, 1)),
        ((1, 1), (10, 4), (2, 2)),
        ((9, 5), (4, 1), (3, 1)),
    ],
)
def test_a_dscnn_is_that_of_torchs_layers(size, kernel, stride):
    options = {"channels": 8, "blocks": 2, "kernel": kernel, "stride": stride, "groups": 2}
    ours = shaken(build_model("dscnn", Shape(size[0], 1, size[1], 5), **options))
    theirs = PlainDSCNN(**options, targets=5).double()
    wrapped = nn.Sequential(ours, nn.Flatten(1))  # (batch, 1, classes) to (batch, classes)
    pairs = [(f"0.{our}", their, change) for our, their, change in dscnn_pairs(2)]
    same_gradients(wrapped, theirs, pairs, randn(6, *size))


def test_a_dscnn_that_has_learnt_one_place_knows_it_anywhere():
    """The mean over places forgets where: shifts within the image change little but the edges."""
    model = build_model("dscnn", Shape(64, 1, 8, 3), channels=8, blocks=1, groups=2).double()
    x = torch.zeros(1, 64, 8, dtype=torch.float64)
    x[:, 20:26, 2:5] = 1.0
    moved = x.roll(16, dims=1)
    torch.testing.assert_close(model(x), model(moved), rtol=1e-6, atol=1e-9)


def test_groups_that_do_not_divide_the_channels_are_named():
    with pytest.raises(PersoflError, match=r"groups=3: must divide the 8 channels"):
        build_model("dscnn", Shape(9, 1, 4, 3), channels=8, groups=3)


# --- transformer -------------------------------------------------------------------------------------------


ENCODER = {
    "before.gain": "norm1.weight",
    "before.shift": "norm1.bias",
    "between.gain": "norm2.weight",
    "between.shift": "norm2.bias",
    "queries_keys_values.bias": "self_attn.in_proj_bias",
    "mix.bias": "self_attn.out_proj.bias",
    "widen.bias": "linear1.bias",
    "narrow.bias": "linear2.bias",
}
TURNED = {
    "queries_keys_values.weight": "self_attn.in_proj_weight",
    "mix.weight": "self_attn.out_proj.weight",
    "widen.weight": "linear1.weight",
    "narrow.weight": "linear2.weight",
}


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_an_encoder_layer_is_torchs(heads):
    ours = shaken(EncoderLayer(8, heads, 12))
    theirs = nn.TransformerEncoderLayer(
        8, heads, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    pairs = [(our, their, as_it_is) for our, their in ENCODER.items()]
    pairs += [(our, their, torch.t) for our, their in TURNED.items()]
    same_gradients(ours, theirs, pairs, randn(3, 7, 8))


def test_attention_is_torchs():
    q, k, v = randn(3, 2, 4, 6, 5).unbind(0)
    close(attend(q, k, v), nn.functional.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize(
    ("lookback", "patch", "tokens"), [(24, 4, 6), (25, 4, 7), (9, None, 9), (168, None, 28)]
)
def test_a_transformer_is_embedding_encoder_norm_mean_head(lookback, patch, tokens):
    model = shaken(build_model("transformer", Shape(lookback, 2, 3), width=8, heads=2, patch=patch))
    x = randn(4, lookback, 3)
    length = model.patch
    padded = torch.cat([torch.zeros(4, tokens * length - lookback, 3).double(), x], 1)
    want = torch.stack([padded[:, i * length : (i + 1) * length].flatten(1) for i in range(tokens)], 1)
    want = want @ model.embed.weight + model.embed.bias + sinusoids(tokens, 8).double()
    for layer in model.body:
        want = layer(want)
    want = nn.functional.layer_norm(want, (8,), model.norm.gain, model.norm.shift).mean(1)
    close(model(x), want @ model.head.weight + model.head.bias)


def test_positions_are_the_papers():
    for width in (5, 8):
        table = sinusoids(11, width)
        for place in (0, 3, 10):
            for column in range(width):
                angle = place / 10_000 ** ((column - column % 2) / width)
                want = math.cos(angle) if column % 2 else math.sin(angle)
                assert float(table[place, column]) == pytest.approx(want, abs=1e-5)


def test_the_order_of_time_matters_to_a_transformer():
    model = build_model("transformer", Shape(16, 1, 2, 3), patch=4, width=8)
    x = randn(2, 16, 2).float()
    assert not torch.allclose(model(x), model(x.unflatten(1, (4, 4)).flip(1).flatten(1, 2)), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "text"), [({"heads": 3}, "heads=3: must divide width=32"), ({"patch": 0}, "patch=0")]
)
def test_sizes_that_make_no_transformer_are_named(options, text):
    with pytest.raises(PersoflError, match=text):
        build_model("transformer", Shape(16, 1), **options)


# --- both --------------------------------------------------------------------------------------------------


def test_normalisation_layers_are_torchs_and_known_as_such():
    group, layer = shaken(GroupNorm(2, 6)), shaken(LayerNorm(6))
    images, tokens = randn(3, 6, 4, 5), randn(3, 4, 6)
    close(group(images), nn.functional.group_norm(images, 2, group.gain, group.shift))
    close(layer(tokens), nn.functional.layer_norm(tokens, (6,), layer.gain, layer.shift))
    for name, own in (("dscnn", "norm.gain"), ("transformer", "body.0.before.shift")):
        model = build_model(name, Shape(12, 1, 4, 3))
        layout = Layout.of(model)
        assert own in layout.normalisation
        mask = layout.normalisation_mask()
        assert 0 < int(mask.sum()) < layout.size
        assert not (mask & layout.head_mask()).any()


@given(
    clients=st.integers(1, 3),
    groups=st.integers(1, 3),
    each=st.integers(1, 3),
    size=st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(1, 4)),
    innermost=st.booleans(),
)
def test_a_stack_is_normalised_and_rectified_as_by_torch(clients, groups, each, size, innermost):
    channels, (batch, height, width) = groups * each, size
    layer = shaken(GroupNorm(groups, channels))
    layer.gain = nn.Parameter(1 + 0.3 * randn(clients, channels, seed=1))
    layer.shift = nn.Parameter(0.3 * randn(clients, channels, seed=2))
    images = 3 + 2 * randn(batch, clients * channels, height, width, seed=3)
    images = images.contiguous(memory_format=torch.channels_last) if innermost else images
    grad = randn(*images.shape, seed=4)
    leaves = (images.requires_grad_(), layer.gain, layer.shift)
    want, got = torch.relu(layer(images)), layer.rectified(images)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    wanted, gotten = (torch.autograd.grad(y, leaves, grad) for y in (want, got))
    for ours, theirs in zip(gotten, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def test_a_rectified_normalisation_first_taken_for_a_forecast_serves_training_too():
    layer, images = GroupNorm(5, 10), torch.randn(2, 20, 3, 3)
    layer.gain, layer.shift = nn.Parameter(torch.ones(2, 10)), nn.Parameter(torch.zeros(2, 10))
    with torch.inference_mode():
        layer.rectified(images)
    layer.rectified(images.requires_grad_()).sum().backward()
    assert images.grad.isfinite().all()


@pytest.mark.parametrize("name", ["dscnn", "transformer", "gru", "mlp", "tcn", "linear", "lstm", "dlinear"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_oracles_agree_on_classes(name, smoothing):
    """Every forecaster is a classifier; prediction ``(..., 1, classes)``."""
    module = build_model(name, Shape(12, 1, 4, 5)).double()
    batch = Batch(randn(3, 6, 12, 4), torch.randint(5, (3, 6, 1), generator=torch.Generator().manual_seed(1)))
    loss = CrossEntropy(5, smoothing)
    example = (batch.x[0], batch.y[0])
    loop, *fast = (build_oracle(module, loss, example, kind) for kind in ("loop", "vmap", "batched"))
    rows = loop.layout.row(module) + 0.1 * randn(3, loop.layout.size, seed=2)
    losses, grads = loop.grad(rows, batch)
    lr = torch.tensor([[0.1], [0.0], [0.5]], dtype=torch.float64)
    for oracle in fast:
        got = oracle.grad(rows, batch)
        close(got[0], losses)
        torch.testing.assert_close(got[1], grads, rtol=1e-8, atol=1e-10)
        moved = rows.clone()
        close(oracle.descend(moved, batch, lr), losses)
        torch.testing.assert_close(moved, rows - lr * grads, rtol=1e-8, atol=1e-10)
        close(oracle.predict(rows, batch.x), loop.predict(rows, batch.x))
        assert oracle.predict(rows, batch.x).shape == (3, 6, 1, 5)


@pytest.mark.parametrize("name", ["dscnn", "transformer", "gru", "mlp"])
def test_a_few_steps_learn_to_tell_classes_apart(name):
    torch.manual_seed(0)
    labels = torch.randint(3, (64, 1))
    x = 0.2 * torch.randn(64, 12, 4)
    x[torch.arange(64), 3 * labels[:, 0] + 1, labels[:, 0]] += 3
    model, loss = build_model(name, Shape(12, 1, 4, 3)), CrossEntropy(3)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss(model(x), labels).mean().backward()
        optimizer.step()
    assert (loss.point(model(x)) == labels).float().mean() > 0.9
