"""What is a distance worth? Every steered method against its controls, over several studies at once.

    python -m benchmarks.worth distance_london distance_ev distance_openacc distance_arabic [--dir mlruns]
    python -m benchmarks.worth confirm_london confirm_ev --candidate gate+work_by_distance

Reads finished studies from MLflow and prints the tables of docs/results/distance.md. A difference is marked where its
interval over seeds and that over clients both exclude 0; of so many, some would do so by chance.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import partial

import pandas as pd
from scipy.stats import spearmanr

from persofl.metrics import HIGHER
from studies.compare import control_table, paired_table, summary_table
from studies.reading import is_shown
from studies.results import Results, read_results
from studies.tracking import open_store

BASELINES = ("local", "fedavg", "finetune", "ditto", "apfl", "best_of", "tuned_ditto", "blend")
"""Tuned methods that know no distance; the constants of a knob are its controls instead."""


@dataclass(frozen=True)
class Study:
    """A study as read back.

    Args:
        results: everything of it.
        summary: see :func:`studies.compare.summary_table`.
    """

    results: Results
    summary: pd.DataFrame

    @property
    def name(self) -> str:
        """Its name, without what all have in common."""
        return (
            self.results.study.removeprefix("distance_")
            .removeprefix("confirm_")
            .replace("distance", "simulated")
        )

    @property
    def unit(self) -> float:
        """FedAvg's mean error, in which differences are told."""
        return float(self.summary.loc["fedavg", "mean"])

    def steered(self) -> dict[str, tuple[str, ...]]:
        """Method -> its controls."""
        return {m.label: m.controls for m in self.results.methods if m.controls}


def read(store: object, name: str) -> Study:
    results = read_results(store, name)  # type: ignore[arg-type]
    if results.metric in HIGHER:
        raise SystemExit(
            f"{name} is judged by {results.metric}, of which more is better; these tables are of errors."
        )
    seen = results.seen()
    return Study(results, summary_table(seen.scores, results.metric))


def cell(row: pd.Series, unit: float) -> str:
    return f"{100 * row['mean'] / unit:+.1f} %{' *' if is_shown(row) else ''}"


def controls(studies: list[Study]) -> None:
    """Mean differences to each control, in percent of FedAvg's mean error; negative is better."""
    tables = {s.name: control_table(s.results.seen().scores, s.results.metric, s.steered()) for s in studies}
    pairs = list(dict.fromkeys(pair for table in tables.values() for pair in table.index))
    print(f"| steered | control | {' | '.join(tables)} |\n|---|---|{'---:|' * len(tables)}")
    for pair in pairs:
        cells = [
            cell(table.loc[pair], study.unit) if pair in table.index else ""
            for table, study in zip(tables.values(), studies, strict=True)
        ]
        print(f"| {pair[0]} | {pair[1]} | {' | '.join(cells)} |")


def harm(studies: list[Study]) -> None:
    """Mean error, worst decile and share of harmed clients of every method."""
    names = list(dict.fromkeys(str(name) for s in studies for name in s.summary.index))
    print(f"| method | {' | '.join(s.name for s in studies)} |\n|---|{'---:|' * len(studies)}")
    for name in names:
        cells = []
        for study in studies:
            if name in study.summary.index:
                row = study.summary.loc[name]
                harmed = "-" if math.isnan(row["harmed"]) else f"{row['harmed']:.0%}"
                cells.append(f"{row['mean']:.4f}, {row['worst_decile']:.4f}, {harmed}")
            else:
                cells.append("")
        print(f"| {name} | {' | '.join(cells)} |")


def target(studies: list[Study], candidate: str = "") -> None:
    """The candidate, or the steered method that harms the fewest, against the baselines of least harm and worst decile."""
    print(
        f"| study | {candidate or 'steered, least harm'} | harmed | baseline, least harm | difference "
        "| least worst decile | difference |"
    )
    print("|---|---|---:|---|---:|---|---:|")
    for study in studies:
        summary, metric = study.summary, study.results.metric
        scores = study.results.seen().scores
        steered = [name for name in study.steered() if name in summary.index]
        baselines = [name for name in BASELINES if name in summary.index]
        best = candidate or str(summary.loc[steered].sort_values(["harmed", "worst_decile"]).index[0])
        safe = str(summary.loc[baselines, "harmed"].idxmin())
        even = str(summary.loc[baselines, "worst_decile"].idxmin())
        harmed = paired_table(scores, metric, safe).loc[best]
        decile = paired_table(scores, metric, even).loc[best]
        print(
            f"| {study.name} | {best} | {summary.loc[best, 'harmed']:.0%} | {safe} ({summary.loc[safe, 'harmed']:.0%}) | "
            f"{fewer(harmed)} | {even} ({summary.loc[even, 'worst_decile']:.4f}) | {evener(decile)} |"
        )


