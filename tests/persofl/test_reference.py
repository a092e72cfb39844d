"""Every algorithm equals its paper, written in plain PyTorch with one module per client."""

import math

import pytest
import torch

from persofl import APFL, Ditto, FedAdam, FedAvg, FedProx, FineTune, Local
from persofl.algorithms import ClusterFedAvg, Neighbours
from persofl.data import Stream


def close(got, want, rtol=1e-4, atol=1e-5):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol, equal_nan=True)


class Naive:
    """Every method as its paper writes it: one copied module per client, and loops."""

    def __init__(self, federation, model):
        self.fed, self.model = federation, model
        self.weights = self.vector(model)
        self.plan = federation.personaliser.whole
        self.personal, self.mix = {}, {}

    @staticmethod
    def vector(module):
        return torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    def batches(self, client, round_, purpose, steps):
        size = self.fed.config.batch_size
        stream = Stream(self.fed.config.seed, round_, purpose)
        chosen = stream.positions(self.fed.data, torch.tensor([client]), steps * size)[0]
        return [self.fed.data.gather(part) for part in chosen.split(size)] if steps else []

    def loss_and_grad(self, weights, batch):
        start, tensors = 0, {}
        for name, p in self.model.named_parameters():
            tensors[name] = weights[start : start + p.numel()].view_as(p).clone().requires_grad_()
            start += p.numel()
        prediction = torch.func.functional_call(self.model, tensors, batch[0])
        loss = (prediction - batch[1]).square().mean()
        grads = torch.autograd.grad(loss, list(tensors.values()))
        return loss.detach(), torch.cat([g.reshape(-1) for g in grads])

    def train(self, weights, batches, lr, prox=0.0, anchor=None):
        losses = []
        for batch in batches:
            loss, grad = self.loss_and_grad(weights, batch)
            weights = weights - lr * grad
            if anchor is not None:
                weights = (weights + lr * prox * anchor) / (1 + lr * prox)
            losses.append(loss)
        return weights, torch.stack(losses).mean() if losses else torch.tensor(float("nan"))

    def knob(self, name, client):
        return float(getattr(self.plan, name)[client])

    def one_client(self, client, round_):
        """The client's shared weights and its loss; trains its personal model on the way."""
        kind, anchor = self.fed.algorithm.name, self.weights
        lr, prox = self.knob("lr", client), self.knob("prox", client)
        batches = self.batches(client, round_, "shared", int(self.knob("local_steps", client)))
        own = self.personal.get(client, anchor)
        if kind == "local":
            self.personal[client], loss = self.train(own, batches, lr)
            return anchor, loss
        if kind == "apfl":
            return self.apfl(client, own, batches, lr)
        shared, loss = self.train(anchor, batches, lr, prox, anchor if kind == "fedprox" else None)
        if kind == "ditto":
            more = self.batches(client, round_, "personal", int(self.knob("personal_steps", client)))
            self.personal[client], loss = self.train(own, more, lr, prox, anchor)
        return shared, loss

    def apfl(self, client, own, batches, lr):
        shared, losses = self.weights, []
        steered = "mix" in self.plan.steered
        mix = self.knob("mix", client) if steered else self.mix.get(client, self.knob("mix", client))
        for batch in batches:
            loss, grad = self.loss_and_grad(mix * own + (1 - mix) * shared, batch)
            slope = float((own - shared) @ grad)
            shared, own = shared - lr * self.loss_and_grad(shared, batch)[1], own - lr * mix * grad
            if self.fed.algorithm.adaptive and not steered:
                mix = min(max(mix - lr * slope, 0.0), 1.0)
            losses.append(loss)
        self.personal[client], self.mix[client] = own, mix
        return shared, torch.stack(losses).mean()

    def run(self, rounds):
        config, servers, losses = self.fed.config, [self.weights], []
        parameter = torch.nn.Parameter(self.weights.clone())
        kind = self.fed.algorithm
        if kind.name == "fedadam":
            betas = (kind.beta1, kind.beta2)
            adam = torch.optim.Adam([parameter], lr=kind.server_lr, betas=betas, eps=kind.tau)
        for round_ in range(rounds):
            cohort = self.fed.sampler(len(self.fed.data), round_, config.seed).tolist()
            results = [self.one_client(client, round_) for client in cohort]
            weights = [self.knob("weight", client) for client in cohort]
            mean = sum(w * shared for w, (shared, _) in zip(weights, results, strict=True)) / sum(weights)
            if kind.name == "fedadam":
                parameter.grad = self.weights - mean
                adam.step()
                mean = parameter.detach().clone()
            self.weights = mean
            servers.append(mean)
            losses.append(torch.stack([loss for _, loss in results]))
        return servers, losses, self.predictors(rounds)

    def predictors(self, round_):
        return torch.stack([self.predictor(client, round_) for client in range(len(self.fed.data))])

    def predictor(self, client, round_):
        kind, own = self.fed.algorithm, self.personal.get(client, self.weights)
        if kind.name in ("local", "ditto"):
            return own
        mix = self.knob("mix", client)
        if kind.name == "apfl":
            mix = mix if "mix" in self.plan.steered else self.mix.get(client, mix)
            return mix * own + (1 - mix) * self.weights
        if kind.name == "finetune":
            batches = self.batches(client, round_, "finetune", int(self.knob("personal_steps", client)))
            tuned, _ = self.train(self.weights, batches, kind.personal_lr * self.knob("lr", client) / kind.lr)
            return self.weights + mix * (tuned - self.weights)
        return self.weights


