"""The VED's weeks, packed and unpacked, its tables, and energy from what on-board diagnostics say."""

import shutil
import sys

import numpy as np
import openpyxl
import pandas as pd
import py7zr
import pytest

from data_loaders import DataError, build_source
from data_loaders.vehicle.ved_energy import FUEL_ENERGY
from data_loaders.vehicle.ved_files import read_static

HEADER = (
    "DayNum,VehId,Trip,Timestamp(ms),Latitude[deg],Longitude[deg],Vehicle Speed[km/h],MAF[g/sec],Engine RPM[RPM],"
    "Absolute Load[%],OAT[DegC],Fuel Rate[L/hr],Air Conditioning Power[kW],Air Conditioning Power[Watts],"
    "Heater Power[Watts],HV Battery Current[A],HV Battery SOC[%],HV Battery Voltage[V],"
    "Short Term Fuel Trim Bank 1[%],Short Term Fuel Trim Bank 2[%],Long Term Fuel Trim Bank 1[%],"
    "Long Term Fuel Trim Bank 2[%]"
)
NAMES = HEADER.split(",")
FIRST, SECOND = "VED_171101_week.csv", "VED_171108_week.csv"


def row(car, trip, ms, speed, day=1.5, **other):
    values = {
        "DayNum": day,
        "VehId": car,
        "Trip": trip,
        "Timestamp(ms)": ms,
        "Vehicle Speed[km/h]": speed,
    } | other
    return ",".join(str(values.get(name, "NaN")) for name in NAMES)


def drive(car, trip, seconds=120, day=1.5, per_second=2, **other):
    """A trip's rows: the speed of second s is s % 50 in the mean."""
    return [
        row(car, trip, 1000 * second + 400 * part, second % 50 + part - (per_second - 1) / 2, day, **other)
        for second in range(seconds)
        for part in range(per_second)
    ]


def week(*drives):
    return "\n".join([HEADER, *(line for one in drives for line in one), ""])


WEEKS = {
    FIRST: week(
        drive(8, 706, **{"MAF[g/sec]": 4.0}),
        drive(10, 1558, day=2.25, **{"HV Battery Current[A]": -20.0, "HV Battery Voltage[V]": 390.0}),
        drive(8, 707, 100, day=3.0),
    ),
    SECOND: week(drive(8, 800, 90, day=8.5)),
}


@pytest.fixture
def source(tmp_path):
    """Write weeks, packed in archives or not, and return the source that reads them."""

    def make(weeks=WEEKS, packed=False, **options):
        root = tmp_path / "ved"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for number, (name, text) in enumerate(weeks.items(), 1):
            if packed:
                with py7zr.SevenZipFile(root / f"VED_DynamicData_Part{number}.7z", "w") as archive:
                    archive.writestr(text.encode(), f"VED_DynamicData_Part{number}/{name}")
            else:
                (root / name).write_text(text)
        return build_source("ved", root=str(root), **{"min_minutes": 1, "min_run_seconds": 10} | options)

    return make


def static(path, rows, kind="EngineType"):
    book = openpyxl.Workbook()
    book.active.append(
        [
            "VehId",
            kind,
            "Vehicle Class",
            "Engine Configuration & Displacement",
            "Transmission",
            "Drive Wheels",
            "Generalized_Weight",
        ]
    )
    for line in rows:
        book.active.append(line)
    book.save(path)


def add_tables(root):
    static(root / "VED_Static_Data_PHEV&EV.xlsx", [[10, "EV", "Car", "ELECTRIC", "NO DATA", "FWD", 3500]])
    line = [8, "ICE", "Car", "4-FI 2.0L T/C", "NO DATA", "NO DATA", "NO DATA"]
    static(root / "VED_Static_Data_ICE&HEV.xlsx", [line], "Vehicle Type")


# --- trips -------------------------------------------------------------------------------------------------


def test_trips_are_runs_second_by_second(source):
    series = source().load()
    assert series.clients == ("veh008", "veh010")
    assert (series.step_seconds, series.unit, series.channel_names) == (1.0, "km/h", ("speed",))
    expected = np.concatenate([np.arange(n) % 50 for n in (120, 100, 90)])
    np.testing.assert_allclose(series.of(0)[:, 0], expected, atol=1e-5)
    assert series.breaks.tolist() == [120, 220]
    assert series.starts.tolist() == [pd.Timestamp("2017-11-01 12:00"), pd.Timestamp("2017-11-02 06:00")]
    assert series.attributes["runs"].tolist() == [3, 1]
    assert series.attributes["engine"].tolist() == ["unknown", "unknown"]
    assert series.rules[0] == f"2 weeks, {FIRST} to {SECOND}"


def test_archives_hold_the_same_and_leave_nothing_behind(source, tmp_path):
    plain = source().load()
    packed = source(packed=True)
    files = sorted(tmp_path.rglob("*"))
    assert packed.load().fingerprint() == plain.fingerprint()
    assert sorted(tmp_path.rglob("*")) == files


