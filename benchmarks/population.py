"""Populations of a national roll-out: a city of half-hourly meters, and clients on disk whose number memory does not feel.

    python -m benchmarks.population city [--clients 5567] [--rounds 50]
    python -m benchmarks.population disk [--clients 1000 10000 100000]

*city*: simulated households with a year of half hours each, Ditto, cohorts of 200, a perceptron 168-64-24, one process.
*disk*: short series in a mapped file, the same model, clients kept on disk, cohorts of 200; each size in a process of its
own. Seconds of a round, bytes on disk, and memory that is no file's: of the population at rest, and what training added.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from data_loaders import ClientSeries, SimulatedHouseholds, WindowSpec, make_windows, map_series
from persofl import RoundConfig, build_federation, build_model, parse_method
from persofl.diskstore import DiskStore
from persofl.models import Shape
from persofl.round import run_round

COHORT = 200


def peak_mb() -> float:
    """The most memory this process ever had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def anonymous_mb() -> float:
    """Memory of this process now, MB, without the pages of files, which the system may take back at any time."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def meters(clients: int) -> Iterator[ClientSeries]:
    """Short series of a population, a thousand clients at a time."""
    for first in range(0, clients, 1000):
        part = SimulatedHouseholds(clients=min(1000, clients - first), days=20, seed=first).load()
        names = [f"{first + k}" for k in range(len(part))]
        yield replace(part, clients=tuple(names), attributes=part.attributes.set_axis(names))


def city(clients: int, rounds: int) -> dict[str, float]:
    """Load, cut and train a city of half-hourly meters."""
    began = time.perf_counter()
    series = SimulatedHouseholds(clients=clients, days=365, step_minutes=30).load()
    loaded = time.perf_counter()
    data = make_windows(series, WindowSpec())
    cut, at_rest = time.perf_counter(), peak_mb()
    took = train(data, rounds, None)
    return {
        "clients": clients,
        "steps": float(len(series.values)),
        "seconds_simulating": loaded - began,
        "seconds_cutting": cut - loaded,
        "seconds_training": sum(took),
        "seconds_a_round": statistics.median(took),
        "peak_mb_before_training": at_rest,
        "peak_mb": peak_mb(),
    }


def disk(clients: int, rounds: int) -> dict[str, float]:
    """Train with clients and their data on disk."""
    with tempfile.TemporaryDirectory() as folder:
        before, began = anonymous_mb(), time.perf_counter()
        series = map_series(meters(clients), Path(folder) / "data")
        simulated = time.perf_counter()
        data = make_windows(series, WindowSpec(), Path(folder) / "data")
        cut, at_rest = time.perf_counter(), anonymous_mb()
        took = train(data, rounds, DiskStore(clients, Path(folder) / "clients"))
        grown = anonymous_mb() - at_rest
        size = {
            part: sum(file.stat().st_blocks * 512 for file in (Path(folder) / part).iterdir()) / 2**20
            for part in ("data", "clients")
        }
    return {
        "clients": clients,
        "seconds_simulating": simulated - began,
        "seconds_cutting": cut - simulated,
        "seconds_a_round": statistics.median(took),
        "mb_of_names_and_offsets": at_rest - before,
        "mb_grown_while_training": grown,
        "mb_of_data_on_disk": size["data"],
        "mb_of_clients_on_disk": size["clients"],
    }


def train(data: object, rounds: int, store: DiskStore | None) -> list[float]:
    """Seconds of each round of Ditto."""
    model = build_model("mlp", Shape(168, 24), seed=0, hidden=(64,), instance_norm=True)
    share = COHORT / len(data)  # type: ignore[arg-type]
    built = build_federation(
        data,  # type: ignore[arg-type]
        model,
        parse_method("ditto", {"lr": 0.1}),
        config=RoundConfig(cohort=min(1.0, share), batch_size=32),
        store=store,
    )
    server, took = built.initial_rows(), []
    for round_ in range(rounds):
        began = time.perf_counter()
        run_round(built, server, round_, server.sub_)
        took.append(time.perf_counter() - began)
    return took


def apart(work: str, clients: int, rounds: int) -> dict[str, float]:
    """One piece of work in a process of its own, whose peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send, args=(theirs, work, clients, rounds))
    process.start()
    theirs.close()
    found: dict[str, float] = ours.recv()
    process.join()
    return found


def _send(pipe: Connection, work: str, clients: int, rounds: int) -> None:
    torch.set_num_threads(1)
    pipe.send((city if work == "city" else disk)(clients, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", choices=("city", "disk"))
    parser.add_argument("--clients", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=50)
    args = parser.parse_args()
    sizes = args.clients or ([5567] if args.work == "city" else [1000, 10_000, 100_000])
    for clients in sizes:
        found = apart(args.work, clients, args.rounds)
        print(json.dumps({name: round(value, 3) for name, value in found.items()}), flush=True)


if __name__ == "__main__":
    main()
