"""Building Data Genome 2 on small files with the columns of the official ones."""

import os

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import DataError, build_source
from data_loaders.electricity import BuildingDataGenome2

ANY = {"min_days": 0, "min_coverage": 0}
HOURS = pd.date_range("2016-01-01", periods=240, freq="1h", name="timestamp")
BUILDINGS = ("Panther_office_Karla", "Panther_lodging_Dean", "Rat_education_Lou", "Eagle_office_Nobody")
METADATA = (
    "building_id,site_id,building_id_kaggle,site_id_kaggle,primaryspaceusage,sub_primaryspaceusage,sqm,sqft,lat,lng,"
    "timezone,electricity,hotwater,chilledwater,steam,water,irrigation,solar,gas,industry,subindustry,heatingtype,"
    "yearbuilt,date_opened,numberoffloors,occupants,energystarscore,eui,site_eui,source_eui,leed_level,rating\n"
    "Panther_office_Karla,Panther,0.0,0.0,Office,Office,690.5,7432.0,28.5,-81.3,US/Eastern,Yes,,,,,,,,,,,2008.0,,2,,,,,,,\n"
    "Panther_lodging_Dean,Panther,1.0,0.0,Lodging/residential,,1200.0,12916.0,28.5,-81.3,US/Eastern,Yes,,,,,,,,,,,,,,,,,,,,\n"
    "Rat_education_Lou,Rat,2.0,3.0,Education,,350.0,3767.0,38.9,-77.0,US/Eastern,Yes,,,,,,,,,,,1990.0,,,,,,,,,\n"
)


@pytest.fixture
def readings():
    values = np.round(np.random.default_rng(0).gamma(3, 10, (240, 4)), 4)
    values[:24, 1] = np.nan
    values[100:103, 2] = np.nan
    return pd.DataFrame(values, index=HOURS, columns=list(BUILDINGS))


def weather(sites=("Panther", "Rat")):
    tables = []
    for site in sites:
        table = pd.DataFrame({"timestamp": HOURS, "site_id": site, "airTemperature": 10.0 + len(site)})
        table["cloudCoverage"] = np.nan
        table["dewTemperature"], table["precipDepth1HR"] = np.arange(240) / 10, 0.0
        table["precipDepth6HR"], table["seaLvlPressure"] = np.nan, 1013.0
        table["windDirection"], table["windSpeed"] = 0.0, 2.5
        tables.append(table)
    return pd.concat(tables)


def write(root, readings, metadata=METADATA, tables=None):
    """The three files where the project's repository has them."""
    for name in ("meters/cleaned", "metadata", "weather"):
        (root / "data" / name).mkdir(parents=True, exist_ok=True)
    readings.to_csv(root / "data/meters/cleaned/electricity_cleaned.csv")
    (root / "data/metadata/metadata.csv").write_text(metadata)
    (weather() if tables is None else tables).to_csv(root / "data/weather/weather.csv", index=False)
    return str(root)


def test_columns_become_buildings_from_their_first_to_their_last_reading(tmp_path, readings):
    series = BuildingDataGenome2(write(tmp_path, readings), **ANY).load()
    assert series.clients == BUILDINGS
    assert series.lengths.tolist() == [240, 216, 240, 240]
    assert series.starts[1] == np.datetime64("2016-01-02")
    expected = torch.tensor(readings.to_numpy(np.float32))
    torch.testing.assert_close(series.of(2)[:, 0], expected[:, 2], equal_nan=True)
    torch.testing.assert_close(series.of(1)[:, 0], expected[24:, 1])
    assert any("24 rows a day" in rule for rule in series.rules)


