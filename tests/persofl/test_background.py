"""Checkpoints written in the background: what they hold, their order, and what happens when one fails."""

import os
import signal
import subprocess
import sys
import threading
from collections import OrderedDict, deque, namedtuple

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.plugins.io.wrapper import _WrappingCheckpointIO

from persofl import FederatedModule, Shape, build_model
from persofl.checkpoints import BackgroundCheckpointIO, settle_together
from persofl.diskstore import DiskStore
from persofl.ranks import ALONE


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """Trainers that are told no folder write into the current one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def slow(monkeypatch):
    """Writing waits until it is let go."""
    gate, write = threading.Event(), BackgroundCheckpointIO._write

    def save(self, checkpoint, path, storage_options=None):
        assert gate.wait(20)
        write(self, checkpoint, path, storage_options)

    monkeypatch.setattr(BackgroundCheckpointIO, "_write", save)
    return gate


@pytest.fixture
def io():
    """A writer in the middle of a fit."""
    io = BackgroundCheckpointIO()
    io.start()
    yield io
    io.teardown()
    assert not writing_threads()


def writing_threads():
    return [t for t in threading.enumerate() if t.name.startswith("checkpoint") and t.is_alive()]


def full(*_):
    raise OSError(28, "No space left on device")


@pytest.fixture
def full_after(monkeypatch):
    """Make the disk full once so many checkpoints are on it."""

    def after(count):
        write, begun = BackgroundCheckpointIO._write, []

        def save(*arguments):
            begun.append(arguments)
            (write if len(begun) <= count else full)(*arguments)

        monkeypatch.setattr(BackgroundCheckpointIO, "_write", save)

    return after


def test_a_checkpoint_holds_the_moment_it_was_asked_for(slow, io, tmp_path):
    weights = torch.zeros(3)
    io.save_checkpoint({"weights": weights, "parts": [{"deep": weights}], "round": 1}, tmp_path / "a.ckpt")
    weights.add_(5)
    assert not (tmp_path / "a.ckpt").exists()
    slow.set()
    found = io.load_checkpoint(tmp_path / "a.ckpt")
    assert found["round"] == 1
    assert not found["weights"].any()
    assert not found["parts"][0]["deep"].any()


Best = namedtuple("Best", "rows score")


class Memory:
    """Any object that a callback may keep."""

    def __init__(self):
        self.seen = [1]


def test_so_does_all_that_is_no_tensor(slow, io, tmp_path):
    array, last, names, best, memory = np.zeros(3), deque([1], 5), {"a"}, Best(torch.zeros(2), [1]), Memory()
    things = {"array": array, "last": last, "names": names, "best": best, "memory": memory}
    io.save_checkpoint(things, tmp_path / "a.ckpt")
    array += 1
    last.append(2)
    names.add("b")
    best.rows.add_(1)
    best.score.append(2)
    memory.seen.append(2)
    slow.set()
    found = io.load_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    assert not found["array"].any()
    assert found["last"] == deque([1])
    assert found["last"].maxlen == 5
    assert found["names"] == {"a"}
    assert type(found["best"]) is Best
    assert not found["best"].rows.any()
    assert found["best"].score == [1]
    assert found["memory"].seen == [1]


def test_the_file_is_that_of_the_plugin_that_writes_at_once(io, tmp_path):
    """Types, a state's versions and shared storage, which is written once."""
    state = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 20_000)).state_dict()
    things = {"state": state, "again": OrderedDict(state), "view": state["1.weight"][:5]}
    TorchCheckpointIO().save_checkpoint(things, tmp_path / "plain.ckpt")
    io.save_checkpoint(things, tmp_path / "a.ckpt")
    found = io.load_checkpoint(tmp_path / "a.ckpt")
    assert type(found["state"]) is OrderedDict
    assert found["state"]._metadata == state._metadata
    assert found["view"].data_ptr() == found["state"]["1.weight"].data_ptr()
    sizes = [(tmp_path / name).stat().st_size for name in ("a.ckpt", "plain.ckpt")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_what_cannot_be_copied_is_written_at_once(io, tmp_path):
    loss = torch.ones(2, requires_grad=True) * 2
    io.save_checkpoint({"loss": loss}, tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").exists()
    assert torch.equal(torch.load(tmp_path / "a.ckpt")["loss"], loss)


def test_the_next_waits_for_the_one_before(slow, io, tmp_path):
    path = tmp_path / "a.ckpt"
    io.save_checkpoint({"round": 1}, path)
    threading.Timer(0.2, slow.set).start()
    io.save_checkpoint({"round": 2}, path)
    assert slow.is_set()
    assert path.exists()
    io.teardown()
    assert torch.load(path)["round"] == 2
    io.start()  # a trainer may fit again
    io.save_checkpoint({"round": 3}, path)
    io.remove_checkpoint(path)
    assert not path.exists()


def test_where_writing_failed_the_older_one_stays_and_the_error_is_for_all(io, tmp_path, monkeypatch):
    old, new = tmp_path / "old.ckpt", tmp_path / "new.ckpt"
    io.save_checkpoint({"round": 1}, old)
    io.settle()
    with monkeypatch.context() as patched:
        patched.setattr(BackgroundCheckpointIO, "_write", full)
        io.save_checkpoint({"round": 2}, new)
        io.remove_checkpoint(old)
    assert torch.load(old)["round"] == 1
    with pytest.raises(OSError, match="No space left"):
        settle_together(io, ALONE)
    io.remove_checkpoint(old)
    assert not old.exists()


@pytest.mark.parametrize("then", ["save", "teardown", "load"])
def test_an_error_is_raised_by_what_comes_next_and_spoils_nothing(then, io, tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    io.save_checkpoint({"round": 1}, path)
    io.settle()
    with monkeypatch.context() as patched:
        patched.setattr(BackgroundCheckpointIO, "_write", full)
        io.save_checkpoint({"round": 2}, path)
        with pytest.raises(OSError, match="No space left"):
            {
                "save": lambda: io.save_checkpoint({"round": 3}, path),
                "teardown": io.teardown,
                "load": lambda: io.load_checkpoint(path),
            }[then]()
    assert io.load_checkpoint(path)["round"] == 1


@pytest.fixture
def interruptible():
    """Ctrl-C interrupts, though a test run in the background was told to ignore it, and Lightning ignores it afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_soon():
    main = threading.main_thread().ident
    threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()


@pytest.fixture
def slowly_full(monkeypatch):
    """Writing waits until it is let go, and fails."""
    gate = threading.Event()

    def save(*_):
        assert gate.wait(20)
        full()

    monkeypatch.setattr(BackgroundCheckpointIO, "_write", save)
    return gate


@pytest.mark.usefixtures("interruptible")
def test_who_is_interrupted_while_waiting_still_hears_of_the_error(slowly_full, io, tmp_path):
    io.save_checkpoint({"round": 1}, tmp_path / "a.ckpt")
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        io.settle()
    slowly_full.set()
    with pytest.raises(OSError, match="No space left"):
        io.settle()
    io.settle()  # said once


def test_what_no_teardown_told_is_told_when_the_process_ends(tmp_path):
    code = (
        "from persofl.checkpoints import BackgroundCheckpointIO\n"
        "from persofl.checkpoints import BackgroundCheckpointIO\n"
        "def full(*_): raise OSError(28, 'No space left on device')\n"
        "BackgroundCheckpointIO._write = full\n"
        "io = BackgroundCheckpointIO()\n"
        "io.start()\n"
        "io.save_checkpoint({}, 'a.ckpt')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120, env=os.environ
    )
    assert "No space left" in done.stderr


# --- in a run ----------------------------------------------------------------------------------------------


class EveryRound(Callback):
    def __init__(self, folder, name="{}.ckpt"):
        self.folder, self.name = folder, name

    def on_train_batch_end(self, trainer, *_):
        trainer.save_checkpoint(self.folder / self.name.format(trainer.global_step))


def saved(writer, content, path):
    writer.save_checkpoint(content, path)
    writer.settle()


@pytest.mark.parametrize("fitting", [False, True])
def test_a_file_is_whole_or_as_it_was(fitting, io, tmp_path, monkeypatch):
    """Cut off in the middle: what is in its place is the older one, and nothing lies beside it."""
    writer = io if fitting else BackgroundCheckpointIO()
    path = tmp_path / "last.ckpt"
    saved(writer, {"round": 1}, path)
    save = torch.save

    def cut_off(content, file):
        save(content, file)
        file.truncate(20)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", cut_off)
        with pytest.raises(OSError, match="No space left"):
            saved(writer, {"round": 2}, path)
    assert torch.load(path, weights_only=True) == {"round": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_link_to_the_last_one_finds_it(module, tmp_path, trainer):
    keep = ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1, save_last="link"
    )
    trainer(3, callbacks=[keep], plugins=[BackgroundCheckpointIO()]).fit(module("ditto"))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


@pytest.mark.parametrize("method", ["ditto", "apfl+mix_by_distance", "fedadam"])
def test_a_run_goes_on_from_any_of_them_as_if_nothing_had_been(method, module, tmp_path, trainer):
    whole = module(method)
    writer = BackgroundCheckpointIO()
    trainer(4, callbacks=[EveryRound(tmp_path)], plugins=[writer]).fit(whole)
    assert writer._writer is None
    for round_ in (1, 3):
        rest = module(method)
        trainer(4).fit(rest, ckpt_path=tmp_path / f"{round_}.ckpt", weights_only=True)
        assert torch.equal(rest.server, whole.server)
        for name, rows in whole.federation.store.state_dict().items():
            assert torch.equal(rest.federation.store.state_dict()[name], rows)


def test_rounds_go_on_while_one_is_written(slow, module, tmp_path, trainer):
    class Watch(EveryRound):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 1:
                assert not (self.folder / "1.ckpt").exists()
                slow.set()

    trainer(2, callbacks=[Watch(tmp_path)], plugins=[BackgroundCheckpointIO()]).fit(module("ditto"))
    assert (tmp_path / "1.ckpt").exists()
    assert (tmp_path / "2.ckpt").exists()


def test_a_run_that_fails_still_has_its_last_one(slow, module, tmp_path, trainer):
    class Breaks(EveryRound):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 1:
                slow.set()
                raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        trainer(3, callbacks=[Breaks(tmp_path)], plugins=[BackgroundCheckpointIO()]).fit(module("ditto"))
    assert torch.load(tmp_path / "1.ckpt", weights_only=True)["global_step"] == 1


@pytest.mark.parametrize("wrapped", [False, True])
def test_outside_of_a_fit_it_is_there_at_once_or_the_error_is(
    wrapped, module, tmp_path, trainer, monkeypatch
):
    writer = BackgroundCheckpointIO()
    fitted = trainer(1, plugins=[_WrappingCheckpointIO(writer) if wrapped else writer])
    fitted.fit(module("ditto"))
    fitted.save_checkpoint(tmp_path / "a.ckpt")
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["global_step"] == 1
    assert not writing_threads()
    monkeypatch.setattr(BackgroundCheckpointIO, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        fitted.save_checkpoint(tmp_path / "b.ckpt")


def on_disk(population, folder):
    model = build_model("mlp", Shape(*population.shape[:2]), seed=0, hidden=(5,))
    store = None if folder is None else DiskStore(len(population), folder)
    return FederatedModule(population, model, "ditto", store=store)


@pytest.mark.parametrize("written", [2, 4])  # the next save meets the error, or the fit's end
def test_a_full_disk_ends_the_run_which_goes_on_from_the_one_before(
    written, population, tmp_path, trainer, full_after
):
    whole = on_disk(population, None)
    trainer(5).fit(whole)
    full_after(written)
    saves = {"callbacks": [EveryRound(tmp_path, "last.ckpt")], "enable_checkpointing": False}
    broken = trainer(5, plugins=[BackgroundCheckpointIO()], **saves)
    with pytest.raises(OSError, match="No space left"):
        broken.fit(on_disk(population, tmp_path / "clients"))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == written
    rest = on_disk(population, tmp_path / "clients")
    trainer(5).fit(rest, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(rest.server, whole.server)
    for name, rows in whole.federation.store.rows.items():
        found = rest.federation.store.read(torch.arange(len(population)), {name: torch.zeros_like(rows)})
        assert torch.equal(found[name], rows)


@pytest.mark.usefixtures("interruptible")
def test_a_run_interrupted_while_it_waits_still_tells_the_error(slowly_full, module, tmp_path, trainer):
    class Interrupted(EveryRound):
        def on_train_batch_end(self, trainer, *arguments):
            if trainer.global_step == 2:
                interrupt_soon()
            super().on_train_batch_end(trainer, *arguments)

        def on_exception(self, *_):
            slowly_full.set()

    with pytest.raises(OSError, match="No space left"):
        trainer(3, callbacks=[Interrupted(tmp_path)], plugins=[BackgroundCheckpointIO()]).fit(module("ditto"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_clients_are_marked_after_the_one_before_is_on_file(wrapped, module, tmp_path, trainer, monkeypatch):
    """A store on disk could not go back to a file two marks behind."""
    writer, seen = BackgroundCheckpointIO(), []
    built = module("ditto")
    mark = built.federation.store.state_dict

    def marked():
        seen.append(writer._pending is None)
        return mark()

    monkeypatch.setattr(built.federation.store, "state_dict", marked)
    if wrapped:
        writer.start()  # which nobody does for a writer that nobody tears down
    plugin = _WrappingCheckpointIO(writer) if wrapped else writer
    trainer(3, callbacks=[EveryRound(tmp_path)], plugins=[plugin]).fit(built)
    assert len(seen) >= 3
    assert all(seen)
    writer.teardown()