class NaiveRows(Naive):
    """Methods whose clients start from models of their own: a group's, or the mean of what neighbours sent last."""

    GROUPS = ((0, 2, 3), (1, 4, 5))  # of the distances in conftest

    def __init__(self, federation, model):
        super().__init__(federation, model)
        self.first, self.sent = self.weights, {}
        self.models = dict.fromkeys(self.GROUPS, self.first)

    def anchor(self, client):
        if self.fed.algorithm.name == "cluster_fedavg":
            return next(model for group, model in self.models.items() if client in group)
        distances = self.fed.personaliser.pairwise.calibrated
        unit = sorted(float(distances[k, j]) for k in range(6) for j in range(k))[7]  # the median of 15
        shares = {
            j: self.knob("weight", j) * math.exp(-((float(distances[client, j]) / unit) ** 2))
            for j in self.sent
        }
        mean = sum(share * self.sent[j] for j, share in shares.items())
        return mean / sum(shares.values()) if shares else self.first

    def run(self, rounds):
        losses = []
        for round_ in range(rounds):
            cohort = self.fed.sampler(len(self.fed.data), round_, self.fed.config.seed).tolist()
            trained = {}
            for client in cohort:
                self.weights = self.anchor(client)
                trained[client] = self.one_client(client, round_)
            losses.append(torch.stack([loss for _, loss in trained.values()]))
            self.sent.update({client: shared for client, (shared, _) in trained.items()})
            for group in self.GROUPS:
                weight = {client: self.knob("weight", client) for client in group if client in trained}
                if weight:
                    total = sum(w * trained[client][0] for client, w in weight.items())
                    self.models[group] = total / sum(weight.values())
        return losses, torch.stack([self.anchor(client) for client in range(6)])


@pytest.mark.parametrize("cohort", [0.4, 1.0])
@pytest.mark.parametrize("model", ["mlp", "gru"])
@pytest.mark.parametrize(
    "algorithm", [ClusterFedAvg(local_steps=4), Neighbours(local_steps=4)], ids=lambda kind: kind.name
)
def test_rows_equal_the_papers_in_plain_pytorch(algorithm, model, cohort, unequal, federate, run):
    federation, host = (federate(algorithm, model=model, columns=unequal, cohort=cohort) for _ in range(2))
    host = host.to("cpu")
    losses, predictors = NaiveRows(host, host.oracle.module).run(4)
    outcome = run(federation, 4)
    for got, want in zip(outcome.losses, losses, strict=True):
        close(got, want)
    close(outcome.predictors, predictors)
    assert not torch.allclose(predictors[0], predictors[1], atol=1e-4)


METHODS = [
    pytest.param(Local(local_steps=4), (), id="local"),
    pytest.param(FedAvg(local_steps=4), (), id="fedavg"),
    pytest.param(FedProx(local_steps=4), (), id="fedprox"),
    pytest.param(FedAdam(local_steps=4, server_lr=0.05), (), id="fedadam"),
    pytest.param(Ditto(local_steps=4), (), id="ditto"),
    pytest.param(FineTune(local_steps=4), (), id="finetune"),
    pytest.param(APFL(local_steps=4), (), id="apfl"),
    pytest.param(APFL(local_steps=4, adaptive=False), (), id="apfl, fixed"),
    pytest.param(APFL(local_steps=4), ("mix",), id="apfl, steered"),
]


@pytest.mark.parametrize("model", ["mlp", "gru"])
@pytest.mark.parametrize(("algorithm", "steered"), METHODS)
def test_equals_the_paper_in_plain_pytorch(algorithm, steered, model, unequal, federate, run):
    federation, host = (
        federate(algorithm, model=model, columns=unequal, steered=steered, cohort=0.7) for _ in range(2)
    )
    host = host.to("cpu")
    servers, losses, predictors = Naive(host, host.oracle.module).run(3)
    outcome = run(federation, 3)
    for got, want in zip(outcome.servers, servers, strict=True):
        close(got[0], want)
    for got, want in zip(outcome.losses, losses, strict=True):
        close(got, want)
    close(outcome.predictors, predictors)
