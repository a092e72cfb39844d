"""``python -m benchmarks.device``: a round on a GPU and on one thread, what crosses, and what bfloat16 costs in accuracy.

Copies are counted by torch's profiler over a warm round of Ditto; accuracy is the validation nMAE (mean over clients and
worst tenth) of FedAvg and Ditto after some rounds, of paired runs that differ in precision only.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from rich.console import Console
from rich.table import Table

from persofl import RoundConfig, Shape, build_federation, build_model, parse_method, run_round
from persofl.data import Stream
from persofl.evaluation import evaluate
from persofl.metrics import summarise
from persofl.oracles import Batch

from .plain import BATCH, HORIZON, LOOKBACK, LR, Round
from .rounds import Precision, engine_round, federate, households, keywords
from .run import seconds

WORKS = {
    **{
        model: (model, "fedavg")
        for model in ("linear", "dlinear", "mlp", "tcn", "transformer", "dscnn", "gru", "lstm")
    },
    "ditto": ("mlp", "ditto"),
    "apfl": ("mlp", "apfl"),
}
"""Rows of ``make bench``: model and method."""
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def timed(run: Round, repeats: int) -> float:
    """Median seconds of a call, after one that warms up where there are several."""
    if repeats > 1:
        run()
    return statistics.median(seconds(run) for _ in range(repeats))


def speeds(clients: int, works: list[str], repeats: int, slow: int) -> Table:
    """Seconds of a round by one thread, and on the GPU in either precision."""
    table = Table(title=f"A round of {clients} clients x 20 steps x batch 32, {torch.cuda.get_device_name()}")
    for name in (
        "work",
        "one thread, s",
        "cuda, s",
        "times as fast",
        "cuda, bfloat16, s",
        "peak MB on device",
    ):
        table.add_column(name, justify="right")
    homes = households(clients)
    for work in works:
        model, method = WORKS[work]
        data = keywords(clients) if model == "dscnn" else homes
        here = timed(engine_round(data, model, method=method), slow)
        torch.cuda.reset_peak_memory_stats()
        there = timed(engine_round(data, model, method=method, device="cuda"), repeats)
        peak = torch.cuda.max_memory_allocated() / 2**20
        low = timed(engine_round(data, model, method=method, device="cuda", precision="bfloat16"), repeats)
        table.add_row(
            work, f"{here:.3f}", f"{there:.3f}", f"{here / there:.1f}x", f"{low:.3f}", f"{peak:.0f}"
        )
    return table


def copies(clients: int, method: str = "ditto") -> dict[str, float]:
    """Host-to-device and device-to-host copies of a warm round: how many, and of how many kilobytes the rows are."""
    data = households(clients)
    run = engine_round(data, "mlp", method=method, device="cuda")
    run()
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as found:
        run()
    events = [event.name for event in found.events()]
    rows = federate(data, "mlp").initial_row().numel() * clients * 4
    return {
        "clients": clients,
        "to device": sum("Memcpy HtoD" in name for name in events),
        "to host": sum("Memcpy DtoH" in name for name in events),
        "kernels": sum("cudaLaunchKernel" in name or "cuLaunchKernel" in name for name in events),
        "rows_kb": rows / 1024,
    }


def error(
    device: str, method: str, model: str, precision: Precision, seed: int, rounds: int
) -> tuple[float, float]:
    """Mean and worst decile of the validation nMAE after some rounds."""
    data = households(40)
    federation = build_federation(
        data,
        build_model(model, Shape(LOOKBACK, HORIZON), seed=seed),
        parse_method(method, {"lr": LR, "local_steps": 20}),
        config=RoundConfig(batch_size=BATCH, precision=precision, seed=seed),
    ).to(device)
    server = federation.initial_row()
    for round_ in range(rounds):
        run_round(federation, server, round_, server.sub_)
    found = summarise(evaluate(federation, server, "validation", rounds)["nmae"])
    return found["mean"], found["worst_decile"]


def gradient_error(device: str, model: str, batches: int = 10) -> tuple[float, float]:
    """How far clients' rounded gradients at the start are off, relative to their norms: on average, and at worst."""
    data, clients = households(40), torch.arange(40)
    full, low = (
        build_federation(
            data,
            build_model(model, Shape(LOOKBACK, HORIZON), seed=0),
            parse_method("fedavg", {}),
            config=RoundConfig(precision=precision),
        ).to(device)
        for precision in PRECISIONS
    )
    rows = full.initial_row().repeat(len(clients), 1)
    positions = Stream(0, 0, "shared").positions(full.data, clients, batches * BATCH)
    found = []
    for part in positions.split(BATCH, 1):
        batch = Batch(*full.data.gather(part))
        exact, rounded = (federation.oracle.grad(rows.clone(), batch)[1] for federation in (full, low))
        found.append((rounded - exact).norm(dim=1) / exact.norm(dim=1))
    whole = torch.cat(found)
    return float(whole.mean()), float(whole.max())


def crossings() -> Table:
    """What :func:`copies` counts, for two cohorts."""
    table = Table(title="What crosses in a warm round of Ditto with the perceptron, 20 + 20 steps")
    found = [copies(clients) for clients in (100, 400)]
    for name in found[0]:
        table.add_column(name, justify="right")
    for row in found:
        table.add_row(*(f"{value:.0f}" for value in row.values()))
    return table


def accuracy(device: str, models: list[str], seeds: int, rounds: int) -> Table:
    """Errors in either precision, paired by seed."""
    table = Table(title=f"Validation nMAE after {rounds} rounds, {seeds} seeds, on {device}")
    changes = ("mean changes by", "sd", "worst decile changes by", "sd")
    for name in ("model", "method", *PRECISIONS, *changes):
        table.add_column(name, justify="right")
    for model in models:
        for method in ("fedavg", "ditto"):
            runs = [
                [error(device, method, model, precision, seed, rounds) for seed in range(seeds)]
                for precision in PRECISIONS
            ]
            means = [statistics.mean(row[0] for row in own) for own in runs]
            moved = [[b[place] / a[place] - 1 for a, b in zip(*runs, strict=True)] for place in (0, 1)]
            cells = [f(part) for part in moved for f in (statistics.mean, statistics.stdev)]
            table.add_row(
                model, method, *(f"{x:.4f}" for x in means), *(f"{100 * cell:+.3f} %" for cell in cells)
            )
    return table


def gradient_errors(device: str, models: list[str]) -> Table:
    """What :func:`gradient_error` finds, a row a model."""
    table = Table(title="Rounded gradients of clients' batches, at the start, off by")
    for name in ("model", "on average", "at worst"):
        table.add_column(name, justify="right")
    for model in models:
        table.add_row(model, *(f"{100 * part:.1f} %" for part in gradient_error(device, model)))
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--works", nargs="*", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--repeats", type=int, default=5, help="rounds timed on the GPU")
    parser.add_argument("--slow", type=int, default=2, help="rounds timed by one thread; 1 does not warm up")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--models", nargs="+", default=["linear", "mlp", "gru"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=140)
    if args.device == "cuda":
        console.print(speeds(args.clients, args.works, args.repeats, args.slow))
        console.print(crossings())
    console.print(accuracy(args.device, args.models, args.seeds, args.rounds))
    console.print(gradient_errors(args.device, args.models))


if __name__ == "__main__":
    main()
