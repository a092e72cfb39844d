"""Parsing and rules on small files written in exactly the formats of the archives."""

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import DataError, London

OFFICIAL = "LCLid,stdorToU,DateTime,KWH/hh (per half hour) ,Acorn,Acorn_grouped"
STAMPS = pd.date_range("2013-01-01", periods=96, freq="30min")
ANY = {"min_days": 0, "min_coverage": 0}


def official_rows(client, values, stamps=STAMPS, tariff="Std", acorn="ACORN-A", group="Affluent"):
    return [
        f"{client},{tariff},{stamp:%Y-%m-%d %H:%M:%S}.0000000, {value:.3f} ,{acorn},{group}"
        for stamp, value in zip(stamps, values, strict=False)
    ]


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def wide(path, columns, frequency="30min", start="2013-01-01"):
    """A prepared table."""
    steps = len(next(iter(columns.values())))
    index = pd.date_range(start, periods=steps, freq=frequency, name="timestamp_utc")
    pd.DataFrame(columns, index=index).to_parquet(path)


@pytest.fixture
def load():
    values = np.round(np.random.default_rng(0).gamma(2, 0.2, 96), 3)
    return values.clip(0.001).astype(np.float32)


def test_official_rows_become_half_hours(tmp_path, load):
    write(tmp_path / "LCL-June2015v2_0.csv", [OFFICIAL, *official_rows("MAC000002", load)])
    series = London(str(tmp_path), frequency="30min", **ANY).load()
    assert series.clients == ("MAC000002",)
    assert series.step_seconds == 1800
    assert series.starts[0] == np.datetime64("2013-01-01")
    torch.testing.assert_close(series.of(0)[:, 0], torch.from_numpy(load))
    assert series.attributes.loc["MAC000002"].to_dict() == {
        "tariff": "Std",
        "acorn": "ACORN-A",
        "acorn_group": "Affluent",
    }


def test_an_hour_is_the_sum_of_its_halves_and_missing_where_either_is(tmp_path, load):
    rows = official_rows("MAC000002", load)
    del rows[5]
    write(tmp_path / "a.csv", [OFFICIAL, *rows[1:]])
    series = London(str(tmp_path), **ANY).load()
    expected = torch.from_numpy(load.reshape(-1, 2).sum(1))[1:]
    expected[1] = torch.nan
    # the first stamp is 00:30, so the first hour is incomplete and the series starts at 01:00
    assert series.starts[0] == np.datetime64("2013-01-01T01:00")
    torch.testing.assert_close(series.of(0)[:, 0], expected, equal_nan=True)


def test_quirks_are_handled_and_counted(tmp_path, load):
    rows = official_rows("MAC000002", load)
    odd = "MAC000002,Std,2013-01-01 12:37:27.0000000,Null,ACORN-A,Affluent"
    off = "MAC000002,Std,2013-01-01 12:45:00.5000000, 7 ,ACORN-A,Affluent"
    null = rows[20].replace(f" {load[20]:.3f} ", " Null ")
    conflict = rows[30].replace(f" {load[30]:.3f} ", " 9.9 ")
    lines = [*rows[:20], null, *rows[21:40], odd, off, rows[7], conflict, *rows[40:], rows[50]]
    write(tmp_path / "a.csv", [OFFICIAL.replace("LCLid", " LCLid "), *lines])
    write(tmp_path / "weather.csv", ["time,temperature", "2013-01-01,3"])
    series = London(str(tmp_path), frequency="30min", **ANY).load()
    expected = torch.from_numpy(load.copy())
    expected[20] = torch.nan
    torch.testing.assert_close(series.of(0)[:, 0], expected, equal_nan=True)
    rules = "; ".join(series.rules)
    assert "2 of 101 rows off the half-hour grid left out" in rules
    assert "1 rows without a value are missing readings" in rules
    assert (
        "2 exact duplicates collapsed; of 1 that contradict an earlier row the earlier one is kept" in rules
    )
    assert "1 files without readings ignored: weather.csv" in rules


