from __future__ import annotations

import numpy as np
import pandas as pd

from studies.reading import reading


def table(metric="nmae", seeds=3, **shifts):
    """Twenty clients; a method is local plus a shift per client, with a little noise by seed."""
    base, rng = np.linspace(0.3, 0.7, 20), np.random.default_rng(0)
    rows = [
        {
            "method": name.replace("_by", "+by"),
            "seed": s,
            "client": f"c{k}",
            metric: base[k] + shift + rng.normal(0, 1e-3),
        }
        for name, shift in shifts.items()
        for s in range(seeds)
        for k in range(20)
    ]
    return pd.DataFrame(rows)


def test_a_clear_winner_is_called_one():
    best, harm, steered = reading(table(local=0.0, fedavg=0.1, ditto=-0.05, ditto_by=-0.1), "nmae")
    assert best.startswith("Lowest mean nmae: ditto+by (0.")
    assert best.endswith("difference to it exclude 0.")
    assert "than with local, ditto and ditto+by (0%)" in harm
    assert steered.startswith("ditto+by against ditto -0.05")
    assert steered.endswith("(better).")


def test_differences_within_the_intervals_are_not_claimed():
    best, _, steered = reading(table(local=0.1, fedavg=0.1, ditto=0.0, ditto_by=0.0), "nmae")
    assert "not told apart from it: ditto" in best
    assert "fedavg" not in best
    assert "no difference shown" in steered


def test_one_seed_shows_nothing():
    best, *_ = reading(table(seeds=1, local=0.0, fedavg=0.3), "nmae")
    assert best.endswith("not told apart from it: fedavg.")


def test_more_is_better_of_an_accuracy():
    best, _, steered = reading(table("accuracy", local=0.0, ditto=0.1, ditto_by=0.05), "accuracy")
    assert best.startswith("Highest mean accuracy: ditto (0.6")
    assert steered.endswith("(worse).")


def test_a_single_method_is_not_read():
    assert reading(table(local=0.0), "nmae") == []
