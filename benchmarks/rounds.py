"""The work that is timed: rounds and an evaluation by persofl's engine, and their data."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from data_loaders import (
    ClientExamples,
    ForecastWindows,
    SampleSpec,
    SimulatedHouseholds,
    WindowSpec,
    make_examples,
    make_windows,
)
from data_loaders.samples import ClientSamples
from persofl import RoundConfig, Shape, build_federation, build_model, parse_method, run_round
from persofl.data import ClientData, Stream, facts_of
from persofl.evaluation import evaluate
from persofl.federation import Federation

from .plain import BATCH, FRAMES, HORIZON, LOOKBACK, LR, MELS, PROX, STEPS, WORDS, Round

CLIENTS = 100

Precision = Literal["float32", "bfloat16"]


def households(clients: int = CLIENTS) -> ForecastWindows:
    """Simulated windows, the same for every engine."""
    series = SimulatedHouseholds(clients=clients, days=120).load()
    return make_windows(series, WindowSpec(lookback=LOOKBACK, horizon=HORIZON))


def keywords(clients: int = CLIENTS, each: int = 120) -> ClientExamples:
    """Noise of the shape of log-mel spectrograms: what they say is nothing to the clock."""
    g = torch.Generator().manual_seed(0)
    names = tuple(f"speaker-{k:03d}" for k in range(clients))
    samples = ClientSamples(
        name="noise",
        inputs=torch.randn(clients * each, FRAMES, MELS, generator=g),
        targets=torch.randint(WORDS, (clients * each,), generator=g),
        offsets=torch.arange(clients + 1) * each,
        clients=names,
        attributes=pd.DataFrame(index=list(names)),
        classes=tuple(map(str, range(WORDS))),
    )
    return make_examples(samples, SampleSpec(split="stratified"))


def federate(
    data: ClientData,
    model: str,
    oracle: str = "auto",
    chunk: int | None = None,
    method: str = "fedavg",
    *,
    device: str = "cpu",
    precision: Precision = "float32",
) -> Federation:
    """A population, a model and a method as persofl's engine has them."""
    facts = facts_of(data)
    outputs = max(1, len(facts.classes))
    values = {"lr": LR, "local_steps": STEPS} | ({"prox": PROX} if method == "ditto" else {})
    return build_federation(
        data,
        build_model(model, Shape(*facts.shape, outputs)),
        parse_method(method, values),
        loss="cross_entropy" if facts.classes else "mse",
        config=RoundConfig(batch_size=BATCH, oracle=oracle, chunk=chunk, precision=precision),
    ).to(device)


def engine_round(
    data: ClientData,
    model: str,
    oracle: str = "auto",
    chunk: int | None = None,
    method: str = "fedavg",
    *,
    device: str = "cpu",
    precision: Precision = "float32",
) -> Round:
    """A round of persofl's engine."""
    federation = federate(data, model, oracle, chunk, method, device=device, precision=precision)
    server = federation.initial_row()

    def run() -> None:
        run_round(federation, server, 0, server.sub_)
        settle(device)

    return run


def settle(device: str) -> None:
    """Wait for a device that works on its own."""
    if device != "cpu":
        torch.cuda.synchronize()


def engine_evaluation(data: ClientData, model: str, device: str = "cpu") -> Round:
    """All metrics of every client's personal model on its test span."""
    federation = federate(data, model, method="ditto", device=device)
    server = federation.initial_row()
    run_round(federation, server, 0, server.sub_)

    def run() -> None:
        evaluate(federation, server, "test")
        settle(device)

    return run


def hand_round(data: ForecastWindows, chunk: int = 50) -> Round:
    """The bound: an MLP's local training written out with in-place products, for no other model or method.

    No autograd, no plan, no aggregation; batches are drawn and gathered as the engine does.
    """
    model = build_model("mlp", Shape(LOOKBACK, HORIZON))
    parameters = [parameter.detach() for parameter in model.parameters()]

    def train(clients: Tensor) -> None:
        w1, b1, w2, b2 = (p.expand(len(clients), *p.shape).clone() for p in parameters)
        b1, b2 = b1.unsqueeze(1), b2.unsqueeze(1)
        positions = Stream(0, 0, "shared").positions(data, clients, STEPS * BATCH)
        for step in range(STEPS):
            x, y = data.gather(positions[:, step * BATCH : (step + 1) * BATCH])
            x = x.flatten(-2)
            hidden = torch.baddbmm(b1, x, w1).relu_()
            error = torch.baddbmm(b2, hidden, w2).sub_(y).mul_(2 * LR / (BATCH * HORIZON))
            back = torch.bmm(error, w2.mT).mul_(hidden > 0)
            w2.baddbmm_(hidden.mT, error, alpha=-1)
            b2.sub_(error.sum(1, keepdim=True))
            w1.baddbmm_(x.mT, back, alpha=-1)
            b1.sub_(back.sum(1, keepdim=True))

    def run() -> None:
        for clients in torch.arange(CLIENTS).split(chunk):
            train(clients)

    return run
