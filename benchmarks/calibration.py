"""How well the distances are calibrated, and how fast they are: the tables of docs/personalization.md.

python -m benchmarks.calibration [--london PATH/load_hourly.parquet] [--tables null power samples updates ...]
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import torch
from scipy.stats import kstest, spearmanr
from torch import Tensor

from personalization import (
    DISTANCES,
    DistanceKind,
    build_distance,
    distance_to_population,
    pairwise_distances,
    pairwise_of_statistics,
    update_distances,
)
from personalization.population import NullLaw, client_statistics
from personalization.reference import Weighting
from personalization.updates import Metric

FEATURES = 24
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "sliced": ("sliced", {}),
    "gaussian": ("gaussian", {}),
    "diagonal": ("gaussian", {"diagonal": True}),
}
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


def errors_table(args: argparse.Namespace) -> None:
    """Six clients of 60 samples against six of 150, and pairs of unlike clients, drawn afresh each time.

    Projections and bandwidths stay.
    """
    columns = [*ERROR_LAWS, *(f"{name} {i}-{j}" for name, (_, pairs) in UNLIKE.items() for i, j in pairs)]
    print("| distance | " + " | ".join(columns) + " |\n|" + "---|" * (1 + len(columns)))
    for kind, options in ERROR_KINDS:
        if args.error_kinds and kind not in args.error_kinds:
            continue
        cells = [
            float(errors.mean() / values.std())
            for law in ERROR_LAWS.values()
            for values, errors in [
                (x[:, :6, 6:] for x in repeated_pairs(kind, options, two_groups(*law), args))
            ]
        ]
        cells += unlike_cells(kind, options, args)
        name = " ".join([kind, *(f"{k}={v}" for k, v in options.items())])
        print(f"| {name} | " + " | ".join(f"{x:.2f}" for x in cells) + " |", flush=True)


def two_groups(skewed: bool, shift: float, scale: float) -> Callable[[torch.Generator], list[Tensor]]:
    def make(g: torch.Generator) -> list[Tensor]:
        drawn = [torch.randn(n, 6, generator=g) for n in [60] * 6 + [150] * 6]
        drawn = [torch.exp(0.7 * x) if skewed else x for x in drawn]
        return drawn[:6] + [scale * x + shift for x in drawn[6:]]

    return make


def unlike_scales(g: torch.Generator) -> list[Tensor]:
    """Deviations .1, 1 and 10, two clients each; the second is shifted by one own deviation."""
    return [s * torch.randn(100, 5, generator=g) + shift * s for s in (0.1, 1, 10) for shift in (0, 1)]


def unlike_directions(g: torch.Generator) -> list[Tensor]:
    """Equal total variance along the first or the second axis, two clients each; the second is shifted along the first."""
    wide = torch.tensor([[3, 0.1, 0.1, 0.1, 0.1], [0.1, 3, 0.1, 0.1, 0.1]])[[0, 0, 1, 1]]
    shifts = torch.tensor([0.0, 2, 0, 2])[:, None] * torch.eye(5)[0]
    return [torch.randn(100, 5, generator=g) * w + x for w, x in zip(wide, shifts, strict=True)]


def repeated_pairs(
    kind: str,
    options: dict[str, object],
    make: Callable[[torch.Generator], list[Tensor]],
    args: argparse.Namespace,
) -> tuple[Tensor, Tensor]:
    """Distances and their errors, ``(repetitions, clients, clients)``."""
    values, errors = [], []
    for seed in range(args.first_seed, args.first_seed + args.repetitions):
        features = make(torch.Generator().manual_seed(seed))
        found = pairwise_distances(features, kind, draws=32, **options)
        values.append(found.value)
        errors.append(found.std_error)
    return torch.stack(values), torch.stack(errors)


def unlike_cells(kind: str, options: dict[str, object], args: argparse.Namespace) -> list[float]:
    """Mean standard error over the true spread, of each pair of unlike clients."""
    cells = []
    for make, pairs in UNLIKE.values():
        values, errors = repeated_pairs(kind, options, make, args)
        ratio = errors.mean(0) / values.std(0)
        cells += [float(ratio[i, j]) for i, j in pairs]
    return cells


def halves(parameters: int, steps: float, skewed: bool) -> Callable[[torch.Generator], Law]:
    """Updates ``(2, parameters)`` that are means of half of the samples each, with noise of steps that all have alike."""

    def make(g: torch.Generator) -> Law:
        mix = torch.randn(parameters, parameters, generator=g) / parameters**0.5

        def law(n: int) -> Tensor:
            x = torch.randn(2, n // 2, parameters, generator=g)
            mean = (torch.exp(0.7 * x) if skewed else x + 1).mean(1)
            return (mean + steps * 2**0.5 * torch.randn(2, parameters, generator=g)) @ mix

        return law

    return make


def trained(size: int) -> Callable[[torch.Generator], Law]:
    """Updates of tanh networks (8 inputs, 64 hidden, 100 full-batch steps), on halves, or on parts of ``size`` samples."""

    def make(g: torch.Generator) -> Law:
        rule = torch.randn(8, 1, generator=g)
        first, second = torch.randn(8, 64, generator=g) / 8**0.5, torch.randn(64, 1, generator=g) / 8

        def law(n: int) -> Tensor:
            parts, each = (max(1, n // size), size) if size else (2, n // 2)
            x = torch.randn(parts, each, 8, generator=g)
            y = torch.sin(x @ rule) + 0.5 * torch.randn(parts, each, 1, generator=g)
            w, v = first.repeat(parts, 1, 1), second.repeat(parts, 1, 1)
            for _ in range(100):
                hold = torch.tanh(x @ w)
                gap = 2 * (hold @ v - y) / each
                w, v = w - 0.1 * x.mT @ ((gap @ v.mT) * (1 - hold**2)), v - 0.1 * hold.mT @ gap
            return torch.cat([(first - w).flatten(1), (second - v).flatten(1)], 1)

        return law

    return make


def updates_row(make: Callable[[torch.Generator], Law], metric: Metric, args: argparse.Namespace) -> str:
    rows, pooled = [], []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        updates, n = population(make(torch.Generator().manual_seed(seed)), args.clients, 30, 3000, seed)
        same = len({u.shape for u in updates}) == 1
        d = update_distances(torch.stack(updates) if same else updates, n.tolist(), metric, seed=seed)
        found = [spearmanr(x, n).statistic for x in (d.value, d.calibrated)]
        rows.append([*found, float(d.z.mean()), float(d.z.std())])
        pooled.append(d.p_value.numpy())
    p = np.concatenate(pooled)
    raw, calibrated, z, spread = np.nanmean(rows, 0)  # NaN where all of few are 0
    rejected = sum(kstest(x, "uniform").pvalue < 0.01 for x in pooled)
    return (
        f"{raw:+.3f} | {calibrated:+.3f} | {z:+.2f} | {spread:.2f} | {kstest(p, 'uniform').statistic:.3f} "
        f"| {rejected} of {args.seeds} | {(p < 0.05).mean():.3f}"
    )


def updates_table(args: argparse.Namespace) -> None:
    print(
        "| updates | metric | raw | calibrated | z mean | z std | KS | rejected | p < .05 |\n|" + "---|" * 9
    )
    laws = {
        "normal": halves(40, 0.0, skewed=False),
        "normal, 400 parameters": halves(400, 0.0, skewed=False),
        "normal, noise of steps": halves(40, 0.03, skewed=False),
        "log-normal": halves(40, 0.0, skewed=True),
        "networks on halves": trained(0),
        "networks on parts of 15": trained(15),
    }
    for name, make in laws.items():
        for metric in get_args(Metric):
            print(f"| {name} | {metric} | {updates_row(make, metric, args)} |", flush=True)
    warnings.simplefilter("ignore")  # which a few clients are worth, and which this shows to be right
    for clients in (10, 20):
        few = argparse.Namespace(**{**vars(args), "clients": clients, "seeds": 10 * args.seeds})
        for metric in get_args(Metric):
            row = updates_row(laws["normal"], metric, few)
            print(f"| normal, {clients} clients | {metric} | {row} |", flush=True)


ERROR_LAWS = {
    f"{name} {shift} {scale}": (name == "log-normal", shift, scale)
    for name in ("normal", "log-normal")
    for shift, scale in ((0.0, 1.0), (0.3, 1.0), (1.0, 1.0), (0.3, 1.7))
}
UNLIKE = {
    "scales": (unlike_scales, [(0, 1), (2, 3), (4, 5), (0, 2), (0, 4)]),
    "directions": (unlike_directions, [(0, 1), (2, 3), (0, 2)]),
}
ERROR_KINDS: list[tuple[str, dict[str, object]]] = [
    ("sliced", {}),
    ("sliced", {"order": 1.0}),
    ("gaussian", {}),
    ("gaussian", {"diagonal": True}),
    *((name, {}) for name in ("energy", "mmd", "sinkhorn", "exact", "max_sliced", "mixture", "spectral")),
]


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