def test_one_archive_with_many_weeks_beside_a_member_that_points_elsewhere(source, tmp_path, monkeypatch):
    plain = source().load()
    monkeypatch.setattr("py7zr.py7zr.check_archive_path", lambda path: True)
    path = tmp_path / "in" / "all.7z"
    path.parent.mkdir()
    with py7zr.SevenZipFile(path, "w") as archive:
        for name, text in WEEKS.items():
            archive.writestr(text.encode(), name)
        archive.writestr(b"hello", "../outside.csv")
    monkeypatch.undo()
    before = sorted(tmp_path.rglob("*"))
    whole = build_source("ved", root=str(path), min_minutes=1, min_run_seconds=10).load()
    assert whole.fingerprint() == plain.fingerprint()
    assert [found for found in sorted(tmp_path.rglob("*")) if "prepared" not in found.parts] == before


def test_a_week_that_points_elsewhere_never_gets_there(source, tmp_path, monkeypatch):
    monkeypatch.setattr("py7zr.py7zr.check_archive_path", lambda path: True)
    path = tmp_path / "in" / "all.7z"
    path.parent.mkdir()
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.writestr(WEEKS[FIRST].encode(), f"../{FIRST}")
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"member \['\.\./VED_171101_week\.csv'\] points outside"):
        build_source("ved", root=str(path), min_minutes=1).load()
    assert not (tmp_path / FIRST).exists()


def test_a_week_that_is_there_unpacked_and_packed_counts_once(source, tmp_path):
    plain = source().load()
    with py7zr.SevenZipFile(tmp_path / "ved" / "Part1.7z", "w") as archive:
        archive.writestr(b"this is not read", FIRST)
    assert (
        plain.fingerprint()
        == build_source("ved", root=str(tmp_path / "ved"), min_minutes=1, min_run_seconds=10)
        .load()
        .fingerprint()
    )


def test_the_order_of_rows_within_a_trip_does_not_matter(source):
    lines = WEEKS[FIRST].strip().split("\n")
    mixed = "\n".join([lines[0], *np.random.default_rng(0).permutation(lines[1:]), ""])
    assert source({FIRST: mixed}).load().fingerprint() == source({FIRST: WEEKS[FIRST]}).load().fingerprint()


@pytest.mark.parametrize(("hold", "missing"), [(0, 5), (4, 5), (5, 0)])
def test_short_silences_are_held_and_long_ones_are_missing(source, hold, missing):
    lines = drive(8, 1, 120, per_second=1)
    series = source({FIRST: week(lines[:30] + lines[35:])}, hold_seconds=hold).load()
    values = series.of(0)[:, 0]
    assert len(values) == 120
    assert int(values.isnan().sum()) == missing
    assert missing or values[29:35].unique().tolist() == [29]


def test_a_trip_in_two_files_is_taken_once_and_counted(source):
    again = week(drive(8, 706), drive(9, 5))
    series = source({FIRST: WEEKS[FIRST], SECOND: again}).load()
    assert series.clients == ("veh008", "veh009", "veh010")
    assert series.attributes["runs"].tolist() == [2, 1, 1]
    assert "1 trips that stand in a second file too are taken once" in series.rules


def test_short_trips_and_cars_follow_the_rules(source):
    series = source(min_minutes=2.1, min_run_seconds=95).load()
    assert series.clients == ("veh008",)
    assert series.attributes["runs"].tolist() == [2]
    assert series.dropped[0].reason == "min_minutes: 2 minutes observed, 2.1 asked for"


def test_columns_of_another_order_and_name(source):
    lines = [line.split(",") for line in WEEKS[FIRST].strip().split("\n")]
    order = list(reversed(range(len(NAMES))))
    text = "\n".join(",".join(line[k] for k in order) for line in lines)
    text = text.replace("OAT[DegC]", "Outside Air Temperature[DegC]") + "\n"
    assert source({FIRST: text}).load().fingerprint() == source({FIRST: WEEKS[FIRST]}).load().fingerprint()


# --- energy ------------------------------------------------------------------------------------------------


def test_energy_of_a_population(source, tmp_path):
    chosen = source(target="energy", covariates=("speed",))
    add_tables(tmp_path / "ved")
    series = chosen.load()
    np.testing.assert_allclose(series.of(1)[:, 0], 20 * 390 / 1000, rtol=1e-6)
    np.testing.assert_allclose(series.of(0)[:120, 0], 4 / 14.7 / 745 * 3600 * FUEL_ENERGY, rtol=1e-6)
    assert series.unit == "kW"
    assert series.attributes["runs"].tolist() == [1, 1]  # the other trips say nothing of fuel


# --- the cars' tables --------------------------------------------------------------------------------------


def test_attributes_come_from_both_tables(source, tmp_path):
    chosen = source(engines=("ICE",))
    add_tables(tmp_path / "ved")
    series = chosen.load()
    assert series.clients == ("veh008",)
    known = series.attributes.iloc[0]
    assert (known["engine"], known["displacement_l"], known["transmission"]) == ("ICE", 2.0, "unknown")
    assert np.isnan(known["weight_lb"])


