import json

import pytest
import yaml

from data_loaders import DataError
from studies.datacheck import data_check
from studies.errors import StudyError
from studies.names import study_config

ROWS = "time;meter;kWh\n" + "".join(
    f"2013-01-{day:02} {hour:02}:00;{meter};{hour % 5 + 1},5\n"
    for meter in ("a", "b[1]")
    for day in range(1, 31)
    for hour in range(24)
)


@pytest.fixture
def table(tmp_path):
    (tmp_path / "t.csv").write_text(ROWS)
    return tmp_path / "t.csv"


def test_a_table_is_described_written_and_checked(table, capsys):
    target = table.parent / "sub" / "mine.yaml"
    data_check({"file": str(table), "write": str(target)})
    out = capsys.readouterr().out
    assert f"{target}: can be used" in out
    assert "b[1]" in out  # no markup
    assert yaml.safe_load(target.read_text())["files"] == ["../t.csv"]
    data_check({"file": str(target)})
    assert "step_seconds: 3,600" in capsys.readouterr().out


def test_without_write_the_description_is_printed(table, capsys):
    data_check({"file": str(table)})
    out = capsys.readouterr().out
    assert "layout: long" in out
    assert "Keep this with --write mine.yaml." in out
    assert list(table.parent.iterdir()) == [table]


def test_the_study_it_proposes_is_one(table, capsys):
    target = table.parent / "mine.yaml"
    data_check({"file": str(table), "write": str(target)})
    capsys.readouterr()
    data_check({"file": str(target), "json": True})
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    config = study_config(yaml.safe_load(report["study"]), "report")
    assert config.data.options == {"file": str(target)}
    assert (config.data.lookback, config.data.horizon) == (24, 24)


def test_data_that_cannot_be_used_end_with_code_1_after_the_report(table, capsys):
    table.write_text(ROWS.replace("2,5", "-2,5"))
    with pytest.raises(SystemExit) as stopped:
        data_check({"file": str(table)})
    assert stopped.value.code == 1
    out = capsys.readouterr().out
    assert "cannot be used yet: 1 problem" in out
    assert "is negative" in out
    assert "b[1]" in out


def test_nothing_is_overwritten_and_a_yaml_is_not_described_again(table):
    (table.parent / "mine.yaml").write_text("mine")
    with pytest.raises(StudyError, match=r"There is a file .*mine\.yaml already"):
        data_check({"file": str(table), "write": str(table.parent / "mine.yaml")})
    assert (table.parent / "mine.yaml").read_text() == "mine"
    with pytest.raises(StudyError, match="is a YAML file already"):
        data_check({"file": str(table.parent / "mine.yaml"), "write": "x.yaml"})
    with pytest.raises(DataError, match="cannot be read"):
        data_check({"file": str(table.parent / "absent.csv")})