def test_attributes_come_from_the_metadata(tmp_path, readings):
    table = BuildingDataGenome2(write(tmp_path, readings), **ANY).load().attributes
    assert table["site_id"].tolist() == ["Panther", "Panther", "Rat", "unknown"]
    assert table["primaryspaceusage"].tolist() == ["Office", "Lodging/residential", "Education", "unknown"]
    assert table["sub_primaryspaceusage"].tolist() == ["Office", "unknown", "unknown", "unknown"]
    assert table["sqm"].tolist()[:3] == [690.5, 1200, 350]
    assert table["sqm"].isna().tolist() == [False, False, False, True]
    assert table.loc["Rat_education_Lou", "timezone"] == "US/Eastern"


def test_buildings_can_be_chosen_by_site_and_usage(tmp_path, readings):
    root = write(tmp_path, readings)
    panther = BuildingDataGenome2(root, sites=("Panther",), **ANY).load()
    assert panther.clients == BUILDINGS[:2]
    assert "sites: only Panther" in panther.rules
    office = build_source("bdg2", root=root, usages=["Office", "Education"], **ANY).load()
    assert office.clients == ("Panther_office_Karla", "Rat_education_Lou")
    torch.testing.assert_close(office.of(1), BuildingDataGenome2(root, **ANY).load().of(2), equal_nan=True)
    with pytest.raises(DataError, match=r"There is no site_id 'Pantter'\. Did you mean 'Panther'"):
        BuildingDataGenome2(root, sites=("Pantter",)).load()
    with pytest.raises(DataError, match=r"No building of sites \('Rat',\) has usage \('Office',\)"):
        BuildingDataGenome2(root, sites=("Rat",), usages=("Office",)).load()


def test_weather_is_the_sites_own_and_a_building_without_is_dropped(tmp_path, readings):
    series = BuildingDataGenome2(write(tmp_path, readings), weather=True, **ANY).load()
    assert series.channel_names == ("load", "airTemperature", "dewTemperature", "windSpeed")
    assert series.clients == BUILDINGS[:3]
    assert (series.of(0)[:, 1] == 17).all()
    assert (series.of(2)[:, 1] == 13).all()
    torch.testing.assert_close(series.of(1)[:, 2], torch.arange(24, 240) / 10)
    assert [(item.client, item.reason.split(":")[0]) for item in series.dropped] == [
        (BUILDINGS[3], "weather")
    ]
    with pytest.raises(
        DataError, match=r"No client of source 'bdg2' has weather: .*no cloudCoverage at Panther"
    ):
        BuildingDataGenome2(str(tmp_path), weather=True, weather_channels=("cloudCoverage",), **ANY).load()
    with pytest.raises(DataError, match=r"has no column 'airtemp'\. Did you mean 'airTemperature'"):
        BuildingDataGenome2(str(tmp_path), weather=True, weather_channels=("airtemp",), **ANY).load()


def test_weather_takes_the_usual_columns_that_are_there_and_says_which_are_not(tmp_path, readings):
    root = write(tmp_path, readings, tables=weather().drop(columns="dewTemperature"))
    series = BuildingDataGenome2(root, weather=True, **ANY).load()
    assert series.channel_names == ("load", "airTemperature", "windSpeed")
    assert "weather: the file has no dewTemperature" in series.rules
    asked = ("airTemperature", "dewTemperature")
    with pytest.raises(DataError, match="has no column 'dewTemperature'"):
        BuildingDataGenome2(root, weather=True, weather_channels=asked, **ANY).load()


def test_the_rules_of_meters_apply(tmp_path, readings):
    readings.iloc[:, 0] = 0
    series = BuildingDataGenome2(write(tmp_path, readings), min_days=9.5, min_coverage=0.9).load()
    assert {item.client: item.reason.split(":")[0] for item in series.dropped} == {
        BUILDINGS[0]: "max_zero_share",
        BUILDINGS[1]: "min_days",
    }
    period = BuildingDataGenome2(str(tmp_path), start="2016-01-03", end="2016-01-04", clients=1, **ANY).load()
    assert period.clients == (BUILDINGS[1],)
    assert period.lengths.tolist() == [24]


