"""Simulated buildings: the dial, what the archetypes do, and reproducibility."""

import numpy as np
import pytest
import torch

from data_loaders import DataError, WindowSpec, build_source, make_windows
from data_loaders.electricity import BuildingDataGenome2, SimulatedBuildings
from data_loaders.electricity.bdg2 import TEXT_ATTRIBUTES
from data_loaders.electricity.building_habits import ARCHETYPES, NAMES
from data_loaders.electricity.building_load import holidays, vacations
from data_loaders.electricity.household_load import Clock
from personalization import distance_to_population


def days_of(name, days=364, **options):
    """Mean load of six buildings of one archetype at dial 1 without own habits' weather noise, (days, 24)."""
    settings = {"clients": 6, "days": days, "heterogeneity": 1.0} | options
    series = SimulatedBuildings(archetypes=(name,), **settings).load()
    loads = series.values[:, 0].view(settings["clients"], days, 24)
    return (loads / loads.mean((1, 2), keepdim=True)).mean(0)


def calibrated(heterogeneity, seed):
    series = SimulatedBuildings(clients=20, days=60, heterogeneity=heterogeneity, seed=seed).load()
    windows = make_windows(series, WindowSpec(lookback=24, horizon=6))
    return distance_to_population([windows.profiles(k) for k in range(len(windows))]).calibrated


@pytest.mark.parametrize("seed", [0, 1])
def test_turning_the_dial_moves_clients_apart(seed):
    distances = [calibrated(dial, seed) for dial in (0, 0.3, 0.6, 1)]
    means = [float(values.mean()) for values in distances]
    assert (np.diff(means) > 0).all()
    assert means[0] < 0.02
    assert float((distances[0] > 0).float().mean()) < 0.2
    assert (distances[-1] > 0).all()


def test_calibrated_distances_know_who_is_far_from_the_law():
    series = SimulatedBuildings(clients=60, days=90, heterogeneity=0.5).load()
    windows = make_windows(series, WindowSpec(lookback=24, horizon=6))
    found = distance_to_population([windows.profiles(k) for k in range(60)]).calibrated.numpy()
    true = series.attributes["true_distance"].to_numpy()
    ranks = [np.argsort(np.argsort(values)) for values in (found, true)]
    assert np.corrcoef(*ranks)[0, 1] > 0.3