def test_chunks_files_and_the_order_of_rows_do_not_matter(tmp_path, load, monkeypatch):
    generator = np.random.default_rng(1)
    names = [f"MAC{number:06d}" for number in range(5)]
    tables = {name: np.roll(load, 7 * k) for k, name in enumerate(names)}
    rows = [row for name in names for row in official_rows(name, tables[name])]
    shuffled = [rows[i] for i in generator.permutation(len(rows))]
    write(tmp_path / "sorted" / "a.csv", [OFFICIAL, *rows])
    write(tmp_path / "shuffled" / "a.csv", [OFFICIAL, *shuffled[:200]])
    write(tmp_path / "shuffled" / "deeper" / "b.csv", [OFFICIAL, *shuffled[200:]])
    whole = London(str(tmp_path / "sorted"), frequency="30min", **ANY).load()
    monkeypatch.setattr("data_loaders.electricity.london_csv._CHUNK_BYTES", 1000)
    for folder in ("sorted", "shuffled"):
        series = London(str(tmp_path / folder), frequency="30min", **ANY).load()
        assert series.fingerprint() == whole.fingerprint()
        assert any("0 exact duplicates collapsed; of 0" in rule for rule in series.rules)
    for client, name in enumerate(names):
        torch.testing.assert_close(whole.of(client)[:, 0], torch.from_numpy(tables[name]))


def test_single_household_files_of_the_official_layout(tmp_path, load):
    lines = [f"MAC000002,{stamp}.0000000, {value:.3f} " for stamp, value in zip(STAMPS, load, strict=True)]
    path = write(tmp_path / "MAC000002.csv", ["LCLid,DateTime,KWH/hh (per half hour)", *lines])
    one, folder = (London(str(root), frequency="30min", **ANY).load() for root in (path, tmp_path))
    assert one.fingerprint() == folder.fingerprint()
    assert one.attributes["tariff"].tolist() == ["unknown"]


def test_the_kaggle_layout_with_its_information_file(tmp_path, load):
    lines = [
        f"{name},{stamp}, {value:.3f} "
        for name in ("MAC000003", "MAC000002")
        for stamp, value in zip(STAMPS, load, strict=True)
    ]
    write(tmp_path / "halfhourly_dataset" / "block_0.csv", ["LCLid,tstp,energy(kWh/hh)", *lines])
    write(tmp_path / "daily_dataset" / "block_0.csv", ["LCLid,day,energy_median", "MAC000002,2013-01-01,.3"])
    information = ["LCLid,stdorToU,Acorn,Acorn_grouped,file", "MAC000002,ToU,ACORN-Q,Adversity,block_0"]
    write(tmp_path / "informations_households.csv", information)
    series = London(str(tmp_path), frequency="30min", **ANY).load()
    assert series.clients == ("MAC000002", "MAC000003")
    assert series.attributes["acorn_group"].tolist() == ["Adversity", "unknown"]
    assert any("1 files without readings ignored: daily_dataset/block_0.csv" in rule for rule in series.rules)


def test_a_value_that_is_no_number_is_found(tmp_path, load, monkeypatch):
    rows = official_rows("MAC000002", load)
    rows[60] = rows[60].replace(f" {load[60]:.3f} ", " 0.2l ")
    path = write(tmp_path / "a.csv", [OFFICIAL, *rows])
    monkeypatch.setattr("data_loaders.electricity.london_csv._CHUNK_BYTES", 1000)
    with pytest.raises(DataError) as caught:
        London(str(tmp_path)).load()
    assert str(caught.value) == (
        f"File {path}, column 'KWH/hh (per half hour) ', row 62: '0.2l' is not a number. "
        "Correct or remove the row."
    )


def test_a_stamp_that_is_none_is_found(tmp_path, load):
    rows = official_rows("MAC000002", load)
    rows[3] = rows[3].replace("2013-01-01", "yesterday")
    write(tmp_path / "a.csv", [OFFICIAL, *rows])
    with pytest.raises(
        DataError, match=r"column 'DateTime', row 5: 'yesterday 01:30:00.0000000' is not a stamp"
    ):
        London(str(tmp_path)).load()


def test_a_broken_file_is_named(tmp_path, load):
    path = write(tmp_path / "a.csv", [OFFICIAL, *official_rows("MAC000002", load), "MAC000002,Std,2013"])
    with pytest.raises(DataError, match=f"File {path} is broken: .*Expected 6 columns, got 3"):
        London(str(tmp_path)).load()


def test_missing_folders_and_files_say_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"no file or folder .*nowhere\. Check the path"):
        London(str(tmp_path / "nowhere")).load()
    write(tmp_path / "notes.csv", ["a,b", "1,2"])
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match=r"No readings in .*: looked in 2 \.csv files for the columns LCLid"):
        London(str(tmp_path)).load()


