"""Losses against their formulas, and the point forecast within a prediction."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from persofl import AbsoluteError, CrossEntropy, PersoflError, Pinball, SquaredError
from persofl.losses import LOSSES, build_loss, refuse_mismatch


def forecasts(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("lead", [(), (5,), (3, 5)])
def test_point_losses_are_torchs_per_example(lead):
    prediction, target = forecasts(*lead, 7)
    mse, mae = torch.nn.functional.mse_loss, torch.nn.functional.l1_loss
    for ours, theirs in ((SquaredError(), mse), (AbsoluteError(), mae)):
        got = ours(prediction, target)
        assert got.shape == lead
        torch.testing.assert_close(got, theirs(prediction, target, reduction="none").mean(-1))
        assert torch.equal(ours.point(prediction), prediction)


@settings(max_examples=30, deadline=None)
@given(levels=st.lists(st.integers(1, 99), min_size=2, max_size=5, unique=True), seed=st.integers(0, 1000))
def test_pinball_is_its_formula(levels, seed):
    quantiles = tuple(sorted(level / 100 for level in levels))
    loss = Pinball(quantiles)
    target, _ = forecasts(3, 4, seed=seed)
    prediction, _ = forecasts(3, 4, len(quantiles), seed=seed + 1)
    want = torch.zeros(3, dtype=torch.float64)
    for example in range(3):
        for step in range(4):
            for place, q in enumerate(quantiles):
                error = target[example, step] - prediction[example, step, place]
                want[example] += (q * error if error >= 0 else (q - 1) * error) / (4 * len(quantiles))
    torch.testing.assert_close(loss(prediction, target), want, rtol=1e-6, atol=1e-7)
    assert loss.outputs == len(quantiles)


def test_pinball_at_the_median_is_half_the_absolute_error():
    prediction, target = forecasts(6, 4)
    pair = torch.stack([prediction, target], -1)  # the other level is met exactly and costs nothing
    got = 2 * Pinball((0.5, 0.9))(pair, target)
    torch.testing.assert_close(got, AbsoluteError()(prediction, target) / 2)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.8])
def test_pinball_is_least_at_the_quantile(q):
    sample, _ = forecasts(5000)
    grid = torch.linspace(-2.5, 2.5, 501, dtype=torch.float64)
    prediction = torch.stack([grid.expand(5000, -1), sample[:, None].expand(-1, 501)], -1)
    cost = Pinball((q, 0.99))(prediction.transpose(0, 1), sample.expand(501, -1))
    assert float(grid[cost.argmin()]) == pytest.approx(float(sample.quantile(q)), abs=0.02)


@pytest.mark.parametrize(
    ("quantiles", "place"), [((0.1, 0.5, 0.9), 1), ((0.4, 0.9), 0), ((0.05, 0.1, 0.45, 0.7), 2)]
)
def test_the_point_forecast_is_the_level_nearest_the_median(quantiles, place):
    prediction, _ = forecasts(3, 4, len(quantiles))
    assert torch.equal(Pinball(quantiles).point(prediction), prediction[..., place])


@pytest.mark.parametrize(
    "quantiles", [(), (0.5,), (0.0, 0.5), (0.5, 1.0), (0.9, 0.1), (0.5, 0.5), (0.1, float("nan"))]
)
def test_levels_that_are_none_are_refused(quantiles):
    with pytest.raises(PersoflError, match="quantiles="):
        Pinball(quantiles)


def scores(*lead, classes=4, seed=0):
    prediction, _ = forecasts(*lead, classes, seed=seed)
    true = torch.randint(classes, lead, generator=torch.Generator().manual_seed(seed))
    return prediction, true


@pytest.mark.parametrize("lead", [(1,), (5, 1), (3, 5, 2)])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_cross_entropy_is_its_formula(lead, smoothing):
    prediction, target = scores(*lead)
    chances = prediction.exp() / prediction.exp().sum(-1, keepdim=True)
    aim = (1 - smoothing) * torch.nn.functional.one_hot(target, 4) + smoothing / 4
    want = -(aim * chances.log()).sum(-1).mean(-1)
    got = CrossEntropy(4, smoothing)(prediction, target)
    assert got.shape == lead[:-1]
    torch.testing.assert_close(got, want)


def test_the_likeliest_class_is_the_point_and_the_loss_knows_its_outputs():
    prediction, _ = scores(6, 1)
    loss = CrossEntropy(4)
    assert loss.outputs == 4
    assert torch.equal(loss.point(prediction)[:, 0], prediction[:, 0].max(-1).indices)


@pytest.mark.parametrize(
    "options", [{"classes": 1}, {"classes": 3, "smoothing": 1.0}, {"classes": 3, "smoothing": -0.1}]
)
def test_a_cross_entropy_that_is_none_is_refused(options):
    with pytest.raises(PersoflError, match=r"classes=1|smoothing="):
        CrossEntropy(**options)


def test_a_loss_and_the_targets_are_of_one_kind():
    with pytest.raises(PersoflError, match=r"'cross_entropy' needs classes, and the targets are floats"):
        build_loss("cross_entropy")
    with pytest.raises(PersoflError, match=r"'mse' compares floats.* of 5 classes. Use 'cross_entropy'"):
        build_loss("mse", classes=5)
    with pytest.raises(PersoflError, match="'cross_entropy' is of 3 classes, and the data have 5"):
        refuse_mismatch(CrossEntropy(3), 5)
    refuse_mismatch(CrossEntropy(5), 5)


def test_losses_by_name():
    built = {name: build_loss(name, classes=3 if kind.of_classes else 0) for name, kind in LOSSES.items()}
    assert {name: type(loss) for name, loss in built.items()} == LOSSES
    assert build_loss("pinball", quantiles=(0.2, 0.8)) == Pinball((0.2, 0.8))
    assert build_loss("cross_entropy", classes=7, smoothing=0.1) == CrossEntropy(7, 0.1)
    with pytest.raises(PersoflError, match=r"Unknown loss 'pinbal'. Did you mean 'pinball'\?"):
        build_loss("pinbal")
