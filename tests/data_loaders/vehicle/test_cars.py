"""The twin of OpenACC: the Intelligent Driver Model, and the dial."""

import numpy as np
import pytest
import torch

from data_loaders import DataError, WindowSpec, build_source, make_windows
from data_loaders.vehicle.following import LAW, NAMES, STYLES, equilibrium_gap, follow_leaders
from personalization import distance_to_population

QUIET = {name: LAW.archetypes[name] * (np.array(NAMES) != "jitter") for name in STYLES}


def cars(**options):
    return build_source("cars", **options).load()


def headways(series):
    """Gap over speed of each car, decorrelated: one value a second; (seconds,) each."""
    both = [series.of(client)[::10] for client in range(len(series))]
    return [(rows[:, 1] / rows[:, 0])[rows[:, 0] > 2] for rows in both]


# --- the model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [5.0, 12.0])
def test_behind_a_steady_leader_cars_keep_the_equilibrium_gap(speed):
    parameters = np.stack(list(QUIET.values()))
    leader = np.full((3000, len(parameters)), speed)
    leader[:300] += np.linspace(0, 3, 300)[:, None]  # something to recover from
    own, gap = follow_leaders(parameters, leader, np.zeros_like(leader))
    assert np.abs(gap[300] - gap[-1]).min() > 0.1
    np.testing.assert_allclose(own[-1], speed, atol=1e-3)
    np.testing.assert_allclose(
        gap[-1], equilibrium_gap(parameters, np.full(len(parameters), speed)), rtol=1e-3
    )


def test_a_free_road_leads_to_the_desired_speed():
    parameters = np.stack(list(QUIET.values()))
    leader = np.full((6000, len(parameters)), 60.0)
    own, _ = follow_leaders(parameters, leader, np.zeros_like(leader))
    np.testing.assert_allclose(own[-1], parameters[:, NAMES.index("desired_speed")], rtol=1e-2)


def test_a_leader_that_stops_is_not_hit():
    parameters = np.stack(list(QUIET.values()))
    leader = np.maximum(15 - 0.25 * np.arange(600)[:, None] * np.ones(len(parameters)), 0)  # 2.5 m/s2
    own, gap = follow_leaders(parameters, leader, np.zeros_like(leader))
    assert (own[-1] < 0.3).all()
    assert (gap > 1).all()


def test_delay_between_steps_is_continuous():
    rows = np.repeat(QUIET["normal"][None], 3, axis=0)
    rows[:, NAMES.index("delay")] = [0.4, 0.45, 0.5]
    leader = 10 + 3 * np.sin(np.arange(600) / 30)[:, None] * np.ones(3)
    speed, _ = follow_leaders(rows, leader, np.zeros_like(leader))
    first, middle, last = speed.T
    assert np.abs(first - last).max() > 1e-2
    assert np.abs(middle - (first + last) / 2).max() < 0.2 * np.abs(first - last).max()


# --- the source --------------------------------------------------------------------------------------------


def test_the_schema_is_that_of_openacc():
    series = cars(clients=5, runs=3, run_seconds=40, covariates=("gap", "leader_speed"))
    assert (series.unit, series.step_seconds, series.channel_names) == (
        "m/s",
        0.1,
        ("speed", "gap", "leader_speed"),
    )
    assert series.lengths.tolist() == [1200] * 5
    assert series.breaks.tolist() == [1200 * client + run * 400 for client in range(5) for run in (1, 2)]
    assert {"runs", "minutes", "style", "true_distance", *NAMES} == set(series.attributes)
    assert (series.values[:, 1] > 0).all()
    power = cars(clients=2, target="power", frequency=1)
    assert (power.unit, power.step_seconds) == ("kW/t", 1.0)


def test_windows_of_seconds_ahead():
    series = cars(clients=3, frequency=5, covariates=("leader_speed",))
    windows = make_windows(series, WindowSpec(lookback=20, horizon=15))
    assert all(int(windows.count(span).min()) > 0 for span in ("train", "validation", "test"))


