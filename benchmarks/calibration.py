"""How well the distances are calibrated, and how fast they are: the tables of docs/personalization.md.

python -m benchmarks.calibration [--london PATH/load_hourly.parquet] [--tables null power samples updates ...]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from scipy.stats import kstest, spearmanr

from personalization import (
    DISTANCES,
    DistanceKind,
    build_distance,
    distance_to_population,
    pairwise_of_statistics,
)
from personalization.population import NullLaw, client_statistics
from personalization.reference import Weighting

from .laws import (
    FEATURES,
    Law,
    clustered_law,
    log_normal_law,
    london_profiles,
    normal_law,
    population,
    resampled_law,
)
from .pair_errors import ERROR_KINDS, errors_table
from .update_distances import updates_table

KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "sliced": ("sliced", {}),
    "gaussian": ("gaussian", {}),
    "diagonal": ("gaussian", {"diagonal": True}),
}


def null_row(
    make: Callable[[torch.Generator], Law], kind: str, low: int, high: int, args: argparse.Namespace
) -> str:
    name, options = KINDS[kind]
    rows, pooled = [], []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        law = make(torch.Generator().manual_seed(seed))
        features, n = population(law, args.clients, low, high, seed)
        d = distance_to_population(
            features, name, seed=seed, draws=args.draws, null_from=args.null_from, **options
        )
        plain = (d.value**2 - d.null_mean).clamp_min(0)
        columns = (d.value, plain, d.calibrated) if high > low + 1 else ()
        found = [spearmanr(x, n).statistic for x in columns] or [np.nan] * 3
        rows.append([*found, float(d.z.mean()), float(d.z.std())])
        pooled.append(d.p_value.numpy())
    p = np.concatenate(pooled)
    *correlations, z, spread = np.mean(rows, 0)
    ranks = " | ".join("" if np.isnan(r) else f"{r:+.3f}" for r in correlations)
    rejected = sum(kstest(x, "uniform").pvalue < 0.01 for x in pooled)
    return (
        f"{ranks} | {z:+.2f} | {spread:.2f} | {kstest(p, 'uniform').statistic:.3f} "
        f"| {rejected} of {args.seeds} | {(p < 0.05).mean():.3f}"
    )


def power_row(kind: str, shift: float, args: argparse.Namespace) -> str:
    sizes, found = (30, 100, 300, 1000), []
    name, options = KINDS[kind]
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        law = normal_law(torch.Generator().manual_seed(seed))
        features = [law(n) for n in np.repeat(sizes, 40)]
        moved = [x + shift if k % 4 == 0 else x for k, x in enumerate(features)]
        d = distance_to_population(moved, name, seed=seed, draws=args.draws, **options)
        found.append((d.p_value < 0.05).numpy()[::4].reshape(len(sizes), -1).mean(1))
    return " | ".join(f"{share:.2f}" for share in np.mean(found, 0))


def samples_row(kind: str, args: argparse.Namespace) -> str:
    """One population of a normal law, with its null drawn by default; every fourth client shifted for the power."""
    law = normal_law(torch.Generator().manual_seed(args.first_seed))
    features, n = population(law, 100, 30, 3000, args.first_seed)
    labels = torch.Generator().manual_seed(args.first_seed)
    built = build_distance(kind)
    if not isinstance(built, DistanceKind) and built.labels:
        features = [
            torch.cat([x, torch.randint(3, (len(x), 1), generator=labels).float()], 1) for x in features
        ]
    start = time.perf_counter()
    d = distance_to_population(features, kind, seed=args.first_seed)
    took = time.perf_counter() - start
    shift = torch.zeros(features[0].shape[1])
    shift[:FEATURES] = 0.2
    moved = [x + shift if k % 4 == 0 else x for k, x in enumerate(features)]
    found = (distance_to_population(moved, kind, seed=args.first_seed).p_value < 0.05).numpy()
    fourth, few = np.arange(100) % 4 == 0, n < 300
    p = d.p_value.numpy()
    return (
        f"{took:.0f} s | {spearmanr(d.value, n).statistic:+.2f} | {spearmanr(d.calibrated, n).statistic:+.2f} "
        f"| {float(d.z.mean()):+.2f} | {float(d.z.std()):.2f} | {kstest(p, 'uniform').pvalue:.2f} "
        f"| {(p < 0.05).mean():.2f} | {found[fourth & few].mean():.2f} | {found[fourth & ~few].mean():.2f} "
        f"| {found[~fourth].mean():.2f}"
    )


def speed_row(kind: str, sizes: Sequence[int]) -> str:
    features = [torch.randn(n, FEATURES) for n in sizes]
    start = time.perf_counter()
    name, options = KINDS[kind]
    distance_to_population(features, name, **options)
    return f"{time.perf_counter() - start:.1f} s"


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--london", type=Path, help="load_hourly.parquet of the London sample, one more law")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=["null", "power", "speed"])
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=KINDS,
        default=["sliced", "gaussian"],
        help="of null, uneven, power and speed",
    )
    parser.add_argument(
        "--first-seed", type=int, default=0, help="populations are drawn with seeds from here on"
    )
    parser.add_argument(
        "--seeds",
        type=_count,
        default=5,
        help="populations; four times as many of uneven",
    )
    parser.add_argument("--clients", type=_count, default=200, help="in a population of null and updates")
    parser.add_argument("--draws", type=_count, default=256, help="of the nulls of null and power")
    parser.add_argument("--null-from", choices=get_args(NullLaw), default="law", help="of null")
    parser.add_argument("--repetitions", type=_count, default=20, help="of each cell of errors")
    parser.add_argument(
        "--error-kinds",
        nargs="+",
        choices=sorted({kind for kind, _ in ERROR_KINDS}),
        help="rows of errors; all of them take half an hour",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    for table in args.tables:
        print(flush=True)
        TABLES[table](args)


def null_table(args: argparse.Namespace) -> None:
    laws: dict[str, Callable[[torch.Generator], Law]] = {
        "normal": normal_law,
        "log-normal": log_normal_law,
        "three clusters": clustered_law,
    }
    if args.london:
        laws["London days"] = resampled_law(london_profiles(args.london))
    print(
        "| law | n | distance | raw | no gate | calibrated | z mean | z std | KS | rejected | p < .05 |\n|"
        + "---|" * 11
    )
    for name, make in laws.items():
        for low, high in ((30, 3000), (30, 31)):
            for kind in args.kinds:
                shown = f"{low} to {high}" if high > low + 1 else f"{low}"
                print(f"| {name} | {shown} | {kind} | {null_row(make, kind, low, high, args)} |", flush=True)


def uneven_row(
    kind: str, weighting: Weighting, null_from: NullLaw, large: int, args: argparse.Namespace
) -> str:
    """Populations of 20 clients of 20 samples and 5 of many, all of one normal law with 4 features."""
    name, options = KINDS[kind]
    z, p = [], []
    for seed in range(args.first_seed, args.first_seed + 4 * args.seeds):
        g = torch.Generator().manual_seed(seed)
        features = [torch.randn(n, 4, generator=g) for n in [20] * 20 + [large] * 5]
        d = distance_to_population(
            features, name, weighting=weighting, null_from=null_from, seed=seed, **options
        )
        z.append(d.z)
        p.append(d.p_value)
    groups = [(torch.stack(z)[:, part], torch.stack(p)[:, part]) for part in (slice(20), slice(20, None))]
    cells = [f"{a.mean():+.2f} | {a.std():.2f} | {(b < 0.05).double().mean():.3f}" for a, b in groups]
    return " | ".join([*cells, f"{groups[1][1].median():.2f}"])


def uneven_table(args: argparse.Namespace) -> None:
    columns = " | ".join(f"{size}: {x}" for size in ("small", "large") for x in ("z", "z std", "p < .05"))
    print(f"| large n | distance | weighting | null from | {columns} | median p |\n|" + "---|" * 11)
    for large in (1000, 5000):
        for kind in args.kinds:
            for weighting in get_args(Weighting):
                for null_from in get_args(NullLaw):
                    row = uneven_row(kind, weighting, null_from, large, args)
                    print(f"| {large} | {kind} | {weighting} | {null_from} | {row} |", flush=True)


def power_table(args: argparse.Namespace) -> None:
    print("| shift | distance | n = 30 | 100 | 300 | 1000 |\n|" + "---|" * 6)
    for shift in (0.0, 0.1, 0.2, 0.4):
        for kind in args.kinds:
            print(f"| {shift} | {kind} | {power_row(kind, shift, args)} |", flush=True)


def samples_table(args: argparse.Namespace) -> None:
    print(
        "| distance | time | raw | calibrated | z mean | z std | KS p | p < .05 | power < 300 | power > 300 | others |\n|"
        + "---|" * 11
    )
    for kind in ("sliced", *(name for name, cls in DISTANCES.items() if not issubclass(cls, DistanceKind))):
        print(f"| {kind} | {samples_row(kind, args)} |", flush=True)


def speed_table(args: argparse.Namespace) -> None:
    print("| clients x samples x features | distance | time |\n|" + "---|" * 3)
    unequal = np.random.default_rng(0).integers(100, 300, 5567).tolist()
    for label, sizes in (("5567 x 200 x 24", [200] * 5567), ("5567 x (100 to 300) x 24", unequal)):
        for kind in args.kinds:
            print(f"| {label} | {kind} | {speed_row(kind, sizes)} |", flush=True)


def pairs_table(args: argparse.Namespace) -> None:
    features = [torch.randn(200, FEATURES) for _ in range(5567)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kind = build_distance("sliced")
    start = time.perf_counter()
    own = client_statistics(kind, features)
    sketched = time.perf_counter()
    pairwise_of_statistics(own, kind, torch.tensor([len(x) for x in features]))
    took = time.perf_counter() - sketched
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(
        "| all pairs of 5567 x 200 x 24 | sketches | pairs from sketches | memory beyond the samples |\n|"
        + "---|" * 4
    )
    print(f"| sliced | {sketched - start:.1f} s | {took:.1f} s | {peak:.2f} GB |", flush=True)


TABLES = {
    "null": null_table,
    "uneven": uneven_table,
    "power": power_table,
    "samples": samples_table,
    "updates": updates_table,
    "errors": errors_table,
    "speed": speed_table,
    "pairs": pairs_table,
}


if __name__ == "__main__":
    main()
