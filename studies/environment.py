"""Where a run was made: versions, machine, threads and the git commit of the code."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("persofl", "torch", "pytorch-lightning", "numpy", "pandas", "pot", "optuna", "mlflow")


def package_version(name: str = "persofl") -> str:
    """Version of an installed distribution, ``"not installed"`` when the code runs from its folder."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def environment() -> dict[str, object]:
    """Python, package versions, platform, cores and threads of this process."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads_per_worker": 1,
        "packages": {name: package_version(name) for name in PACKAGES},
    }


def origin() -> dict[str, str]:
    """Host and process of this session, as run tags."""
    return {"persofl.host": socket.gethostname(), "persofl.pid": str(os.getpid())}


def git_commit() -> dict[str, str]:
    """Tags with the commit of the code, else of the working folder; empty where there is no repository."""
    for folder in (Path(__file__).parent, Path.cwd()):
        commit = _git(folder, "rev-parse", "HEAD")
        if commit:
            dirty = "yes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "no"
            return {"mlflow.source.git.commit": commit, "persofl.git.dirty": dirty}
    return {}


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
