"""Runs are reproducible to the bit, stopped and resumed or not, and what goes wrong loses nothing."""

import logging
import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from persofl import (
    ALGORITHMS,
    APFL,
    Ditto,
    DivergedError,
    FedAdam,
    FedAvg,
    FineTune,
    Local,
    PersoflError,
    Shape,
    build_model,
)
from persofl.checkpoints import BackgroundCheckpointIO

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*")
METHODS = [*sorted(ALGORITHMS), "ditto+prox_by_distance", "apfl+mix_by_distance"]


def state(built):
    """Everything that a run leaves: the server's row, the clients', and what the server optimiser remembers."""
    tensors = {"server": built.server.detach().clone(), **built.federation.store.state_dict()}
    optimizer = built.optimizers(use_pl_optimizer=False)
    for memory in optimizer.state_dict()["state"].values():
        tensors |= {f"optimizer.{name}": torch.as_tensor(value).clone() for name, value in memory.items()}
    return tensors


def assert_bit_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# --- the same again -------------------------------------------------------------------------------------


def test_the_same_run_twice_is_the_same_to_the_bit(module, trainer):
    states = []
    for seed in (0, 1):  # of generators that the run must not read
        torch.manual_seed(seed)
        built = module("ditto")
        trainer(3).fit(built)
        states.append(state(built))
    assert_bit_equal(*states)


def test_validating_does_not_change_the_run(module, trainer):
    plain, watched = module("finetune"), module("finetune")
    trainer(4).fit(plain)
    trainer(4, val_check_interval=1).fit(watched)
    assert_bit_equal(state(plain), state(watched))


# --- checkpoints -------------------------------------------------------------------------------------------


def every_round(folder, **options):
    return ModelCheckpoint(dirpath=folder, filename="{step}", every_n_train_steps=1, **options)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_resumed_ends_as_one_that_was_not(method, module, tmp_path, trainer):
    whole, half, rest = module(method), module(method), module(method)
    trainer(5).fit(whole)
    trainer(2, callbacks=[every_round(tmp_path)]).fit(half)
    runner = trainer(5)
    runner.fit(rest, ckpt_path=tmp_path / "step=2.ckpt", weights_only=True)
    assert runner.global_step == 5
    assert_bit_equal(state(rest), state(whole))


