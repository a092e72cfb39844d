"""A population of labelled samples in memory: the least that the engine needs of data that are no series."""

from dataclasses import dataclass, field, replace

import pandas as pd
import torch

SPANS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class People:
    """Clients with examples of their own in every span, all in one buffer.

    Args:
        inputs: ``(samples, steps, channels)``.
        targets: ``(samples, outputs)``, int64 for classes.
        counts: span -> examples of each client; clients lie in order, in each client the spans.
        classes: names; none for floats.
        attributes: one row a client.
        mean, std: ``(clients, outputs)`` of float targets.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    counts: dict
    classes: tuple = ()
    attributes: pd.DataFrame = None
    mean: torch.Tensor = None
    std: torch.Tensor = None
    name: str = "people"
    samples: object = field(default=None)

    def __post_init__(self):
        object.__setattr__(self, "samples", self if self.attributes is not None else None)

    @property
    def clients(self):
        return tuple(f"client {k}" for k in range(len(self)))

    @property
    def task(self):
        return "classify" if self.classes else "regress"

    @property
    def shape(self):
        return (self.inputs.shape[1], self.targets.shape[1], self.inputs.shape[2])

    def __len__(self):
        return len(self.counts["train"])

    def count(self, span):
        return torch.tensor(self.counts[span])

    def positions(self, span, clients, ranks):
        sizes = torch.stack([self.count(name) for name in SPANS], 1)
        assert (ranks < sizes[clients, SPANS.index(span)].unsqueeze(1)).all()
        starts = (sizes.flatten().cumsum(0) - sizes.flatten()).view(-1, 3)
        return starts[clients, SPANS.index(span)].unsqueeze(1) + ranks

    def gather(self, positions):
        return self.inputs[positions], self.targets[positions]

    def to(self, device):
        moved = {name: getattr(self, name) for name in ("inputs", "targets", "mean", "std")}
        return replace(
            self, **{name: part if part is None else part.to(device) for name, part in moved.items()}
        )

    def unscale(self, clients, y):
        shape = (len(clients), *[1] * (y.dim() - 2), y.shape[-1])
        return y * self.std[clients].view(shape) + self.mean[clients].view(shape)

    def features(self, client):
        ranks = torch.arange(self.counts["train"][client]).unsqueeze(0)
        return self.gather(self.positions("train", torch.tensor([client]), ranks)[0])[0].mean(1)


def _counts(clients, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        span: torch.randint(low, high, (clients,), generator=generator).tolist()
        for span, low, high in (("train", 12, 30), ("validation", 3, 8), ("test", 4, 12))
    }


def _owners(counts):
    sizes = torch.tensor([counts[span] for span in SPANS]).sum(0)
    return torch.repeat_interleave(torch.arange(len(sizes)), sizes)


def speakers(clients=6, classes=3, steps=12, channels=4, seed=0, unseen=()):
    """Classes are bumps at places of their own in time and channel; every client shifts and scales them."""
    counts = _counts(clients, seed)
    owner = _owners(counts)
    generator = torch.Generator().manual_seed(seed + 1)
    labels = torch.randint(classes, owner.shape, generator=generator)
    time, band = torch.arange(steps).view(-1, 1), torch.arange(channels)
    place = (labels + 0.5) * steps / classes + torch.randn(clients, generator=generator)[owner]
    bumps = torch.exp(-((time - place.view(-1, 1, 1)) ** 2) / 4) * (
        1 + (band == labels.view(-1, 1, 1) % channels)
    )
    inputs = bumps + 0.3 * torch.randn(bumps.shape, generator=generator)
    attributes = pd.DataFrame(
        {"accent": [("north", "south")[k % 2] for k in range(clients)]},
        index=[f"client {k}" for k in range(clients)],
    )
    if unseen:
        attributes["unseen"] = [k in unseen for k in range(clients)]
    names = tuple(f"word {c}" for c in range(classes))
    return People(inputs, labels.unsqueeze(1), counts, names, attributes)


def drivers(clients=5, outputs=2, inputs=4, seed=0):
    """Targets are affine in the inputs, each client's with an offset of its own; scaled per client."""
    counts = _counts(clients, seed)
    owner = _owners(counts)
    generator = torch.Generator().manual_seed(seed + 1)
    x = torch.randn(len(owner), 1, inputs, generator=generator)
    slope = torch.randn(inputs, outputs, generator=generator)
    raw = 5 + x[:, 0] @ slope + torch.randn(clients, outputs, generator=generator)[owner]
    raw = raw + 0.2 * torch.randn(raw.shape, generator=generator)
    mean = torch.stack([raw[owner == k].mean(0) for k in range(clients)])
    std = torch.stack([raw[owner == k].std(0) for k in range(clients)])
    return People(x, (raw - mean[owner]) / std[owner], counts, (), None, mean, std)
