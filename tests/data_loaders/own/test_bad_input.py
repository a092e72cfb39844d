"""Every kind of bad input: which file, line or client, and what to do."""

import os

import numpy as np
import pandas as pd
import pytest

from data_loaders import DataError
from data_loaders.own import check_file
from data_loaders.own.sorting import _goes_back

LONG = "{layout: long, files: t.csv}"
HEAD = "timestamp,client,value\n"
ROWS = HEAD + "2013-01-01 00:00,a,1\n2013-01-01 01:00,a,2\n2013-01-01 02:00,a,3\n"


@pytest.mark.parametrize(
    ("yaml", "text", "words"),
    [
        pytest.param(
            LONG,
            ROWS.replace(",", ";"),
            "File t.csv has no column 'timestamp'. The header is one column, 'timestamp;client;value': set "
            "csv.delimiter: ';'.",
            id="wrong delimiter",
        ),
        pytest.param(
            LONG,
            ROWS.replace(",3", ',"3,5"'),
            "File t.csv, line 4, column 'value': '3,5' is not a number. Is the comma the decimal mark? Set csv.decimal: "
            '",".',
            id="decimal comma",
        ),
        pytest.param(
            '{layout: long, files: t.csv, csv: {decimal: ",", delimiter: ";", thousands: "."}}',
            ROWS.replace(",", ";").replace(";3", ";3.14"),
            "line 4, column 'value': '3.14' is not a number. Is the point the decimal mark?",
            id="decimal point read as thousands mark",
        ),
        pytest.param(
            LONG,
            ROWS.replace(",3", ",3,5"),
            "File t.csv: a line has 4 columns, the header 3: '2013-01-01 02:00,a,3,5'. Is ',' the decimal mark too?",
            id="decimal comma unquoted",
        ),
        pytest.param(
            LONG, ROWS.replace(",3", ',"1,234.5"'), "'1,234.5' is not a number. Are there thousands marks?", id="thousands"
        ),
        pytest.param(
            LONG,
            ROWS.replace(",3", ",3 kWh"),
            "line 4, column 'value': '3 kWh' is not a number. It carries the unit 'kWh'",
            id="unit in the cell",
        ),
        pytest.param(
            "{layout: wide, files: t.csv}",
            "timestamp,a [kWh],b [Wh]\n2013-01-01 00:00,1,2\n2013-01-01 01:00,1,2\n",
            "File t.csv mixes units in its header: 'a [kWh]', 'b [Wh]'.",
            id="mixed units",
        ),
        pytest.param(LONG, "", "File t.csv is empty, or has no header in line 1", id="empty file"),
        pytest.param(LONG, HEAD, "File t.csv has a header and no rows", id="header only"),
        pytest.param(
            "{layout: wide, files: t.csv}",
            "timestamp,a,b,a\n2013-01-01 00:00,1,2,3\n2013-01-01 01:00,1,2,3\n",
            "File t.csv has more than one column 'a'. Rename them",
            id="client twice",
        ),
        pytest.param(
            LONG,
            ROWS + "2013-01-01 02:00,a,4\n",
            "Client 'a' has 3 and 4 at 2013-01-01T02:00:00 (1 such rows contradict an earlier one). Set duplicates",
            id="contradiction",
        ),
        pytest.param(
            LONG,
            ROWS + "2013-01-01 00:30,a,4\n2013-01-01 03:30,a,4\n",
            "Client 'a': the clock goes back from 2013-01-01T02:00:00 to 2013-01-01T00:30:00 (1 such rows)",
            id="clock goes back",
        ),
        pytest.param(
            LONG,
            ROWS.replace(",3", ",-3"),
            "Client 'a': -3 kWh at 2013-01-01T02:00:00 is negative (1 such readings). Set value.negative",
            id="negative energy",
        ),
        pytest.param(LONG, ROWS.replace(",3", ",inf"), "line 4, column 'value': 'inf' is infinite.", id="infinity"),
        pytest.param(
            LONG,
            ROWS.replace("2013-01-01 02:00", "01.01.2013 02:00"),
            "File t.csv, line 4, column 'timestamp': stamp '01.01.2013 02:00' does not fit ISO 8601 (2013-01-31 00:30). "
            "Other stamps do: the file mixes formats, these fit '%d.%m.%Y %H:%M'. Write one.",
            id="mixed stamps",
        ),
        pytest.param(
            LONG,
            ROWS.replace("2013-01-01", "31/12/2012"),
            """does not fit ISO 8601 (2013-01-31 00:30). Set time.format: "%d/%m/%Y %H:%M".""",
            id="other stamps",
        ),
        pytest.param(
            LONG,
            ROWS.replace("02:00", "02:00+01:00"),
            "line 2, column 'timestamp': stamp '2013-01-01 00:00' does not fit ISO 8601",
            id="some stamps with an offset",
        ),
        pytest.param(
            LONG, ROWS.replace(",a,3", ",,3"), "File t.csv, line 4, column 'client': the row names no client.", id="nobody"
        ),
        pytest.param(
            LONG, ROWS.replace("client", "Client"), "has no column 'client'. Did you mean 'Client'?", id="header changed"
        ),
        pytest.param(
            LONG,
            ("timestamp,client,value\n2013-01-01 00:00,Zähler,1\n").encode("latin-1"),
            "File t.csv is not utf-8 text",
            id="latin-1",
        ),
        pytest.param(
            "{layout: long, files: t.csv, time: {timezone: Europe/Madrid}}",
            HEAD + "".join(f"2013-03-31 0{hour}:00,a,1\n" for hour in range(5)),
            "Client 'a': stamp 2013-03-31T02:00:00 does not exist in Europe/Madrid, where the clocks go forward (1 "
            "such stamps). Are they UTC? Else choose time.nonexistent: 'shift' or 'missing'.",
            id="hour that is skipped",
        ),
        pytest.param(
            "{layout: long, files: t.csv, time: {step: 15min}}",
            ROWS,
            "Client 'a' has a reading every 3600 s, the grid a step every 900 s. Set time.step to 3600s or more",
            id="step too fine",
        ),
        pytest.param(
            "{layout: long, files: t.csv, time: {step: 90min}}", ROWS, "does not divide the step of 5400 s", id="odd step"
        ),
        pytest.param(
            LONG,
            HEAD + "".join(f"2013-01-01 0{hour}:{minute:02}:00,a,1\n" for hour, minute in enumerate((0, 7, 9, 30, 31))),
            "time.step: stamps of client 'a' have no step that most neighbours share. Set time.step",
            id="irregular",
        ),
        pytest.param(
            "{layout: folder, files: t.csv, client: {pattern: 'meter_{client}.csv'}}",
            ROWS,
            "File t.csv does not fit client.pattern 'meter_{client}.csv'",
            id="pattern",
        ),
        pytest.param(
            "{layout: long, files: [t.csv, absent_*.csv]}", ROWS, "files: 'absent_*.csv' names no file in", id="no file"
        ),
        pytest.param(
            "{layout: long, files: t.csv, client: {min_days: 3}}",
            ROWS,
            "No client of 'own' is left: 1 by min_days. Loosen client.min_days",
            id="nobody left",
        ),
        pytest.param(
            "{layout: long, files: t.csv, attributes: {file: t.csv, key: client}}",
            ROWS,
            "File t.csv: client 'a' has more than one row",
            id="attributes twice",
        ),
        pytest.param("{layout: long, files: t.csv, format: parquet}", ROWS, "File t.csv is no parquet file", id="format"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_a_load_and_reported_by_a_check(load, tmp_path, yaml, text, words):
    with pytest.raises(DataError) as caught:
        load(yaml, t_csv=text)
    assert words in str(caught.value)
    report = check_file(tmp_path / "mine.yaml")
    assert not report.ok
    assert words in report.text()


def test_all_problems_of_all_files_come_together(load):
    bad = ROWS.replace(",2\n", ",x\n").replace("02:00", "2 pm")
    with pytest.raises(DataError) as caught:
        load("{layout: long, files: '*.csv'}", a_csv=bad, b_csv=ROWS.replace("value", "kWh"), c_csv="")
    assert len(caught.value.problems) == 4
    assert {problem.split()[1].rstrip(",") for problem in caught.value.problems} == {
        "a.csv",
        "b.csv",
        "c.csv",
    }


def test_many_bad_cells_are_one_problem_that_counts_them(load):
    with pytest.raises(DataError, match=r"line 2, column 'value': 'x' is not a number.*\(2 more like it\.\)"):
        load(LONG, t_csv=ROWS.replace(",1\n", ",x\n").replace(",2\n", ",y\n").replace(",3\n", ",z\n"))


def test_one_trouble_in_many_columns_and_chunks_is_one_problem_told_at_once(load, monkeypatch):
    monkeypatch.setattr("data_loaders.own.files._CHUNK_BYTES", 1 << 12)
    names = ",".join(f"c{at}" for at in range(50))
    rows = "".join(
        f"{stamp:%Y-%m-%d %H:%M}" + ',"1,5"' * 50 + "\n"
        for stamp in pd.date_range("2013", periods=400, freq="h")
    )
    with pytest.raises(DataError) as caught:
        load("{layout: wide, files: t.csv}", t_csv=f"timestamp,{names}\n{rows}")
    (problem,) = caught.value.problems
    assert "File t.csv, line 2, column 'c0': '1,5' is not a number." in problem
    assert "(19,999 more like it.)" in problem


def test_the_line_is_that_of_the_file_with_blank_lines_and_skipped_rows(load):
    text = "exported by X\n\n" + HEAD + "\n2013-01-01 00:00,a,1\n\n2013-01-01 01:00,a,x\n"
    with pytest.raises(DataError, match=r"t\.csv, line 7, column 'value': 'x' is not a number"):
        load("{layout: long, files: t.csv, csv: {skip_rows: 2}}", t_csv=text)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(load, tmp_path):
    (tmp_path / "t.csv").write_text(ROWS)
    (tmp_path / "t.csv").chmod(0)
    with pytest.raises(DataError, match=r"File t\.csv cannot be read: no permission\. Run `chmod \+r`"):
        load(LONG)


def test_a_refused_open_says_so_whoever_runs_the_tests(load, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("data_loaders.own.files._csv_columns", refuse)
    with pytest.raises(DataError, match=r"File t\.csv cannot be read: no permission\. Run `chmod \+r`"):
        load(LONG, t_csv=ROWS)


def test_marks_and_other_encodings_read_when_said(load):
    plain = load(LONG, t_csv=ROWS).fingerprint()
    assert load(LONG, t_csv=b"\xef\xbb\xbf" + ROWS.encode()).fingerprint() == plain
    text = ROWS.replace(",a,", ",Zähler,")
    utf8 = load(LONG, t_csv=text).fingerprint()
    for encoding in ("latin-1", "cp1252", "utf-16"):
        yaml = f"{{layout: long, files: t.csv, csv: {{encoding: {encoding}}}}}"
        assert load(yaml, t_csv=text.encode(encoding)).fingerprint() == utf8


@pytest.mark.parametrize(
    ("stamp", "zone"),
    [
        ("2013-10-27T02:00:00", ", such as Europe/Berlin"),
        ("2013-10-27T01:30:00", ", such as Europe/London"),
        ("2013-11-03T01:00:00", ", such as America/New_York"),
        ("2013-10-20T02:00:00", ""),
        ("2013-10-27T12:00:00", ""),
    ],
)
def test_an_hour_shown_twice_in_autumn_proposes_a_zone(stamp, zone):
    back = np.array([stamp], "datetime64[us]")[0]
    words = str(_goes_back("a", np.array([back + np.timedelta64(45, "m"), back]), 1))
    assert f"set time.timezone{zone}; if the name stands for two clients" in words
    assert ".000000" not in words


@pytest.mark.parametrize(("rule", "values"), [("first", [1, 2, 3]), ("mean", [1, 2, 4]), ("sum", [1, 2, 8])])
def test_contradicting_rows_go_by_the_rule_and_equal_ones_always_collapse(load, rule, values):
    text = ROWS + "2013-01-01 02:00,a,5\n2013-01-01 02:00,a,3\n"
    series = load(f"{{layout: long, files: t.csv, duplicates: {rule}}}", t_csv=text)
    assert series.of(0)[:, 0].tolist() == values
    assert "1 of 5 readings repeat an earlier row and are left out" in series.rules
    assert any(rule.startswith("1 of 5 readings contradict another") for rule in series.rules)


def test_overlapping_files_of_one_client_are_one_series(load):
    tail = HEAD + "2013-01-01 02:00,a,3\n2013-01-01 03:00,a,4\n"
    series = load("{layout: long, files: '*.csv'}", a_csv=ROWS, b_csv=tail)
    assert series.of(0)[:, 0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        ("zero: value", [0, 0, 2, 0, -1]),
        ("zero: missing", [2, np.nan, -1]),
        ("zero: missing_before_start", [2, 0, -1]),
        ("zero: value, negative: missing", [0, 0, 2, 0]),
    ],
)
def test_what_zero_and_negative_mean(load, keys, values):
    rows = "".join(f"2013-01-01 0{hour}:00,a,{value}\n" for hour, value in enumerate((0, 0, 2, 0, -1)))
    keys = keys if "negative" in keys else f"{keys}, negative: keep"
    series = load(f"{{layout: long, files: t.csv, value: {{{keys}}}}}", t_csv=HEAD + rows)
    np.testing.assert_array_equal(series.of(0)[:, 0].numpy(), values)


def test_rows_from_new_to_old_are_turned_round_and_unsorted_ones_sorted_when_said(load):
    lines = ROWS.splitlines()[1:]
    series = load(LONG, t_csv=HEAD + "\n".join(reversed(lines)) + "\n")
    assert series.of(0)[:, 0].tolist() == [1, 2, 3]
    mixed = HEAD + "\n".join([lines[1], lines[0], lines[2]]) + "\n"
    series = load("{layout: long, files: t.csv, time: {order: sort}}", t_csv=mixed)
    assert series.of(0)[:, 0].tolist() == [1, 2, 3]
    assert "1 of 3 readings were out of order and sorted" in series.rules


def test_power_becomes_the_energy_of_a_step_and_coarser_steps_need_all_their_readings(load):
    stamps = pd.date_range("2013-01-01", periods=8, freq="15min").strftime("%Y-%m-%d %H:%M")
    rows = "".join(f"{stamp},a,{4 if at != 6 else ''}\n" for at, stamp in enumerate(stamps))
    yaml = "{layout: long, files: t.csv, value: {unit: W, to: kWh}, time: {step: STEP}}"
    quarter = load(yaml.replace("STEP", "auto"), t_csv=HEAD + rows).of(0)[:, 0]
    np.testing.assert_allclose(quarter.numpy(), [0.001] * 6 + [np.nan, 0.001])
    hourly = load(yaml.replace("STEP", "1h"), t_csv=HEAD + rows)
    np.testing.assert_allclose(hourly.of(0)[:, 0].numpy(), [0.004, np.nan])
    assert (
        "a step of 3600 s; the readings in a step become their mean; a step that lacks one is missing"
        in hourly.rules
    )
    assert "W turned into kWh" in hourly.rules


def test_stamps_at_the_end_of_a_step_are_moved_to_its_beginning(load):
    series = load("{layout: long, files: t.csv, time: {stamp: end}}", t_csv=ROWS)
    assert str(series.starts[0]) == "2012-12-31T23:00:00"


def test_a_check_says_what_to_decide_of_contradicting_rows(tmp_path):
    (tmp_path / "t.csv").write_text(ROWS + "2013-01-01 02:00,a,5\n")
    (tmp_path / "my.yaml").write_text("{layout: long, files: t.csv, time: {order: sort}}")
    report = check_file(tmp_path / "my.yaml")
    assert not any(rule.endswith(": ") for rule in report.rules)
    assert any(
        rule.endswith("of the same stamp: duplicates says first, mean or sum") for rule in report.rules
    )
