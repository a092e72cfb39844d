"""Physics, resampling and laying runs end to end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_loaders import DataError
from data_loaders.vehicle.traces import (
    Layout,
    Trace,
    TraceRules,
    acceleration,
    assemble,
    resample,
    sine_of_grade,
    specific_power,
)

LAYOUT = Layout("handmade", "m/s", ("speed",), 0.5)
ANY = TraceRules(min_minutes=0, min_run_seconds=0)


def trace(car, run, values, start=0.0):
    return Trace(car, run, start, np.asarray(values, float).reshape(len(values), -1))


def test_power_at_constant_speed_is_rolling_and_drag():
    speed = np.full(5, 20.0)
    np.testing.assert_allclose(specific_power(speed, np.zeros(5)), 20 * 0.132 + 0.000302 * 8000)


def test_power_of_a_climb_lifts_a_tonne():
    """kW per tonne is W per kg: the climb's part is g times the vertical speed."""
    flat, climb = (specific_power(np.array([10.0]), np.zeros(1), sine) for sine in (0.0, 0.05))
    assert climb - flat == pytest.approx(9.81 * 10 * 0.05)


def test_braking_gives_negative_power():
    assert specific_power(np.array([10.0]), np.array([-2.0])) < 0


def test_acceleration_is_that_of_the_step_before_and_missing_at_the_first():
    change = acceleration(np.array([3.0, 3.2, 3.1, np.nan, 3.0, 3.5]), 0.1)
    np.testing.assert_allclose(change, [np.nan, 2, -1, np.nan, np.nan, 5], atol=1e-12)


def test_grade_of_a_ramp_and_of_a_standing_car():
    speed = np.full(200, 12.0)
    altitude = 100 + 0.03 * 12 * 0.1 * np.arange(200)
    sine = sine_of_grade(speed, altitude, 0.1)
    np.testing.assert_allclose(sine[50:], 0.03, rtol=1e-9)
    assert (sine[:50] == 0).all()
    noise = 100 + np.random.default_rng(0).standard_normal(200)
    assert (sine_of_grade(np.zeros(200), noise, 0.1) == 0).all()


@given(st.integers(0, 199), st.integers(0, 100))
def test_what_comes_later_changes_nothing_before(step, seed):
    rng = np.random.default_rng(seed)
    speed, altitude = 8 + rng.random(200), 100 + np.cumsum(rng.standard_normal(200)) / 10
    other_speed, other_altitude = speed.copy(), altitude.copy()
    other_speed[step + 1 :], other_altitude[step + 1 :] = 0, 0
    before, after = (
        (acceleration(v, 0.1)[: step + 1], sine_of_grade(v, h, 0.1)[: step + 1])
        for v, h in ((speed, altitude), (other_speed, other_altitude))
    )
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@given(
    hnp.arrays(float, st.tuples(st.integers(1, 60), st.integers(1, 3)), elements=st.floats(-50, 50)),
    st.integers(1, 10),
)
def test_resampling_keeps_means_and_first_steps(values, every):
    groups = len(values) // every
    mean, pick = resample(values, every, "mean"), resample(values, every, "pick")
    assert mean.shape == pick.shape == (groups, values.shape[1])
    for group in range(groups):
        np.testing.assert_allclose(
            mean[group], values[group * every : (group + 1) * every].mean(0), atol=1e-9
        )
        np.testing.assert_array_equal(pick[group], values[group * every])


def test_a_mean_with_a_missing_step_is_missing():
    values = np.array([[1.0], [np.nan], [3.0], [5.0]])
    assert np.isnan(resample(values, 2, "mean")[0, 0])
    assert resample(values, 2, "mean")[1, 0] == 4


def test_runs_are_trimmed_and_parted_by_breaks():
    nan = float("nan")
    series, kept = assemble(
        LAYOUT,
        [
            trace("b", "1", [1, 2, 3]),
            trace("a", "1", [nan, 4, nan, 5, nan], start=100),
            trace("b", "2", [6, 7]),
        ],
        ANY,
    )
    assert series.clients == ("a", "b")
    np.testing.assert_array_equal(series.values[:, 0], [4, nan, 5, 1, 2, 3, 6, 7])
    assert series.offsets.tolist() == [0, 3, 8]
    assert series.breaks.tolist() == [6]  # not where another client begins
    assert series.starts[0] == np.datetime64("1970-01-01T00:01:40")
    assert series.attributes["runs"].tolist() == [1, 2]
    assert series.attributes["minutes"].tolist() == pytest.approx([2 * 0.5 / 60, 5 * 0.5 / 60])
    assert [run.run for run in kept["b"]] == ["1", "2"]


def test_short_runs_and_short_cars_are_left_out_with_the_reason():
    series, _ = assemble(
        LAYOUT,
        [trace("a", "1", np.ones(200)), trace("a", "2", np.ones(3)), trace("b", "1", np.ones(100))],
        TraceRules(min_minutes=1, min_run_seconds=2),
    )
    assert series.clients == ("a",)
    assert len(series.breaks) == 0
    assert "min_run_seconds: 1 runs shorter than 2 s or without a target are left out" in series.rules
    assert [(item.client, item.reason) for item in series.dropped] == [
        ("b", "min_minutes: 0.83 minutes observed, 1 asked for")
    ]


def test_cars_without_a_target_never_stay():
    series, _ = assemble(LAYOUT, [trace("a", "1", [1]), trace("b", "1", [np.nan] * 5)], ANY)
    assert series.clients == ("a",)
    assert series.dropped[0].client == "b"


def test_nobody_left_and_infinite_values_are_errors():
    with pytest.raises(DataError, match="No car of source 'handmade' is left: 1 by min_minutes"):
        assemble(LAYOUT, [trace("a", "1", [np.nan] * 5)], ANY)
    with pytest.raises(DataError, match="car 'a', run '7': infinite value at step 1"):
        assemble(LAYOUT, [trace("a", "7", [1, np.inf])], ANY)
