"""How the cost of a round grows: clients, cohort, parameters and lookback, each doubled five times.

    python -m benchmarks.curves [--out benchmarks/results/curves.png]

Ditto with a perceptron of one hidden layer, one thread. While one size grows the others stay at the least of theirs. The
exponent is that of a power law fitted over all six sizes, and over the last three, where fixed costs weigh less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from data_loaders import SimulatedHouseholds, WindowSpec, make_windows
from persofl import RoundConfig, Shape, build_federation, build_model, parse_method, run_round

COHORT, HIDDEN, LOOKBACK, HORIZON = 25, 16, 48, 24
DOUBLINGS = 5


def rounds(clients: int, cohort: int, hidden: int, lookback: int) -> tuple[float, int]:
    """Seconds of one round, median of seven, and the model's parameters."""
    series = SimulatedHouseholds(clients=clients, days=120).load()
    data = make_windows(series, WindowSpec(lookback=lookback, horizon=HORIZON))
    federation = build_federation(
        data,
        build_model("mlp", Shape(lookback, HORIZON), hidden=[hidden]),
        parse_method("ditto", {"local_steps": 10, "personal_steps": 10, "lr": 0.02}),
        config=RoundConfig(cohort=cohort / clients),
    )
    server, took = federation.initial_rows(), []
    for round_ in range(8):
        start = time.perf_counter()
        run_round(federation, server, round_, server.sub_)
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:]), server.shape[-1]


Curve = list[tuple[int, float]]


def curve(measure: Callable[[int], tuple[float, int]], least: int) -> Curve:
    """Seconds at a size doubled five times."""
    return [(least << k, measure(least << k)[0]) for k in range(DOUBLINGS + 1)]


def curves() -> dict[str, Curve]:
    """All four; parameters are counted, not their width."""
    wide = [rounds(COHORT, COHORT, HIDDEN << k, LOOKBACK) for k in range(DOUBLINGS + 1)]
    return {
        "clients": curve(lambda n: rounds(n, COHORT, HIDDEN, LOOKBACK), COHORT),
        "cohort": curve(lambda n: rounds(COHORT << DOUBLINGS, n, HIDDEN, LOOKBACK), COHORT),
        "parameters": [(size, seconds) for seconds, size in wide],
        "lookback": curve(lambda n: rounds(COHORT, COHORT, HIDDEN, n), LOOKBACK // 2),
    }


def exponent(points: Curve) -> float:
    """Slope of the line through the logarithms."""
    sizes, seconds = np.log(np.array(points)).T
    return float(np.polyfit(sizes, seconds, 1)[0])


def draw(found: dict[str, Curve], path: Path) -> None:
    """All curves on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(3.2 * len(found), 3.2), sharey=True)
    for axis, (name, points) in zip(axes, found.items(), strict=True):
        sizes, seconds = zip(*points, strict=True)
        axis.loglog(sizes, seconds, "o-", base=2)
        axis.set_xlabel(name)
        axis.set_title(f"exponent {exponent(points):.2f}, last three {exponent(points[-3:]):.2f}", fontsize=9)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds a round")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "curves.png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = curves()
    print(
        "| what grows | sizes | milliseconds a round | exponent | of the last three |\n|---|---|---|---:|---:|"
    )
    for name, points in found.items():
        sizes = f"{points[0][0]:,} to {points[-1][0]:,}"
        took = ", ".join(f"{1000 * seconds:.1f}" for _, seconds in points)
        print(f"| {name} | {sizes} | {took} | {exponent(points):.2f} | {exponent(points[-3:]):.2f} |")
    draw(found, args.out)


if __name__ == "__main__":
    main()
