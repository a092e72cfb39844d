"""``make bench``: every engine against a plain loop over clients, in one run, one thread.

Writes ``benchmarks/results/latest.json``, a list of rows ``{work, engine, device, seconds, ratio_to_loop, share_of_matmul,
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
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from persofl.data import ClientData
from persofl.denormals import flushed_denormals

from .plain import (
    BATCH,
    FRAMES,
    HORIZON,
    LOOKBACK,
    MELS,
    STEPS,
    Round,
    apfl_loop,
    ditto_loop,
    entropy,
    evaluation_loop,
    examples_of,
    fedavg_loop,
)
from .rounds import CLIENTS, engine_evaluation, engine_round, hand_round, households, keywords

RESULTS = Path(__file__).parent / "results" / "latest.json"

Runs = dict[str, Round]

MATMULS = {
    "linear": 2 * 2 * LOOKBACK * HORIZON,
    "dlinear": 2 * 2 * 2 * LOOKBACK * HORIZON,
    "mlp": 2 * (2 * LOOKBACK * 64 + 3 * 64 * HORIZON),
    "gru": 3 * 2 * LOOKBACK * (32 + 1) * 96 + 3 * 2 * 32 * HORIZON,
    "lstm": 3 * 2 * LOOKBACK * (32 + 1) * 128 + 3 * 2 * 32 * HORIZON,
    "tcn": 3 * 2 * (125 * 16 + 31 * 5 * 16 * 16 + 16 * HORIZON),
    "transformer": 3 * 2 * 28 * (6 * 32 + 2 * (4 * 32 * 32 + 2 * 32 * 64 + 2 * 28 * 32)),
    "dscnn": 2 * 2 * (FRAMES // 2 + 1) * (MELS // 2 + 1) * 24 * 40
    + 3 * 3 * 2 * (FRAMES // 2 + 1) * (MELS // 2 + 1) * 24 * (9 + 24),
}
"""Matrix products of one example, forward and backward (no gradient for the input), in FLOP; of a TCN those needed."""
STEP = CLIENTS * STEPS * BATCH
"""Examples that a round trains on."""
RECURRENT = ("gru", "lstm")
GPU, GPU_LOW = "batched, cuda", "batched, cuda, bfloat16"


@dataclass(frozen=True)
class Work:
    """A piece of work, done in several ways.

    Attributes:
        runs: makes them, the plain loop first.
        flops: of its matrix products.
        asked: how many times faster than the plain loop the engine is to be.
        repeats: at most so many.
    """

    runs: Callable[[], Runs]
    flops: float
    asked: float
    repeats: int = 100


def on_device(data: ClientData, model: str, method: str = "fedavg") -> Runs:
    """The same round on a GPU, where there is one."""
    if not torch.cuda.is_available():
        return {}
    return {
        GPU: engine_round(data, model, method=method, device="cuda"),
        GPU_LOW: engine_round(data, model, method=method, device="cuda", precision="bfloat16"),
    }


def fedavg(model: str, *oracles: str) -> Callable[[], Runs]:
    """A FedAvg round by a plain loop and by oracles of the engine."""

    def runs() -> Runs:
        data = keywords() if model == "dscnn" else households()
        loop = fedavg_loop(model, examples_of(data), *([entropy] if model == "dscnn" else []))
        found: Runs = {"plain loop": loop}
        if model in RECURRENT:
            found["plain, flushed"] = flushed(loop)
        found |= {oracle: engine_round(data, model, oracle) for oracle in oracles}
        found |= on_device(data, model)
        if model == "mlp":
            found["plain, DataLoader"] = fedavg_loop(model, examples_of(data), loader=True)
            found["by hand"] = hand_round(data)
        return found

    return runs


def personalised(method: str, loop: Callable[..., Round]) -> Callable[[], Runs]:
    """A round of a method with personal models."""

    def runs() -> Runs:
        data = households()
        return {
            "plain loop": loop("mlp", examples_of(data)),
            "batched": engine_round(data, "mlp", method=method),
            **on_device(data, "mlp", method),
        }

    return runs


def evaluations() -> Runs:
    """Errors of every client's personal model on its test span."""
    data = households()
    examples = examples_of(data, most=10**9, span="test")
    return {
        "plain loop": evaluation_loop("mlp", examples),
        "plain, DataLoader": evaluation_loop("mlp", examples, loader=True),
        "plain, batch 512": evaluation_loop("mlp", examples, 512),
        "batched": engine_evaluation(data, "mlp"),
        **({GPU: engine_evaluation(data, "mlp", "cuda")} if torch.cuda.is_available() else {}),
    }


