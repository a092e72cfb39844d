"""What anyone would write without persofl: models of torch's own layers, and a loop over clients for every method.

The loops pay for no DataLoader: the examples of a client are tensors made beforehand, and a batch is one indexing. Those
that say so take one, as most code does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from persofl.data import ClientData

STEPS, BATCH, LOOKBACK, HORIZON, LR = 20, 32, 168, 24, 0.05
FRAMES, MELS, WORDS = 25, 20, 10
"""Of a keyword's log-mel spectrogram."""
PROX = 0.1

Examples = list[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]
Round = Callable[[], None]


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


class PlainTransformer(nn.Module):
    """torch's own encoder over patches of six steps."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 32)
        self.positions = nn.Parameter(torch.zeros(LOOKBACK // 6, 32), requires_grad=False)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, nn.LayerNorm(32), enable_nested_tensor=False)
        self.head = nn.Linear(32, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.view(len(x), -1, 6)) + self.positions
        return self.head(self.body(tokens).mean(1))


class PlainDSCNN(nn.Module):
    """One convolution, and three depthwise-separable blocks."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, channels, (10, 4), (2, 2), (5, 2), bias=False)]
        for _ in range(3):
            layers += [nn.GroupNorm(4, channels), nn.ReLU()]
            layers += [nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)]
            layers += [nn.GroupNorm(4, channels), nn.ReLU(), nn.Conv2d(channels, channels, 1, bias=False)]
        self.body = nn.Sequential(*layers, nn.GroupNorm(4, channels), nn.ReLU())
        self.head = nn.Linear(channels, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.unsqueeze(1)).mean((2, 3)))


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "linear": PlainLinear,
    "dlinear": PlainDLinear,
    "tcn": PlainTCN,
    "mlp": PlainMLP,
    "gru": lambda: PlainRecurrent(nn.GRU),
    "lstm": lambda: PlainRecurrent(nn.LSTM),
    "transformer": PlainTransformer,
    "dscnn": PlainDSCNN,
}


def squared(prediction: Tensor, y: Tensor) -> Tensor:
    """Mean squared error."""
    return (prediction - y).square().mean()


def entropy(prediction: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy."""
    return nn.functional.cross_entropy(prediction, y)


def examples_of(data: ClientData, most: int = 1500, span: str = "train") -> Examples:
    """The examples of every client, in memory of their own."""
    found = []
    for client, count in enumerate(data.count(span).tolist()):
        ranks = torch.arange(min(most, count))[None]
        x, y = data.gather(data.positions(span, torch.tensor([client]), ranks)[0])
        found.append((x.contiguous(), y.contiguous() if y.is_floating_point() else y.flatten()))
    return found


def _train(model: nn.Module, x: Tensor, y: Tensor, loss: Loss, anchor: nn.Module | None = None) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for chosen in torch.randint(len(x), (STEPS, BATCH)):
        optimizer.zero_grad()
        loss(model(x[chosen]), y[chosen]).backward()
        if anchor is not None:
            for parameter, fixed in zip(model.parameters(), anchor.parameters(), strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - fixed.detach(), alpha=PROX)
        optimizer.step()


def _average(server: nn.Module, locals_: list[nn.Module]) -> None:
    with torch.no_grad():
        for parameter, *parts in zip(
            server.parameters(), *(model.parameters() for model in locals_), strict=True
        ):
            parameter.copy_(torch.stack(parts).mean(0))


def _load(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True, drop_last=True)
    for some, true in islice(loader, STEPS):
        optimizer.zero_grad()
        loss(model(some), true).backward()
        optimizer.step()


def fedavg_loop(model: str, examples: Examples, loss: Loss = squared, loader: bool = False) -> Round:
    """FedAvg: a deep copy and an SGD for every client."""
    server, train = PLAIN[model](), _load if loader else _train

    def run() -> None:
        total = [torch.zeros_like(parameter) for parameter in server.parameters()]
        for x, y in examples:
            local = copy.deepcopy(server)
            train(local, x, y, loss)
            for sum_, parameter in zip(total, local.parameters(), strict=True):
                sum_ += parameter.detach() / len(examples)
        with torch.no_grad():
            for parameter, mean in zip(server.parameters(), total, strict=True):
                parameter.copy_(mean)

    return run


def ditto_loop(model: str, examples: Examples, loss: Loss = squared) -> Round:
    """Ditto: the same, and a personal model of every client with a proximal term in its gradient."""
    server = PLAIN[model]()
    personal = [copy.deepcopy(server) for _ in examples]

    def run() -> None:
        locals_ = []
        for (x, y), own in zip(examples, personal, strict=True):
            local = copy.deepcopy(server)
            _train(local, x, y, loss)
            _train(own, x, y, loss, anchor=server)
            locals_.append(local)
        _average(server, locals_)

    return run


def apfl_loop(model: str, examples: Examples, loss: Loss = squared) -> Round:
    """APFL: at every step the shared model by its own gradient, the personal one and the weight by the mixture's."""
    server = PLAIN[model]()
    personal, mixes = [copy.deepcopy(server) for _ in examples], [0.5] * len(examples)

    def run() -> None:
        locals_ = []
        for client, (x, y) in enumerate(examples):
            local, own, mixture = copy.deepcopy(server), personal[client], copy.deepcopy(server)
            optimizer = torch.optim.SGD(local.parameters(), lr=LR)
            for chosen in torch.randint(len(x), (STEPS, BATCH)):
                mix = mixes[client]
                with torch.no_grad():
                    triples = list(
                        zip(mixture.parameters(), local.parameters(), own.parameters(), strict=True)
                    )
                    for mixed, shared, alone in triples:
                        mixed.copy_(torch.lerp(shared, alone, mix))
                mixture.zero_grad()
                loss(mixture(x[chosen]), y[chosen]).backward()
                slope = 0.0
                with torch.no_grad():
                    for mixed, shared, alone in triples:
                        if mixed.grad is not None:
                            slope += float(((alone - shared) * mixed.grad).sum())
                            alone.sub_(mixed.grad, alpha=LR * mix)
                optimizer.zero_grad()
                loss(local(x[chosen]), y[chosen]).backward()
                optimizer.step()
                mixes[client] = min(1.0, max(0.0, mix - LR * slope))
            locals_.append(local)
        _average(server, locals_)

    return run


def evaluation_loop(model: str, examples: Examples, batch: int = BATCH, loader: bool = False) -> Round:
    """Absolute and squared errors of every client's own model, batch by batch."""
    models = [PLAIN[model]().eval() for _ in examples]

    def run() -> None:
        with torch.no_grad():
            for own, (x, y) in zip(models, examples, strict=True):
                absolute = squares = 0.0
                parts = (
                    DataLoader(TensorDataset(x, y), batch_size=batch)
                    if loader
                    else zip(x.split(batch), y.split(batch), strict=True)
                )
                for some, true in parts:
                    gap = own(some) - true
                    absolute += float(gap.abs().sum())
                    squares += float(gap.square().sum())

    return run