def test_prepared_tables_with_their_clients(tmp_path, load):
    wide(tmp_path / "load_halfhourly.parquet", {"MAC000009": load, "MAC000002": load[::-1].copy()})
    listed = pd.DataFrame({"tariff": ["ToU"], "annual_kwh_observed": [4000.0]}, index=["MAC000002"])
    listed.rename_axis(index="client").to_csv(tmp_path / "clients.csv")
    series = London(str(tmp_path), **ANY).load()
    assert series.clients == ("MAC000009", "MAC000002")
    torch.testing.assert_close(series.of(0)[:, 0], torch.from_numpy(load.reshape(-1, 2).sum(1)))
    assert series.attributes["tariff"].tolist() == ["unknown", "ToU"]
    assert series.attributes["annual_kwh_observed"].tolist()[1] == 4000
    wide(tmp_path / "load_hourly.parquet", {"MAC000002": load}, frequency="1h")
    assert len(London(str(tmp_path), **ANY).load().of(0)) == 96


def test_half_hours_cannot_come_from_hours(tmp_path, load):
    wide(tmp_path / "load_hourly.parquet", {"MAC000002": load}, frequency="1h")
    with pytest.raises(
        DataError, match=r"holds hourly readings only; frequency='30min' needs load_halfhourly"
    ):
        London(str(tmp_path), frequency="30min").load()


def test_a_table_column_of_text_is_named(tmp_path, load):
    text = np.array([str(value) for value in load], object)
    text[4] = "none"
    wide(tmp_path / "load_hourly.parquet", {"MAC000002": load, "MAC000003": text}, frequency="1h")
    with pytest.raises(DataError, match=r"column 'MAC000003', row 4: 'none' is not a number"):
        London(str(tmp_path)).load()


def test_a_table_with_irregular_stamps_is_refused(tmp_path, load):
    stamps = STAMPS.to_series().reset_index(drop=True)
    stamps[5] = stamps[4]
    pd.DataFrame({"MAC000002": load, "timestamp_utc": stamps}).to_parquet(
        tmp_path / "load_halfhourly.parquet"
    )
    with pytest.raises(DataError, match="row 5: stamp 2013-01-01 02:00:00 is no later multiple of 1800 s"):
        London(str(tmp_path)).load()


def test_every_household_rule_drops_with_its_reason(tmp_path, load):
    steps, generator = 96 * 60, np.random.default_rng(0)
    full = generator.gamma(2, 0.2, steps)
    early, holes, zeros = full.copy(), full.copy(), np.zeros(steps)
    early[1000:] = np.nan
    holes[generator.random(steps) < 0.15] = np.nan
    zeros[::20] = 1
    columns = {"full": full, "early": early, "holes": holes, "zeros": zeros, "silent": np.full(steps, np.nan)}
    wide(tmp_path / "load_halfhourly.parquet", {name: np.float32(values) for name, values in columns.items()})
    series = London(str(tmp_path), frequency="30min").load()
    assert series.clients == ("full",)
    reasons = {item.client: item.reason.split(":")[0] for item in series.dropped}
    assert reasons == {
        "early": "min_days",
        "holes": "min_coverage",
        "zeros": "max_zero_share",
        "silent": "no reading",
    }
    assert all(any(rule.startswith(name) for rule in series.rules) for name in ("min_days", "min_coverage"))
    with pytest.raises(
        DataError, match=r"No household of source 'london' is left: 4 by min_days, 1 by no reading"
    ):
        London(str(tmp_path), min_days=1000).load()


def test_a_series_runs_from_its_first_to_its_last_reading_in_the_period(tmp_path, load):
    ragged = load.copy()
    ragged[:3], ragged[90:] = np.nan, np.nan
    wide(tmp_path / "load_halfhourly.parquet", {"MAC000002": ragged})
    options = {"frequency": "30min", **ANY}
    assert torch.equal(London(str(tmp_path), **options).load().of(0)[:, 0], torch.from_numpy(ragged[3:90]))
    part = London(str(tmp_path), start="2013-01-01 12:00", end="2013-01-02", **options).load()
    assert part.starts[0] == np.datetime64("2013-01-01T12:00")
    assert torch.equal(part.of(0)[:, 0], torch.from_numpy(ragged[24:48]))


def test_the_first_households_for_a_quick_run(tmp_path, load):
    wide(tmp_path / "load_halfhourly.parquet", {f"MAC{k:06d}": load for k in range(5)})
    series = London(str(tmp_path), clients=2, **ANY).load()
    assert series.clients == ("MAC000000", "MAC000001")
    assert any("only the first 2 households" in rule for rule in series.rules)


def test_all_problems_of_the_options_come_in_one_message():
    with pytest.raises(DataError) as caught:
        London(
            "x", frequency="2h", min_days=-1, min_coverage=2, clients=0, start="2013-02-01", end="2013-01-01"
        )
    assert len(caught.value.problems) == 5
    with pytest.raises(DataError, match="start and end must be stamps like 2013-01-01, got 'soon' and None"):
        London("x", start="soon")