def test_settings_younger_than_a_checkpoint_were_at_their_defaults(module, tmp_path, trainer):
    runner = trainer(1, callbacks=[every_round(tmp_path)])
    runner.fit(module("ditto"))
    checkpoint = torch.load(tmp_path / "step=1.ckpt", weights_only=True)
    del checkpoint["method"]["params"]["precision"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        module("ditto").on_load_checkpoint(checkpoint)
    with pytest.warns(UserWarning, match=r"precision='bfloat16' \(was 'float32'\)"):
        module("ditto", precision="bfloat16").on_load_checkpoint(checkpoint)


def test_a_checkpoint_needs_no_pickle(module, tmp_path, trainer):
    runner = trainer(2, callbacks=[every_round(tmp_path)])
    runner.fit(module("apfl+mix_by_distance"))
    checkpoint = torch.load(tmp_path / "step=2.ckpt", weights_only=True)
    assert checkpoint["method"]["name"] == "apfl+mix_by_distance"
    assert checkpoint["method"]["params"]["mix_by_distance.tau"] == 1.0
    assert checkpoint["clients"]["rows.personal"].shape[0] == 6
    assert checkpoint["global_step"] == 2


SCRIPT = """
import sys, time, pytorch_lightning as pl, torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from data_loaders import SimulatedHouseholds, WindowSpec, make_windows
from persofl import FederatedModule, RoundConfig, Shape, build_model, parse_method

folder, method, resume = sys.argv[1:4]
torch.set_num_threads(1)

class Tell(Callback):
    def on_train_batch_end(self, trainer, *rest):
        print(trainer.global_step, flush=True)
        if resume == "never":
            time.sleep(0.05)

series = SimulatedHouseholds(clients=5, days=20, min_days=10, seed=3).load()
data = make_windows(series, WindowSpec(lookback=24, horizon=6))
model = build_model("mlp", Shape(24, 6), hidden=(8,))
config = RoundConfig(batch_size=8, cohort=0.6)
module = FederatedModule(data, model, parse_method(method, {"local_steps": 3}), config=config)
keep = ModelCheckpoint(dirpath=folder, every_n_train_steps=1, save_last=True)
trainer = pl.Trainer(max_steps=30, callbacks=[Tell(), keep], logger=False, accelerator="cpu",
                     enable_progress_bar=False, enable_model_summary=False)
trainer.fit(module, ckpt_path=resume if resume.endswith(".ckpt") else None)
optimizer = module.optimizers(use_pl_optimizer=False).state_dict()["state"]
torch.save([module.server.detach(), module.federation.store.state_dict(), optimizer], folder + "/end.pt")
"""


def flatten(nested):
    if isinstance(nested, torch.Tensor):
        return [nested]
    items = nested.values() if isinstance(nested, dict) else nested
    return [tensor for item in items for tensor in flatten(item)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedadam", "apfl"])
def test_a_run_killed_and_resumed_ends_as_one_that_was_not(method, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}

    def command(folder, resume):
        return [sys.executable, "-W", "ignore", str(script), str(folder), method, str(resume)]

    victim = subprocess.Popen(command(killed, "never"), env=environment, stdout=subprocess.PIPE, text=True)
    try:
        for line in victim.stdout:
            if line.strip() == "11":
                break
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        victim.stdout.close()
    assert victim.returncode == -signal.SIGKILL
    assert not (killed / "end.pt").exists()
    last = killed / "last.ckpt"
    assert 10 <= torch.load(last, weights_only=True)["global_step"] < 30
    for folder, resume in ((killed, last), (whole, "no")):
        subprocess.run(command(folder, resume), env=environment, check=True, capture_output=True, timeout=300)
    one, other = (flatten(torch.load(folder / "end.pt", weights_only=True)) for folder in (killed, whole))
    assert len(one) == len(other)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def saved(trainer, built, folder, rounds=1):
    trainer(rounds, callbacks=[every_round(folder)]).fit(built)
    return folder / f"step={rounds}.ckpt"


def test_a_checkpoint_of_another_method_is_refused(module, tmp_path, trainer):
    path = saved(trainer, module("fedavg"), tmp_path)
    with pytest.raises(PersoflError, match=r"The checkpoint is of method 'fedavg', this run of 'ditto'\."):
        trainer(2).fit(module("ditto"), ckpt_path=path, weights_only=True)


def test_a_checkpoint_of_another_population_is_refused(module, twins, tmp_path, trainer):
    path = saved(trainer, module("ditto"), tmp_path)
    with pytest.raises(PersoflError, match="The checkpoint holds 6 clients, the data 3"):
        trainer(2).fit(module("ditto", twins), ckpt_path=path, weights_only=True)


def test_a_checkpoint_of_another_model_is_refused(module, tmp_path, trainer):
    path = saved(trainer, module("ditto"), tmp_path)
    other = module("ditto", model=build_model("mlp", Shape(24, 6), hidden=(9,)))
    with pytest.raises(PersoflError, match=r"parameters"):
        trainer(2).fit(other, ckpt_path=path, weights_only=True)


def test_a_checkpoint_of_something_else_is_refused(module, tmp_path, trainer):
    class Other(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def training_step(self, batch, _):
            return self.layer(batch).sum()

    runner = trainer(1, callbacks=[every_round(tmp_path)])
    runner.fit(Other(), torch.utils.data.DataLoader(torch.ones(2, 1)))
    with pytest.raises(PersoflError, match="no checkpoint of a federation"):
        trainer(2).fit(module("fedavg"), ckpt_path=tmp_path / "step=1.ckpt", weights_only=True)


def test_a_broken_checkpoint_is_refused_and_named(module, tmp_path, trainer):
    path = saved(trainer, module("fedavg"), tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(Exception, match=r"(?i)zip|corrupt|pytorchstream|central directory"):
        trainer(2).fit(module("fedavg"), ckpt_path=path, weights_only=True)


def test_metrics_do_not_outlive_the_models_they_judge(module, tmp_path, trainer):
    built = module("fedavg")
    path = saved(trainer, built, tmp_path)
    first = built.client_table("test")
    trainer(4).fit(built, ckpt_path=path, weights_only=True)
    later = built.client_table("test")
    assert not later.equals(first)
    trainer(1).validate(built, ckpt_path=path, weights_only=True, verbose=False)
    pd.testing.assert_frame_equal(built.client_table("test"), first)


# --- divergence --------------------------------------------------------------------------------------------


class Poisoned:
    """Data of which one client's targets are missing while something holds, wherever they are."""

    def __init__(self, data, client, when):
        self.data, self.client, self.when = data, client, when

    def __len__(self):
        return len(self.data)

    def __getattr__(self, name):
        return getattr(self.__dict__["data"], name)

    def to(self, device):
        return Poisoned(self.data.to(device), self.client, self.when)

    def gather(self, positions):
        x, y = self.data.gather(positions)
        begin, end = self.data.series.offsets[self.client : self.client + 2].tolist()
        own = (positions >= begin) & (positions < end)
        return x, torch.where(own.unsqueeze(-1), torch.nan, y) if self.when() else y


@pytest.mark.parametrize("method", [FedAvg, Local, Ditto, APFL, FedAdam])
def test_a_loss_that_is_nan_names_client_and_round_and_loses_nothing(
    method, module, population, tmp_path, trainer
):
    """The data of one client turn bad in the third round."""
    built = module(method(local_steps=3), cohort=1.0)
    poisoned = Poisoned(population, 4, lambda: built.global_step == 2)
    object.__setattr__(built.federation, "data", poisoned)
    object.__setattr__(built.federation.bench, "data", poisoned)
    runner = trainer(5, callbacks=[every_round(tmp_path)])
    with pytest.raises(DivergedError, match="client 'house00004' became nan in round 2") as error:
        runner.fit(built)
    assert (error.value.client, error.value.round) == ("house00004", 2)
    assert math.isnan(error.value.loss)
    good = module(method(local_steps=3), cohort=1.0)
    trainer(2).fit(good)
    assert torch.equal(built.server, good.server)
    assert_bit_equal(built.federation.store.state_dict(), good.federation.store.state_dict())
    checkpoint = torch.load(tmp_path / "step=2.ckpt", weights_only=True)
    assert torch.equal(checkpoint["state_dict"]["server"], good.server)
    assert not (tmp_path / "step=3.ckpt").exists()


@pytest.mark.parametrize("method", [FedAvg, Local, Ditto, APFL])
def test_weights_that_end_infinite_after_a_finite_loss_are_refused(method, module, trainer):
    """One step of an endless rate: the loss before it is fine."""
    built = module(method(lr=math.inf, local_steps=1))
    before = built.server.detach().clone()
    with pytest.raises(
        DivergedError, match=r"weights of client 'house0000\d', whose loss was .*lower the learning rate"
    ):
        trainer(1).fit(built)
    assert torch.equal(built.server, before)
    assert not built.federation.store.seen.any()


def test_a_client_whose_finetuning_diverges_does_not_drop_out_of_the_mean_unseen(module, trainer):
    built = module(FineTune(local_steps=2, personal_lr=1e30, personal_steps=3))
    with pytest.raises(DivergedError, match=r"house0000\d.* in round 0\. Phase 'finetune', lr=0.1: lower"):
        built.client_table("test")
    with pytest.raises(DivergedError):
        trainer(1).validate(built, verbose=False)


def test_other_settings_are_told_when_a_run_goes_on(module, tmp_path, trainer):
    first, second = module(FedAvg(lr=0.1)), module(FedAvg(lr=0.05))
    runner = trainer(1)
    runner.fit(first)
    runner.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match=r"lr=0\.05 \(was 0\.1\)"):
        trainer(2).fit(second, ckpt_path=tmp_path / "last.ckpt", weights_only=True)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="asks /proc for the name of an open file")
def test_a_checkpoints_name_is_on_the_disk_when_it_is_written(tmp_path, monkeypatch):
    """Clients on disk then drop the way back to the one before, which a crash of the machine must not bring back."""
    synced, sync = [], os.fsync

    def syncs(file):
        sync(file)
        synced.append((os.readlink(f"/proc/self/fd/{file}"), (tmp_path / "last.ckpt").exists()))

    monkeypatch.setattr(os, "fsync", syncs)
    BackgroundCheckpointIO().save_checkpoint({"round": 1}, tmp_path / "last.ckpt")
    assert synced == [(str(tmp_path / "last.ckpt.new"), False), (str(tmp_path), True)]