def test_a_car_does_not_depend_on_the_size_of_the_population_nor_a_run_on_their_number():
    few, many = (cars(clients=clients, runs=3, run_seconds=30, missing=0.1) for clients in (3, 9))
    torch.testing.assert_close(many.values[: len(few.values)], few.values, equal_nan=True, rtol=0, atol=0)
    assert many.attributes.iloc[:3].equals(few.attributes)
    one = cars(clients=1, runs=1, run_seconds=30, missing=0.1)
    torch.testing.assert_close(few.values[: len(one.values)], one.values, equal_nan=True, rtol=0, atol=0)


def test_seeds_reproduce_and_differ():
    first, again, other = (cars(clients=2, run_seconds=20, seed=seed) for seed in (3, 3, 4))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_missing_gnss_is_of_about_the_share_asked_for():
    series = cars(clients=20, missing=0.1)
    assert float(series.values.isnan().float().mean()) == pytest.approx(0.1, abs=0.02)
    assert not cars(clients=2).values.isnan().any()


# --- the dial ----------------------------------------------------------------------------------------------


def test_at_dial_zero_styles_are_one_law():
    series = cars(clients=60, heterogeneity=0, covariates=("gap",))
    assert (series.attributes["true_distance"] == 0).all()
    assert (series.attributes[list(NAMES)].std() < 1e-12).all()
    means = np.array([float(one.median()) for one in headways(series)])
    styles = series.attributes["style"].to_numpy()
    for style in STYLES:
        mine, others = means[styles == style], means[styles != style]
        error = np.sqrt(mine.var(ddof=1) / len(mine) + others.var(ddof=1) / len(others))
        assert abs(mine.mean() - others.mean()) < 3.5 * error


def test_at_dial_one_the_headway_kept_is_that_of_the_parameters():
    series = cars(clients=40, heterogeneity=1, covariates=("gap",))
    kept = np.array([float(one.median()) for one in headways(series)])
    assert np.corrcoef(kept, series.attributes["headway"])[0, 1] > 0.9


def test_parameters_lie_on_a_straight_line():
    tables = [cars(clients=8, run_seconds=5, heterogeneity=dial).attributes for dial in (0, 0.5, 1)]
    none, half, full = (table[["true_distance", *NAMES]].to_numpy() for table in tables)
    np.testing.assert_allclose(half, (none + full) / 2, rtol=1e-9)
    assert full[:, 0].mean() == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("seed", [0, 1])
def test_turning_the_dial_makes_distances_grow(seed):
    means = []
    for dial in (0, 0.5, 1):
        series = cars(clients=12, heterogeneity=dial, seed=seed, covariates=("gap",))
        features = [one[:, None] for one in headways(series)]
        means.append(float(distance_to_population(features, draws=16, projections=16).value.mean()))
    assert means[0] < means[1] < means[2]
    assert means[2] > 1.5 * means[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_turning_the_dial_moves_what_a_study_compares(seed):
    means = []
    for dial in (0, 0.5, 1):
        series = cars(
            clients=12, heterogeneity=dial, seed=seed, covariates=("leader_speed", "gap"), frequency=1
        )
        windows = make_windows(series, WindowSpec(lookback=10, horizon=5, max_gap=2, validation_stride=1))
        features = [windows.features(client) for client in range(12)]
        found = distance_to_population(features, draws=16, projections=32, standardise=True)
        means.append(float(found.calibrated.mean()))
    assert means[0] < 0.9 * means[1] < 0.9 * means[2]
    assert means[2] > 1.4 * means[0]


def test_all_problems_of_the_options_come_in_one_message():
    with pytest.raises(DataError) as caught:
        build_source(
            "cars",
            clients=0,
            runs=0,
            run_seconds=0,
            seed=-1,
            heterogeneity=2,
            missing=1,
            styles=("brisc",),
            target="gab",
            frequency=3,
        )
    assert len(caught.value.problems) == 9
    assert "Did you mean 'brisk'?" in str(caught.value)
    with pytest.raises(DataError, match="styles must name at least one"):
        build_source("cars", styles=())
