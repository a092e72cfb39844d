"""Local training: the cut of the work does not show in its result, and nobody works more than asked."""

import math

import pytest
import torch

from persofl import ALGORITHMS, Ditto, FedAvg, FineTune
from persofl.algorithms import Phase
from persofl.algorithms.base import shared_step
from persofl.data import Stream, batch_at, example_of
from persofl.denormals import flushed_denormals
from persofl.training import train_phase

STREAM = Stream(0, 0, "shared")


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6, equal_nan=True)


def columns(**values):
    return {knob: torch.tensor(column).float().unsqueeze(1) for knob, column in values.items()}


def bench_of(federation, chunk):
    import dataclasses

    return dataclasses.replace(federation.bench, chunk=chunk)


class Counter:
    """A step that counts: how often it ran, on how many rows, and on whose examples."""

    def __init__(self):
        self.calls, self.positions = [], []

    def __call__(self, rows, batch, oracle, plan):
        self.calls.append(len(plan))
        rows["shared"] += 1
        assert batch.x.shape[0] == batch.y.shape[0] == len(plan) == rows["shared"].shape[0]
        return batch.y[:, 0, 0]


def count_steps(federation, clients, chunk):
    step = Counter()
    plan = federation.personaliser.plan(clients)
    start = torch.zeros(1, 1, device=federation.device).expand(len(clients), -1)
    rows = {"shared": start.clone(), "anchor": start}
    phase = Phase("shared", "local_steps", step)
    losses = train_phase(bench_of(federation, chunk), phase, clients, rows, plan, STREAM)
    return step, rows["shared"].flatten().cpu(), losses.cpu()


@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
def test_every_client_steps_as_often_as_its_plan_says(chunk, federate):
    steps = [3.0, 0.0, 7.0, 1.0, 4.0, 4.0]
    federation = federate(FedAvg(), columns=columns(local_steps=steps))
    counter, done, losses = count_steps(federation, torch.arange(6), chunk)
    assert done.tolist() == steps
    assert sum(counter.calls) == sum(steps)  # not one step on padding
    assert losses.isnan().tolist() == [False, True, False, False, False, False]


def test_steps_are_whole(federate):
    federation = federate(FedAvg(), columns=columns(local_steps=[2.0, 2.9, 1.0, 0.5, 3.0, 3.0]))
    assert count_steps(federation, torch.arange(6), 3)[1].tolist() == [2, 2, 1, 0, 3, 3]


