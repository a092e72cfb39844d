"""Clients on disk: the same as in memory, back to either of two checkpoints, whole after a kill, and what is refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persofl import FederatedModule, PersoflError, build_model
from persofl.checkpoints import BackgroundCheckpointIO
from persofl.diskstore import ABOUT, DiskStore
from persofl.models import Shape
from persofl.store import ClientStore

WIDTHS = {"personal": 7, "mix": 1}


def rows(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, width, generator=generator) for name, width in WIDTHS.items()}


def contents(store):
    everyone = torch.arange(len(store.seen))
    return store.read(everyone, {name: torch.zeros(len(everyone), width) for name, width in WIDTHS.items()})


def same(one, other):
    assert torch.equal(one.seen, other.seen)
    for name, values in contents(one).items():
        assert torch.equal(values, contents(other)[name]), name


@given(
    cohorts=st.lists(
        st.tuples(st.sets(st.integers(0, 11), min_size=1, max_size=6), st.booleans()), max_size=8
    )
)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_is_the_store_in_memory(tmp_path_factory, cohorts):
    memory, disk = ClientStore(12), DiskStore(12, tmp_path_factory.mktemp("clients"))
    for number, (cohort, marked) in enumerate(cohorts):
        clients = torch.tensor(sorted(cohort))
        state = rows(len(clients), number)
        memory.write(clients, state)
        disk.write(clients, state)
        if marked:
            disk.state_dict()
        newcomers = rows(len(clients), 99)
        for name, values in memory.read(clients, newcomers).items():
            assert torch.equal(disk.read(clients, newcomers)[name], values)
    same(disk, memory)


def history(folder, steps):
    """A store after every step of a run, as memory stores, with the states that a checkpoint would hold."""
    disk, memory, kept = DiskStore(10, folder), ClientStore(10), []
    for step in range(steps):
        clients = torch.randperm(10, generator=torch.Generator().manual_seed(step))[:4]
        disk.write(clients, rows(4, step))
        memory.write(clients, rows(4, step))
        copy = ClientStore(10)
        copy.load_state_dict(memory.state_dict())
        kept.append((disk.state_dict(), copy))
    return disk, kept


@pytest.mark.parametrize("back", [1, 2])
def test_it_goes_back_to_either_of_the_last_two_checkpoints(back, tmp_path):
    disk, kept = history(tmp_path, 5)
    disk.write(torch.tensor([0, 3, 9]), rows(3, 77))  # after the last checkpoint, and lost with the run
    disk._settle(None)
    state, then = kept[-back]
    again = DiskStore(10, tmp_path)
    again.load_state_dict(state)
    same(again, then)
    again.write(torch.tensor([5]), rows(1, 5))
    then.write(torch.tensor([5]), rows(1, 5))
    same(again, then)
    later = again.state_dict()
    third = DiskStore(10, tmp_path)
    third.load_state_dict(later)
    same(third, then)


def test_a_run_may_die_again_and_again_before_its_next_checkpoint(tmp_path):
    _, kept = history(tmp_path, 3)
    state, then = kept[-1]
    for seed in range(4):
        again = DiskStore(10, tmp_path)
        again.load_state_dict(state)
        same(again, then)
        again.write(torch.arange(10), rows(10, 100 + seed))
        again._settle(None)


def test_an_undo_entry_that_was_cut_off_is_left_alone(tmp_path):
    disk, kept = history(tmp_path, 2)
    disk.write(torch.tensor([1, 2]), rows(2, 50))
    disk._settle(None)
    log = max(tmp_path.glob("undo-*-0.log"), key=lambda file: file.stem)
    with log.open("ab") as file:
        file.write(b"\x01\x00\x00\x00")
    again = DiskStore(10, tmp_path)
    again.load_state_dict(kept[-1][0])
    same(again, kept[-1][1])


def test_checkpoints_without_a_round_between_them_are_one_moment(tmp_path):
    disk, _ = history(tmp_path, 1)
    assert disk.state_dict()["generation"] == disk.state_dict()["generation"]


def test_a_checkpoint_holds_no_rows(tmp_path):
    _, kept = history(tmp_path, 2)
    assert set(kept[-1][0]) == {"seen", "disk", "generation"}


def test_rows_of_a_checkpoint_in_memory_are_taken_over(tmp_path):
    memory = ClientStore(10)
    memory.write(torch.tensor([2, 7]), rows(2))
    disk = DiskStore(10, tmp_path)
    disk.load_state_dict(memory.state_dict())
    same(disk, memory)


def test_what_does_not_belong_together_is_refused(tmp_path):
    _, kept = history(tmp_path / "one", 5)
    _, other = history(tmp_path / "two", 2)
    with pytest.raises(PersoflError, match=r"holds the clients of another run\. Go on"):
        DiskStore(10, tmp_path / "one").write(torch.tensor([0]), rows(1))
    with pytest.raises(PersoflError, match="clients of another run than the checkpoint's"):
        DiskStore(10, tmp_path / "one").load_state_dict(other[-1][0])
    with pytest.raises(PersoflError, match="has none: give the one of its run"):
        DiskStore(10, tmp_path / "three").load_state_dict(kept[-1][0])
    with pytest.raises(PersoflError, match="gone on beyond the checkpoint"):
        DiskStore(10, tmp_path / "one").load_state_dict(kept[0][0])
    with pytest.raises(PersoflError, match="10 clients, the data 11"):
        DiskStore(11, tmp_path / "one").load_state_dict(kept[-1][0])
    with pytest.raises(PersoflError, match="keeps its clients in a folder"):
        ClientStore(10).load_state_dict(kept[-1][0])


def test_a_full_disk_is_told_and_the_checkpoint_stays(tmp_path, monkeypatch):
    disk, kept = history(tmp_path, 2)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        disk.write(torch.tensor([1]), rows(1, 9))
        with pytest.raises(
            PersoflError, match=r"could not be written.*No space left.*last checkpoint is as it was"
        ):
            disk.read(torch.tensor([1]), rows(1))
    again = DiskStore(10, tmp_path)
    again.load_state_dict(kept[-1][0])
    same(again, kept[-1][1])


def test_half_an_undo_entry_is_taken_back_and_the_store_waits_for_a_checkpoint(tmp_path, monkeypatch):
    disk, kept = history(tmp_path, 2)
    write = os.write

    def short(file, content):
        write(file, bytes(content)[:11])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", short)
        disk.write(torch.tensor([1, 4]), rows(2, 9))
        with pytest.raises(PersoflError, match="could not be written"):
            disk._settle(None)
    assert all(log.stat().st_size == 0 for log in tmp_path.glob(f"undo-{disk.generation}-0.log"))
    for call in (lambda: disk.write(torch.tensor([2]), rows(1)), disk.state_dict):
        with pytest.raises(PersoflError, match="go on from it"):
            call()
    disk.load_state_dict(kept[-1][0])
    same(disk, kept[-1][1])
    disk.write(torch.tensor([1, 4]), rows(2, 9))
    kept[-1][1].write(torch.tensor([1, 4]), rows(2, 9))
    same(disk, kept[-1][1])


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="asks /proc for the name of an open file")
def test_what_a_log_saves_is_on_the_disk_before_it_is_written_over(tmp_path, monkeypatch):
    store = DiskStore(20, tmp_path)
    store.write(torch.arange(8), rows(8))
    store.state_dict()
    happened, sync, write = [], os.fsync, DiskStore._write
    monkeypatch.setattr(
        os, "fsync", lambda file: (happened.append(os.readlink(f"/proc/self/fd/{file}")), sync(file))
    )
    monkeypatch.setattr(DiskStore, "_write", lambda *given: (happened.append("rows"), write(*given)))
    store.write(torch.arange(4, 12), rows(8, 1))
    store.read(torch.arange(4, 12), rows(8))
    assert "undo-" in happened[0]
    assert happened[1:] == ["rows"] * len(store.columns)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="asks /proc for the name of an open file")
def test_what_was_written_back_is_on_the_disk_before_its_log_goes(tmp_path, monkeypatch):
    disk, kept = history(tmp_path, 3)
    disk.write(torch.arange(5), rows(5, 9))
    disk._close()
    happened, sync, write, begin = [], os.fsync, DiskStore._write, DiskStore._next
    monkeypatch.setattr(
        os, "fsync", lambda file: (happened.append(os.readlink(f"/proc/self/fd/{file}")), sync(file))
    )
    monkeypatch.setattr(DiskStore, "_write", lambda *given: (happened.append("rows"), write(*given)))
    monkeypatch.setattr(DiskStore, "_next", lambda *given: (happened.append("log"), begin(*given)))
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda *given, **how: (happened.append("log"), unlink(*given, **how)))
    DiskStore(10, tmp_path).load_state_dict(kept[-2][0])
    written, gone = len(happened) - happened[::-1].index("rows"), happened.index("log")
    assert [Path(name).suffix for name in happened[written:gone]] == [".f32"] * len(disk.columns)


def test_a_damaged_log_is_named(tmp_path):
    disk, kept = history(tmp_path, 2)
    disk.write(torch.tensor([1]), rows(1, 9))
    disk._settle(None)
    log = tmp_path / f"undo-{disk.generation}-0.log"
    log.write_bytes(b"\xff" * log.stat().st_size)
    with pytest.raises(PersoflError, match=r"undo-.*is damaged: it names client -1 of 10"):
        DiskStore(10, tmp_path).load_state_dict(kept[-1][0])


# --- in a run ----------------------------------------------------------------------------------------------


def module(data, store=None, method="ditto"):
    model = build_model("mlp", Shape(*data.shape[:2]), seed=0, hidden=(5,))
    return FederatedModule(data, model, method, store=store)


def fit(built, steps, checkpoint=None, **options):
    trainer = pl.Trainer(
        **options,
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(built, ckpt_path=checkpoint)
    return trainer


@pytest.mark.parametrize("method", ["ditto", "apfl", "gate"])
def test_a_run_on_disk_is_the_run_in_memory_and_resumes_equal(method, population, tmp_path):
    clients = len(population)
    memory = module(population, method=method)
    fit(memory, 5)
    disk = module(population, DiskStore(clients, tmp_path / "clients"), method)
    fit(disk, 3).save_checkpoint(tmp_path / "half.ckpt")
    fit(disk, 5)  # goes on, so that the folder is ahead of the checkpoint
    rest = module(population, DiskStore(clients, tmp_path / "clients"), method)
    fit(rest, 5, tmp_path / "half.ckpt")
    assert torch.equal(rest.server, memory.server)
    for name, values in memory.federation.store.rows.items():
        found = rest.federation.store.read(torch.arange(clients), {name: torch.zeros_like(values)})
        assert torch.equal(found[name], values)


@pytest.mark.parametrize("background", [False, True])
def test_checkpoints_that_fail_in_a_row_leave_the_way_back(background, population, tmp_path, monkeypatch):
    clients = len(population)
    built = module(population, DiskStore(clients, tmp_path / "clients"))
    last = tmp_path / "last.ckpt"
    fit(built, 3).save_checkpoint(last)
    wanted = module(population)
    fit(wanted, 7)

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.save_checkpoint(last)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        for _ in range(3):
            with pytest.raises((OSError, RuntimeError), match="No space left"):
                fit(built, 20, callbacks=[Save()], plugins=[BackgroundCheckpointIO()] if background else [])
    rest = module(population, DiskStore(clients, tmp_path / "clients"))
    fit(rest, 7, last)
    assert torch.equal(rest.server, wanted.server)


KILLED = """
import sys
from pathlib import Path
import pytorch_lightning as pl
from data_loaders import SimulatedHouseholds, WindowSpec, make_windows
from persofl import FederatedModule, build_model
from persofl.diskstore import DiskStore
from persofl.models import Shape
folder = Path(sys.argv[1])
data = make_windows(SimulatedHouseholds(clients=8, days=30).load(), WindowSpec(lookback=24, horizon=6))

