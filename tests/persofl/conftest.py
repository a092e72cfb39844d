"""Small populations of unequal clients, and rounds run without Lightning."""

import copy
import dataclasses
import logging

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from data_loaders import SimulatedHouseholds, WindowSpec, make_windows, series_from_table
from persofl import (
    FederatedModule,
    Method,
    RoundConfig,
    Shape,
    build_federation,
    build_model,
    parse_method,
    run_round,
)
from persofl.evaluation import client_experts, population_gate, weighed
from persofl.pairwise import Between
from personalization import Distances

SPEC = WindowSpec(lookback=24, horizon=6, validation_stride=2)
SMALL = {
    "linear": {},
    "dlinear": {"kernel": 5},
    "mlp": {"hidden": (8,)},
    "gru": {"hidden": 4},
    "lstm": {"hidden": 4},
    "tcn": {"hidden": 4, "layers": 2, "kernel": 3},
}


@pytest.fixture(autouse=True)
def _one_thread():
    """More threads than one make small kernels slower, and others' sums of another order."""
    torch.set_num_threads(1)


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="session", params=DEVICES)
def device(request):
    """Every test of a federation runs on the processor, and on a GPU where there is one."""
    torch.backends.cudnn.allow_tf32 = False  # convolutions as exact as the products are
    return torch.device(request.param, 0) if request.param == "cuda" else torch.device("cpu")


@pytest.fixture(scope="session")
def population():
    """Six households with 10 to 30 days each, no two spans alike."""
    series = SimulatedHouseholds(clients=6, days=30, min_days=10, seed=3, heterogeneity=1.0, missing=0.01)
    return make_windows(series.load(), SPEC)


def table(columns):
    index = pd.date_range("2013-01-01", periods=len(next(iter(columns.values()))), freq="h")
    return series_from_table("handmade", pd.DataFrame(columns, index=index), unit="kWh")


def load(days, seed):
    hours = np.arange(24 * days)
    noise = np.random.default_rng(seed).normal(0, 0.2, hours.size)
    return 1.5 + np.sin(hours * (2 * np.pi / 24) + seed) + noise


@pytest.fixture(scope="session")
def equals():
    """Three different clients with as many windows each: a batch of that size is a pass over any one's data."""
    return make_windows(table({f"client {k}": load(12, k) for k in range(3)}), SPEC)


@pytest.fixture(scope="session")
def twins():
    """Three clients with the same data."""
    return make_windows(table({f"twin {k}": load(12, 0) for k in range(3)}), SPEC)


@pytest.fixture(scope="session")
def hermit():
    """A population of one."""
    return make_windows(table({"hermit": load(12, 0)}), SPEC)


@pytest.fixture(scope="session")
def distances():
    """Distances of six clients whose relative values are known: from none to far."""
    relative = torch.tensor([0.0, 0.3, 0.8, 1.2, 2.0, 5.0])
    ones = torch.ones(6)
    return Distances(
        relative, ones, ones, ones, ones, torch.tensor([9, 5, 30, 12, 20, 7]), relative, relative
    )


@pytest.fixture(scope="session")
def between():
    """Distances between six clients in two groups, (0, 2, 3) and (1, 4, 5); all differ."""
    place = torch.tensor([0.0, 5.0, 0.4, 1.0, 6.2, 5.7])
    return Between((place[:, None] - place).abs())


@pytest.fixture(scope="session")
def unequal():
    """Columns of a plan: a value of its own for every one of six clients and every knob."""
    knobs = {
        "lr": [0.05, 0.2, 0.1, 0.15, 0.02, 0.08],
        "local_steps": [3, 1, 4, 2, 5, 2],
        "personal_steps": [2, 4, 1, 0, 3, 5],
        "prox": [0.0, 0.5, 2.0, 5.0, 30.0, 1.0],
        "mix": [0.0, 0.2, 0.5, 0.7, 0.9, 1.0],
        "weight": [1.0, 5.0, 0.5, 2.0, 3.0, 1.5],
        "depth": [0.0, 1.0, 2.0, 1.0, 0.0, 5.0],
        "align": [0.0, 0.3, 2.0, 0.1, 1.0, 0.7],
    }
    return {knob: torch.tensor(values).float().unsqueeze(1) for knob, values in knobs.items()}


