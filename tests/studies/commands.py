"""The command line as tests call it: words of a small training, and a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAIN = ["train", "--method", "ditto", "--model.name", "linear", "--training.eval_every", "2"]
TRAIN += ["--data.options", "{clients: 4, days: 40}", "--data.lookback", "24", "--data.horizon", "4"]


def start(words):
    """A process group of its own, as a shell starts one."""
    return subprocess.Popen(
        [sys.executable, "-m", "studies.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
        start_new_session=True,
    )


def start_script(folder, text, *numbers):
    """A script of a test's own, with numbers as its arguments; what it prints can be read."""
    path = folder / "jobs.py"
    path.write_text(text)
    words = [sys.executable, str(path), *map(str, numbers)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=_environment())


def _environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
