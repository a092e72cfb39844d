"""``make bench``: every engine against a plain loop over clients, in one run, one thread.

Writes ``benchmarks/results/latest.json``, a list of rows ``{work, engine, device, seconds, ratio_to_loop, share_of_matmul,
peak_mb}``. Each piece of work runs in two processes of its own that take turns: the plain loop in one that holds nothing
of ours, all others in one that keeps freed memory as the engine does. Seconds are the median over repeats, the ratio is the
median of the ratios within a repeat, the peak is its process's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from persofl.data import ClientData
from persofl.denormals import flushed_denormals
from persofl.memory import keep_freed_memory

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

Told = TypeVar("Told")
RESULTS = Path(__file__).parent / "results" / "latest.json"

Makers = dict[str, Callable[[], Round]]
"""What makes each way of doing a piece of work; what they share is made once, when first asked for."""

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
LOOP = "plain loop"
GPU, GPU_LOW = "batched, cuda", "batched, cuda, bfloat16"


@dataclass(frozen=True)
class Work:
    """A piece of work, done in several ways.

    Attributes:
        ways: makers of them, the plain loop first.
        flops: of its matrix products.
        asked: how many times faster than the plain loop the engine is to be.
        repeats: at most so many.
    """

    ways: Callable[[], Makers]
    flops: float
    asked: float
    repeats: int = 100


@dataclass(frozen=True)
class Facts:
    """Of a process: the rates of a matrix product (of the GPU: true), the GPU's name or nothing, and its peak MB."""

    rates: dict[bool, float]
    gpu: str
    peak_mb: float


def on_device(data: Callable[[], ClientData], model: str, method: str = "fedavg") -> Makers:
    """The same round on a GPU, where there is one."""
    if not torch.cuda.is_available():
        return {}
    return {
        GPU: lambda: engine_round(data(), model, method=method, device="cuda"),
        GPU_LOW: lambda: engine_round(data(), model, method=method, device="cuda", precision="bfloat16"),
    }


def plain(loop: Callable[[], Round], flushes: bool = False) -> Makers:
    """A plain loop as it is, with the memory that our engine keeps, and without denormal numbers."""
    found = {LOOP: loop, "plain, memory kept": loop}
    return found | {"plain, flushed": lambda: flushed(loop())} if flushes else found


def fedavg(model: str, *oracles: str) -> Callable[[], Makers]:
    """A FedAvg round by a plain loop and by oracles of the engine."""

    def ways() -> Makers:
        data = cache(keywords if model == "dscnn" else households)
        loss = [entropy] if model == "dscnn" else []
        found = plain(lambda: fedavg_loop(model, examples_of(data()), *loss), model in RECURRENT)
        found |= {name: lambda name=name: engine_round(data(), model, name) for name in oracles}
        found |= on_device(data, model)
        if model == "mlp":
            found["plain, DataLoader"] = lambda: fedavg_loop(model, examples_of(data()), loader=True)
            found["by hand"] = lambda: hand_round(data())
        return found

    return ways


def personalised(method: str, loop: Callable[..., Round]) -> Callable[[], Makers]:
    """A round of a method with personal models."""

    def ways() -> Makers:
        data = cache(households)
        return {
            **plain(lambda: loop("mlp", examples_of(data()))),
            "batched": lambda: engine_round(data(), "mlp", method=method),
            **on_device(data, "mlp", method),
        }

    return ways


def evaluations() -> Makers:
    """Errors of every client's personal model on its test span."""
    data = cache(households)
    examples = cache(lambda: examples_of(data(), most=10**9, span="test"))
    found: Makers = {
        **plain(lambda: evaluation_loop("mlp", examples())),
        "plain, DataLoader": lambda: evaluation_loop("mlp", examples(), loader=True),
        "plain, batch 512": lambda: evaluation_loop("mlp", examples(), 512),
        "batched": lambda: engine_evaluation(data(), "mlp"),
    }
    if torch.cuda.is_available():
        found[GPU] = lambda: engine_evaluation(data(), "mlp", "cuda")
    return found


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