@pytest.mark.parametrize("minutes", [15, 30, 60])
def test_shapes_stamps_and_units(minutes):
    series = SimulatedBuildings(clients=7, days=9, step_minutes=minutes).load()
    assert series.values.shape == (7 * 9 * 1440 // minutes, 1)
    assert series.step_seconds == 60 * minutes
    assert series.starts[0] == np.datetime64("2013-01-01")
    per_area = series.values.view(7, -1).sum(1) / 9 * 365 / torch.tensor(series.attributes["sqm"].to_numpy())
    assert (per_area > 40).all()  # kWh a square metre and year
    assert (per_area < 500).all()


def test_the_schema_is_that_of_building_data_genome_2():
    series = SimulatedBuildings(clients=32, days=2, sites=3).load()
    table = series.attributes
    assert set(TEXT_ATTRIBUTES) | {"sqm"} <= set(table.columns)
    assert set(table.columns) == set(SimulatedBuildings.about.attributes)
    assert set(table["primaryspaceusage"]) == {
        "Office",
        "Education",
        "Healthcare",
        "Retail",
        "Technology/science",
    }
    assert sorted(set(table["site_id"])) == ["Site0", "Site1", "Site2"]
    both = table.groupby("site_id")["sub_primaryspaceusage"].nunique()
    assert (both == len(ARCHETYPES)).all()
    assert BuildingDataGenome2.about.kind == SimulatedBuildings.about.kind
    assert series.unit == "kWh"


def test_at_dial_zero_everyone_is_one_building():
    series = SimulatedBuildings(clients=30, days=60, heterogeneity=0, weather=True).load()
    assert (series.attributes["true_distance"] == 0).all()
    assert (series.attributes[list(NAMES)].std() < 1e-9).all()
    temperature = series.values[:, 1].view(30, -1)
    assert (temperature == temperature[0]).all()
    loads = series.values[:, 0].view(30, 60, 24).mean(1)
    assert float((loads.std(0) / loads.mean(0)).max()) < 0.1


def test_true_distances_lie_on_a_straight_line():
    tables = [SimulatedBuildings(days=1, heterogeneity=dial).load().attributes for dial in (0.5, 1)]
    half, full = (table["true_distance"].to_numpy() for table in tables)
    np.testing.assert_allclose(2 * half, full, rtol=1e-9)
    assert full.mean() == pytest.approx(1, abs=0.3)


def test_nights_and_weekends_are_low_in_offices_and_saturdays_high_in_shops():
    office, shop = days_of("office"), days_of("shop")
    weekday = (torch.arange(364) + 1) % 7
    ratio = {
        name: float(load[weekday == 5, 10:16].mean() / load[weekday < 5, 10:16].mean())
        for name, load in (("office", office), ("shop", shop))
    }
    assert ratio["office"] < 0.6
    assert 0.8 < ratio["shop"] < 1.2
    for load in (office, shop):
        assert load[weekday < 5, 10:16].mean() > 1.8 * load[weekday < 5, 1:5].mean()


def test_schools_are_empty_in_vacations_and_everyone_on_holidays():
    clock = Clock(364, 60)
    away, public = torch.tensor(vacations(clock)) > 0, torch.tensor(holidays(clock)) > 0
    workday = ((torch.arange(364) + 1) % 7 < 5) & ~public
    school, hospital = days_of("school"), days_of("hospital")
    low = school[workday & away, 9:15].mean() / school[workday & ~away, 9:15].mean()
    assert low < 0.6
    steady = hospital[workday & away, 9:15].mean() / hospital[workday & ~away, 9:15].mean()
    assert 0.85 < steady < 1.2
    midweek = public & ((torch.arange(364) + 1) % 7 < 5)
    assert days_of("office")[midweek, 10:16].mean() < 0.6 * days_of("office")[workday, 10:16].mean()


def test_the_calendar_is_englands():
    days = np.datetime64("2013-01-01") + np.flatnonzero(holidays(Clock(730, 60)))
    assert [str(day) for day in days] == [
        "2013-01-01", "2013-03-29", "2013-04-01", "2013-05-06", "2013-05-27", "2013-08-26", "2013-12-25", "2013-12-26",
        "2014-01-01", "2014-04-18", "2014-04-21", "2014-05-05", "2014-05-26", "2014-08-25", "2014-12-25", "2014-12-26",
    ]  # fmt: skip
    assert 60 < vacations(Clock(365, 60)).sum() < 90


def test_laboratories_cool_when_it_is_warm_and_heat_when_it_is_cold():
    series = SimulatedBuildings(
        clients=8, days=364, archetypes=("lab",), heterogeneity=1.0, weather=True
    ).load()
    weekday = (torch.arange(364) + 1) % 7 < 5
    slopes = []
    for client in range(8):
        load, outside = series.of(client).view(-1, 24, 2)[weekday][:, 12:16].mean(1).T
        sides = (outside > 16, outside < 14)
        pairs = [torch.stack([load[side], (outside[side] - 15).abs()]) for side in sides]
        slopes.append([float(torch.corrcoef(pair)[0, 1]) for pair in pairs])
    cooling, heating = np.array(slopes).T
    assert (cooling > 0.3).all()
    assert heating.mean() > 0.2
    assert (heating > 0).all()


def test_the_weather_channel_is_the_sites_and_changes_no_load():
    options = {"clients": 12, "days": 30, "sites": 2, "archetypes": ("office", "lab"), "heterogeneity": 1.0}
    plain, wide = SimulatedBuildings(**options).load(), SimulatedBuildings(weather=True, **options).load()
    assert wide.channel_names == ("load", "airTemperature")
    assert torch.equal(wide.values[:, :1], plain.values)
    temperature = wide.values[:, 1].view(12, -1)
    sites = wide.attributes["site_id"].to_numpy()
    for client in range(12):
        same = (temperature == temperature[client]).all(1).numpy()
        assert (same == (sites == sites[client])).all()


def test_a_client_does_not_depend_on_the_size_of_the_population_and_seeds_differ():
    options = {"days": 20, "min_days": 10, "missing": 0.05}
    few, many = (SimulatedBuildings(clients=clients, **options).load() for clients in (10, 70))
    assert many.select(range(10)).fingerprint() == few.fingerprint()
    assert many.attributes.iloc[:10].equals(few.attributes)
    assert SimulatedBuildings(clients=10, seed=1, **options).load().fingerprint() != few.fingerprint()


def test_missing_readings_and_unequal_lengths():
    series = build_source("buildings", clients=30, days=100, min_days=40, missing=0.06, weather=True).load()
    assert float(series.values[:, 0].isnan().float().mean()) == pytest.approx(0.06, abs=0.015)
    assert not series.values[:, 1].isnan().any()
    assert 960 <= int(series.lengths.min()) < int(series.lengths.max()) <= 2400
    assert (series.values[:, 0].nan_to_num(1) > 0).all()


def test_all_problems_of_the_options_come_in_one_message():
    with pytest.raises(DataError) as caught:
        SimulatedBuildings(
            clients=0, days=5, min_days=9, sites=0, step_minutes=7, heterogeneity=2, missing=1, archetypes=("shcool",),
            seed=-1,
        )  # fmt: skip
    assert len(caught.value.problems) == 8
    assert "There is no archetype 'shcool'. Did you mean 'school'?" in caught.value.problems[-1]
