"""How well the distances are calibrated, and how fast they are: the tables of docs/personalization.md.

python benchmarks/calibration.py [--london PATH/load_hourly.parquet] [--seeds 5] [--clients 200]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import kstest, spearmanr
from torch import Tensor

from personalization import distance_to_population

FEATURES = 24
Law = Callable[[int], Tensor]


def normal_law(g: torch.Generator) -> Law:
    factor = torch.randn(FEATURES, FEATURES, generator=g) / FEATURES**0.5
    return lambda n: torch.randn(n, FEATURES, generator=g) @ factor


def log_normal_law(g: torch.Generator) -> Law:
    base = normal_law(g)
    return lambda n: torch.exp(0.7 * base(n).clamp(-3, 3))


def clustered_law(g: torch.Generator) -> Law:
    base, centres = normal_law(g), 1.5 * torch.randn(3, FEATURES, generator=g)
    return lambda n: 0.5 * base(n) + centres[torch.randint(3, (n,), generator=g)]


def london_profiles(path: Path) -> Tensor:
    """All complete days of all households, each household scaled by its own mean and deviation, shape (days, 24)."""
    load = pd.read_parquet(path).to_numpy(dtype=np.float32)
    scaled = (load - np.nanmean(load, 0)) / np.nanstd(load, 0)
    days = scaled.T.reshape(scaled.shape[1], -1, 24).reshape(-1, 24)
    return torch.from_numpy(days[np.isfinite(days).all(1)])


def resampled_law(pool: Tensor) -> Callable[[torch.Generator], Law]:
    return lambda g: lambda n: pool[torch.randint(len(pool), (n,), generator=g)]


def population(law: Law, clients: int, low: int, high: int, seed: int) -> tuple[list[Tensor], np.ndarray]:
    n = np.exp(np.random.default_rng(seed).uniform(np.log(low), np.log(high), clients)).astype(int)
    return [law(int(m)) for m in n], n


def null_row(
    make: Callable[[torch.Generator], Law], kind: str, low: int, high: int, args: argparse.Namespace
) -> str:
    rows, pooled = [], []
    for seed in range(args.seeds):
        law = make(torch.Generator().manual_seed(seed))
        features, n = population(law, args.clients, low, high, seed)
        d = distance_to_population(features, kind, seed=seed, draws=args.draws)
        plain = (d.value**2 - d.null_mean).clamp_min(0)
        columns = (d.value, plain, d.calibrated) if high > low + 1 else ()
        found = [spearmanr(x, n).statistic for x in columns] or [np.nan] * 3
        rows.append([*found, float(d.z.mean()), float(d.z.std())])
        pooled.append(d.p_value.numpy())
    p = np.concatenate(pooled)
    *correlations, z, spread = np.mean(rows, 0)
    ranks = " | ".join("" if np.isnan(r) else f"{r:+.3f}" for r in correlations)
    return (
        f"{ranks} | {z:+.2f} | {spread:.2f} | {kstest(p, 'uniform').statistic:.3f} | {(p < 0.05).mean():.3f}"
    )


def power_row(kind: str, shift: float, args: argparse.Namespace) -> str:
    sizes, found = (30, 100, 300, 1000), []
    for seed in range(args.seeds):
        law = normal_law(torch.Generator().manual_seed(seed))
        features = [law(n) for n in np.repeat(sizes, 40)]
        moved = [x + shift if k % 4 == 0 else x for k, x in enumerate(features)]
        d = distance_to_population(moved, kind, seed=seed, draws=args.draws)
        found.append((d.p_value < 0.05).numpy()[::4].reshape(len(sizes), -1).mean(1))
    return " | ".join(f"{share:.2f}" for share in np.mean(found, 0))


def speed_row(kind: str, sizes: Sequence[int]) -> str:
    features = [torch.randn(n, FEATURES) for n in sizes]
    start = time.perf_counter()
    distance_to_population(features, kind)
    return f"{time.perf_counter() - start:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--london", type=Path, help="load_hourly.parquet of the London sample")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--draws", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(1)
    laws = {"normal": normal_law, "log-normal": log_normal_law, "three clusters": clustered_law}
    if args.london:
        laws["London days"] = resampled_law(london_profiles(args.london))
    print(
        "| law | n | distance | raw | no gate | calibrated | z mean | z std | KS | p < .05 |\n|" + "---|" * 10
    )
    for name, make in laws.items():
        for low, high in ((30, 3000), (30, 31)):
            for kind in ("sliced", "gaussian"):
                shown = f"{low} to {high}" if high > low + 1 else f"{low}"
                print(f"| {name} | {shown} | {kind} | {null_row(make, kind, low, high, args)} |", flush=True)
    print("\n| shift | distance | n = 30 | 100 | 300 | 1000 |\n|" + "---|" * 6)
    for shift in (0.0, 0.1, 0.2, 0.4):
        for kind in ("sliced", "gaussian"):
            print(f"| {shift} | {kind} | {power_row(kind, shift, args)} |", flush=True)
    print("\n| clients x samples x features | distance | time |\n|" + "---|" * 3)
    unequal = np.random.default_rng(0).integers(100, 300, 5567).tolist()
    for label, sizes in (("5567 x 200 x 24", [200] * 5567), ("5567 x (100 to 300) x 24", unequal)):
        for kind in ("sliced", "gaussian"):
            print(f"| {label} | {kind} | {speed_row(kind, sizes)} |", flush=True)


if __name__ == "__main__":
    main()
