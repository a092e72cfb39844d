"""Distances in a FedAvg loop written by hand: who counts in the shared model, and who keeps its own."""

import torch

from personalization import build_modulator, distance_to_population

torch.manual_seed(0)
sizes = [40, 300, 80, 120, 60, 500] * 5
features = [torch.randn(n, 6) for n in sizes]
coefficients = torch.randn(len(sizes), 6) * 0.2 + torch.ones(6)
odd = [2, 9, 16, 23]  # unlike the others, in what they measure and in what follows from it
for k in odd:
    features[k] = features[k] + 1.5
    coefficients[k] = -1.0
targets = [x @ w + 0.5 * torch.randn(len(x)) for x, w in zip(features, coefficients)]
test = [x[: len(x) // 4] for x in features], [y[: len(y) // 4] for y in targets]
train = [x[len(x) // 4 :] for x in features], [y[len(y) // 4 :] for y in targets]


def local_training(model, x, y, steps=20, lr=0.05):
    for _ in range(steps):
        model = model - lr * 2 * x.T @ (x @ model - y) / len(y)
    return model


def fedavg(weight, rounds=15):
    """The loop you know, with a weight per client; also returns each client's own model."""
    shared = torch.zeros(6)
    for _ in range(rounds):
        local = torch.stack([local_training(shared, x, y) for x, y in zip(*train)])
        shared = (weight * local).sum(0) / weight.sum()
    return shared, local


def errors(models):
    return torch.stack([(x @ model - y).square().mean() for model, x, y in zip(models, *test)])


by_size = torch.tensor([[float(len(x))] for x in train[0]])
distances = distance_to_population(train[0])  # each client against all the others
weight = build_modulator("weight_by_distance", slope=0.05)(by_size, distances)
mix = build_modulator("mix_by_distance", tau=2.0)(torch.zeros_like(by_size), distances)

plain, _ = fedavg(by_size)
shared, local = fedavg(weight)
personal = mix * local + (1 - mix) * shared  # what each client predicts with

unlike = torch.zeros(len(sizes), dtype=torch.bool)
unlike[odd] = True
print(
    f"relative distance: alike {distances.relative[~unlike].mean():.1f}, unlike {distances.relative[unlike].mean():.1f}"
)
for name, models in (("FedAvg", [plain] * 30), ("weighted", [shared] * 30), ("personal", personal)):
    error = errors(models)
    print(f"{name:9} error: alike {error[~unlike].mean():.3f}, unlike {error[unlike].mean():.3f}")
