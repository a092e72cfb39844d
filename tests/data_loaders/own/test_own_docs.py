"""The page on data of one's own runs as it stands, names every key, and its examples are descriptions."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from data_loaders.own import read_spec
from data_loaders.own.options import OwnSpec

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "own_data.md").read_text()
EXAMPLES = sorted((ROOT / "examples" / "own_data").glob("*.yaml"))


def test_the_walk_through_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(code, "docs/own_data.md", "exec"), names)
    assert "meters.yaml: can be used" in capsys.readouterr().out
    assert names["series"].attributes["tariff"].tolist()[:2] == ["fixed", "night"]
    assert len(names["windows"]) == 6


def test_its_study_is_one(tmp_path):
    from studies.names import study_config

    (study,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert study_config(yaml.safe_load(study), "docs/own_data.md").data.source == "own"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_descriptions(path):
    assert read_spec(path).layout == path.stem.rpartition("_")[2]


def test_every_layout_has_an_example():
    assert {read_spec(path).layout for path in EXAMPLES} == {"wide", "long", "folder", "samples", "wav"}


def test_every_key_is_on_the_page():
    for field in dataclasses.fields(OwnSpec):
        inner = field.default if dataclasses.is_dataclass(field.default) else None
        for key in dataclasses.fields(inner) if inner else ():
            named = f"`{field.name}.{key.name}`" in PAGE or (
                field.name == "audio" and f"`{key.name}`" in PAGE
            )
            assert named, f"docs/own_data.md does not name {field.name}.{key.name}"
        assert f"`{field.name}" in PAGE
