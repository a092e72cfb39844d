"""Memory that a process keeps, seen by the page faults that it spares."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from persofl.memory import _OWN_WORDS, keep_freed_memory

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep freed memory"
)

STEPS = """
import resource, torch
from persofl.memory import keep_freed_memory
torch.set_num_threads(1)
kept = keep_freed_memory()
def step():
    parts = [torch.ones(3_000_000 // 4) for _ in range(4)]
    return sum(part[-1] for part in parts)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(code, **environment):
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=bare | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@glibc
def test_steps_after_the_first_map_no_pages():
    kept, faults = run(STEPS)
    assert kept == "True"
    assert int(faults) < 3_000  # handed back, they are 20 x 4 x 732 pages


@glibc
@pytest.mark.parametrize(
    "own",
    [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}],
)
def test_what_its_user_set_stays(own):
    kept, faults = run(STEPS, **own)
    assert kept == "False"
    assert int(faults) > 10_000


@pytest.mark.parametrize("libc", [("glibc", "2.36"), ("musl", "1.2"), ("", "")])
def test_a_library_that_is_not_told_is_left_alone(libc, monkeypatch):
    for name in (*_OWN_WORDS, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # has no mallopt
    assert keep_freed_memory.__wrapped__() is False


@glibc
def test_a_federation_keeps_memory():
    code = """
from data_loaders import SimulatedHouseholds, WindowSpec, make_windows
from persofl import Shape, build_federation, build_model, parse_method
from persofl.memory import keep_freed_memory
data = make_windows(SimulatedHouseholds(clients=2, days=20).load(), WindowSpec(lookback=24, horizon=6))
build_federation(data, build_model("linear", Shape(24, 6)), parse_method("fedavg", {}))
print(keep_freed_memory.cache_info().currsize)
"""
    assert run(code) == ["1"]
