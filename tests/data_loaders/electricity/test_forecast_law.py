"""The oracle of the simulated households: what it is on its own terms, and whom it puts far away."""

import numpy as np
import pytest

from data_loaders import SimulatedHouseholds
from data_loaders.electricity import forecast_law
from data_loaders.electricity.forecast_law import RIDGE, WEEK, _weeks, forecast_distance
from data_loaders.electricity.habits import ARCHETYPES, NAMES, as_row
from data_loaders.electricity.household_load import Clock, draw_client, net_load, stack_draws, temperature


def rows(*kinds):
    return np.stack([as_row(ARCHETYPES[kind]) for kind in kinds])


def test_it_is_the_difference_of_two_ridge_regressions():
    """The slow way: forecasts of every week, by the own rule and by that of all weeks of all clients."""
    habits, days, clock = rows("family", "ev", "shift_work"), 90, Clock(90, 60)
    draws = stack_draws([draw_client(3, 2**29 + k, clock) for k in range(3)])
    x, y = _weeks(net_load(habits, draws, temperature(3, clock), clock))

    def rule(x, y, clients=1):
        gram = x.T @ x / clients + RIDGE * np.eye(x.shape[1])
        return np.linalg.solve(gram, x.T @ y / clients)

    everyone = rule(np.concatenate(x), np.concatenate(y), 3)
    want = [np.sqrt(((x[k] @ (rule(x[k], y[k]) - everyone)) ** 2).mean()) for k in range(3)]
    np.testing.assert_allclose(forecast_distance(habits, 3, days), want, rtol=1e-6)


def test_weeks_are_normalised_by_themselves_alone():
    load = np.random.default_rng(0).gamma(2.0, size=(2, 12, 24))
    x, y = _weeks(load)
    assert x.shape == (2, 12 - WEEK, 169)
    np.testing.assert_allclose(x[:, :, :-1].mean(2), 0, atol=1e-9)
    np.testing.assert_allclose(x[..., -1], 1)
    moved = _weeks(10 * load + 3)
    np.testing.assert_allclose(moved[0], x, atol=0.02)
    np.testing.assert_allclose(moved[1], y, atol=0.02)
    later = load.copy()
    later[:, 9:] = 0  # a week knows nothing of what comes after it
    np.testing.assert_array_equal(_weeks(later)[0][:, :2], x[:, :2])


@pytest.mark.parametrize("seed", [0, 1])
def test_households_on_shifts_are_far_though_their_days_are_not(seed):
    kinds = ["family"] * 8 + ["shift_work"] * 4
    found = forecast_distance(rows(*kinds), seed, 400)
    assert np.median(found[8:]) > 1.15 * np.median(found[:8])


def test_it_grows_with_the_dial_and_comes_only_when_asked():
    assert "forecast_distance" not in SimulatedHouseholds(clients=3, days=9).load().attributes
    means = []
    for dial in (0.0, 0.5, 1.0):
        table = SimulatedHouseholds(clients=18, days=9, heterogeneity=dial, oracle=True).load().attributes
        assert np.isfinite(table["forecast_distance"]).all()
        means.append(table["forecast_distance"].mean())
    assert means[0] < means[1] < means[2]


def test_blocks_of_clients_make_no_difference(monkeypatch):
    habits = rows(*ARCHETYPES)
    assert habits.shape == (6, len(NAMES))
    whole = forecast_distance(habits, 0, 60)
    monkeypatch.setattr(forecast_law, "_AT_ONCE", 4)
    np.testing.assert_allclose(forecast_distance(habits, 0, 60), whole)
