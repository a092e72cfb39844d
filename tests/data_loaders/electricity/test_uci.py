"""UCI's meters on small files written exactly as the data set is documented."""

import os
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import DataError, WindowSpec, build_source, make_windows
from data_loaders.electricity import UCIElectricity
from data_loaders.electricity.uci import TEXT

ZONE = "Europe/Lisbon"
ANY = {"min_days": 0, "min_coverage": 0}


def true_energy(start, end, meters=3, seed=0, from_day=0):
    """kWh of every quarter of UTC between two local days; meter k begins k * from_day days later, zero before."""
    index = pd.date_range(start, end, freq="15min", tz=ZONE, inclusive="left").tz_convert("UTC")
    values = np.round(np.random.default_rng(seed).gamma(2, 20, (len(index), meters)), 6) + 0.25
    for meter in range(meters):
        values[: meter * from_day * 96, meter] = 0
    return pd.DataFrame(values, index=index, columns=[f"MT_{k + 1:03d}" for k in range(meters)])


def as_published(energy):
    """kW by the end of each quarter of the local clock, 96 a day: the skipped hour zero, the repeated one summed."""
    local = (4 * energy).set_axis(energy.index.tz_convert(ZONE).tz_localize(None))
    summed = local.groupby(level=0).sum()
    days = pd.date_range(
        summed.index[0].normalize(), summed.index[-1].normalize() + pd.Timedelta("1D"), freq="15min"
    )
    full = summed.reindex(days[:-1], fill_value=0.0)
    return full.set_axis(full.index + pd.Timedelta("15min"))


def text_of(power):
    """The text: `;`, decimal comma, quoted stamps and names, no name for the first column."""
    header = ";".join(['""', *(f'"{name}"' for name in power.columns)])
    stamps = power.index.strftime("%Y-%m-%d %H:%M:%S")
    lines = [
        f'"{stamp}";' + ";".join(f"{value:.15g}".replace(".", ",") for value in row)
        for stamp, row in zip(stamps, power.to_numpy(), strict=True)
    ]
    return "\n".join([header, *lines]) + "\n"


def write_text(folder, text):
    path = folder / TEXT
    path.write_text(text)
    return path


def write_zip(folder, text, name="electricityloaddiagrams20112014.zip"):
    """The archive, with what a Mac leaves in it."""
    with ZipFile(folder / name, "w") as archive:
        archive.writestr("__MACOSX/._LD2011_2014.txt", b"\0\5\26\7")
        archive.writestr(TEXT, text)
    return folder / name


@pytest.fixture(scope="module")
def spring():
    """Ten days around 25 March 2012, when the clock went from 1 to 2."""
    return true_energy("2012-03-20", "2012-03-30")


@pytest.fixture(scope="module")
def autumn():
    """Ten days around 28 October 2012, when the clock went from 2 to 1."""
    return true_energy("2012-10-24", "2012-11-03")


def load(folder, energy, **options):
    write_text(folder, text_of(as_published(energy)))
    return UCIElectricity(str(folder), **ANY, **options).load()


def hourly(energy):
    return torch.from_numpy(energy.to_numpy().reshape(-1, 4, energy.shape[1]).sum(1).astype(np.float32))


def test_the_file_has_96_rows_a_day_whatever_the_clock_did(spring, autumn):
    for energy, quarters in ((spring, 960 - 4), (autumn, 960 + 4)):
        power = as_published(energy)
        assert len(energy) == quarters
        assert len(power) == 960
        assert str(power.index[0])[11:] == "00:15:00"
    assert text_of(as_published(spring)).startswith('"";"MT_001";"MT_002";"MT_003"\n"2012-03-20 00:15:00";')


