"""A method in a file of one's own: listed, tuned in worker processes and compared, with nothing else touched."""

import re
from pathlib import Path

import pytest

from persofl import ALGORITHMS
from studies.cli import main
from studies.errors import StudyError
from studies.names import study_config
from studies.plugins import load_plugins

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plugin(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL).group(1)
    path = tmp_path / "normalised.py"
    path.write_text(code)
    yield str(path)
    ALGORITHMS.pop("normalised", None)


def test_a_plugin_is_listed(plugin, capsys):
    main(["methods", "--plugins", f"[{plugin}]"])
    assert "normalised" in capsys.readouterr().out


def test_a_plugin_runs_in_a_study_with_workers(plugin, folder, capsys):
    words = ["--methods", "[fedavg, normalised]", "--search.trials", "2", "--seeds", "[0]", "--workers", "2"]
    words += ["--data.options", "{clients: 4, days: 40}", "--data.lookback", "24", "--data.horizon", "4"]
    words += ["--training.rounds", "2", "--training.eval_every", "1", "--training.local_steps", "2"]
    main(["study", "run", "demo", "--plugins", f"[{plugin}]", "--tracking.dir", str(folder), *words])
    capsys.readouterr()
    main(["study", "show", "demo", "--tracking.dir", str(folder), "--markdown"])
    assert re.search(r"\| normalised +\| 0\.\d+", capsys.readouterr().out)


def test_a_plugin_that_is_not_there_is_named(small, tmp_path):
    raw = {"name": "x", "methods": ["fedavg"], "plugins": ["nowhere.py"]}
    with pytest.raises(StudyError, match=r"plugins: 'nowhere\.py' cannot be imported: FileNotFoundError"):
        study_config(raw, "x.yaml")
    broken = tmp_path / "broken.py"
    broken.write_text("import json\nraise RuntimeError('half way')\n")
    for _ in range(2):  # the failure is not remembered as a success
        with pytest.raises(StudyError, match="RuntimeError: half way"):
            load_plugins([str(broken)])
