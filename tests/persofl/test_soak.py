"""A long run: what a round leaves behind must not add up."""

import gc
import resource
from pathlib import Path

import pytest
import torch

from data_loaders import SimulatedHouseholds, WindowSpec, make_windows
from persofl import RoundConfig, Shape, build_federation, build_model, parse_method, run_round
from persofl.evaluation import evaluate

ROUNDS = 2000


def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm, which Linux has")
@pytest.mark.parametrize("method", ["ditto+prox_by_distance", "gate", "neighbours"])
def test_two_thousand_rounds_leave_memory_flat(method):
    data = make_windows(SimulatedHouseholds(clients=12, days=40).load(), WindowSpec(lookback=24, horizon=6))
    federation = build_federation(
        data,
        build_model("mlp", Shape(24, 6), hidden=[8]),
        parse_method(
            method, {"local_steps": 2, "personal_steps": 2} if method != "neighbours" else {"local_steps": 2}
        ),
        config=RoundConfig(cohort=0.5, batch_size=8),
    )
    server, memory, objects = federation.initial_rows(), [], []
    for round_ in range(ROUNDS):
        run_round(federation, server, round_, server.sub_)
        if round_ % 100 == 99:
            evaluate(federation, server, "validation", round_)
            gc.collect()
            memory.append(resident_mb())
            objects.append(sum(isinstance(x, torch.Tensor) for x in gc.get_objects()))
    assert torch.isfinite(server).all()
    early, late = memory[4], memory[-1]  # after 500 rounds all buffers have been made once
    assert late - early < 5, f"{early:.1f} MB after 500 rounds, {late:.1f} MB after {ROUNDS}: {memory}"
    assert objects[-1] <= objects[4]
