"""Voice sources with what comes after them: the cache, splits and unseen speakers."""

import json

import numpy as np
import pytest
import torch

from data_loaders import SampleSpec, build_source, make_examples
from data_loaders.partition import HoldOut
from data_loaders.voice.audiomnist import META


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("PERSOFL_NO_CACHE")
    monkeypatch.setenv("PERSOFL_DATA", str(tmp_path / "home"))
    return tmp_path / "files"


def digits(root, wav, speakers=("ann", "bob"), takes=10):
    for speaker in speakers:
        for digit in range(3):
            for number in range(takes):
                seed = sum(map(ord, speaker)) + 100 * digit + number
                wav(root / "recordings" / f"{digit}_{speaker}_{number}.wav", seed, 0.3, 8000)
    return build_source("fsdd", root=str(root), seconds=0.3)


def test_the_cache_gives_back_what_was_read(home, wav, monkeypatch):
    for speaker in ("01", "02"):
        for number in range(3):
            wav(home / "data" / speaker / f"5_{speaker}_{number}.wav", 10 * int(speaker) + number, 0.3, 48000)
    record = {"age": "1234", "recordingdate": "17-06-22-11-04-28", "gender": "male"}
    (home / "data" / META).write_text(json.dumps({"01": record, "02": record | {"age": 30}}))
    source = build_source("audiomnist", root=str(home))
    first = source.load()
    monkeypatch.setattr(type(source), "_read", lambda *_: pytest.fail("read twice"))
    again = source.load()
    assert again.fingerprint() == first.fingerprint()
    assert again.rules == first.rules
    assert again.attributes.equals(first.attributes)
    assert again.groups.tolist() == first.groups.tolist()


def test_another_option_or_file_reads_anew(home, wav):
    source = digits(home, wav)
    assert len(source.load()) == 2
    assert build_source("fsdd", root=str(home), seconds=0.2).load().inputs.shape[1] == 18
    wav(home / "recordings" / "0_cid_0.wav", 7, 0.3, 8000)
    assert len(source.load()) == 3


def test_the_official_split_is_taken_and_copies_stay_on_one_side(tmp_path, wav):
    source = digits(tmp_path, wav)
    copied = (tmp_path / "recordings" / "0_ann_7.wav").read_bytes()
    (tmp_path / "recordings" / "0_ann_2.wav").write_bytes(copied)  # a test take is a copy of a training one
    samples = source.load()
    assert samples.official[[2, 7]].tolist() == [2, 2]
    examples = make_examples(samples, SampleSpec())
    counts = {span: examples.count(span).tolist() for span in ("train", "validation", "test")}
    assert counts["test"] == [16, 15]
    assert np.sum([*counts.values()], 0).tolist() == [30, 30]
    assert min(counts["validation"]) > 0


def test_speakers_of_the_published_test_part_can_be_held_out():
    samples = build_source("speakers", clients=5, takes=1).load()
    held = HoldOut(by="official_split", values=("validation", "test"))(samples)
    assert held.attributes["unseen"].tolist() == [False, False, False, True, True]
    examples = make_examples(build_source("speakers", clients=3, takes=5).load(), SampleSpec())
    x, y = examples.gather(examples.positions("train", torch.arange(3), torch.arange(4).repeat(3, 1)))
    assert x.shape == (3, 4, 98, 40)
    assert y.shape == (3, 4, 1)
