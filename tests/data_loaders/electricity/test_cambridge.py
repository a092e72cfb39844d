"""The Cambridge estates archive: on the original files beside the checkout, and on small ones in their format."""

import os

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import DataError, WindowSpec, make_windows
from data_loaders.electricity import CambridgeEstates
from data_loaders.electricity.cambridge import HEADERS

ANY = {"min_days": 0, "min_coverage": 0}
FOLDER = "building_data/processed_data/UCam_Building_b"


@pytest.fixture
def originals(shared_data):
    return str(shared_data / "raw_samples" / "cambridge")


def energy(seed=0, hours=72):
    return np.round(np.random.default_rng(seed).gamma(3, 10, hours) + 5, 1)


def write(root, number, values, year=2019, fuel="electricity"):
    """One building-year as published."""
    folder = root / f"{FOLDER}{number}" / fuel
    folder.mkdir(parents=True, exist_ok=True)
    stamps = pd.date_range(f"{year}-01-01", periods=len(values), freq="1h", name="datetime")
    path = folder / f"{year}.csv"
    pd.DataFrame({HEADERS[fuel]: values}, index=stamps).to_csv(path)
    return path


def load(root, **options):
    return CambridgeEstates(str(root), **ANY, **options).load()


def test_years_are_laid_end_to_end_and_their_first_hour_is_a_half(tmp_path):
    for year in (2019, 2020):
        write(tmp_path, 3, energy(year, 8784 if year == 2020 else 8760), year)
    series = load(tmp_path)
    assert series.clients == ("UCam_Building_b3",)
    assert series.starts[0] == np.datetime64("2019-01-01T01:00")
    assert series.lengths.tolist() == [8759 + 8784]
    assert series.of(0)[:, 0].isnan().nonzero().flatten().tolist() == [8759]
    torch.testing.assert_close(series.of(0)[8760:, 0], torch.tensor(energy(2020, 8784)[1:]).float())
    assert series.attributes.loc["UCam_Building_b3"].to_dict() == {
        "first_year": 2019,
        "last_year": 2020,
        "years": 2,
    }


def test_years_that_the_archive_leaves_out_are_missing(tmp_path):
    for year in (2016, 2018):
        write(tmp_path, 0, energy(year, 8760), year)
    series = load(tmp_path)
    assert int(series.of(0).isnan().sum()) == 8760 + (366 * 24 - 8760) + 1
    assert series.attributes["years"].tolist() == [2]
    dropped = CambridgeEstates(str(tmp_path), min_coverage=0.8)
    with pytest.raises(DataError, match="No building of source 'cambridge' is left: 1 by min_coverage"):
        dropped.load()


def test_zeros_of_electricity_are_missing_with_the_half_hours_beside_them(tmp_path):
    values = energy()
    values[[20, 21, 40]] = 0
    write(tmp_path, 0, values)
    series = load(tmp_path)
    missing = (series.of(0)[:, 0].isnan().nonzero().flatten() + 1).tolist()
    assert missing == [19, 20, 21, 22, 39, 40, 41]
    assert any(
        "zeros: 3 readings of zero are missing, and so are 4 hours beside" in rule for rule in series.rules
    )
    kept = load(tmp_path, zeros="keep")
    assert not kept.of(0).isnan().any()
    assert int((kept.of(0) == 0).sum()) == 3


def test_zeros_of_gas_are_heating_that_is_off_unless_said_otherwise(tmp_path):
    values = energy()
    values[20:30] = 0
    write(tmp_path, 0, values, fuel="gas")
    write(tmp_path, 1, values)
    gas = load(tmp_path, energy="gas")
    assert gas.clients == ("UCam_Building_b0",)
    assert int((gas.of(0) == 0).sum()) == 10
    assert any(rule.startswith("zeros: kept as load") for rule in gas.rules)
    assert int(load(tmp_path, energy="gas", zeros="missing").of(0).isnan().sum()) == 12


def test_of_buildings_on_one_meter_the_first_is_kept(tmp_path):
    shared, other = energy(0, 8760), energy(1, 8760)
    write(tmp_path, 10, shared)
    write(tmp_path, 2, shared)
    write(tmp_path, 2, other, 2018)
    write(tmp_path, 11, other)
    series = load(tmp_path)
    assert series.clients == ("UCam_Building_b2", "UCam_Building_b11")
    assert [(item.client, item.reason) for item in series.dropped] == [
        ("UCam_Building_b10", "shared meter: the same readings as 'UCam_Building_b2' in every year both have")
    ]


def test_one_year_that_differs_is_a_meter_of_its_own_and_silence_proves_nothing(tmp_path):
    for number in (0, 1):
        write(tmp_path, number, energy(5, 8760), 2019)
        write(tmp_path, number, energy(number, 8784), 2020)
    for number in (2, 3):
        write(tmp_path, number, np.full(8760, 0.1))
    assert len(load(tmp_path)) == 4


