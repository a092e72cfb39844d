"""A file of the official size, 370 meters and four years, is read in blocks: in less than 1.5 of the 3 GB allowed."""

import subprocess
import sys

import numpy as np
import pytest

DAYS, METERS = 1461, 370
CODE = """
import sys, time
from data_loaders.electricity import UCIElectricity
begin = time.perf_counter()
series = UCIElectricity(sys.argv[1], frequency=sys.argv[2]).load()
lines = open("/proc/self/status").read().splitlines()
peak = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
print(len(series), int(series.lengths[0]), round(time.perf_counter() - begin), peak)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status"),
]


@pytest.fixture(scope="module")
def official_size(tmp_path_factory):
    """One day's rows over and over, under ever new stamps: 880 MB."""
    path = tmp_path_factory.mktemp("uci") / "LD2011_2014.txt"
    power = np.random.default_rng(0).gamma(2, 50, (96, METERS))
    rows = [";".join(f"{value:.15g}".replace(".", ",") for value in row) for row in power]
    ends = np.datetime64("2011-01-01T00:15:00") + 900 * np.arange(DAYS * 96).astype("timedelta64[s]")
    with path.open("w") as file:
        file.write('"";' + ";".join(f'"MT_{k + 1:03d}"' for k in range(METERS)) + "\n")
        for row, stamp in enumerate(ends):
            file.write(f'"{str(stamp).replace("T", " ")}";{rows[row % 96]}\n')
    yield path
    path.unlink()


@pytest.mark.parametrize(("frequency", "steps"), [("1h", 24), ("15min", 96)])
def test_four_years_of_370_meters_fit(official_size, frequency, steps):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(official_size), frequency],
        capture_output=True,
        text=True,
        check=True,
    )
    meters, length, seconds, megabytes = map(int, done.stdout.split())
    print(
        f"{official_size.stat().st_size / 1e6:.0f} MB, {frequency}: {seconds} s, {megabytes} MB at the peak"
    )
    assert (meters, length) == (METERS, DAYS * steps)
    assert megabytes < 1536