def fewer(row: pd.Series) -> str:
    """Difference in the share of harmed clients, with its interval over seeds."""
    return f"{row['harmed']:+.1%} [{row['harmed_low']:+.1%}, {row['harmed_high']:+.1%}]"


def evener(row: pd.Series) -> str:
    """Difference in the worst decile, with its interval over seeds."""
    return f"{row['worst_decile']:+.4f} [{row['worst_decile_low']:+.4f}, {row['worst_decile_high']:+.4f}]"


def against(studies: list[Study], candidate: str) -> None:
    """What the candidate differs by from every baseline and from its controls: share of harmed clients, worst decile."""
    tables = [
        control_table(
            s.results.seen().scores, s.results.metric, {candidate: BASELINES + s.steered()[candidate]}
        )
        for s in studies
    ]
    others = list(dict.fromkeys(other for table in tables for _, other in table.index))
    print(f"| {candidate} against | {' | '.join(s.name for s in studies)} |\n|---|{'---:|' * len(studies)}")
    for other in others:
        rows = [t.loc[(candidate, other)] if (candidate, other) in t.index else None for t in tables]
        print(f"| {other} | {' | '.join('' if r is None else f'{fewer(r)}; {evener(r)}' for r in rows)} |")


def gains(studies: list[Study]) -> None:
    """Does a distance tell who needs a model of its own: rank correlation over clients with FedAvg's error less Local's."""
    found = {s.name: correlations(s) for s in studies}
    names = list(dict.fromkeys(name for table in found.values() for name in table))
    print(f"| distance of | {' | '.join(found)} |\n|---|{'---:|' * len(found)}")
    for name in names:
        cells = [f"{t[name][0]:+.2f} (p {t[name][1]:.3f})" if name in t else "" for t in found.values()]
        print(f"| {name} | {' | '.join(cells)} |")


def features_of(label: str) -> str:
    """What a method's distance was read off, by how the studies of distances label it; nothing of dealt ones."""
    if "permuted" in label:
        return ""
    for mark, name in ((" on ", label.rpartition(" on ")[2]), (" by size", "size"), (" oracle", "oracle")):
        if mark in label:
            return name
    return "auto" if "_by_distance" in label else ""


def correlations(study: Study) -> dict[str, tuple[float, float]]:
    """Features -> Spearman's correlation and its p-value, over clients; means over seeds of errors and of distances."""
    scores, metric = study.results.seen().scores, study.results.metric
    errors = scores.pivot_table(index="client", columns="method", values=metric)
    if not {"fedavg", "local"} <= set(errors):
        return {}
    gain = errors["fedavg"] - errors["local"]
    found: dict[str, tuple[float, float]] = {}
    for label in map(str, scores.method.unique()):
        features = features_of(label)
        distance = (
            scores[scores.method == label].dropna(subset=["distance"]).groupby("client").distance.mean()
        )
        if features and features not in found and distance.nunique() > 1:
            rank = spearmanr(gain.reindex(distance.index), distance)
            found[features] = (float(rank.statistic), float(rank.pvalue))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="+", help="names of finished studies")
    parser.add_argument(
        "--candidate", default="", help="steered method that the target is asked of, by its label"
    )
    parser.add_argument("--dir", default="mlruns", help="the tracking folder")
    args = parser.parse_args()
    store = open_store(args.dir)
    studies = [read(store, name) for name in args.studies]
    for study in studies if args.candidate else ():
        if args.candidate not in study.steered():
            raise SystemExit(
                f"no steered method {args.candidate!r} in {study.results.study}; {sorted(study.steered())}."
            )
    if args.candidate:
        print("### The candidate\n")
        against(studies, args.candidate)
        print()
    for title, table in (
        ("Against the controls", controls),
        ("Target", partial(target, candidate=args.candidate)),
        ("All methods", harm),
        ("Who gains", gains),
    ):
        print(f"### {title}\n")
        table(studies)
        print()


if __name__ == "__main__":
    main()
