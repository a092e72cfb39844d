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
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "studies.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