WORK = {
    "linear": Work(fedavg("linear", "batched", "vmap"), MATMULS["linear"] * STEP, 20),
    "dlinear": Work(fedavg("dlinear", "batched"), MATMULS["dlinear"] * STEP, 20),
    "mlp": Work(fedavg("mlp", "batched", "vmap", "loop"), MATMULS["mlp"] * STEP, 12),
    "gru": Work(fedavg("gru", "batched"), MATMULS["gru"] * STEP, 8, 2),
    "lstm": Work(fedavg("lstm", "batched"), MATMULS["lstm"] * STEP, 6, 2),
    "tcn": Work(fedavg("tcn", "batched", "loop"), MATMULS["tcn"] * STEP, 3, 2),
    "dscnn": Work(fedavg("dscnn", "batched", "loop"), MATMULS["dscnn"] * STEP, 3, 3),
    "transformer": Work(fedavg("transformer", "batched", "loop"), MATMULS["transformer"] * STEP, 4, 3),
    "ditto": Work(personalised("ditto", ditto_loop), 2 * MATMULS["mlp"] * STEP, 10),
    "apfl": Work(personalised("apfl", apfl_loop), 2 * MATMULS["mlp"] * STEP, 10),
    "evaluation": Work(evaluations, CLIENTS * 577 * 2 * (LOOKBACK * 64 + 64 * HORIZON), 15),
}


def seconds(run: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def matmul_rate(size: int = 1024, repeats: int = 10) -> float:
    """The machine's rate in a large single-precision matrix product, one thread, FLOP/s."""
    a = torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: torch.mm(a, a)) for _ in range(repeats))


def flushed(run: Round) -> Round:
    """The same work with denormal numbers taken for zero, as the engine does: what of its gain is that alone."""

    def flushing() -> None:
        with flushed_denormals():
            run()

    return flushing


def measure(work: str, repeats: int) -> list[dict[str, object]]:
    """Rows for one piece of work; meant for a process of its own."""
    torch.set_num_threads(1)
    runs = WORK[work].runs()
    for engine, run in runs.items():
        if not engine.startswith("plain"):
            run()  # warm up; the loop does so within its first clients
    times: dict[str, list[float]] = {engine: [] for engine in runs}
    for _ in range(repeats):
        for engine, run in runs.items():
            times[engine].append(seconds(run))
    rate = matmul_rate()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        {
            "work": work,
            "engine": engine,
            "device": torch.cuda.get_device_name() if engine in (GPU, GPU_LOW) else "cpu",
            "seconds": statistics.median(values),
            "ratio_to_loop": statistics.median(
                a / b for a, b in zip(times["plain loop"], values, strict=True)
            ),
            "asked": WORK[work].asked,
            "share_of_matmul": WORK[work].flops / statistics.median(values) / rate,
            "peak_mb": peak,
        }
        for engine, values in times.items()
    ]


def profiled(work: str, rows: int = 12) -> str:
    """Where the engine's time goes, by torch's profiler over three calls."""
    torch.set_num_threads(1)
    run = WORK[work].runs()["batched"]
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for _ in range(3):
            run()
    table: str = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=rows)
    return table


def in_own_process(work: str, repeats: int) -> list[dict[str, object]]:
    """Run :func:`measure` in a fresh interpreter."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (work, repeats))


def show(rows: list[dict[str, object]]) -> None:
    """Print the table."""
    title = f"One round or as named: {CLIENTS} clients x {STEPS} steps x batch {BATCH}, {LOOKBACK} -> {HORIZON}, one thread"
    table = Table(title=title)
    for name in (
        "work",
        "engine",
        "device",
        "seconds",
        "ratio to loop",
        "asked",
        "share of matmul rate",
        "process peak MB",
    ):
        table.add_column(name, justify="left" if name in ("work", "engine", "device") else "right")
    for row in rows:
        table.add_row(
            str(row["work"]),
            str(row["engine"]),
            str(row["device"]),
            f"{row['seconds']:.3f}",
            f"{row['ratio_to_loop']:.1f}x",
            f"{row['asked']:.0f}x",
            f"{row['share_of_matmul']:.2f}",
            f"{row['peak_mb']:.0f}",
        )
    Console().print(table)


def main() -> None:
    """Measure what was asked for, print it, and write it down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--work", nargs="+", choices=sorted(WORK), default=list(WORK), help="what to measure")
    parser.add_argument(
        "--repeats", type=int, default=7, help="repeats of the fast ones; recurrent ones take 2"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the rows are written")
    parser.add_argument(
        "--profile", choices=sorted(WORK), help="say where the time of the engine goes instead"
    )
    args = parser.parse_args()
    if args.profile:
        print(profiled(args.profile))
        return
    rows = []
    for work in track(args.work, description="Measuring"):
        rows += in_own_process(work, min(args.repeats, WORK[work].repeats))
    show(rows)
    torch.set_num_threads(1)  # as where the rows were measured
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"Matrix-product rate of this machine: {matmul_rate() / 1e9:.0f} GFLOP/s; rows in {args.out}")


if __name__ == "__main__":
    main()
