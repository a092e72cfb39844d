"""The twin of the Norwegian sessions: the process, its tasks, and the dial."""

import numpy as np
import pytest
import torch

from data_loaders import ClientSamples, ClientSeries, DataError, WindowSpec, build_source, make_windows
from data_loaders.vehicle.charging_habits import ARCHETYPES, CHARGER, LAW, NAMES, sessions_of
from data_loaders.vehicle.session_features import channel_names
from personalization import distance_to_population


def chargers(**options):
    return build_source("chargers", **options).load()


def one(name, days=728, seed=0):
    return sessions_of(LAW.archetypes[name], np.random.default_rng(seed), days)


@pytest.mark.parametrize("name", ARCHETYPES)
def test_sessions_follow_each_other_and_hold_their_energy(name):
    sessions = one(name)
    assert (np.diff(sessions["plugin"]) > 0).all()
    assert (sessions["plugin"][1:] >= sessions["plugout"][:-1] - 60).all()  # stamps are whole minutes
    assert (sessions["energy"] <= CHARGER * sessions["duration"] + 0.01).all()
    between = (sessions["plugout"] - sessions["plugin"]) / 3600
    assert (np.abs(between - sessions["duration"]) <= 1 / 60 + 1e-9).all()


def test_archetypes_are_what_they_are_called():
    sessions = {name: one(name) for name in ARCHETYPES}
    hour = {name: np.median(it["plugin"] % 86400) / 3600 for name, it in sessions.items()}
    day = {name: (it["plugin"] // 86400 + 1) % 7 for name, it in sessions.items()}  # Monday is 0
    assert hour["night"] > 21 > 18 > hour["commuter"] > 16
    assert (day["weekender"] >= 5).mean() > 0.6 > 0.35 > (day["commuter"] >= 5).mean()
    assert np.median(sessions["shared"]["duration"]) < 4 < 7 < np.median(sessions["night"]["duration"])
    assert sessions["shared"]["shared"].mean() > 0.9 > 0.2 > sessions["night"]["shared"].mean()


def test_a_longer_simulation_begins_like_a_shorter_one():
    short, long = (one("commuter", days) for days in (100, 400))
    for name, values in short.items():
        np.testing.assert_array_equal(values, long[name][: len(values)])


def test_the_schema_is_that_of_the_norwegian_sessions():
    series = chargers(clients=8, days=60, plugged_in=True)
    assert isinstance(series, ClientSeries)
    assert (series.unit, series.step_seconds, series.channel_names) == ("kWh", 3600, ("energy", "plugged_in"))
    assert 0 <= float(series.values[:, 1].min()) <= float(series.values[:, 1].max()) <= 1
    samples = chargers(clients=8, days=60, task="duration", missing=0.1)
    assert isinstance(samples, ClientSamples)
    assert (samples.unit, samples.channel_names) == ("h", channel_names(3))
    assert samples.times is not None
    assert len(samples.inputs) < samples.attributes["n_sessions"].sum()  # lost plug-outs
    assert {"archetype", "true_distance", "garage", "user_type", "n_sessions", *NAMES} == set(
        samples.attributes
    )


def test_hours_hold_the_energy_of_the_sessions():
    series, samples = (chargers(clients=6, days=90, task=task) for task in ("hourly", "energy"))
    for client in range(6):
        sold = float(samples.targets[samples.rows(client)].sum())
        assert float(series.of(client)[:, 0].sum()) == pytest.approx(sold, rel=1e-5)


def test_windows_of_the_next_day():
    windows = make_windows(chargers(clients=4, days=120), WindowSpec(lookback=168, horizon=24))
    assert all(int(windows.count(span).min()) > 0 for span in ("train", "validation", "test"))


@pytest.mark.parametrize("task", ["hourly", "energy"])
def test_a_user_does_not_depend_on_the_size_of_the_population(task):
    few, many = (chargers(clients=clients, days=60, task=task) for clients in (5, 20))
    assert many.select(range(5)).fingerprint() == few.fingerprint()
    assert many.attributes.iloc[:5].equals(few.attributes)


def test_seeds_reproduce_and_differ():
    first, again, other = (chargers(clients=2, days=60, seed=seed) for seed in (3, 3, 4))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


# --- the dial ----------------------------------------------------------------------------------------------


def test_at_dial_zero_archetypes_are_one_law():
    samples = chargers(clients=48, heterogeneity=0, task="energy")
    assert (samples.attributes["true_distance"] == 0).all()
    assert (samples.attributes[list(NAMES)].std() < 1e-12).all()
    kinds = samples.attributes["archetype"].to_numpy()
    for values in (samples.targets[:, 0], samples.inputs[:, 0, channel_names(3).index("hour_sin")]):
        means = np.array([float(values[samples.rows(client)].mean()) for client in range(48)])
        for kind in ARCHETYPES:
            mine, others = means[kinds == kind], means[kinds != kind]
            error = np.sqrt(mine.var(ddof=1) / len(mine) + others.var(ddof=1) / len(others))
            assert abs(mine.mean() - others.mean()) < 3.5 * error


def test_parameters_lie_on_a_straight_line():
    tables = [
        chargers(clients=8, days=60, heterogeneity=dial, min_sessions=1).attributes for dial in (0, 0.5, 1)
    ]
    none, half, full = (table[["true_distance", *NAMES]].to_numpy() for table in tables)
    np.testing.assert_allclose(half, (none + full) / 2, rtol=1e-9)
    assert full[:, 0].mean() == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize("seed", [0, 1])
def test_turning_the_dial_makes_distances_grow(seed):
    means = []
    for dial in (0, 0.5, 1):
        samples = chargers(clients=8, days=200, heterogeneity=dial, seed=seed, task="energy")
        clock = samples.inputs[:, 0, :4]
        features = [
            torch.cat([clock[samples.rows(k)], samples.targets[samples.rows(k)].log1p()], dim=1)
            for k in range(8)
        ]
        means.append(float(distance_to_population(features, draws=16, projections=16).calibrated.mean()))
    assert means[0] < means[1] < means[2]
    assert means[2] > 3 * means[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_turning_the_dial_moves_what_a_study_compares_by_the_hour(seed):
    means, apart = [], []
    for dial in (0, 0.5, 1):
        windows = make_windows(chargers(clients=24, heterogeneity=dial, seed=seed), WindowSpec(168, 24))
        features = [windows.features(client) for client in range(24)]
        found = distance_to_population(features, draws=64, projections=32, standardise=True)
        means.append(float(found.calibrated.mean()))
        apart.append(float((found.p_value < 0.05).double().mean()))
    assert means[0] < means[1] < means[2]
    assert means[2] > 1.5 * means[0]
    assert apart[0] <= 0.3 < apart[1] <= apart[2]


def test_all_problems_of_the_options_come_in_one_message():
    with pytest.raises(DataError) as caught:
        build_source(
            "chargers",
            clients=0,
            days=0,
            seed=-1,
            heterogeneity=-1,
            missing=1,
            archetypes=("nite",),
            task="power",
            previous=-1,
        )
    assert len(caught.value.problems) == 8
    assert "Did you mean 'night'?" in str(caught.value)
    with pytest.raises(DataError, match="archetypes must name at least one"):
        build_source("chargers", archetypes=())
    with pytest.raises(DataError, match="No user of source 'chargers' is left"):
        chargers(clients=2, days=3, min_sessions=10)
