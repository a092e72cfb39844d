import json

import numpy as np
import pandas as pd
import pytest

from data_loaders.own import check_file
from data_loaders.own.facts import gap_lengths
from data_loaders.own.readings import client_of

DAY = 24


def table(clients, start="2013-01-01", freq="h"):
    """A wide table of a wave with a base load, one column a client; ``clients`` are the means."""
    steps = max(len(np.atleast_1d(mean)) for mean in clients.values())
    hours = np.arange(30 * DAY if steps == 1 else steps)
    wave = 1 + 0.5 * np.sin(hours * 2 * np.pi / DAY) + 0.01 * (hours % 7)
    values = {name: np.round(mean * wave, 4) for name, mean in clients.items()}
    stamps = pd.date_range(start, periods=len(hours), freq=freq).strftime("%Y-%m-%d %H:%M")
    return pd.DataFrame({"timestamp": stamps, **values})


def check(written, data, keys=""):
    files = {f"{name}_csv": frame.to_csv(index=False) for name, frame in data.items()}
    return check_file(written(f"{{layout: wide, files: '*.csv'{keys}}}", **files))


def test_gaps_duplicates_zeros_and_negative_readings_are_counted_per_client(written):
    data = table({"a": 0.5, "b": 0.5})
    data.loc[10:14, "a"] = np.nan
    data.loc[20:20, "a"] = np.nan
    data.loc[30:47, "b"] = 0
    data.loc[50, "b"] = -1
    data = pd.concat([data, data[-1:]])
    report = check(written, {"t": data}, ", value: {negative: keep}")
    a, b = report.clients
    assert (a.gaps, a.longest_gap_hours, a.readings, a.days) == (2, 5.0, 30 * DAY - 6, 30.0)
    assert a.missing == pytest.approx(6 / 720, abs=1e-6)
    assert (a.duplicates, b.duplicates, b.negative) == (1, 1, 1)
    assert b.zeros == pytest.approx(18 / 720, abs=1e-6)
    assert report.ok
    assert report.totals["step_seconds"] == 3600
    assert (a.first, a.last) == ("2013-01-01T00:00:00", "2013-01-30T23:00:00")


def test_gap_lengths_are_those_of_runs():
    nan = np.nan
    assert gap_lengths(np.array([nan, 1, nan, nan, 2, nan], np.float32)).tolist() == [1, 2, 1]
    assert gap_lengths(np.zeros(0, np.float32)).tolist() == []


@pytest.mark.parametrize(("factor", "remarked"), [(1000, True), (0.001, True), (3, False), (30, False)])
def test_a_client_a_factor_thousand_off_is_remarked(written, factor, remarked):
    means = {"a": 0.4, "b": 0.5, "c": 0.6, "d": 0.45, "odd": 0.5 * factor}
    remarks = " ".join(check(written, {"t": table(means)}).remarks)
    assert ("Client 'odd' uses" in remarks and "W for kW or Wh for kWh?" in remarks) == remarked
    assert "'b'" not in remarks


def test_a_population_in_the_wrong_unit_is_remarked(written):
    right, wrong = table({"a": 400.0, "b": 500.0}), ", value: {unit: MWh}"
    assert any(
        "Is value.unit 'MWh' right?" in remark for remark in check(written, {"t": right}, wrong).remarks
    )
    assert not any("value.unit" in r for r in check(written, {"t": right}, ", value: {unit: Wh}").remarks)
    with_power = check(written, {"t": right}, ", value: {unit: W, to: kWh}")
    assert with_power.clients[0].per_day == pytest.approx(0.4 * 24, rel=0.1)


@pytest.mark.parametrize(("factor", "words"), [(4, "kW for kWh of a quarter-hour"), (1000, "W for kW")])
def test_a_change_of_unit_from_one_file_to_the_next_is_remarked(written, factor, words):
    means = {"a": 0.4, "b": 0.9, "c": 0.6}
    later = table({name: mean * factor for name, mean in means.items()}, start="2013-01-31")
    report = check(written, {"t1": table(means), "t2": later})
    assert any("3 clients change by a factor of" in r and words in r for r in report.remarks)
    steady = check(written, {"t1": table(means), "t2": table(means, start="2013-01-31")})
    assert not any("change by a factor" in remark for remark in steady.remarks)


def test_a_register_constants_and_zeros_that_mean_missing_are_remarked(written):
    data = table({"a": 0.5, "b": 0.5, "late": 0.5})
    data["register"] = np.arange(len(data)) * 0.3
    data["flat"] = 1.0
    data.loc[100:120, "b"] = 0
    data.loc[:200, "late"] = 0
    remarks = check(written, {"t": data}).remarks
    assert any("Client 'register' is only ever rising: a meter's register?" in r for r in remarks)
    assert any("Client 'flat' is constant" in r for r in remarks)
    assert any("Client 'b' is exactly 0 at times" in r and "value.zero: missing " in r for r in remarks)
    assert any("Client 'late' is zero for more than a week" in r for r in remarks)