def test_engines_need_the_tables(source):
    with pytest.raises(DataError, match=r"engines=.* needs the cars' tables"):
        source(engines=("EV",)).load()


def test_a_car_twice_and_other_columns(tmp_path):
    add_tables(tmp_path)
    line = [10, "EV", "Car", "ELECTRIC", "NO DATA", "FWD", 3500]
    static(tmp_path / "VED_Static_Data_more.xlsx", [line])
    with pytest.raises(DataError, match="Car VehId=10 stands twice"):
        read_static(tmp_path)
    static(tmp_path / "VED_Static_Data_more.xlsx", [line], kind="Fuel")
    with pytest.raises(DataError, match=r"more\.xlsx: no columns VehId and 'Vehicle Type' or 'EngineType'"):
        read_static(tmp_path)


def test_the_real_tables(shared_data):
    known = read_static(shared_data / "raw_samples" / "ved")
    assert known["engine"].value_counts().to_dict() == {"ICE": 264, "HEV": 93, "PHEV": 24, "EV": 3}
    assert known.index.is_unique
    assert known["displacement_l"].isna().sum() == 3  # the electric cars
    assert known["weight_lb"].isna().sum() == 16
    assert not known.isin(["NO DATA"]).any().any()


# --- bad input ---------------------------------------------------------------------------------------------


def replaced(old, new):
    return WEEKS[FIRST].replace(old, new, 1)


BROKEN = {
    "another delimiter": (
        lambda: WEEKS[FIRST].replace(",", ";"),
        "line 1: the header lacks DayNum, .*commas",
    ),
    "a column is gone": (
        lambda: replaced("Timestamp(ms)", "Time"),
        r"line 1: the header lacks Timestamp\(ms\)",
    ),
    "text": (
        lambda: replaced(",706,1000,", ",seven,1000,"),
        "line 4, column 'Trip': 'seven' is no number",
    ),
    "an infinite speed": (
        lambda: week([row(8, 1, 0, "inf")]),
        r"line 2, column 'Vehicle Speed\[km/h\]': inf",
    ),
    "a car without number": (lambda: week([row("", 1, 0, 5)]), "line 2, column 'VehId': nan"),
    "a clock in seconds since 1970": (
        lambda: week([row(8, 1, 1.5e12, 5)]),
        "line 2: Timestamp.* car 8, trip 1",
    ),
    "a clock before the start": (
        lambda: week([row(8, 1, -1000, 5)]),
        "line 2: Timestamp.* is -1000, not within 24 h",
    ),
    "no rows": (lambda: HEADER + "\n", "has no rows below its header"),
    "nothing": (lambda: "", "line 1: the header lacks|is empty"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_weeks_are_named_with_the_line(source, kind, packed):
    text, message = BROKEN[kind]
    with pytest.raises(DataError, match=message) as caught:
        source({FIRST: text()}, packed=packed).load()
    assert FIRST in str(caught.value)


def test_a_week_in_two_folders(source, tmp_path):
    chosen = source()
    (tmp_path / "ved" / "copy").mkdir()
    shutil.copy(tmp_path / "ved" / FIRST, tmp_path / "ved" / "copy")
    with pytest.raises(DataError, match=f"Week {FIRST} is there more than once"):
        chosen.load()


def test_nothing_to_read(source, tmp_path):
    with pytest.raises(DataError, match=r"No week in .*VED_<yymmdd>_week.csv"):
        source({}).load()
    with py7zr.SevenZipFile(tmp_path / "ved" / "a.7z", "w") as archive:
        archive.writestr(b"hello", "readme.txt")
    with pytest.raises(DataError, match=r"a.7z holds no VED_<yymmdd>_week.csv among 1 files"):
        build_source("ved", root=str(tmp_path / "ved")).load()


def test_archives_that_are_damaged(source, tmp_path):
    chosen = source(packed=True)
    path = next((tmp_path / "ved").glob("*Part1.7z"))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:40] + bytes(40) + whole[80:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"Part1\.7z is damaged or cut off"):
            chosen.load()


def test_an_archive_that_blows_up_is_refused(source, monkeypatch):
    monkeypatch.setattr("data_loaders.vehicle.ved_files._MOST_FREE", 1000)
    monkeypatch.setattr("data_loaders.vehicle.ved_files._MOST_RATIO", 1)
    with pytest.raises(DataError, match="no honest archive"):
        source(packed=True).load()


@pytest.mark.parametrize("module", ["py7zr", "openpyxl"])
def test_without_the_extra_the_error_says_how_to_get_it(source, tmp_path, monkeypatch, module):
    chosen = source(packed=True)
    if module == "openpyxl":
        add_tables(tmp_path / "ved")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=rf"{module} is needed: pip install 'persofl\[ved\]'"):
        chosen.load()


def test_all_problems_of_the_options_come_in_one_message():
    with pytest.raises(DataError) as caught:
        build_source(
            "ved", target="soc", covariates=("soc", "gear"), engines=("BEV",), hold_seconds=-1, min_minutes=-1
        )
    assert len(caught.value.problems) == 6