class FixedPlan:
    """A personaliser whose plan of the whole population was written by hand."""

    def __init__(self, plan, distances=None, pairwise=None):
        self.whole, self.distances, self.pairwise = plan, distances, pairwise
        self.there = plan

    def plan(self, cohort):
        return self.there.take(cohort)

    def to(self, data, oracle, device):
        moved = copy.copy(self)
        moved.there = self.whole.to(device)
        return moved


@pytest.fixture(scope="session")
def federate(population, distances, between, device):
    """Build a federation; ``columns`` overwrites the plan's columns, known distances replace measured ones."""

    def build(method, data=population, model="mlp", columns=None, steered=(), seed=0, **options):
        method = method if isinstance(method, Method) else Method(method)
        parts, loss = options.pop("parts", None), options.pop("loss", "mse")
        if isinstance(model, str):
            model = build_model(model, Shape(24, 6), seed=seed, **SMALL[model])
        config = RoundConfig(**{"batch_size": 8, "seed": 11, **options})
        federation = build_federation(data, model, method, loss=loss, config=config, parts=parts)
        if len(data) == len(distances):
            federation.personaliser.__dict__.update(distances=distances, pairwise=between)
        if columns is None:
            return federation.to(device)
        plan = dataclasses.replace(federation.personaliser.whole, steered=frozenset(steered), **columns)
        planned = dataclasses.replace(federation, personaliser=FixedPlan(plan, distances, between))
        return planned.to(device)

    return build


@dataclasses.dataclass
class Outcome:
    """What a run left, on the host: the server's rows after every round, the store, losses, and the predictors."""

    servers: list
    store: dict
    losses: list
    predictors: torch.Tensor

    @property
    def server(self):
        return self.servers[-1]


@pytest.fixture(scope="session")
def run():
    """Run rounds with the algorithm's server optimiser."""

    def rounds(federation, count=2):
        parameter = nn.Parameter(federation.initial_rows())
        optimizer = federation.algorithm.server_optimizer([parameter])

        def apply(aggregate):
            parameter.grad = aggregate
            optimizer.step()

        servers, losses = [parameter.detach().to("cpu", copy=True)], []
        for round_ in range(count):
            losses.append(run_round(federation, parameter.detach(), round_, apply).losses.cpu())
            servers.append(parameter.detach().to("cpu", copy=True))
        everyone = torch.arange(len(federation.data))
        experts = client_experts(federation, parameter.detach(), everyone, count)
        gate = population_gate(federation, parameter.detach(), [everyone], count)
        experts, weights = weighed(federation, experts, everyone, "test", gate)
        # of several, a fingerprint of the mixture, not a model
        predictors = (torch.stack(experts, 1) * weights[:, 0].unsqueeze(2).to(experts[0].device)).sum(1)
        return Outcome(servers, federation.store.state_dict(), losses, predictors.cpu())

    return rounds


@pytest.fixture(scope="session")
def trainer(device):
    """A quiet trainer of so many rounds; with callbacks it may write checkpoints."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

    def build(rounds, **options):
        quiet = {
            "logger": False,
            "enable_checkpointing": "callbacks" in options,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "accelerator": "gpu" if device.type == "cuda" else "cpu",
            "devices": 1,
        }
        return pl.Trainer(**{"max_steps": rounds, **quiet, **options})

    return build


@pytest.fixture(scope="session")
def module(population, distances):
    """Build a module; a method by name takes three local steps."""

    def build(method="fedavg", data=population, model=None, loss="mse", **config):
        if isinstance(method, str):
            method = parse_method(method, {"local_steps": 3})
        model = build_model("mlp", Shape(24, 6), hidden=(8,)) if model is None else model
        config = RoundConfig(**{"batch_size": 8, "seed": 2, "cohort": 0.7, **config})
        built = FederatedModule(data, model, method, loss=loss, config=config)
        if len(data) == len(distances):
            built.federation.personaliser.__dict__["distances"] = distances
        return built

    return build
