import numpy as np
import pytest
import torch

from data_loaders import DataError, SimulatedHouseholds, WindowSpec, make_windows
from data_loaders.electricity.habits import ARCHETYPES


def daily_profiles(series):
    """Mean day of each client, (clients, steps per day)."""
    steps = 86400 // series.step_seconds
    loads = [series.of(client)[:, 0].numpy().reshape(-1, steps) for client in range(len(series))]
    return np.stack([np.nanmean(load, axis=0) for load in loads])


def spread(heterogeneity, seed=0):
    series = SimulatedHouseholds(clients=36, days=60, heterogeneity=heterogeneity, seed=seed).load()
    return float(daily_profiles(series).std(axis=0).mean())


@pytest.mark.parametrize("minutes", [15, 30, 60])
def test_shapes_stamps_and_units(minutes):
    series = SimulatedHouseholds(clients=7, days=9, step_minutes=minutes).load()
    steps = 9 * 1440 // minutes
    assert series.values.shape == (7 * steps, 1)
    assert series.step_seconds == 60 * minutes
    assert series.starts[0] == np.datetime64("2013-01-01")
    assert series.attributes["archetype"].tolist() == [*ARCHETYPES, "family"]
    energy_per_day = float(series.values.sum()) / 7 / 9
    assert 5 < energy_per_day < 40


def test_at_dial_zero_archetypes_are_one_law():
    series = SimulatedHouseholds(clients=90, days=60, heterogeneity=0).load()
    assert (series.attributes["true_distance"] == 0).all()
    habits = series.attributes.drop(columns=["archetype", "true_distance"])
    assert (habits.std() < 1e-9).all()
    profiles, kinds = daily_profiles(series), series.attributes["archetype"].to_numpy()
    for kind in ARCHETYPES:
        mine, others = profiles[kinds == kind], profiles[kinds != kind]
        error = np.sqrt(mine.var(axis=0, ddof=1) / len(mine) + others.var(axis=0, ddof=1) / len(others))
        z = (mine.mean(axis=0) - others.mean(axis=0)) / error
        assert np.mean(z**2) < 2.5  # 1 in expectation, over 24 hours


def test_at_dial_one_archetypes_are_not():
    series = SimulatedHouseholds(clients=90, days=60, heterogeneity=1).load()
    profiles, kinds = daily_profiles(series), series.attributes["archetype"].to_numpy()
    for kind in set(ARCHETYPES) - {"family"}:
        mine, others = profiles[kinds == kind], profiles[kinds == "family"]
        error = np.sqrt(mine.var(axis=0, ddof=1) / len(mine) + others.var(axis=0, ddof=1) / len(others))
        assert np.mean(((mine.mean(axis=0) - others.mean(axis=0)) / error) ** 2) > 5