def test_negative_and_infinite_energy(tmp_path, readings):
    readings.iloc[5, 2] = -3
    root = write(tmp_path, readings)
    with pytest.raises(
        DataError, match=r"Building 'Rat_education_Lou' reads -3 kWh at 2016-01-01 05:00:00\. It should"
    ):
        BuildingDataGenome2(root, **ANY).load()
    series = BuildingDataGenome2(root, negative="missing", **ANY).load()
    assert "negative: 1 negative readings are missing" in series.rules
    assert bool(series.of(2)[5, 0].isnan())
    readings.iloc[5, 2] = np.inf
    with pytest.raises(DataError, match="Building 'Rat_education_Lou' reads inf kWh"):
        BuildingDataGenome2(write(tmp_path, readings), **ANY).load()


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:b6ffc9b4\nsize 174977911\n"
ENERGY = "electricity_cleaned.csv"
BAD = {
    "a pointer": (ENERGY, lambda text: POINTER, "is a pointer to a large file.*git lfs pull"),
    "a pointer to metadata": ("metadata.csv", lambda text: POINTER, "is a pointer to a large file"),
    "empty": (ENERGY, lambda text: "", "is empty"),
    "empty metadata": ("metadata.csv", lambda text: "\n", "is empty"),
    "delimiter": (ENERGY, lambda text: text.replace(",", ";"), "the header .* has no ','"),
    "header": (ENERGY, lambda text: text.replace("timestamp", "time", 1), "see first column 'time'"),
    "twice": (ENERGY, lambda text: text.replace(BUILDINGS[1], BUILDINGS[0], 1), f"meter '{BUILDINGS[0]}' comes twice"),
    "decimal comma": (ENERGY, lambda text: text.replace(".", ","), "is broken: .*row 2.*Expected 5 columns"),
    "text": (ENERGY, lambda text: text.replace("02:00:00,", "02:00:00,x", 1), f"'{BUILDINGS[0]}', row 4: 'x.*' is not"),
    "cut": (ENERGY, lambda text: text[:-40], "is broken: .*Expected 5 columns"),
    "no rows": (ENERGY, lambda text: text.splitlines()[0], "has a header and no rows"),
    "far year": (ENERGY, lambda text: text.replace("2016-01-10 23", "2311-01-10 23"), "row 241: stamp 2311-.* is far off"),
    "metadata delimiter": ("metadata.csv", lambda text: text.replace(",", ";"), "has no column 'building_id'"),
    "building twice": ("metadata.csv", lambda text: text + text.splitlines()[1], f"building '{BUILDINGS[0]}' comes twice"),
    "area": ("metadata.csv", lambda text: text.replace("690.5", '"690,5"'), f"'{BUILDINGS[0]}': sqm '690,5' is not"),
    "weather": ("weather.csv", lambda text: text.replace(",2.5\n", ',"2,5"\n'), "columns windSpeed do not hold numbers"),
    "weather header": ("weather.csv", lambda text: text.replace("site_id", "site"), "no column 'site_id'. Did you"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_with_a_remedy(tmp_path, readings, name):
    file, spoil, message = BAD[name]
    root = write(tmp_path, readings)
    path = next(tmp_path.rglob(file))
    path.write_text(spoil(path.read_text()))
    with pytest.raises(DataError, match=message) as caught:
        BuildingDataGenome2(root, weather=True, **ANY).load()
    assert str(path) in str(caught.value)


def test_a_folder_without_the_files(tmp_path):
    with pytest.raises(
        DataError, match=r"There is no metadata\.csv in .* or below\. Point root at the folder"
    ):
        BuildingDataGenome2(str(tmp_path)).load()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path, readings):
    root = write(tmp_path, readings)
    next(tmp_path.rglob(ENERGY)).chmod(0)
    with pytest.raises(DataError, match=r"electricity_cleaned\.csv may not be read"):
        BuildingDataGenome2(root).load()


def test_all_problems_of_the_options_come_in_one_message():
    with pytest.raises(DataError) as caught:
        BuildingDataGenome2(weather_channels=(), min_coverage=2, clients=0)
    assert len(caught.value.problems) == 3
