"""The wheel alone, in an empty environment and an empty folder, runs the demo."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command, cwd, **environment):
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "MLFLOW", "PERSOFL"))
    }
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**clean, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_wheel_runs_the_demo(tmp_path):
    build = (
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ROOT,
    )
    run(*build, cwd=tmp_path)
    (wheel,) = tmp_path.glob("persofl-*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    binaries, empty = tmp_path / "env" / "bin", tmp_path / "empty"
    empty.mkdir()
    run(
        binaries / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "-c",
        ROOT / "constraints.txt",
        "torch==2.13.0",
        wheel,
        cwd=empty,
    )
    home = {"HOME": str(empty), "OMP_NUM_THREADS": "1"}
    printed = run(
        binaries / "persofl",
        "study",
        "run",
        "demo",
        "--search.trials",
        "1",
        "--seeds",
        "[0,1]",
        cwd=empty,
        **home,
    )
    assert "persofl ui" in printed
    shown = json.loads(run(binaries / "persofl", "study", "show", "demo", "--json", cwd=empty, **home))
    assert "fedavg" in json.dumps(shown)
    assert (empty / "mlruns" / "mlflow.db").exists()
