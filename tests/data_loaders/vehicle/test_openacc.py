"""OpenACC's part files: platoon positions, GNSS that is missing, runs of their own."""

import numpy as np
import pytest
import torch

from data_loaders import DataError, WindowSpec, build_source, make_windows
from data_loaders.vehicle.openacc import powertrain

CARS = ("SMART_TARGET", "BMW_I3", "AUDI_A4")


def part(cars=CARS, steps=200, without=(), start=430.0, seed=0):
    """A part file's lines; cars in ``without`` have no GNSS: their cells are empty."""
    random = np.random.default_rng(seed)
    speed = 10 + random.standard_normal((steps, len(cars))).cumsum(0) * 0.05
    gap = 15 + random.standard_normal((steps, len(cars) - 1)).cumsum(0) * 0.05
    names = [f"{name}{k + 1}" for k in range(len(cars)) for name in ("Speed", "E", "N", "Lon", "Lat", "Alt")]
    lines = [
        "Date,8,10,2019",
        f"Vehicle_order,{','.join(cars)},",
        f"Number_of_vehicles,{len(cars)}",
        "ACC,1",
        "Distance_setting,S",
        ",".join(["Time", *names, *(f"IVS{k + 1}" for k in range(len(cars) - 1))]),
    ]
    for step in range(steps):
        cells = [f"{start + step / 10:.1f}"]
        for k, car in enumerate(cars):
            cells += (
                [""] * 6
                if car in without
                else [repr(float(speed[step, k])), "1", "2", "16.8", "46.9", "243.1"]
            )
        for k in range(len(cars) - 1):
            lost = cars[k] in without or cars[k + 1] in without
            cells.append("" if lost else repr(float(gap[step, k])))
        lines.append(",".join(cells))
    return lines, speed, gap


@pytest.fixture
def source(tmp_path):
    """Write part files by name and return the source that reads their folder."""

    def make(parts, **options):
        for name, lines in parts.items():
            (tmp_path / f"{name}.csv").write_bytes(("\r\n".join(lines) + "\r\n").encode())
        settings = {"min_minutes": 0.1, "min_run_seconds": 1} | options
        return build_source("openacc", root=str(tmp_path), **settings)

    return make


def of(series, car):
    return series.of(series.clients.index(car))


def test_columns_are_cars_by_position(source):
    lines, speed, gap = part()
    series = source({"dynamic_part1": lines}, covariates=("gap", "leader_speed")).load()
    assert series.clients == ("AUDI_A4", "BMW_I3", "SMART_TARGET")
    assert (series.step_seconds, series.unit, series.channel_names) == (
        0.1,
        "m/s",
        ("speed", "gap", "leader_speed"),
    )
    expected = np.stack([speed[:, 2], gap[:, 1], speed[:, 1]], axis=1)
    np.testing.assert_allclose(of(series, "AUDI_A4"), expected, rtol=1e-6)
    assert of(series, "SMART_TARGET")[:, 1:].isnan().all()  # nobody ahead
    assert series.attributes["position"].tolist() == [3, 2, 1]
    assert series.attributes["powertrain"].tolist() == ["ICE or hybrid", "BEV", "lead/target car"]
    assert series.starts[0] == np.datetime64("2019-10-08T00:07:10")


def test_missing_gnss_is_missing_and_so_is_what_follows_from_it(source):
    lines, _, _ = part(without=("BMW_I3",))
    series = source({"dynamic_part1": lines}, covariates=("gap", "leader_speed")).load()
    assert "BMW_I3" not in series.clients
    assert series.dropped[0].client == "BMW_I3"
    assert of(series, "AUDI_A4")[:, 1:].isnan().all()


def test_gnss_lost_for_a_while_leaves_the_grid_whole(source):
    lines, speed, _ = part(steps=150)
    for line in range(6 + 40, 6 + 60):
        cells = lines[line].split(",")
        cells[7] = ""  # Speed2
        lines[line] = ",".join(cells)
    values = of(source({"dynamic_part1": lines}).load(), "BMW_I3")[:, 0]
    assert values.isnan().nonzero()[:, 0].tolist() == list(range(40, 60))
    np.testing.assert_allclose(values[60:], speed[60:, 1], rtol=1e-6)


