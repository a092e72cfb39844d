"""Several processes against one: rounds, rules that must see all updates, evaluation, checkpoints, and ends."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from data_loaders import SimulatedHouseholds, WindowSpec, make_windows
from data_loaders.partition import HoldOut
from persofl import (
    DivergedError,
    FederatedModule,
    PersoflError,
    RoundConfig,
    build_federation,
    build_model,
    parse_method,
)
from persofl.algorithms import ClusterFedAvg, Gate, Neighbours
from persofl.checkpoints import BackgroundCheckpointIO
from persofl.diskstore import DiskStore
from persofl.evaluation import (
    client_experts,
    evaluate_clients,
    population_gate,
    population_metrics,
)
from persofl.federation import RoundParts
from persofl.method import as_method
from persofl.models import Shape
from persofl.ranks import ALONE, Ranks, joined_states
from persofl.round import run_round
from persofl.server import Aggregator, Clip, Updates
from persofl.store import ClientStore

METHODS = {
    "fedavg": "fedavg",
    "ditto+prox_by_distance": "ditto+prox_by_distance",
    "apfl": "apfl",
    "gate": Gate(personal_steps=3),
    "neighbours": Neighbours(scale=0.5),
    "clusters": ClusterFedAvg(choose="gap"),
}


class Median(Aggregator):
    """A rule that has to see every update."""

    def __call__(self, updates):
        assert (updates.clients.diff() > 0).all()
        return updates.deltas.median(0, keepdim=True).values


def population():
    households = HoldOut(share=0.2)(SimulatedHouseholds(clients=9, days=40, heterogeneity=1.0).load())
    return make_windows(households, WindowSpec(lookback=24, horizon=6))


def federation(name, ranks=ALONE, **options):
    data = population()
    method = as_method(METHODS[name]) if name in METHODS else parse_method(name, {"lr": 1e6})
    if "lr" not in options:
        method = dataclasses.replace(method, algorithm=dataclasses.replace(method.algorithm, local_steps=3))
    parts = (
        RoundParts(aggregator=Median(), update_transforms=(Clip(0.5),))
        if options.pop("robust", False)
        else None
    )
    model = build_model("mlp", Shape(24, 6), seed=0, hidden=(5,))
    built = build_federation(data, model, method, config=RoundConfig(cohort=0.7, batch_size=8), parts=parts)
    return dataclasses.replace(built, ranks=ranks)


def train(name, ranks=ALONE, rounds=3, **options):
    """Server rows, losses, joined states and errors after some rounds."""
    built = federation(name, ranks, **options)
    server, losses = built.initial_rows(), []
    for round_ in range(rounds):
        report = run_round(built, server, round_, server.sub_)
        losses.append(report.losses)
    everyone = torch.arange(len(built.data))
    state = joined_states(ranks, built.store.state_dict(), len(everyone))
    own = ranks.mine(everyone)
    gate = population_gate(built, server, [own], rounds)
    sums = evaluate_clients(built, client_experts(built, server, own, rounds), own, "test", gate)
    whole = ranks.total_of(built.task.together([own], [sums], len(everyone)))
    return server, torch.cat(losses), state, population_metrics(built, whole)["nmae"]


def one_of(rank, count, folder, cases):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    found = {case: train(case[0], Ranks.here(), **dict(case[1])) for case in cases}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


CASES = [(name, ()) for name in METHODS] + [
    ("fedavg", (("robust", True),)),
    ("clusters", (("robust", True),)),
]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """What two and three processes found, each its own list."""
    found = {}
    for count in (2, 3):
        folder = tmp_path_factory.mktemp(f"ranks{count}")
        mp.spawn(one_of, (count, str(folder), CASES), nprocs=count)
        found[count] = [torch.load(folder / f"{rank}.pt") for rank in range(count)]
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}{'-robust' if case[1] else ''}")
@pytest.mark.parametrize("count", [2, 3])
def test_several_ranks_are_one(count, case, several):
    server, losses, state, errors = train(case[0], **dict(case[1]))
    for found in several[count]:
        theirs = found[case]
        torch.testing.assert_close(theirs[0], server, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(theirs[1], losses, rtol=1e-4, atol=1e-5)
        assert theirs[2].keys() == state.keys()
        for name, values in state.items():
            torch.testing.assert_close(theirs[2][name], values, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(theirs[3], errors, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(found[case][0], several[count][0][case][0]) for found in several[count])


def test_updates_of_several_devices_meet_on_the_host():
    """An object that was gathered is on its sender's device; what rules see is on one."""
    sent = []

    class Two(Ranks):
        def _all(self, thing):
            sent.append(thing)
            return [thing, dataclasses.replace(thing, clients=thing.clients - 1)]

    there = torch.device("meta")
    updates = Updates(torch.tensor([1]), torch.ones(1, 3), torch.ones(1, 1), 0, 0, {"norm": torch.ones(1, 1)})
    whole = Two(2, 0).gathered(updates)
    assert whole.clients.tolist() == [0, 1]
    assert whole.deltas.shape == (2, 3)
    assert whole.payload["norm"].shape == (2, 1)
    assert sent[0].to(there).deltas.device == sent[0].to(there).payload["norm"].device == there
    assert sent[0].to(there).clients.device == sent[0].deltas.device == torch.device("cpu")


