"""What a study costs beside its rounds: 20 trials against the same rounds run by hand, one after the other.

    python -m benchmarks.study [--root ../shared/data/electricity/lcl_london_2013]

One worker, no pruning, FedAvg with a perceptron, 40 rounds a trial and five seeds to end with. "Rounds" are those that the
study ran, each as long as the median of as many as one trial has, run in this process on the same data without a study: no
MLflow, no search, no evaluation. What a trial evaluates is timed apart, for it is work that a study is run for.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from data_loaders import WindowSpec, build_source, make_windows
from persofl import RoundConfig, Shape, build_federation, build_model, parse_method, run_round
from persofl.evaluation import evaluate

TRIALS, SEEDS, ROUNDS, EVERY = 20, 5, 40, 10


def study_seconds(source: list[str], methods: str) -> float:
    """Wall time of the whole command, Python's start and the data's loading included."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [
            f"--methods={methods}",
            f"--search.trials={TRIALS}",
            "--search.pruning=false",
            "--workers=1",
            "--model.instance_norm=false",
            "--model.options={hidden: [64]}",
            "--training.local_steps=20",
            "--training.batch_size=32",
            f"--seeds={list(range(SEEDS))}",
            f"--training.rounds={ROUNDS}",
            f"--training.eval_every={EVERY}",
            f"--tracking.dir={folder}",
        ]
        command = [
            sys.executable,
            "-c",
            "import sys; from studies.cli import main; sys.exit(main())",
            "study",
            "run",
        ]
        start = time.perf_counter()
        subprocess.run(
            [*command, *source, *flags], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return time.perf_counter() - start


def round_seconds(root: Path | None) -> tuple[float, float, float]:
    """Seconds of loading, of a round, and of an evaluation, by hand."""
    start = time.perf_counter()
    options = {"clients": 100, "days": 365} if root is None else {"root": root}
    data = make_windows(
        build_source("simulated" if root is None else "london", **options).load(), WindowSpec(on_short="drop")
    )
    loading = time.perf_counter() - start
    federation = build_federation(
        data,
        build_model("mlp", Shape(*data.shape), hidden=[64]),
        parse_method("fedavg", {"lr": 0.05, "local_steps": 20}),
        config=RoundConfig(batch_size=32),
    )
    server, rounds, evaluations = federation.initial_rows(), [], []
    for round_ in range(ROUNDS):
        start = time.perf_counter()
        run_round(federation, server, round_, server.sub_)
        rounds.append(time.perf_counter() - start)
        if round_ % EVERY == EVERY - 1:
            start = time.perf_counter()
            evaluate(federation, server, "validation", round_)
            evaluations.append(time.perf_counter() - start)
    return loading, statistics.median(rounds), statistics.median(evaluations)


def main() -> None:
    """Run both and compare."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root", type=Path, help="the London sample; simulated households of a year without it"
    )
    root = parser.parse_args().root
    torch.set_num_threads(1)
    source = ["london", "--data.root", str(root)] if root else ["demo"]
    if not root:
        source += ["--data.source=simulated", "--data.options={clients: 100, days: 365}"]
    loading, a_round, an_evaluation = round_seconds(root)
    wall = study_seconds(source, "[fedavg]")
    count = (TRIALS + SEEDS) * ROUNDS
    evaluations = (TRIALS + SEEDS) * (ROUNDS // EVERY) + SEEDS
    rounds, judged = count * a_round, evaluations * an_evaluation
    print(f"loading {loading:.1f} s; {count} rounds of {1000 * a_round:.1f} ms: {rounds:.1f} s")
    print(f"{evaluations} evaluations of {1000 * an_evaluation:.1f} ms: {judged:.1f} s")
    both = wall / (rounds + judged)
    print(
        f"the study: {wall:.1f} s, {wall / rounds:.2f} times its rounds, {both:.2f} times rounds and evaluations"
    )


if __name__ == "__main__":
    main()
