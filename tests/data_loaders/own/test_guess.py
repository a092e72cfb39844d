import numpy as np
import pandas as pd
import pytest
import yaml

from data_loaders import DataError
from data_loaders.own import Own, check_file, guess, spec_of, starting_yaml

STAMPS = pd.date_range("2013-01-01", periods=24 * 20, freq="h")
VALUES = np.round(np.random.default_rng(0).uniform(0.1, 3, (24 * 20, 3)), 3)


def written(frame, decimal):
    """The cells of a frame as text with a decimal mark."""
    return frame.apply(lambda column: column.map(lambda cell: f"{cell}".replace(".", decimal)))


@pytest.mark.parametrize(
    ("delimiter", "decimal"), [(",", "."), (";", ","), ("\t", "."), ("|", ","), (";", ".")]
)
@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M"])
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_a_guess_reads_the_table_that_was_written(tmp_path, delimiter, decimal, form, layout):
    wide = pd.DataFrame(VALUES, columns=["MT_1", "MT_2", "MT_3"])
    text = written(wide, decimal)
    text.insert(0, "Zeitpunkt", STAMPS.strftime(form))
    if layout == "long":
        text = text.melt("Zeitpunkt", var_name="meter", value_name="kW")
    text.to_csv(tmp_path / "t.csv", sep=delimiter, index=False)
    (tmp_path / "mine.yaml").write_text(starting_yaml(tmp_path / "t.csv"))
    series = Own(str(tmp_path / "mine.yaml")).load()
    assert series.clients == ("MT_1", "MT_2", "MT_3")
    assert series.unit == ("kW" if layout == "long" else "kWh")
    for client in range(3):
        np.testing.assert_allclose(series.of(client)[:, 0].numpy(), VALUES[:, client], rtol=1e-6)


def test_lines_before_the_header_a_missing_header_and_encodings_are_seen(tmp_path):
    body = "".join(f"{stamp:%Y-%m-%d %H:%M};Zähler;1,5\n" for stamp in STAMPS[:50])
    file = tmp_path / "t.csv"
    file.write_bytes(("Export of 2013\n\nby: X\nZeit;Meter;Wert\n" + body).encode("cp1252"))
    found = guess(file)
    assert found["csv"] == {"delimiter": ";", "decimal": ",", "encoding": "cp1252", "skip_rows": 3}
    file.write_text(body, encoding="utf-16")
    found = guess(file)
    assert found["csv"]["encoding"] == "utf-16"
    assert found["csv"]["columns"] == ["column 1", "column 2", "column 3"]
    assert (found["time"]["column"], found["client"]["column"]) == ("column 1", "column 2")


def test_thousands_marks_are_seen(tmp_path):
    rows = "".join(f"{stamp:%Y-%m-%d %H:%M};a;1.23{n % 10},5\n" for n, stamp in enumerate(STAMPS[:50]))
    (tmp_path / "t.csv").write_text("time;meter;kWh\n" + rows)
    found = guess(tmp_path / "t.csv")
    assert found["csv"] == {"delimiter": ";", "decimal": ",", "thousands": "."}
    (tmp_path / "mine.yaml").write_text(starting_yaml(tmp_path / "t.csv"))
    assert Own(str(tmp_path / "mine.yaml")).load().values.max() == 1239.5


def test_one_file_a_client_is_a_folder_and_a_manifest_is_clips(tmp_path):
    for name in ("a", "b"):
        frame = pd.DataFrame({"time": STAMPS.astype(str), "load [kW]": VALUES[:, 0]})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    found = guess(tmp_path)
    assert found["layout"] == "folder"
    assert found["value"] == {"column": "load [kW]", "unit": "kW"}
    manifest = tmp_path / "clips.csv"
    manifest.write_text("file,speaker,word\n" + "".join(f"c/{n}.wav,s{n % 3},yes\n" for n in range(9)))
    assert guess(manifest) == {
        "layout": "wav",
        "files": ["clips.csv"],
        "client": {"column": "speaker"},
        "labels": {"label": "word"},
        "audio": {"path": "file"},
    }


def test_events_of_users_are_samples(tmp_path):
    numbers = np.random.default_rng(0)
    stamps = STAMPS[0] + pd.to_timedelta(np.sort(numbers.integers(0, 10**6, 60)), unit="s")
    frame = pd.DataFrame(
        {
            "session_id": range(60),
            "user_id": [f"u{n % 5}" for n in range(60)],
            "start": stamps.strftime("%Y-%m-%d %H:%M:%S"),
            "hour": stamps.hour,
            "energy_kWh": numbers.uniform(1, 50, 60).round(2),
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    found = guess(tmp_path / "t.csv")
    assert found["layout"] == "samples"
    assert found["client"] == {"column": "user_id"}
    assert found["labels"] == {
        "features": ["hour"],
        "targets": ["energy_kWh"],
        "unit": "kWh",
        "incomplete": "drop",
    }
    (tmp_path / "mine.yaml").write_text(starting_yaml(tmp_path / "t.csv"))
    assert check_file(tmp_path / "mine.yaml").ok


def test_a_guess_is_a_spec_and_parquet_needs_no_sniffing(tmp_path):
    pd.DataFrame({"when": STAMPS, "a": VALUES[:, 0], "b": VALUES[:, 1]}).to_parquet(tmp_path / "t.parquet")
    text = starting_yaml(tmp_path / "t.parquet", tmp_path / "elsewhere")
    assert text.startswith("# Guessed from t.parquet. Check every line, above all time.timezone")
    spec = spec_of(yaml.safe_load(text))
    assert (spec.layout, spec.files, spec.time.column) == ("wide", ("../t.parquet",), "when")


def test_what_cannot_be_sniffed_says_so(tmp_path):
    (tmp_path / "empty.csv").write_text("\n")
    with pytest.raises(DataError, match=r"empty\.csv is empty"):
        guess(tmp_path / "empty.csv")
    with pytest.raises(DataError, match=r"absent\.csv cannot be read: No such file"):
        guess(tmp_path / "absent.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder holds no \.csv"):
        guess(tmp_path / "folder")
    (tmp_path / "t.parquet").write_text("no")
    with pytest.raises(DataError, match=r"t\.parquet is no parquet file"):
        guess(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("energy(kWh/hh)", "kWh"),
        ("load [kW]", "kW"),
        ("p [W]", "W"),
        ("E_MWh", "MWh"),
        ("w", "kWh"),
        ("towh", "kWh"),
        ("active_power_wh", "Wh"),
    ],
)
def test_units_are_read_off_the_column(tmp_path, name, unit):
    frame = pd.DataFrame({"time": STAMPS.astype(str), "meter": "a", name: VALUES[:, 0]})
    frame.to_csv(tmp_path / "w.csv", index=False)
    spec = spec_of(guess(tmp_path / "w.csv"))
    assert (spec.value.column, spec.value.unit) == (name, unit)
