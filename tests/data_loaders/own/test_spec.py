import pytest

from data_loaders import DataError
from data_loaders.own import read_spec, spec_of, write_spec
from data_loaders.own.options import Client, Csv, OwnSpec, Time, Value
from data_loaders.own.spec import parse, seconds_of

LONG = {"layout": "long", "files": "a.csv"}


def problems(raw):
    with pytest.raises(DataError) as caught:
        spec_of(raw, "mine.yaml")
    return caught.value.problems


def test_what_is_not_said_has_a_default_and_one_text_is_a_list_of_one():
    spec = spec_of({**LONG, "csv": {"delimiter": ";", "missing": "-"}})
    assert spec == OwnSpec("long", ("a.csv",), csv=Csv(delimiter=";", missing=("-",)))


def test_a_spec_written_reads_back():
    spec = OwnSpec(
        "folder",
        ("*.csv", "more/*.csv"),
        csv=Csv("\t", ",", "'", "latin-1", 3, missing=("-9", "---")),
        time=Time("Zeit", "%d.%m.%Y %H:%M", "Europe/Berlin", "15min", new_run_after="1h"),
        client=Client(pattern="{client}/{year}.csv", min_days=3.5),
        value=Value("kW", "kW", "kWh", negative="keep"),
        covariates=("°C",),
    )
    assert spec_of(parse(write_spec(spec), "written")) == spec


def test_all_problems_come_in_one_message_with_the_nearest_key():
    found = problems(
        {
            "layuot": "long",
            "files": [1],
            "csv": {"delimter": ";", "skip_rows": -1},
            "time": {"stamp": "begin", "step": 15},
            "client": {"min_coverage": 1.5},
            "value": "kWh",
        }
    )
    assert found[0] == "mine.yaml: 9 problems"
    text = "\n".join(found)
    assert "layuot: unknown key. Did you mean 'layout'?" in text
    assert "layout: is missing." in text
    assert "files[0]: expected text, got 1 (int); put it in quotes." in text
    assert "csv.delimter: unknown key. Did you mean 'delimiter'?" in text
    assert "csv.skip_rows: -1 is out of range, must be at least 0." in text
    assert "time.stamp: unknown value 'begin'. Did you mean 'end'? Known: end, start." in text
    assert "time.step: expected text, got 15 (int); put it in quotes." in text
    assert "client.min_coverage: 1.5 is out of range, must be at least 0 and at most 1." in text
    assert "value: expected keys and values, got 'kWh' (str)." in text


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"csv": {"delimiter": "ab"}}, "csv.delimiter: must be one character"),
        ({"csv": {"decimal": ";"}}, "csv.decimal: must be '.' or ','"),
        ({"csv": {"thousands": "."}}, "csv.thousands: is '.' as csv.decimal is"),
        ({"csv": {"encoding": "latin1000"}}, "csv.encoding: there is no encoding 'latin1000'"),
        ({"time": {"step": "15 minutes"}}, "time.step: '15 minutes' is no duration"),
        ({"time": {"new_run_after": "long"}}, "time.new_run_after: 'long' is no duration"),
        ({"time": {"timezone": "Madrid"}}, "time.timezone: there is no time zone 'Madrid'"),
        ({"time": {"format": "dd.mm.yyyy"}}, "time.format: 'dd.mm.yyyy' has no % in it"),
        ({"value": {"unit": "kv", "to": "kWh"}}, "value.unit: Unknown unit 'kv'"),
        ({"value": {"unit": "mWh", "to": "kWh"}}, "write 'MWh' for millions"),
        ({"known": ["temp"]}, "known: temp are not among the covariates []"),
        ({"client": {"pattern": "*.csv"}}, "client.pattern: '*.csv' must hold {client}"),
        ({"audio": {"rate": 16000}}, "audio: says nothing about layout 'long', only about wav. Remove it."),
        ({"layout": "samples"}, "labels: name either label (a class) or targets"),
        ({"layout": "wav", "labels": {"targets": ["x"]}}, "labels: clips have a label"),
        ({"files": []}, "files: name at least one file"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(keys, words):
    assert words in "\n".join(problems({**LONG, **keys}))


def test_text_that_is_no_yaml_names_its_line(tmp_path):
    with pytest.raises(DataError, match=r"x is not valid YAML in line 2"):
        parse("layout: long\ncsv: {decimal: ,,}\n", "x")
    with pytest.raises(DataError, match="key 'files' is there twice"):
        parse("files: a\nfiles: b\n", "x")
    with pytest.raises(DataError, match="must hold keys and values"):
        parse("- a\n", "x")
    with pytest.raises(DataError, match=r"absent\.yaml cannot be read: No such file"):
        read_spec(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes("layout: Zähler".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.yaml is not UTF-8 text"):
        read_spec(tmp_path / "latin.yaml")


def test_durations():
    said = {"15min": 900, "1h": 3600, "0.1s": 0.1, "100ms": 0.1, "1d": 86400, "0s": None, "1w": None}
    assert {text: seconds_of(text) for text in said} == said