def test_weather_of_the_archive_is_joined(tmp_path):
    write(tmp_path, 0, energy())
    folder = tmp_path / "aux_data/Met Office Weather Data/processed_data/bedford"
    folder.mkdir(parents=True)
    stamps = pd.date_range("2019-01-01", periods=72, freq="1h", name="datetime")
    table = {"air_temperature [degC]": np.arange(72) / 10, "rltv_hum [%]": 80.0, "glbl_irad_amt [W/m2]": 0.0}
    pd.DataFrame(table, index=stamps).to_csv(folder / "2019.csv")
    series = load(tmp_path, weather=True)
    assert series.channel_names == ("load", *table)
    torch.testing.assert_close(series.of(0)[:, 1], torch.arange(1, 72) / 10)
    (folder / "2019.csv").unlink()
    with pytest.raises(DataError, match=r"weather=True needs aux_weather\*\.csv or aux_data"):
        load(tmp_path, weather=True)


def text(old, new, count=-1):
    return lambda content: content.replace(old, new, count)


BAD = {
    "delimiter": (text(",", ";"), "the header 'datetime;equipment load .* has no ','"),
    "decimal comma": (text(".", ","), "is broken: .*row 2.*Expected 2 columns"),
    "header": (text("equipment load [kWh]", "load [kWh]"), r"expected 'datetime' and then meters like 'equipment load"),
    "the other energy": (text("equipment", "heating"), r"see column 'heating load \[kWh\]'"),
    "empty": (lambda _: "", "is empty"),
    "no rows": (lambda content: content.splitlines()[0], "has a header and no rows"),
    "no number": (text("05:00:00,", "05:00:00,x", 1), r"column 'equipment load \[kWh\]', row 7: 'x.*' is not a number"),
    "another year": (text("2019-", "2018-"), "holds stamps from 2018 to 2018, not of 2019"),
    "stamp twice": (text("01 05:00", "01 04:00", 1), "row 7: stamp 2019-01-01 04:00:00 comes twice"),
    "negative": (text("05:00:00,", "05:00:00,-", 1), "Building 'UCam_Building_b7' reads -.* kWh at 2019-01-01 05:00:00"),
    "clock back": (text("01 05:00", "01 02:00", 1), "row 7: stamp 2019-01-01 02:00:00 goes back"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_with_a_remedy(tmp_path, name):
    spoil, message = BAD[name]
    path = write(tmp_path, 7, energy())
    path.write_text(spoil(path.read_text()))
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path)
    assert str(path) in str(caught.value) or name == "negative"


def test_negative_readings_may_be_missing_and_infinite_ones_never(tmp_path):
    values = energy()
    values[30] = -4
    write(tmp_path, 0, values)
    series = load(tmp_path, negative="missing")
    assert series.of(0)[:, 0].isnan().nonzero().flatten().tolist() == [29]
    values[30] = np.inf
    write(tmp_path, 0, values)
    with pytest.raises(DataError, match="reads inf kWh at 2019-01-02 06:00:00"):
        load(tmp_path, negative="missing")


def test_a_building_that_comes_twice_and_a_folder_without_any(tmp_path):
    with pytest.raises(
        DataError, match=r"There is no UCam_Building_b<N>/gas/<year>\.csv in .*\. Point root at"
    ):
        load(tmp_path, energy="gas")
    write(tmp_path / "a", 4, energy())
    write(tmp_path / "b", 4, energy())
    with pytest.raises(DataError, match="Building 'UCam_Building_b4' comes twice below"):
        load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    write(tmp_path, 0, energy()).chmod(0)
    with pytest.raises(DataError, match=r"2019\.csv may not be read"):
        load(tmp_path)


def test_all_problems_of_the_options_come_in_one_message():
    with pytest.raises(DataError) as caught:
        CambridgeEstates(energy="steam", zeros="some", max_zero_share=2)
    assert len(caught.value.problems) == 3


def test_the_original_electricity(originals):
    series = CambridgeEstates(originals).load()
    assert series.clients == ("UCam_Building_b0", "UCam_Building_b19")
    assert series.lengths.tolist() == [365 * 24 + 366 * 24 - 1] * 2
    # 46, 527 and 863 hours of zeros, the half hours beside the three runs, and the first hour of 2020
    assert [int(series.of(client).isnan().sum()) for client in range(2)] == [1, 46 + 527 + 863 + 6 + 1]
    assert float(torch.nan_to_num(series.of(1), 999).min()) > 80
    windows = make_windows(series, WindowSpec())
    assert len(windows) == 2


def test_the_original_gas_and_weather(originals):
    series = CambridgeEstates(originals, energy="gas", weather=True, end="2020-01-01").load()
    assert len(series) == 2
    assert series.values.isfinite().all()
    heating, temperature = series.of(0)[:, 0].numpy(), series.of(0)[:, 1].numpy()
    assert np.corrcoef(heating, temperature)[0, 1] < -0.4