def test_kilowatts_of_quarters_become_kilowatt_hours_by_their_beginning(tmp_path):
    energy = true_energy("2013-01-05", "2013-01-09")
    series = load(tmp_path, energy)
    assert series.clients == ("MT_001", "MT_002", "MT_003")
    assert series.unit == "kWh"
    assert (series.starts == np.datetime64("2013-01-05")).all()
    for client in range(3):
        torch.testing.assert_close(series.of(client)[:, 0], hourly(energy)[:, client])
    quarters = load(tmp_path, energy, frequency="15min")
    assert quarters.step_seconds == 900
    torch.testing.assert_close(quarters.of(1)[:, 0], torch.tensor(energy.to_numpy()[:, 1]).float())


@pytest.mark.parametrize("frequency", ["1h", "15min"])
def test_on_utc_spring_leaves_no_hole(tmp_path, spring, frequency):
    series = load(tmp_path, spring, frequency=frequency)
    expected = hourly(spring) if frequency == "1h" else torch.tensor(spring.to_numpy()).float()
    assert (series.starts == np.datetime64("2012-03-20")).all()
    torch.testing.assert_close(series.values.view(3, -1).T, expected)


def test_on_the_local_clock_the_hour_that_is_skipped_is_missing(tmp_path, spring):
    series = load(tmp_path, spring, clock="local")
    missing = series.of(0)[:, 0].isnan()
    assert missing.nonzero().flatten().tolist() == [5 * 24 + 1]
    torch.testing.assert_close(series.of(0)[~missing, 0], hourly(spring)[:, 0])
    assert any(
        "4 quarters that the Portuguese clock skipped in March hold nothing (0 of them" in r
        for r in series.rules
    )


def test_the_hour_that_comes_twice_is_halved_or_missing(tmp_path, autumn):
    place, truth = 4 * 24 + 1, hourly(autumn)[:, 2]
    halved = load(tmp_path, autumn, clock="local")
    missing = load(tmp_path, autumn, clock="local", october="missing")
    mean = truth[place : place + 2].mean()
    expected = torch.cat([truth[:place], mean[None], truth[place + 2 :]])
    torch.testing.assert_close(halved.of(2)[:, 0], expected)
    assert missing.of(2)[:, 0].isnan().nonzero().flatten().tolist() == [place]
    assert any("with the energy of both, are halved" in rule for rule in halved.rules)
    utc = load(tmp_path, autumn).of(2)[:, 0]
    both = torch.cat([truth[:place], mean.expand(2), truth[place + 2 :]])
    torch.testing.assert_close(utc, both)
    neither = load(tmp_path, autumn, october="missing").of(2)[:, 0]
    assert neither.isnan().nonzero().flatten().tolist() == [place, place + 1]


def test_energy_is_the_same_on_every_clock(tmp_path, autumn, spring):
    for energy in (autumn, spring):
        for options in ({"clock": "local"}, {}, {"frequency": "15min"}):
            total = float(load(tmp_path, energy, **options).values.nansum())
            # the local clock's one hour stands for two
            halved = "clock" in options and energy is autumn
            lost = float(hourly(energy)[97:99].sum()) / 2 if halved else 0
            assert total + lost == pytest.approx(float(energy.to_numpy().sum()), rel=1e-5)


def test_zeros_before_a_meter_is_a_client_are_no_load_and_later_ones_are(tmp_path):
    energy = true_energy("2013-01-05", "2013-01-15", from_day=3)
    energy.iloc[700:708, 0] = 0
    series = load(tmp_path, energy)
    assert [str(start) for start in series.starts] == [
        "2013-01-05T00:00:00",
        "2013-01-08T00:00:00",
        "2013-01-11T00:00:00",
    ]
    assert series.lengths.tolist() == [240, 168, 96]
    assert (series.of(0) == 0).sum() == 2
    with_rules = UCIElectricity(str(tmp_path), min_days=5, min_coverage=0).load()
    assert with_rules.clients == ("MT_001", "MT_002")
    assert with_rules.dropped[0].reason == "min_days: 4.0 days of readings, 5 asked for"


def test_a_meter_that_never_reads_anything_is_dropped(tmp_path):
    energy = true_energy("2013-01-05", "2013-01-09")
    energy["MT_002"] = 0
    series = load(tmp_path, energy)
    assert series.clients == ("MT_001", "MT_003")
    assert series.dropped[0].client == "MT_002"


