"""What every distance between samples must have: the axioms, invariances, gradients, and no NaN for degenerate input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization import DISTANCES, SampleDistance, build_distance, labelled

OPTIONS = {
    "exact": {},
    "sinkhorn": {"epsilon": 1.0, "scale": 1.0, "tolerance": 1e-6},
    "max_sliced": {"projections": 16},
    "mmd": {"bandwidth": 1.5},
    "energy": {},
    "mixture": {"components": 2},
    "spectral": {},
    "label_aware": {},
    "joint": {},
    "label_marginal": {},
}
NAMES = sorted(OPTIONS)
CLASSES = {"label_aware", "label_marginal"}
SHIFTED = [
    "exact",
    "sinkhorn",
    "max_sliced",
    "mixture",
]  # Wasserstein with squared costs: moving a law by s costs |s|
SMOOTH = ["exact", "sinkhorn", "mmd", "energy", "spectral", "joint", "label_aware"]
F = 3


def draw(name, n, seed, *lead, shift=0.0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(*lead, n, F, generator=g, dtype=torch.float64) + shift
    classes = torch.randint(3, (*lead, n), generator=g)
    return labelled(x[..., : F - 1], classes) if name in CLASSES else x


def built(name, **more):
    return build_distance(name, **{**OPTIONS[name], **more})


def value(name, x, y, *weights):
    found, converged = built(name).between(x, y, *weights)
    assert converged.all()
    return found


def test_every_registered_distance_between_samples_is_tested():
    registered = {name for name, cls in DISTANCES.items() if issubclass(cls, SampleDistance)}
    assert registered == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_symmetry_identity_and_order_of_samples(name):
    x, y = draw(name, 14, 0), draw(name, 11, 1, shift=0.7)
    one = value(name, x, y)
    assert one > 0
    assert torch.allclose(one, value(name, y, x), rtol=1e-4)
    assert value(name, x, x) < 1e-6
    assert value(name, x, x.flip(0)) < 1e-6
    assert torch.allclose(one, value(name, x.flip(0), y.roll(3, 0)), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_doubling_and_padding_change_nothing(name):
    x, y = draw(name, 14, 0), draw(name, 11, 1, shift=0.7)
    one = value(name, x, y)
    assert torch.allclose(one, value(name, torch.cat([x, x]), y), rtol=1e-4)
    assert torch.allclose(one, value(name, x, y.repeat_interleave(2, 0)), rtol=1e-4)
    rubbish = draw(name, 4, 9, shift=5.0).abs().round()
    padded, weights = torch.cat([x, rubbish]), torch.tensor([1.0] * 14 + [0.0] * 4)
    assert torch.allclose(one, value(name, padded, y, weights), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_weights_need_not_sum_to_one_and_count_like_copies(name):
    x, y = draw(name, 8, 0), draw(name, 11, 1, shift=0.7)
    copies = torch.tensor([1, 2, 3, 1, 1, 2, 1, 1])
    expected = value(name, x.repeat_interleave(copies, 0), y)
    assert torch.allclose(value(name, x, y, copies), expected, rtol=1e-4)
    assert torch.allclose(value(name, x, y, 7.5 * copies), expected, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_batched_equals_loop_and_broadcasts(name):
    x, y = draw(name, 9, 0, 3), draw(name, 12, 1, shift=0.7)
    batched = value(name, x, y)
    assert batched.shape == (3,)
    assert torch.allclose(batched, torch.stack([value(name, z, y) for z in x]), rtol=1e-4)
    grid = value(name, x[:, None], torch.stack([y, y + 1]))
    assert grid.shape == (3, 2)
    assert torch.allclose(grid[:, 0], batched, rtol=1e-4)


@pytest.mark.parametrize("name", SHIFTED)
@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=5)
def test_moving_a_law_costs_the_shift(name, seed):
    x = draw(name, 10, seed)
    move = torch.tensor([3.0, -1.0, 0.5]).double()
    assert torch.allclose(built(name).between(x, x + move)[0], move.norm(), rtol=1e-4)


@pytest.mark.parametrize("name", sorted(set(NAMES) - CLASSES - {"spectral"}))
def test_moving_both_laws_changes_nothing(name):
    x, y = draw(name, 10, 0), draw(name, 12, 1, shift=0.7)
    assert torch.allclose(value(name, x + 100, y + 100), value(name, x, y), rtol=1e-4)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_right(name):
    kind = built(name, **({"tolerance": 1e-11} if name == "sinkhorn" else {}))
    x, y = draw(name, 6, 0), draw(name, 5, 1, shift=0.7)
    inputs = x[:, :-1] if name in CLASSES else x
    tail = x[:, x.shape[1] - (name in CLASSES) :] if name in CLASSES else x[:, :0]
    inputs = inputs.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: kind.between(torch.cat([z, tail], 1), y)[0], (inputs,), atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"mixture", "max_sliced"}))
def test_gradients_to_weights_are_right(name):
    kind = built(name, **({"tolerance": 1e-11} if name == "sinkhorn" else {}))
    x, y = draw(name, 6, 0), draw(name, 5, 1, shift=0.7)
    weights = torch.rand(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    assert torch.autograd.gradcheck(
        lambda w: kind.between(x, y, w)[0], (weights.requires_grad_(),), atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize("name", ["exact", "sinkhorn", "mmd", "energy", "joint", "max_sliced"])
def test_the_gradient_of_nothing_is_finite(name):
    x = draw(name, 6, 0).requires_grad_()
    built(name).between(x, x.detach())[0].backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_samples_give_no_nan(name, dtype):
    one, constant = draw(name, 1, 0).to(dtype), draw(name, 1, 1).to(dtype).expand(7, F)
    few, other = draw(name, 2, 2).to(dtype), draw(name, 9, 3).to(dtype)
    flat = other.clone()
    flat[:, 0] = 2.0  # a feature that does not vary: a singular covariance
    for x, y in [
        (one, other),
        (other, one),
        (one, one),
        (constant, other),
        (constant, constant),
        (few, flat),
    ]:
        found, _ = built(name).between(x, y)
        assert torch.isfinite(found)
        assert found >= 0
        assert found.dtype == dtype
    assert built(name).between(constant, constant)[0] < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_bad_samples_and_weights_say_what_is_wrong(name):
    x, y = draw(name, 5, 0), draw(name, 4, 1)
    bad = x.clone()
    bad[2, 0] = float("nan")
    for args, message in [
        ((bad, y), r"x has 1 NaN or infinite value\(s\)"),
        ((x, y[:, :1]), "x has 3 features, y 1"),
        ((x[:0], y), r"x has shape \(0, 3\)"),
        ((x.long(), y), "x is of type torch.int64"),
        ((x, y, torch.zeros(5)), "x_weights are all zero"),
        ((x, y, torch.tensor([1.0, 1, 1, 1, -1])), "x_weights has negative"),
        ((x, y, torch.ones(4)), r"x_weights has shape \(4,\)"),
        ((x, y, None, torch.full((4,), float("nan"))), "y_weights has negative, NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            built(name).between(*args)


def test_all_bad_options_come_in_one_message():
    with pytest.raises(ValueError, match=r"(?s)max_samples=1 .*; order=0\.5 .*; iterations=0 "):
        build_distance("exact", order=0.5, iterations=0, max_samples=1)
    for name, option in [
        ("sinkhorn", {"epsilon": 0.0}),
        ("sinkhorn", {"scale": float("inf")}),
        ("mmd", {"bandwidth": -1.0}),
        ("mixture", {"components": 0}),
        ("mixture", {"ridge": 0.0}),
        ("spectral", {"rate": 0.0}),
        ("joint", {"beta": -1.0}),
        ("label_aware", {"label_weight": float("nan")}),
        ("label_marginal", {"metric": "l2"}),
        ("max_sliced", {"projections": 0}),
    ]:
        with pytest.raises(ValueError, match=f"{next(iter(option))}="):
            build_distance(name, **option)