@pytest.mark.parametrize("seed", [0, 1])
def test_the_dial_widens_the_spread_of_profiles_steadily(seed):
    spreads = [spread(dial, seed) for dial in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    assert (np.diff(spreads) > 0).all()
    assert spreads[-1] > 5 * spreads[0]


def test_true_distances_grow_with_the_dial_for_everyone_on_average():
    tables = [SimulatedHouseholds(days=1, heterogeneity=dial).load().attributes for dial in (0, 0.5, 1)]
    none, half, full = (table["true_distance"].to_numpy() for table in tables)
    assert (none == 0).all()
    np.testing.assert_allclose(2 * half, full, rtol=1e-9)  # the law's mean lies on the same line
    assert full.mean() == pytest.approx(1, abs=0.25)


def test_seeds_reproduce_and_differ():
    first, again, other = (SimulatedHouseholds(clients=4, days=5, seed=seed).load() for seed in (3, 3, 4))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_a_client_does_not_depend_on_the_size_of_the_population():
    options = {"days": 20, "min_days": 10, "missing": 0.05}
    few, many = (SimulatedHouseholds(clients=clients, **options).load() for clients in (10, 100))
    assert many.select(range(10)).fingerprint() == few.fingerprint()
    assert many.attributes.iloc[:10].equals(few.attributes)


def by_archetype(name, **options):
    settings = {"clients": 6, "days": 120, "heterogeneity": 1.0} | options
    return SimulatedHouseholds(archetypes=(name,), **settings).load()


def test_panels_feed_the_grid_at_noon_and_nobody_else_does():
    noon = daily_profiles(by_archetype("pv"))[:, 12]
    assert (noon < 0.2).all()
    assert (by_archetype("pv").values < 0).any()
    for name in set(ARCHETYPES) - {"pv"}:
        assert (by_archetype(name).values > 0).all()


def test_night_heating_runs_at_night_and_follows_the_weather():
    series = by_archetype("night_heating", days=210)
    profiles = daily_profiles(series)
    assert (profiles[:, 1:6].mean(axis=1) > 2 * profiles[:, 10:16].mean(axis=1)).all()
    loads = series.values.reshape(6, 210, 24)
    assert (loads[:, :30, 1:6].mean((1, 2)) > 2 * loads[:, -30:, 1:6].mean((1, 2))).all()


def test_cars_charge_in_the_late_evening_and_night():
    profiles = daily_profiles(by_archetype("ev")) - daily_profiles(by_archetype("family"))
    late = [22, 23, 0, 1]
    assert profiles[:, late].mean() > 4 * np.abs(profiles[:, 8:16]).mean()


def test_shift_work_spreads_the_routine_over_the_day():
    weeks = by_archetype("shift_work").values.reshape(6, -1, 24)[:, :119].reshape(6, 17, 7, 24).mean(2)
    peaks = weeks.argmax(-1)
    assert len(set(peaks.flatten().tolist())) > len(
        set(by_archetype("family").values.reshape(6, -1, 24).mean(1).argmax(-1).tolist())
    )


def test_vacant_weeks_are_low():
    weeks = by_archetype("vacancy").values[: 6 * 120 * 24].reshape(6, 120, 24)[:, :119].reshape(6, 17, 168)
    totals = weeks.sum(-1)
    share_low = (totals < 0.5 * totals.max(1, keepdim=True).values).float().mean(1)
    assert (share_low > 0.1).all()
    assert float(share_low.mean()) > 0.25


def test_weekends_differ_from_workdays():
    loads = by_archetype("family", heterogeneity=0.0).values.reshape(6, 120, 24).mean(0)
    day_off = (torch.arange(120) + 1) % 7 >= 5  # 1 January 2013 was a Tuesday
    assert loads[day_off, 13].mean() > 1.2 * loads[~day_off, 13].mean()
    assert loads[day_off, 7].mean() < loads[~day_off, 7].mean()


def test_missing_readings_come_in_short_gaps_of_about_the_share_asked_for():
    series = SimulatedHouseholds(clients=30, days=100, missing=0.06).load()
    missing = series.values[:, 0].isnan().numpy()
    assert missing.mean() == pytest.approx(0.06, abs=0.01)
    edges = np.diff(np.concatenate(([0], missing.astype(int), [0])))
    lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    assert 3 < lengths.mean() < 5.5
    windows = make_windows(series, WindowSpec(lookback=24, horizon=6))
    assert (
        not windows.gather(windows.positions("train", torch.arange(3), torch.arange(9).repeat(3, 1)))[0]
        .isnan()
        .any()
    )


def test_lengths_are_unequal_when_asked_for():
    lengths = SimulatedHouseholds(clients=50, days=40, min_days=10).load().lengths
    assert lengths.min() >= 240
    assert lengths.max() <= 960
    assert (lengths % 24 == 0).all()
    assert lengths.unique().numel() > 10


def test_all_problems_of_the_options_come_in_one_message():
    with pytest.raises(DataError) as caught:
        SimulatedHouseholds(
            clients=0,
            days=5,
            min_days=9,
            step_minutes=7,
            heterogeneity=2,
            missing=1,
            archetypes=("pw", "ev"),
            seed=-1,
        )
    assert len(caught.value.problems) == 7
    assert caught.value.problems[-1].startswith("There is no archetype 'pw'. Did you mean 'pv'?")