def test_zip_folder_and_text_are_the_same_data(tmp_path, spring):
    text = text_of(as_published(spring))
    path, archive = write_text(tmp_path, text), tmp_path / "zipped"
    archive.mkdir()
    packed = write_zip(archive, text)
    roots = [path, tmp_path, packed, archive]
    assert len({UCIElectricity(str(root), **ANY).load().fingerprint() for root in roots}) == 1


def test_blocks_do_not_matter(tmp_path, autumn, monkeypatch):
    whole = load(tmp_path, autumn)
    monkeypatch.setattr("data_loaders.electricity.wide._BLOCK_BYTES", 600)
    small = UCIElectricity(str(tmp_path), **ANY).load()
    torch.testing.assert_close(small.values, whole.values, equal_nan=True)
    assert small.rules == whole.rules


def test_rows_that_are_not_there_are_missing_hours(tmp_path):
    energy = true_energy("2013-01-05", "2013-01-09")
    lines = text_of(as_published(energy)).splitlines()
    del lines[42:44]
    lines[90] = lines[90].split(";")[0] + ";;;"
    write_text(tmp_path, "\n".join(lines))
    series = UCIElectricity(str(tmp_path), **ANY).load()
    assert series.of(1)[:, 0].isnan().nonzero().flatten().tolist() == [10, 22]


def test_a_period_and_the_first_meters(tmp_path, spring):
    series = load(tmp_path, spring, start="2012-03-22", end="2012-03-24", clients=2)
    assert series.clients == ("MT_001", "MT_002")
    assert series.lengths.tolist() == [48, 48]
    assert (series.starts == np.datetime64("2012-03-22")).all()
    assert any("only the first 2 meters" in rule for rule in series.rules)


def test_windows_can_be_made(tmp_path):
    load(tmp_path, true_energy("2013-01-05", "2013-02-05"))
    series = build_source("uci_electricity", root=str(tmp_path), min_days=20).load()
    assert len(make_windows(series, WindowSpec(lookback=24, horizon=6))) == 3


def spoilt(old, new, rows=None):
    """A healthy text with one thing replaced, everywhere or in the line of a row."""
    lines = text_of(as_published(true_energy("2013-01-05", "2013-01-09"))).splitlines()
    return "\n".join(x.replace(old, new) if rows is None or n == rows - 1 else x for n, x in enumerate(lines))