def test_one_rank_changes_and_copies_nothing():
    clients, x = torch.arange(5), torch.randn(3)
    assert Ranks.here() == ALONE
    assert ALONE.mine(clients) is clients
    assert ALONE.total(x) is x
    assert ALONE.spread(clients, clients, x) is x
    assert joined_states(ALONE, {"seen": x}, 3)["seen"] is x


@pytest.mark.parametrize("count", [2, 3, 7])
def test_every_client_lives_somewhere_once(count):
    clients = torch.randperm(20)
    parts = [Ranks(count, rank).mine(clients) for rank in range(count)]
    assert torch.cat(parts).sort().values.tolist() == list(range(20))


def diverging(rank, count, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    built = federation("fedavg", Ranks.here())
    method = parse_method("fedavg", {"lr": 1e30 if rank else 0.1, "local_steps": 4})
    built = dataclasses.replace(
        federation("fedavg", Ranks.here()),
        personaliser=dataclasses.replace(built).personaliser,
        method=method,
    )
    built.personaliser.__dict__["whole"] = method.algorithm.plan(built.data.count("train"), 8)
    server = built.initial_rows()
    before, words = server.clone(), ""
    try:
        for round_ in range(3):
            run_round(built, server, round_, server.sub_)
            before = server.clone()
    except DivergedError as error:
        words = str(error)
    torch.save((words, torch.equal(server, before)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_what_diverges_on_one_rank_ends_on_all_with_the_state_before(tmp_path):
    mp.spawn(diverging, (2, str(tmp_path)), nprocs=2)
    words, others = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert words == others
    assert "client" in words[0]
    assert words[1]


def dying(rank, count, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    built = federation("fedavg", Ranks.here())
    server = built.initial_rows()
    if rank == 1:
        run_round(built, server, 0, server.sub_)
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        for round_ in range(1000):
            run_round(built, server, round_, server.sub_)
    except PersoflError as error:
        Path(folder, "words").write_text(str(error))


def test_a_rank_that_dies_ends_the_others_with_words(tmp_path):
    context = mp.spawn(dying, (2, str(tmp_path)), nprocs=2, join=False)
    began = time.monotonic()
    context.processes[0].join(60)
    assert time.monotonic() - began < 60
    words = (tmp_path / "words").read_text()
    assert "Rank 0 of 2 lost another rank" in words
    assert "--resume" in words
    for process in context.processes:
        process.kill()


class EveryRound(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.save_checkpoint(Path(trainer.default_root_dir, f"{trainer.global_step}.ckpt"))


def disk_full_after(written):
    write, begun = BackgroundCheckpointIO._write, []

    def save(*arguments):
        begun.append(arguments)
        if len(begun) > written:
            raise OSError(28, "No space left on device")
        write(*arguments)

    BackgroundCheckpointIO._write = save


def writing(rank, count, folder, port, written):
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    disk_full_after(written)
    model = build_model("mlp", Shape(24, 6), seed=0, hidden=(5,))
    module = FederatedModule(population(), model, "ditto")
    mark, marks = module.federation.store.state_dict, []
    module.federation.store.state_dict = lambda: marks.append(1) or mark()
    trainer = pl.Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=count,
        max_steps=3,
        default_root_dir=folder,
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[EveryRound()],
        plugins=[BackgroundCheckpointIO()],
    )
    try:
        trainer.fit(module)
        words = "fitted"
    except PersoflError as error:
        words = str(error)
    torch.save((words, len(marks)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("written", [1, 2])  # the next save meets the error, or the fit's end
def test_a_checkpoint_that_rank_0_cannot_write_ends_all_before_they_mark(written, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(writing, (2, str(tmp_path), port, written), nprocs=2)
    words, others = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert words == others
    assert "Rank 0 of 2: OSError: [Errno 28] No space left" in words[0]
    assert "the one before is whole" in words[0]
    assert words[1] == written + 1
    assert torch.load(tmp_path / f"{written}.ckpt", weights_only=True)["global_step"] == written


# --- clients on disk ---------------------------------------------------------------------------------------


def cohort(step):
    generator = torch.Generator().manual_seed(step)
    clients = torch.randperm(12, generator=generator)[:7]
    return clients, torch.randn(7, 5, generator=generator)


def on_disk(rank, count, folder, steps, state):
    """Go on from a state, write some cohorts with a mark after each, and one that no mark follows."""
    if count > 1:
        meet = f"file://{folder}/meet-{steps.start}"
        dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=count)
    store, ranks = DiskStore(12, f"{folder}/clients"), Ranks.here()
    store.join(ranks)
    if state is not None:
        store.load_state_dict(state)
    for step in (*steps, 99):
        clients, values = cohort(step)
        here = torch.isin(clients, ranks.mine(clients))
        store.write(clients[here], {"personal": values[here]})
        store.seen[clients] = True
        if step != 99:
            state = joined_states(ranks, store.state_dict(), 12)
            torch.save(state, f"{folder}/{step}-{rank}.pt")
    store._settle(None)
    if count > 1:
        dist.destroy_process_group()


@pytest.mark.parametrize("counts", [(2, 1), (1, 2), (2, 3, 2)])
def test_processes_share_the_clients_on_disk_and_go_on_in_any_number(counts, tmp_path):
    memory, state, kept = ClientStore(12), None, []
    for number, count in enumerate(counts):
        steps = range(3 * number, 3 * number + 3)
        if count == 1:
            on_disk(0, 1, str(tmp_path), steps, state)
        else:
            mp.spawn(on_disk, (count, str(tmp_path), steps, state), nprocs=count)
        for step in steps:
            clients, values = cohort(step)
            memory.write(clients, {"personal": values})
            then = ClientStore(12)
            then.load_state_dict(memory.state_dict())
            kept.append(then)
        states = [torch.load(tmp_path / f"{steps[-1]}-{rank}.pt", weights_only=True) for rank in range(count)]
        assert all(torch.equal(states[0][name], other[name]) for other in states for name in other)
        state = states[0]
    back = [state, torch.load(tmp_path / f"{steps[-2]}-0.pt", weights_only=True)]
    for then, state in zip(reversed(kept[-2:]), back, strict=True):
        alone = DiskStore(12, tmp_path / "clients")
        alone.load_state_dict(state)
        assert torch.equal(alone.seen, then.seen)
        everyone, nobody = torch.arange(12), {"personal": torch.zeros(12, 5)}
        assert torch.equal(alone.read(everyone, nobody)["personal"], then.read(everyone, nobody)["personal"])
        alone._close()


def test_clients_on_disk_are_for_one_machine(tmp_path):
    with pytest.raises(PersoflError, match=r"one machine, not of 2\. .*num_nodes=1"):
        DiskStore(12, tmp_path).join(Ranks(4, 0), machines=2)


# --- the command -------------------------------------------------------------------------------------------


def command(folder, rounds, devices, *more):
    words = [sys.executable, str(Path(sys.executable).with_name("persofl")), "train", "--method", "ditto"]
    words += ["--data.options", "{clients: 7, days: 40}", "--data.lookback", "24", "--data.horizon", "6"]
    words += ["--training.rounds", str(rounds), "--training.eval_every", "2", "--tracking.dir", str(folder)]
    if devices > 1:
        words += ["--trainer.strategy", "ddp", "--trainer.devices", str(devices)]
    return subprocess.run([*words, *more], capture_output=True, text=True, timeout=300, check=False)


def scores(folder):
    files = sorted((folder / "artifacts").rglob("clients.csv"), key=lambda file: file.stat().st_mtime)
    return pd.read_csv(files[-1], index_col="client")


@pytest.mark.slow
@pytest.mark.parametrize("store", ["memory", "disk"])
def test_the_command_trains_on_two_and_goes_on_with_one_or_two(store, tmp_path):
    whole = command(tmp_path / "whole", 6, 1)
    assert whole.returncode == 0, whole.stderr
    for first, then in ((2, 2), (2, 1), (1, 2)):
        folder = tmp_path / f"{first}{then}"
        for devices, rounds, more in ((first, 4, ()), (then, 6, ("--resume",))):
            done = command(folder, rounds, devices, "--training.store", store, *more)
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("nmae on the test span") == 1
        np.testing.assert_allclose(scores(folder)["nmae"], scores(tmp_path / "whole")["nmae"], rtol=1e-3)


def test_several_devices_need_ddp(tmp_path):
    done = command(tmp_path, 2, 1, "--trainer.devices", "2")
    assert done.returncode == 2
    assert "several devices need ddp" in done.stderr