@pytest.mark.parametrize("epochs", [0.01, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("batch_size", [1, 8, 1000])
def test_epochs_are_passes_over_the_own_data(epochs, batch_size, federate, population):
    federation = federate(FedAvg(local_epochs=epochs), batch_size=batch_size)
    expected = [
        max(1, math.ceil(epochs * int(count) / batch_size - 1e-6)) for count in population.count("train")
    ]
    assert count_steps(federation, torch.arange(6), 2)[1].tolist() == expected


@pytest.mark.parametrize("kind", [Ditto, FineTune])
def test_epochs_replace_the_shared_steps_only(kind, federate):
    plan = federate(kind(local_epochs=0.5, personal_steps=3)).personaliser.whole
    assert len(plan.local_steps.unique()) > 1
    assert (plan.personal_steps == 3).all()


def test_one_epoch_sees_every_example_once(federate, population):
    """With a batch that divides the count, the examples of an epoch are the client's windows."""
    client = torch.tensor([2])
    count = int(population.count("train")[2])
    size = next(size for size in (2, 3, 5, 7) if count % size == 0) if count > 1 else 1
    federation = federate(FedAvg(local_epochs=1.0), batch_size=size)
    seen = []

    def step(rows, batch, oracle, plan):
        seen.append(batch.x.flatten(0, 1).cpu())
        return rows["shared"].new_zeros(1)

    plan = federation.personaliser.plan(client)
    rows = {"shared": torch.zeros(1, 1, device=federation.device)}
    train_phase(federation.bench, Phase("shared", "local_steps", step), client, rows, plan, STREAM)
    windows = population.gather(population.positions("train", client, torch.arange(count)[None])[0])[0]
    got, want = torch.cat(seen).flatten(1), windows.flatten(1)
    assert got.shape == want.shape
    assert torch.equal(got.unique(dim=0), want.unique(dim=0))


@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_the_chunk_does_not_show(name, chunk, federate, run):
    steps = columns(local_steps=[3, 1, 4, 2, 5, 2], personal_steps=[2, 4, 1, 3, 3, 5])
    chunked, whole = (run(federate(ALGORITHMS[name](), columns=steps, chunk=size)) for size in (chunk, 100))
    close(chunked.server, whole.server)
    close(chunked.predictors, whole.predictors)
    for got, want in zip(chunked.losses, whole.losses, strict=True):
        close(got, want)


def trained(federation, clients):
    """Rows and losses after Ditto's two phases, from different starts."""
    plan, size = federation.personaliser.plan(clients), federation.initial_row().shape[1]
    starts = (
        torch.randn(6, size, generator=torch.Generator().manual_seed(0))[clients].to(federation.device) * 0.1
    )
    anchor = federation.initial_row().expand(len(clients), -1)
    rows = {"shared": starts.clone(), "personal": -starts, "anchor": anchor}
    losses = [
        train_phase(federation.bench, phase, clients, rows, plan, STREAM)
        for phase in federation.algorithm.phases()
    ]
    return tuple(part.cpu() for part in (rows["shared"], rows["personal"], *losses))


@pytest.mark.parametrize("steps", [[3, 1, 4, 2, 5, 2], [4, 4, 4, 4, 4, 4], [6, 5, 4, 3, 2, 1]])
def test_the_order_of_clients_does_not_show(steps, federate):
    federation = federate(
        Ditto(prox=1.0), columns=columns(local_steps=steps, personal_steps=steps[::-1]), chunk=2
    )
    order = torch.tensor([5, 2, 0, 3, 1, 4])
    straight, shuffled = trained(federation, torch.arange(6)), trained(federation, order)
    for one, other in zip(straight, shuffled, strict=True):
        close(other, one[order])


def test_no_steps_leave_the_rows_as_they_are(federate):
    steps = [3.0, 0.0, 2.0, 0.0, 1.0, 0.0]
    federation = federate(Ditto(), columns=columns(local_steps=steps, personal_steps=steps[::-1]))
    size = federation.initial_row().shape[1]
    starts = torch.randn(6, size, generator=torch.Generator().manual_seed(0)) * 0.1
    shared, personal, first, second = trained(federation, torch.arange(6))
    for client, count in enumerate(steps):
        assert torch.equal(shared[client], starts[client]) == (count == 0)
        assert torch.equal(personal[client], -starts[client]) == (steps[::-1][client] == 0)
        assert bool(first[client].isnan()) == (count == 0)
        assert bool(second[client].isnan()) == (steps[::-1][client] == 0)


def test_a_client_that_did_not_train_sends_nothing(federate, run):
    """Its delta is zero; the mean loss of the round leaves it out."""
    from persofl import run_round

    federation = federate(FedAvg(), columns=columns(local_steps=[0, 0, 2, 2, 2, 2]))
    report = run_round(federation, federation.initial_row(), 0, lambda aggregate: None)
    assert (report.updates.deltas[:2] == 0).all()
    assert report.loss == pytest.approx(float(report.losses[2:].mean()))


def test_losses_are_means_over_the_steps_before_each(federate):
    """Against the oracle, step by step."""
    federation = federate(FedAvg(local_steps=3))
    clients, size = torch.tensor([4]), federation.config.batch_size
    rows = {"shared": federation.initial_row()}
    plan = federation.personaliser.plan(clients)
    got = train_phase(
        federation.bench, Phase("shared", "local_steps", shared_step), clients, rows, plan, STREAM
    )
    row, losses = federation.initial_row(), []
    positions = STREAM.positions(federation.data, clients, 3 * size)
    for part in positions.split(size, dim=1):
        loss, grad = federation.oracle.grad(row, batch_at(federation.data, part))
        row = row - plan.lr * grad
        losses.append(loss)
    close(got, torch.stack(losses).mean(0))
    close(rows["shared"], row)


def test_training_leaves_the_global_generator_alone(federate, run):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run(federate(Ditto()), 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_example_to_check_a_model_with_is_a_training_batch(population):
    x, y = example_of(population)
    assert x.shape == (2, 24, 1)
    assert y.shape == (2, 6)
    assert x.isfinite().all()
    assert not torch.equal(x[0], x[1])


@pytest.mark.parametrize("before", [False, True])
def test_denormals_are_zero_inside_and_as_before_outside(before):
    tiny = torch.full((64,), 1e-39)
    torch.set_flush_denormal(before)
    try:
        with flushed_denormals():
            assert not tiny.mul(1.0).any()
        assert bool(tiny.mul(1.0).any()) != before
        with pytest.raises(KeyError), flushed_denormals():
            raise KeyError
        assert bool(tiny.mul(1.0).any()) != before
    finally:
        torch.set_flush_denormal(False)
