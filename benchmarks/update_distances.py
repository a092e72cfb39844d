"""How well the distances of updates are calibrated: a table of :mod:`benchmarks.calibration`."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import get_args

import numpy as np
import torch
from scipy.stats import kstest, spearmanr
from torch import Tensor

from personalization import update_distances
from personalization.updates import Metric

from .laws import Law, population


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
