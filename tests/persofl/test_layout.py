"""Layout: a row is the module, without a copy in between."""

import copy

import pytest
import torch
from torch import nn

from persofl import MODELS, Shape, build_model
from persofl.layout import Layout, changing_buffers
from persofl.models import InstanceNormalised


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.LayerNorm(4))
        self.scale = nn.Parameter(torch.tensor(2.0))  # no axes at all
        self.head = nn.Linear(4, 2)
        self.register_buffer("constant", torch.ones(3))

    def forward(self, x):
        return self.head(self.body(x[..., 0]) * self.scale)


def net_layout():
    net = Net()
    return net, Layout.of(net, changing_buffers(net, torch.randn(4, 6, 1)))


def modules():
    return [*(build_model(name, Shape(8, 3, 2), instance_norm=True) for name in sorted(MODELS)), Net()]


@pytest.mark.parametrize(
    "module", modules(), ids=lambda module: type(getattr(module, "model", module)).__name__
)
def test_a_row_is_read_and_written_without_loss(module):
    layout = Layout.of(
        module, ("body.1.running_mean", "body.1.running_var") if isinstance(module, Net) else ()
    )
    row = layout.row(module)
    assert row.shape == (layout.size,)
    other = torch.randn(layout.size)
    target = layout.load(copy.deepcopy(module), other)
    assert torch.equal(layout.row(target), other)
    assert torch.equal(layout.row(module), row)
    names = [name for name, _ in module.named_parameters()]
    assert [slot.name for slot in layout.slots if slot.trainable] == names
    assert layout.trainable == sum(p.numel() for p in module.parameters())


def test_a_row_read_does_not_follow_the_module():
    net, layout = net_layout()
    row = layout.row(net)
    with torch.no_grad():
        net.head.weight.add_(1)
    assert not torch.equal(row, layout.row(net))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_views_name_the_memory_of_the_rows(lead):
    net, layout = net_layout()
    rows = torch.zeros(*lead, layout.size)
    views = layout.views(rows)
    shapes = {name: p.shape for name, p in net.named_parameters()}
    for name, view in views.items():
        assert view.shape[len(lead) :] == shapes.get(name, view.shape[len(lead) :])
        assert view.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()
        view.add_(1)
    assert torch.equal(rows, torch.ones_like(rows))  # every column lies in exactly one view


def test_views_agree_with_the_module_they_came_from():
    net, layout = net_layout()
    views = layout.views(layout.row(net))
    for name, parameter in net.named_parameters():
        assert torch.equal(views[name], parameter)


def test_slots_cover_the_row_without_gap_or_overlap():
    _, layout = net_layout()
    assert layout.slots[0].start == 0
    for one, following in zip(layout.slots[:-1], layout.slots[1:], strict=True):
        assert one.stop == following.start
    assert layout.slots[-1].stop == layout.size


def test_masks_partition_the_columns():
    _, layout = net_layout()
    head, norm = layout.head_mask(), layout.normalisation_mask()
    body = ~head & ~norm
    assert torch.equal(head.int() + norm.int() + body.int(), torch.ones(layout.size, dtype=torch.int32))
    assert head.sum() == 4 * 2 + 2
    assert norm.sum() == 2 * 4 + 2 * 4 + 2 * 4  # gains and shifts of two layers, moments of one
    assert layout.mask(lambda name: name == "scale").sum() == 1


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_has_a_head_and_its_normalisation(name):
    model = build_model(name, Shape(8, 3, 2))
    layout = Layout.of(InstanceNormalised(model, 2, affine=True))
    assert 0 < layout.head_mask().sum() <= layout.size - layout.normalisation_mask().sum()
    own = Layout.of(model).normalisation_mask().sum()
    assert layout.normalisation_mask().sum() == own + 4  # a gain and a shift per channel
    assert (own > 0) == any("norm" in type(layer).__name__.lower() for layer in model.modules())


def test_statistics_are_columns_behind_the_parameters():
    net, layout = net_layout()
    statistics = [slot.name for slot in layout.slots if not slot.trainable]
    assert statistics == ["body.1.running_mean", "body.1.running_var"]
    assert layout.trainable == layout.size - 8
    net.train()(torch.randn(4, 6, 1))
    assert torch.equal(layout.row(net)[layout.trainable : layout.trainable + 4], net.body[1].running_mean)


def test_probing_for_statistics_leaves_no_trace():
    net = Net().eval()
    before, noise = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    changing_buffers(net, torch.randn(4, 6, 1, generator=torch.Generator().manual_seed(0)))
    assert not net.training
    assert torch.equal(torch.get_rng_state(), noise)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


# --- layers ------------------------------------------------------------------------------------------------


def layers_of(module, statistics=()):
    """Names of a module's tensors, layer by layer from the last."""
    layout = Layout.of(module, statistics)
    grouped = {}
    for slot in layout.slots:
        columns = layout.layers[slot.start : slot.stop]
        assert (columns == columns[0]).all()
        grouped.setdefault(int(columns[0]), set()).add(slot.name)
    assert layout.layers.shape == (layout.size,)
    assert sorted(grouped) == list(range(len(grouped)))
    return [grouped[number] for number in sorted(grouped)]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_last_layer_is_the_head(name):
    model = build_model(name, Shape(24, 6))
    first, *others = layers_of(model)
    assert first == {key for key, _ in model.named_parameters() if key.startswith("head")}
    assert sum(map(len, others)) + len(first) == len(dict(model.named_parameters()))


def test_layers_are_counted_from_the_last():
    model = build_model("mlp", Shape(24, 6), hidden=(8, 4))
    assert layers_of(model) == [
        {"head.weight", "head.bias"},
        {"body.1.weight", "body.1.bias"},
        {"body.0.weight", "body.0.bias"},
    ]


def test_a_normalisation_belongs_to_the_layer_before_with_its_statistics():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    assert layers_of(model, ("1.running_mean", "1.running_var")) == [
        {"3.weight", "3.bias"},
        {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"},
    ]


def test_the_affine_map_around_a_model_is_its_first_layer():
    layers = layers_of(build_model("mlp", Shape(24, 6), hidden=(8,)))
    wrapped = InstanceNormalised(build_model("mlp", Shape(24, 6), hidden=(8,)), affine=True)
    assert layers_of(wrapped) == [{f"model.{name}" for name in layer} for layer in layers] + [
        {"gain", "shift"}
    ]
