"""The work that is timed: one FedAvg round, by persofl's engine and by a plain loop over clients."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from data_loaders import ForecastWindows, SimulatedHouseholds, WindowSpec, make_windows
from persofl import RoundConfig, Shape, build_federation, build_model, parse_method, run_round
from persofl.data import Stream

CLIENTS, STEPS, BATCH, LOOKBACK, HORIZON, LR = 100, 20, 32, 168, 24, 0.05


class PlainMLP(nn.Module):
    """What anyone would write."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(LOOKBACK, 64), nn.ReLU(), nn.Linear(64, HORIZON))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1))


class PlainRecurrent(nn.Module):
    """torch's own fused recurrent layer and a linear head."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.body = kind(1, 32, batch_first=True)
        self.head = nn.Linear(32, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


class PlainLinear(nn.Module):
    """One affine map."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(LOOKBACK, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


class PlainDLinear(nn.Module):
    """Trend and remainder, each with an affine map."""

    def __init__(self) -> None:
        super().__init__()
        self.average = nn.AvgPool1d(25, stride=1)
        self.trend, self.rest = nn.Linear(LOOKBACK, HORIZON), nn.Linear(LOOKBACK, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        x = x[..., 0]
        trend = self.average(nn.functional.pad(x.unsqueeze(1), (12, 12), mode="replicate"))[:, 0]
        return self.trend(trend) + self.rest(x - trend)


class PlainTCN(nn.Module):
    """Residual dilated causal convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(1, 16, 1)
        self.body = nn.ModuleList(nn.Conv1d(16, 16, 5, dilation=5**i) for i in range(3))
        self.head = nn.Linear(16, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.mT)
        for conv in self.body:
            x = x + torch.relu(conv(nn.functional.pad(x, (4 * conv.dilation[0], 0))))
        return self.head(x[..., -1])


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "linear": PlainLinear,
    "dlinear": PlainDLinear,
    "tcn": PlainTCN,
    "mlp": PlainMLP,
    "gru": lambda: PlainRecurrent(nn.GRU),
    "lstm": lambda: PlainRecurrent(nn.LSTM),
}


def households(clients: int = CLIENTS) -> ForecastWindows:
    """Simulated windows, the same for every engine."""
    series = SimulatedHouseholds(clients=clients, days=120).load()
    return make_windows(series, WindowSpec(lookback=LOOKBACK, horizon=HORIZON))


def engine_round(
    data: ForecastWindows, model: str, oracle: str, chunk: int | None = None, method: str = "fedavg"
) -> Callable[[], None]:
    """A round of persofl's engine."""
    federation = build_federation(
        data,
        build_model(model, Shape(LOOKBACK, HORIZON)),
        parse_method(method, {"lr": LR, "local_steps": STEPS}),
        config=RoundConfig(batch_size=BATCH, oracle=oracle, chunk=chunk),
    )
    server = federation.initial_row()

    def run() -> None:
        run_round(federation, server, 0, server.sub_)

    return run


def plain_round(data: ForecastWindows, model: str, clients: int = CLIENTS) -> Callable[[], None]:
    """A round written by hand: a deep copy and an SGD for every client, batches sliced without a DataLoader.

    The windows of every client are made beforehand, so the loop pays for indexing only.
    """
    server = PLAIN[model]()
    examples = [
        data.gather(data.positions("train", torch.tensor([k]), torch.arange(1500)[None])[0])
        for k in range(clients)
    ]
    tensors = [(x.contiguous(), y.contiguous()) for x, y in examples]

    def run() -> None:
        total = [torch.zeros_like(parameter) for parameter in server.parameters()]
        for x, y in tensors:
            local = copy.deepcopy(server)
            optimizer = torch.optim.SGD(local.parameters(), lr=LR)
            for chosen in torch.randint(len(x), (STEPS, BATCH)):
                optimizer.zero_grad()
                (local(x[chosen]) - y[chosen]).square().mean().backward()
                optimizer.step()
            for sum_, parameter in zip(total, local.parameters(), strict=True):
                sum_ += parameter.detach() / len(tensors)
        with torch.no_grad():
            for parameter, mean in zip(server.parameters(), total, strict=True):
                parameter.copy_(mean)

    return run


def hand_round(data: ForecastWindows, chunk: int = 50) -> Callable[[], None]:
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
