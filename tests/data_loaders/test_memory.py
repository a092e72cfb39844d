"""The buffer and its scaled copy, nothing else of that size."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

# the peak of this address space; ru_maxrss would carry the parent's over into the child
PEAK = """
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
"""

SMALL = """
import numpy as np, pandas as pd, torch
from data_loaders import ClientSeries, WindowSpec, make_windows
clients, steps = 1000, 17520
def series(clients):
    names = tuple(map(str, range(clients)))
    values = torch.rand(clients * steps, 1)
    starts = np.full(clients, np.datetime64("2013-01-01", "s"))
    offsets = steps * torch.arange(clients + 1)
    return ClientSeries("random", values, offsets, names, pd.DataFrame(index=names), starts, 1800, "kWh")
spec = WindowSpec(lookback=336, horizon=48)
make_windows(series(2), spec)
big = series(clients)
before = peak()
windows = make_windows(big, spec)
print(peak() - before, windows.series.values.nbytes)
"""

WHOLE = """
import sys
import torch
from data_loaders import London, WindowSpec, make_windows
windows = make_windows(London(sys.argv[1], frequency="30min").load(), WindowSpec(lookback=336, horizon=48))
x, y = windows.gather(windows.positions("train", torch.arange(len(windows)), torch.zeros(len(windows), 1).long()))
print(peak(), len(windows))
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")


def measured(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", PEAK + code, *arguments], capture_output=True, text=True, check=True
    )
    return [int(word) for word in done.stdout.split()]


def test_windows_cost_one_copy_of_the_values():
    grown, copy = measured(SMALL)
    assert grown < 1.25 * copy


@pytest.mark.slow
def test_the_whole_london_population_loads_in_less_than_two_gigabytes(tmp_path):
    clients, steps = 5567, 17520
    stamps = np.datetime64("2013-01-01", "s") + 1800 * np.arange(steps).astype("timedelta64[s]")
    generator = np.random.default_rng(0)

    def load():
        values = generator.random(steps, np.float32)
        values[generator.random(steps) < 0.001] = np.nan
        return values

    columns = {f"MAC{client:06d}": load() for client in range(clients)}
    table = pa.table({"timestamp_utc": stamps, **columns})
    pq.write_table(table, tmp_path / "load_halfhourly.parquet", use_dictionary=False, compression="none")
    peak, kept = measured(WHOLE, str(tmp_path))
    assert kept == clients
    assert peak < 2e9, f"{peak / 1e9:.2f} GB"
