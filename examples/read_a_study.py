"""Read a finished study's clients back from MLflow: who lies far, who is harmed, what the distance gained.

python examples/read_a_study.py london [--tracking mlruns]
"""

import argparse

from scipy import stats

from studies.results import read_results
from studies.tracking import open_store

PAIRS = [
    ("ditto+prox_by_distance", "ditto"),
    ("ditto+prox_by_distance", "ditto+prox permuted"),
    ("apfl+mix_by_distance", "apfl"),
    ("apfl+mix_by_distance", "apfl+mix permuted"),
    ("finetune+work_by_distance", "finetune"),
    ("finetune+work_by_distance", "finetune+work permuted"),
]


def main() -> None:
    """Print rank correlation, the farthest clients, and paired differences with and without them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument("--tracking", default="mlruns")
    parser.add_argument("--farthest", type=int, default=3)
    args = parser.parse_args()
    results = read_results(open_store(args.tracking), args.study)
    metric, scores = results.metric, results.seen().scores
    steered = [method.label for method in results.methods if method.controls] or [
        label for label in scores.method.unique() if "permuted" not in label
    ]
    true = scores[scores.method.isin(steered)]
    distance = true.dropna(subset=["distance"]).groupby("client").distance.first()
    errors = scores.groupby(["client", "method"])[metric].mean().unstack()
    loss = (errors["fedavg"] - errors["local"]).reindex(distance.index)
    rank = stats.spearmanr(loss, distance)
    print(
        f"Rank correlation of (FedAvg - Local) with the distance: {rank.statistic:.2f} (p = {rank.pvalue:.3f})"
    )
    far = distance.nlargest(args.farthest)
    print(errors.loc[far.index].assign(distance=far).T.round(3).to_string())
    table = scores.pivot_table(index=["seed", "client"], columns="method", values=metric)
    for ours, other in PAIRS:
        if {ours, other} <= set(table):
            gain = table[ours] - table[other]
            seeds = gain.groupby("seed").mean()
            half = stats.t.ppf(0.975, len(seeds) - 1) * seeds.sem()
            near = gain.drop(index=far.index, level="client").mean()
            interval = f"[{seeds.mean() - half:+.4f}, {seeds.mean() + half:+.4f}]"
            print(f"{ours} - {other}: {seeds.mean():+.4f} {interval}, {near:+.4f} without the farthest")


if __name__ == "__main__":
    main()
