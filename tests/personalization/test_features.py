import numpy as np
import pandas as pd
import pytest
import torch

from personalization import (
    calendar_cells,
    calendar_conditional,
    daily_profiles,
    distance_to_population,
    residual_norm,
    residual_profile,
)


def test_days_are_the_rows():
    x = torch.arange(53.0)
    assert torch.equal(daily_profiles(x, 24), x[:48].reshape(2, 24))
    assert torch.equal(daily_profiles(x, 24, first=20), x[4:52].reshape(2, 24))
    both = daily_profiles(torch.stack([x, -x], 1), 24)
    assert torch.equal(both, torch.cat([x[:48].reshape(2, 24), -x[:48].reshape(2, 24)], 1))
    assert daily_profiles(x[:5], 24).shape == (0, 24)


def test_incomplete_days_are_left_out():
    x = torch.arange(72.0)
    x[30] = float("nan")
    assert daily_profiles(x, 24)[:, 0].tolist() == [0, 48]


@pytest.mark.parametrize("options", [{"steps_per_day": 0}, {"steps_per_day": 24, "first": 24}])
def test_no_days_are_refused(options):
    with pytest.raises(ValueError, match="steps_per_day="):
        daily_profiles(torch.zeros(48), **options)


def test_cells_keep_months_and_kinds_of_day_apart():
    days = pd.date_range("2013-01-01", "2013-12-31")
    cells = calendar_cells(torch.tensor(days.day_of_week.to_numpy()), torch.tensor(days.month.to_numpy()))
    assert cells.unique().tolist() == list(range(36))
    expected = [(d.month - 1) * 3 + {5: 1, 6: 2}.get(d.weekday(), 0) for d in days]
    assert cells.tolist() == expected
    with pytest.raises(ValueError, match=r"months from 0 to 0; give whole numbers in 1\.\.12"):
        calendar_cells(torch.tensor([1]), torch.tensor([0]))


def test_residuals_have_no_mean_in_any_cell():
    g = torch.Generator().manual_seed(0)
    profiles = [torch.randn(n, 4, generator=g, dtype=torch.float64) for n in (30, 50, 7)]
    cells = [torch.randint(5, (len(x),), generator=g) for x in profiles]
    residuals = calendar_conditional(profiles, cells)
    pooled, cell = torch.cat(residuals), torch.cat(cells)
    for c in range(5):
        assert torch.allclose(pooled[cell == c].mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-12)
    assert [x.shape for x in residuals] == [x.shape for x in profiles]


def test_clients_of_other_seasons_are_alike_given_the_calendar():
    """Half of the clients is seen in winter mostly, half in summer; on a day of either all behave the same."""
    g = torch.Generator().manual_seed(0)
    level = torch.tensor([[3.0, 2.0, 1.0], [0.0, 0.5, 0.0]])
    cells = [
        torch.from_numpy(np.random.default_rng(k).binomial(1, 0.2 if k % 2 else 0.8, 100)) for k in range(20)
    ]
    profiles = [level[c] + 0.3 * torch.randn(100, 3, generator=g) for c in cells]
    assert (distance_to_population(profiles).p_value < 0.01).all()
    given = distance_to_population(calendar_conditional(profiles, cells))
    assert (given.p_value > 0.01).float().mean() > 0.8
    profiles[3] = profiles[3] + 0.5
    given = distance_to_population(calendar_conditional(profiles, cells))
    assert given.z.argmax() == 3
    assert given.p_value[3] < 1e-4


def test_unlike_calendars_are_refused():
    x, c = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
    for profiles, cells, message in [
        ([], [], "0 clients with profiles"),
        ([x], [c, c], "1 clients with profiles, 2 with cells"),
        ([x, x], [c, c[:3]], "Client 1 has profiles"),
        ([x, torch.zeros(4, 3)], [c, c], "Client 1 has profiles"),
        ([x], [c.float()], "of torch.float32"),
        ([x], [c - 1], "negative cell"),
        ([x / 0], [c], "Client 0 has a NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            calendar_conditional(profiles, cells)


def test_residual_profiles_are_means_that_ignore_what_is_missing():
    errors = torch.tensor([[1.0, float("nan"), float("nan")], [3.0, 2.0, float("nan")]])
    assert residual_profile(errors).tolist() == [2, 2, 0]
    assert residual_profile(errors.double()).dtype == torch.float64


def test_the_residual_norm_knows_bias_from_noise():
    g = torch.Generator().manual_seed(0)
    bias = torch.tensor([1.0, -1.0, 0.0, 2.0])
    noise = torch.randn(400, 50, 4, generator=g)
    assert float(residual_norm(noise[0] * 0 + bias)) == pytest.approx((6 / 4) ** 0.5)
    with_bias = torch.stack([residual_norm(e + bias) for e in noise])
    assert float(with_bias.square().mean()) == pytest.approx(6 / 4, rel=0.02)
    plain = torch.stack([residual_profile(e).square().mean() for e in noise])
    without = torch.stack([residual_norm(e) for e in noise])
    assert without.square().mean() < 0.6 * plain.mean()
    assert (without == 0).float().mean() > 0.3


def test_too_few_errors_are_no_bias():
    assert float(residual_norm(torch.tensor([[5.0, float("nan")]]))) == 0
    assert float(residual_norm(torch.zeros(0, 3))) == 0
    with pytest.raises(ValueError, match="never infinite"):
        residual_profile(torch.tensor([[float("inf")]]))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        residual_norm(torch.zeros(3))
