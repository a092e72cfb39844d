"""Checkpoints written in the background: what they hold, their order, and what happens when one fails."""

import threading

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.io import TorchCheckpointIO

from persofl.checkpoints import BackgroundCheckpointIO


@pytest.fixture
def slow(monkeypatch):
    """Writing waits until it is let go."""
    gate, write = threading.Event(), TorchCheckpointIO.save_checkpoint

    def save(self, checkpoint, path, storage_options=None):
        assert gate.wait(20)
        write(self, checkpoint, path, storage_options)

    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", save)
    return gate


def test_a_checkpoint_holds_the_moment_it_was_asked_for(slow, tmp_path):
    io, weights = BackgroundCheckpointIO(), torch.zeros(3)
    io.save_checkpoint({"weights": weights, "parts": [{"deep": weights}], "round": 1}, tmp_path / "a.ckpt")
    weights.add_(5)
    assert not (tmp_path / "a.ckpt").exists()
    slow.set()
    found = io.load_checkpoint(tmp_path / "a.ckpt")
    assert found["round"] == 1
    assert not found["weights"].any()
    assert not found["parts"][0]["deep"].any()
    io.teardown()


def test_the_next_waits_for_the_one_before(slow, tmp_path):
    io, path = BackgroundCheckpointIO(), tmp_path / "a.ckpt"
    io.save_checkpoint({"round": 1}, path)
    threading.Timer(0.2, slow.set).start()
    io.save_checkpoint({"round": 2}, path)
    assert slow.is_set()
    assert path.exists()
    io.teardown()
    assert torch.load(path)["round"] == 2
    io.save_checkpoint({"round": 3}, path)  # a trainer may fit again
    io.remove_checkpoint(path)
    assert not path.exists()
    io.teardown()


@pytest.mark.parametrize("then", ["save", "teardown", "load"])
def test_an_error_is_raised_by_what_comes_next_and_spoils_nothing(then, tmp_path, monkeypatch):
    io, path = BackgroundCheckpointIO(), tmp_path / "a.ckpt"
    io.save_checkpoint({"round": 1}, path)
    io.settle()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(TorchCheckpointIO, "save_checkpoint", full)
        io.save_checkpoint({"round": 2}, path)
        with pytest.raises(OSError, match="No space left"):
            {
                "save": lambda: io.save_checkpoint({"round": 3}, path),
                "teardown": io.teardown,
                "load": lambda: io.load_checkpoint(path),
            }[then]()
    assert io.load_checkpoint(path)["round"] == 1
    io.teardown()
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoint") and t.is_alive()]


class EveryRound(Callback):
    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, *_):
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


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


def test_a_run_that_fails_still_has_its_last_one(slow, module, tmp_path, trainer):
    class Breaks(EveryRound):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 1:
                slow.set()
                raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        trainer(3, callbacks=[Breaks(tmp_path)], plugins=[BackgroundCheckpointIO()]).fit(module("ditto"))
    assert torch.load(tmp_path / "1.ckpt", weights_only=True)["global_step"] == 1


def test_clients_are_marked_after_the_one_before_is_on_file(module, tmp_path, trainer, monkeypatch):
    """A store on disk could not go back to a file two marks behind."""
    writer, seen = BackgroundCheckpointIO(), []
    built = module("ditto")
    mark = built.federation.store.state_dict

    def marked():
        seen.append(writer._pending is None)
        return mark()

    monkeypatch.setattr(built.federation.store, "state_dict", marked)
    trainer(3, callbacks=[EveryRound(tmp_path)], plugins=[writer]).fit(built)
    assert len(seen) >= 3
    assert all(seen)
