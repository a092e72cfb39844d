"""Two processes against one: seconds of a round of local training, aggregation included.

    python -m benchmarks.ranks [--clients 200] [--rounds 10] [--ranks 2] [--repeats 3]

The same federation of simulated households (168 -> 24, perceptron 64, 20 steps of 32, all clients in a cohort) under
Ditto, by one process and by several that meet over gloo, in turn; one intra-op thread each. Prints the median ratio.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from data_loaders import SimulatedHouseholds, WindowSpec, make_windows
from persofl import RoundConfig, build_federation, build_model, parse_method
from persofl.models import Shape
from persofl.ranks import Ranks
from persofl.round import run_round


def work(rank: int, count: int, clients: int, rounds: int, folder: str) -> None:
    """Time the rounds in one process of ``count``; the first writes the seconds of each."""
    torch.set_num_threads(1)
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    data = make_windows(SimulatedHouseholds(clients=clients, days=90).load(), WindowSpec())
    model = build_model("mlp", Shape(168, 24), seed=0, hidden=(64,), instance_norm=True)
    method = parse_method("ditto", {"lr": 0.1})
    built = build_federation(data, model, method, config=RoundConfig(batch_size=32))
    built = dataclasses.replace(built, ranks=Ranks.here())
    server = built.initial_rows()
    run_round(built, server, 0, server.sub_)  # warms up
    took = []
    for round_ in range(1, rounds + 1):
        if count > 1:
            dist.barrier()
        began = time.perf_counter()
        run_round(built, server, round_, server.sub_)
        took.append(time.perf_counter() - began)
    if rank == 0:
        Path(folder, "seconds").write_text(str(statistics.median(took)))
    if count > 1:
        dist.destroy_process_group()


def seconds(count: int, clients: int, rounds: int) -> float:
    """Median seconds of a round by so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (count, clients, rounds, folder), nprocs=count)  # type: ignore[no-untyped-call]
        return float(Path(folder, "seconds").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    ratios = []
    for _ in range(args.repeats):
        one, several = (seconds(count, args.clients, args.rounds) for count in (1, args.ranks))
        ratios.append(one / several)
        print(f"1 process {one:.3f} s, {args.ranks} processes {several:.3f} s a round: {one / several:.2f}x")
    print(f"median {statistics.median(ratios):.2f}x")


if __name__ == "__main__":
    main()