class Save(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step % 4 == 0:
            trainer.save_checkpoint(folder / "new.ckpt")
            (folder / "new.ckpt").rename(folder / "last.ckpt")

model = build_model("mlp", Shape(*data.shape[:2]), seed=0, hidden=(5,))
built = FederatedModule(data, model, "ditto", store=DiskStore(8, folder / "clients"))
last = folder / "last.ckpt"
trainer = pl.Trainer(max_steps=int(sys.argv[2]), max_epochs=-1, accelerator="cpu", logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    callbacks=[Save()])
trainer.fit(built, ckpt_path=str(last) if last.exists() else None)
import torch
rows = built.federation.store.read(torch.arange(8), {"personal": torch.zeros(8, built.server.shape[1])})
torch.save([built.server.detach(), rows["personal"]], folder / "end.pt")
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_as_if_it_had_not_been(tmp_path):
    def start(name, rounds):
        (tmp_path / name).mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / name), str(rounds)], cwd=Path.cwd()
        )

    assert start("whole", 40).wait() == 0
    for _ in range(2):
        run = start("killed", 4000)
        before = (
            (tmp_path / "killed" / "last.ckpt").stat().st_mtime
            if (tmp_path / "killed" / "last.ckpt").exists()
            else 0
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            last = tmp_path / "killed" / "last.ckpt"
            if last.exists() and last.stat().st_mtime > before:
                break
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert start("killed", 40).wait() == 0 or (tmp_path / "killed" / "end.pt").exists()
    step = torch.load(tmp_path / "killed" / "last.ckpt", weights_only=True)["global_step"]
    if step > 40:
        pytest.skip(f"the machine was quicker than the kill: {step} rounds")
    for one, other in zip(
        *(torch.load(tmp_path / name / "end.pt") for name in ("whole", "killed")), strict=True
    ):
        assert torch.equal(one, other)


def test_the_folder_says_what_it_is(tmp_path):
    history(tmp_path, 1)
    assert "population" in (tmp_path / ABOUT).read_text()
