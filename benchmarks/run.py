"""``make bench``: every engine against a plain loop over clients, in one run, one thread.

Writes ``benchmarks/results/latest.json``, a list of rows ``{work, engine, seconds, ratio_to_loop, share_of_matmul,
peak_mb}``. Each piece of work runs in a process of its own (so that peaks of memory are its own), the engines in turn;
seconds are the median over repeats, the ratio is the median of the ratios within a repeat.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from persofl.denormals import flushed_denormals

from .rounds import (
    BATCH,
    CLIENTS,
    HORIZON,
    LOOKBACK,
    STEPS,
    engine_round,
    hand_round,
    households,
    plain_round,
)

RESULTS = Path(__file__).parent / "results" / "latest.json"

WORK = {
    "linear": ("batched", "vmap"),
    "dlinear": ("batched",),
    "mlp": ("batched", "vmap", "loop"),
    "gru": ("batched",),
    "lstm": ("batched",),
    "tcn": ("batched",),
}
REPEATS = {"gru": 2, "lstm": 2, "tcn": 2}
RECURRENT = ("gru", "lstm")

FLOPS = {
    "linear": 2 * 2 * LOOKBACK * HORIZON,
    "dlinear": 2 * 2 * 2 * LOOKBACK * HORIZON,
    "mlp": 2 * (2 * LOOKBACK * 64 + 3 * 64 * HORIZON),
    "gru": 3 * 2 * LOOKBACK * (32 + 1) * 96 + 3 * 2 * 32 * HORIZON,
    "lstm": 3 * 2 * LOOKBACK * (32 + 1) * 128 + 3 * 2 * 32 * HORIZON,
    "tcn": 3 * 2 * LOOKBACK * (16 + 3 * 5 * 16 * 16) + 3 * 2 * 16 * HORIZON,
}
"""Matrix products of one example, forward and backward (no gradient for the input)."""


def seconds(run: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def matmul_rate(size: int = 1024, repeats: int = 10) -> float:
    """The machine's rate in a large single-precision matrix product, one thread, FLOP/s."""
    a = torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: torch.mm(a, a)) for _ in range(repeats))


def flushed(run: Callable[[], None]) -> Callable[[], None]:
    """The same work with denormal numbers taken for zero, as the engine does: what of its gain is that alone."""

    def flushing() -> None:
        with flushed_denormals():
            run()

    return flushing


def measure(work: str, repeats: int) -> list[dict[str, object]]:
    """Rows for one piece of work; meant for a process of its own."""
    torch.set_num_threads(1)
    data = households()
    runs = {"plain loop": plain_round(data, work)}
    if work in RECURRENT:
        runs["plain, flushed"] = flushed(runs["plain loop"])
    runs |= {oracle: engine_round(data, work, oracle) for oracle in WORK[work]}
    if work == "mlp":
        runs["by hand"] = hand_round(data)
    for engine, run in runs.items():
        if not engine.startswith("plain"):
            run()  # warm up; the loop does so within its first clients
    times: dict[str, list[float]] = {engine: [] for engine in runs}
    for _ in range(repeats):
        for engine, run in runs.items():
            times[engine].append(seconds(run))
    flops, rate = FLOPS[work] * CLIENTS * STEPS * BATCH, matmul_rate()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        {
            "work": f"fedavg {work}",
            "engine": engine,
            "seconds": statistics.median(values),
            "ratio_to_loop": statistics.median(
                a / b for a, b in zip(times["plain loop"], values, strict=True)
            ),
            "share_of_matmul": flops / statistics.median(values) / rate,
            "peak_mb": peak,
        }
        for engine, values in times.items()
    ]


def in_own_process(work: str, repeats: int) -> list[dict[str, object]]:
    """Run :func:`measure` in a fresh interpreter."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (work, repeats))


def show(rows: list[dict[str, object]]) -> None:
    """Print the table."""
    title = f"One FedAvg round: {CLIENTS} clients x {STEPS} steps x batch {BATCH}, {LOOKBACK} -> {HORIZON}, one thread"
    table = Table(title=title)
    for name in ("work", "engine", "seconds", "ratio to loop", "share of matmul rate", "process peak MB"):
        table.add_column(name, justify="left" if name in ("work", "engine") else "right")
    for row in rows:
        table.add_row(
            str(row["work"]),
            str(row["engine"]),
            f"{row['seconds']:.3f}",
            f"{row['ratio_to_loop']:.1f}x",
            f"{row['share_of_matmul']:.2f}",
            f"{row['peak_mb']:.0f}",
        )
    Console().print(table)


def main() -> None:
    """Measure what was asked for, print it, and write it down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument(
        "--work", nargs="+", choices=sorted(WORK), default=list(WORK), help="models to measure"
    )
    parser.add_argument(
        "--repeats", type=int, default=7, help="repeats of the fast ones; recurrent ones take 2"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the rows are written")
    args = parser.parse_args()
    rows = []
    for work in track(args.work, description="Measuring"):
        rows += in_own_process(work, min(args.repeats, REPEATS.get(work, args.repeats)))
    show(rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"Matrix-product rate of this machine: {matmul_rate() / 1e9:.0f} GFLOP/s; rows in {args.out}")


if __name__ == "__main__":
    main()