@pytest.mark.parametrize(
    ("zone", "day"),
    [("Europe/Berlin", "2013-03-20"), ("Europe/London", "2013-03-20"), ("America/New_York", "2013-03-01")],
)
def test_stamps_of_a_local_clock_said_to_be_utc_are_remarked(written, zone, day):
    data = table({"a": 0.5, "b": 0.7})
    utc = pd.date_range(day, periods=len(data), freq="h", tz="UTC")
    local = data.assign(timestamp=utc.tz_convert(zone).strftime("%Y-%m-%d %H:%M"))
    assert any(f"Set time.timezone, such as {zone}." in r for r in check(written, {"t": local}).remarks)
    said = check(written, {"t": local}, f", time: {{timezone: {zone}}}")
    assert said.ok
    assert said.totals["clock_changes"] == 2  # one of each client
    assert not any("timezone" in remark for remark in said.remarks)
    right = data.assign(timestamp=utc.strftime("%Y-%m-%d %H:%M"))
    assert not any("timezone" in remark for remark in check(written, {"t": right}).remarks)


def test_clients_that_cannot_be_loaded_are_reported_all_the_same(written):
    data = table({"a": 0.5, "b": 0.7})
    data.loc[5, "a"] = -1
    data.loc[6, "b"] = -2
    data = pd.concat([data, data[-1:].assign(b=9.0)])
    report = check(written, {"t": data})
    assert not report.ok
    assert [item.client for item in report.clients] == ["a", "b"]
    assert report.clients[0].negative == 1
    assert any(
        "Client 'a': -1 kWh" in problem and "(1 more like it.)" in problem for problem in report.problems
    )
    assert report.study == ""


def test_what_the_rules_drop_and_what_the_attributes_lack_is_said(written):
    data = table({"a": 0.5, "short": 0.5})
    data.loc[DAY:, "short"] = np.nan
    path = written(
        "{layout: wide, files: t.csv, client: {min_days: 10}, attributes: {file: who.txt, key: id}}",
        t_csv=data.to_csv(index=False),
    )
    (path.parent / "who.txt").write_text("id,tariff\na,flat\nx,flat\ny,flat\n")
    report = check_file(path)
    assert [(item.client, item.reason.split(":")[0]) for item in report.dropped] == [("short", "min_days")]
    assert report.attributes == {
        "file": "who.txt",
        "columns": ["tariff"],
        "clients_without": ["short"],
        "names_beyond": 2,
    }
    text = report.text()
    assert "Would drop 1 client\n  short: min_days: 1.0 days" in text
    assert json.loads(json.dumps(report.as_dict()))["ok"]


def test_a_yaml_that_is_wrong_is_a_report_too(tmp_path, written):
    report = check_file(written("{layout: tall, files: t.csv}"))
    assert "layout: unknown value 'tall'" in report.text()
    assert not check_file(tmp_path / "absent.yaml").ok


def test_samples_report_classes_channels_and_rows_left_out(written):
    rows = (
        "".join(f"{'ab'[n % 2]},{n},7,{'yes' if n % 3 else 'no'}\n" for n in range(30))
        + "a,,7,no\nc,1,7,no\n"
    )
    keys = "{layout: samples, files: t.csv, client: {column: who, min_samples: 2}, labels: {label: word}}"
    report = check_file(written(keys, t_csv="who,x,y,word\n" + rows))
    assert not report.ok
    assert "line 32: no value for 'x'" in report.problems[0]
    assert report.totals["classes"] == {"no": 10, "yes": 20}
    assert report.remarks == ("Channels that never change: y. They teach nothing.",)
    assert [item.client for item in report.dropped] == ["c"]


@pytest.mark.parametrize(
    ("path", "pattern", "client"),
    [
        ("data/meter 7.csv", None, "meter 7"),
        ("d/building_7/2019.csv", "building_{client}/{year}.csv", "7"),
        ("building_7/2019.csv", "building_{client}/*.csv", "7"),
        ("x_building_7/2019.csv", "building_{client}/*.csv", None),
        ("a/b.csv", "{client}/b.csv", "a"),
        ("a.b/c.csv", "a?b/{client}.csv", None),
    ],
)
def test_a_pattern_finds_the_client_in_a_path(path, pattern, client):
    assert client_of(path, pattern) == client