def test_a_clock_that_jumps_ahead_leaves_a_gap(source):
    lines, speed, _ = part(steps=150)
    values = of(source({"dynamic_part1": lines[:50] + lines[70:]}).load(), "BMW_I3")[:, 0]
    assert len(values) == 150
    assert values.isnan().sum() == 20
    np.testing.assert_allclose(values[64:], speed[64:, 1], rtol=1e-6)


def test_part_2_comes_before_part_10_and_no_window_crosses_runs(source):
    parts = {f"dynamic_part{k}": part(steps=100 + k, seed=k) for k in (10, 2, 1)}
    series = source({name: lines for name, (lines, _, _) in parts.items()}).load()
    own = series.of(0)[:, 0].numpy()
    expected = np.concatenate([parts[f"dynamic_part{k}"][1][:, 2] for k in (1, 2, 10)])
    np.testing.assert_allclose(own, expected, rtol=1e-6)
    step = 101 + 102 + 110
    assert series.breaks.tolist() == [k * step + begin for k in range(3) for begin in (101, 203)]
    assert series.attributes["runs"].tolist() == [3, 3, 3]


def test_resampled_by_mean_and_by_picking(source):
    lines, speed, _ = part()
    mean, pick = (
        of(source({"dynamic_part1": lines}, frequency=2, resampling=how).load(), "BMW_I3")[:, 0]
        for how in ("mean", "pick")
    )
    np.testing.assert_allclose(mean, speed[:, 1].reshape(-1, 5).mean(1), rtol=1e-6)
    np.testing.assert_allclose(pick, speed[::5, 1], rtol=1e-6)
    series = source({"dynamic_part1": lines}, frequency=2).load()
    assert series.step_seconds == 0.5
    assert "2 Hz from 10 Hz: the mean of 5 steps, missing where one is" in series.rules
    assert any("in one platoon with another car's training part" in rule for rule in series.rules)


def test_power_follows_the_formula(source):
    lines, speed, _ = part()
    power = of(source({"dynamic_part1": lines}, target="power").load(), "BMW_I3")[:, 0]
    v, a = speed[1:, 1], (speed[1:, 1] - speed[:-1, 1]) / 0.1
    np.testing.assert_allclose(power, v * (1.1 * a + 0.132) + 0.000302 * v**3, rtol=1e-4, atol=1e-5)
    climbs = source({"dynamic_part1": lines}, target="power", grade="altitude").load()
    np.testing.assert_allclose(
        of(climbs, "BMW_I3")[:, 0], power, rtol=1e-4, atol=1e-5
    )  # the altitude is constant


def test_windows_of_three_seconds(source):
    lines, _, _ = part(steps=600)
    series = source({"dynamic_part1": lines}, covariates=("leader_speed",), frequency=5).load()
    windows = make_windows(series, WindowSpec(lookback=20, horizon=15, on_short="drop"))
    assert windows.series.clients == ("AUDI_A4", "BMW_I3")  # the leader sees nobody ahead
    x, y = windows.gather(windows.positions("test", torch.arange(2), torch.zeros(2, 1, dtype=torch.int64)))
    assert (x.shape, y.shape) == ((2, 1, 20, 2), (2, 1, 15))


def test_powertrains_by_name():
    kinds = {
        "TESLA_MODEL3": "BEV",
        "VW_GolfE": "BEV",
        "SKODA_TARGET": "lead/target car",
        "MAZDA_3": "ICE or hybrid",
    }
    assert {car: powertrain(car) for car in kinds} == kinds


# --- bad input ---------------------------------------------------------------------------------------------


def cell(line, column, value):
    """A part file with one cell replaced; line and column count from 1."""
    lines, _, _ = part(steps=20)
    cells = lines[line - 1].split(",")
    cells[column - 1] = value
    lines[line - 1] = ",".join(cells)
    return lines