HEALTHY = spoilt("", "")
BAD = {
    "wrong delimiter": (HEALTHY.replace(",", ".").replace(";", ","), r"has no ';'\. The official file is delimited"),
    "decimal point": (HEALTHY.replace(",", "."), r"column 'MT_001', row 2: '.*\..*' is not a number\. The decimal mark"),
    "changed header": (HEALTHY.replace("MT_002", "meter 2"), "is not the official one, see column 'meter 2'"),
    "named stamps": (HEALTHY.replace('""', '"time"'), "see first column 'time'"),
    "client twice": (HEALTHY.replace("MT_003", "MT_001"), "meter 'MT_001' comes twice"),
    "a web page": ("<!DOCTYPE html><html><body>Not found</body></html>", r"the header '<!DOCTYPE .* has no ';'"),
    "empty": ("", "is empty"),
    "header only": (HEALTHY.splitlines()[0], "has a header and no rows"),
    "cut row": (HEALTHY[:-30], "is broken: .*row 385.*Expected 4 columns"),
    "no number": (spoilt(";", ";x", 7), "column 'MT_001', row 7: 'x.*' is not a number"),
    "no stamp": (spoilt('"2013-01-05 01:30:00"', "soon", 7), "row 7: 'soon' is not a stamp"),
    "stamp twice": (spoilt("01:30:00", "01:15:00", 7), r"row 7: stamp 2013-01-05 01:15:00 comes twice"),
    "clock back": (spoilt("01:30:00", "00:45:00", 7), r"row 7: stamp 2013-01-05 00:45:00 goes back"),
    "a far year": (
        spoilt("2013-01-09 00:00:00", "2311-01-09 00:00:00"),
        r"row 385: stamp 2311-01-09 00:00:00 is far off, 10,4.* steps of 900 s from the first row's, 2013-01-05 00:15:00, "
        r"for 384 rows\. Correct the stamp",
    ),
    "the last year": (spoilt("2013-01-05 01:30:00", "9999-12-31 23:30:00"), "row 7: stamp 9999-12-31 23:30:00 is far off"),
    "a far first year": (spoilt("2013-01-05 00:15:00", "1711-01-05 00:15:00"), "row 3: stamp 2013-01-05 00:30:00 is far"),
    "off the grid": (spoilt("01:30:00", "01:29:00", 7), r"row 7: stamp 2013-01-05 01:29:00 is off the grid"),
    "negative": (spoilt(";", ";-", 7), r"txt: meter 'MT_001' reads -\d.* kW at 2013-01-05 01:30:00, the first of 3 such"),
    "one negative": (
        HEALTHY.replace(HEALTHY.splitlines()[6].split(";")[2], "-3,5"),
        r"txt: meter 'MT_002' reads -3\.5 kW at 2013-01-05 01:30"
    ),
    "infinite": (spoilt(";", ";inf;inf;inf#", 7).split("#")[0] + "\n", r"txt: meter 'MT_001' reads inf kW at 2013-01"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_with_a_remedy(tmp_path, name):
    text, message = BAD[name]
    path = write_text(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        UCIElectricity(str(tmp_path), **ANY).load()
    assert str(path) in str(caught.value)


def test_negative_readings_may_be_missing(tmp_path):
    write_text(tmp_path, BAD["negative"][0])
    series = UCIElectricity(str(tmp_path), negative="missing", frequency="15min", **ANY).load()
    assert series.of(2)[:, 0].isnan().nonzero().flatten().tolist() == [5]
    assert "negative: 3 negative readings are missing" in series.rules


def test_archives_that_are_none(tmp_path):
    path = tmp_path / "a.zip"
    for content, message in ((b"", "a.zip is empty"), (b"PK\3\4 rest", "a.zip is no whole zip archive")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            UCIElectricity(str(path)).load()
    with ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._LD2011_2014.txt", b"1")
    with pytest.raises(DataError, match=r"a.zip holds no LD2011_2014\.txt, only: nothing"):
        UCIElectricity(str(tmp_path)).load()
    whole = write_zip(tmp_path, HEALTHY, "a.zip").read_bytes()
    for cut in (len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"a\.zip is no whole zip archive .* Download it again"):
            UCIElectricity(str(tmp_path)).load()
    with ZipFile(path, "w", compression=8) as archive:
        archive.writestr(TEXT, HEALTHY)
    damaged = bytearray(path.read_bytes())
    damaged[300:330] = bytes(30)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"a\.zip is no whole zip archive|is not the official|is broken"):
        UCIElectricity(str(tmp_path)).load()


def test_a_folder_without_the_file(tmp_path):
    with pytest.raises(DataError, match=r"There is neither LD2011_2014\.txt nor a zip in"):
        UCIElectricity(str(tmp_path)).load()
    with pytest.raises(DataError, match="persofl data fetch uci_electricity"):
        UCIElectricity().load()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    write_text(tmp_path, HEALTHY).chmod(0)
    with pytest.raises(DataError, match=r"may not be read\. Give yourself permission"):
        UCIElectricity(str(tmp_path)).load()


def test_all_problems_of_the_options_come_in_one_message():
    with pytest.raises(DataError) as caught:
        UCIElectricity(
            frequency="2h", clock="mine", october="keep", negative="keep", min_days=-1, clients=0, start="x"
        )
    assert len(caught.value.problems) == 7
    assert caught.value.problems[0] == "frequency must be '1h' or '15min', got '2h'."