def matmul_rate(size: int = 1024, repeats: int = 10, device: str = "cpu") -> float:
    """The rate of a large single-precision matrix product, FLOP/s; on a processor in one thread."""
    a = torch.randn(size, size, device=device)

    def product() -> None:
        torch.mm(a, a)
        if a.is_cuda:
            torch.cuda.synchronize()

    return 2 * size**3 / min(seconds(product) for _ in range(repeats))


def flushed(run: Round) -> Round:
    """The same work with denormal numbers taken for zero, as the engine does: what of its gain is that alone."""

    def flushing() -> None:
        with flushed_denormals():
            run()

    return flushing


class Worker:
    """A process that does some of the ways of a piece of work, one at a time, when told to."""

    def __init__(self, work: str, *, alone: bool) -> None:
        self.process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.ways: list[str] = self._told(_prepare, work, alone)

    def seconds(self, way: str) -> float:
        """Wall time of doing it once."""
        return self._told(_timed, way)

    def ended(self) -> Facts:
        """What it found; the process ends."""
        found = self._told(_facts)
        self.process.shutdown()
        return found

    def _told(self, task: Callable[..., Told], *given: object) -> Told:
        return self.process.submit(task, *given).result()


_prepared: dict[str, Round] = {}


def _prepare(work: str, alone: bool) -> list[str]:
    torch.set_num_threads(1)
    if not alone:
        keep_freed_memory()
    makers = WORK[work].ways()
    _prepared.update({way: make() for way, make in makers.items() if (way == LOOP) == alone})
    for way, run in _prepared.items():
        if not way.startswith("plain"):
            run()  # warm up; a loop does so within its first clients
    return list(_prepared)


def _timed(way: str) -> float:
    return seconds(_prepared[way])


def _facts() -> Facts:
    there = torch.cuda.is_available()
    return Facts(
        {False: matmul_rate(), True: matmul_rate(device="cuda") if there else 0.0},
        torch.cuda.get_device_name() if there else "",
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def measure(work: str, repeats: int) -> list[dict[str, object]]:
    """Rows for one piece of work: the plain loop in a process without anything of ours, all else in another, in turn."""
    workers = [Worker(work, alone=True), Worker(work, alone=False)]
    by = {way: worker for worker in workers for way in worker.ways}
    times: dict[str, list[float]] = {way: [] for way in by}
    for _ in range(repeats):
        for way, worker in by.items():
            times[way].append(worker.seconds(way))
    facts = dict(zip(workers, (worker.ended() for worker in workers), strict=True))
    rate = {gpu: max(found.rates[gpu] for found in facts.values()) for gpu in (False, True)}
    return [
        {
            "work": work,
            "engine": way,
            "device": facts[by[way]].gpu if way in (GPU, GPU_LOW) else "cpu",
            "seconds": statistics.median(values),
            "ratio_to_loop": statistics.median(a / b for a, b in zip(times[LOOP], values, strict=True)),
            "asked": WORK[work].asked,
            "share_of_matmul": WORK[work].flops / statistics.median(values) / rate[way in (GPU, GPU_LOW)],
            "peak_mb": facts[by[way]].peak_mb,
        }
        for way, values in times.items()
    ]


def profiled(work: str, rows: int = 12) -> str:
    """Where the engine's time goes, by torch's profiler over three calls."""
    torch.set_num_threads(1)
    run = WORK[work].ways()["batched"]()
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for _ in range(3):
            run()
    table: str = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=rows)
    return table


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
        rows += measure(work, min(args.repeats, WORK[work].repeats))
    show(rows)
    torch.set_num_threads(1)  # as where the rows were measured
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"Matrix-product rate of this machine: {matmul_rate() / 1e9:.0f} GFLOP/s; rows in {args.out}")


if __name__ == "__main__":
    main()