BROKEN = {
    "another delimiter": (lambda: [line.replace(",", ";") for line in part()[0]], r"line 1: expected 'Date'"),
    "a header line that is gone": (lambda: part()[0][1:], r"line 1: expected 'Date'"),
    "other columns": (
        lambda: [line.replace("Speed", "V") for line in part()[0]],
        r"line 6: no columns Time and Speed1",
    ),
    "a car twice": (lambda: part(("A", "B", "A"))[0], r"line 2: vehicle 'A' stands there twice"),
    "another number of cars": (lambda: cell(3, 2, "7"), r"line 3: 7 vehicles, but line 2 names 3"),
    "no day": (lambda: cell(1, 3, "Oct"), r"lines 1 to 3: no day"),
    "text": (lambda: cell(9, 2, "fast"), r"line 9, column 'Speed1': 'fast' is no finite number"),
    "an infinite speed": (lambda: cell(12, 8, "inf"), r"line 12, column 'Speed2': 'inf' is no finite number"),
    "a clock that goes back": (
        lambda: cell(10, 1, "429.9"),
        r"line 10: the clock goes from 430.2 s to 429.9 s",
    ),
    "no stamp": (lambda: cell(10, 1, ""), r"line 10: no Time"),
    "no rows": (lambda: part(steps=0)[0], r"has no rows below its header"),
    "nothing": (list, r"line 1: expected 'Date'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_named_with_the_line(source, kind):
    lines, message = BROKEN[kind]
    with pytest.raises(DataError, match=message) as caught:
        source({"dynamic_part1": lines()}).load()
    assert "dynamic_part1.csv" in str(caught.value)


def test_speeds_in_other_units_are_an_error(source):
    lines, _, _ = part()
    faster = [
        ",".join([cells[0], *(str(float(cells[1]) * 10), *cells[2:])])
        for cells in (line.split(",") for line in lines[6:])
    ]
    with pytest.raises(
        DataError, match=r"run 'dynamic_part1', car 'SMART_TARGET': 200 of 200 speeds .* km/h"
    ):
        source({"dynamic_part1": lines[:6] + faster}).load()


def test_a_folder_without_runs_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"No runs in .*trajectories_10hz.parquet"):
        build_source("openacc", root=str(tmp_path)).load()


def test_all_problems_of_the_options_come_in_one_message():
    with pytest.raises(DataError) as caught:
        build_source(
            "openacc",
            target="gab",
            covariates=("gab", "fuel"),
            frequency=3,
            resampling="x",
            grade="y",
            min_minutes=-1,
            min_run_seconds=-1,
        )
    assert len(caught.value.problems) == 8


# --- the real files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["dynamic_part22", "dynamic_part26"])
def test_the_part_files_equal_the_prepared_table(shared_data, run):
    options = {"covariates": ("gap", "leader_speed", "power"), "min_minutes": 0}
    folder, table = (
        shared_data / "raw_samples" / "openacc_zalazone",
        shared_data / "vehicle" / "openacc_dynamic",
    )
    raw = build_source("openacc", root=str(folder / f"{run}.csv"), **options).load()
    everything = build_source("openacc", root=str(table), **options).load()
    ends = torch.cat([everything.breaks, everything.offsets]).unique()
    for car in raw.clients:
        mine, number = of(raw, car), everything.clients.index(car)
        low, high = everything.offsets[number : number + 2]
        runs = torch.tensor_split(everything.of(number), (ends[(ends > low) & (ends < high)] - low).tolist())
        same = [
            one for one in runs if len(one) == len(mine) and torch.allclose(one[:, 0], mine[:, 0], atol=1e-5)
        ]
        assert len(same) == 1
        torch.testing.assert_close(mine, same[0], atol=2e-4, rtol=1e-4, equal_nan=True)


def test_the_real_population(shared_data):
    series = build_source("openacc", root=str(shared_data / "vehicle" / "openacc_dynamic")).load()
    assert series.values.shape == (310_319, 1)
    assert (len(series), len(series.breaks)) == (11, 157 - 11)
    assert not series.values.isnan().any()
    minutes = series.attributes["minutes"]
    assert minutes["SMART_TARGET"] == pytest.approx(43106 / 600, abs=1e-3)
    assert minutes.sum() == pytest.approx(310_319 / 600, abs=1e-2)


def test_cars_whose_gnss_fails_in_the_handling_campaign(shared_data):
    series = build_source("openacc", root=str(shared_data / "raw_samples" / "openacc_zalazone")).load()
    assert {item.client for item in series.dropped} == {"SKODA_TARGET", "TOYOTA_RAV4"}
