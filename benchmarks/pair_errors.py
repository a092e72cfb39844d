"""How well the standard errors of pairs hold: a table of :mod:`benchmarks.calibration`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from personalization import pairwise_distances


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
