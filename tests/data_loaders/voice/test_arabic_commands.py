import gzip
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from data_loaders import build_source
from data_loaders.voice.arabic_commands import KEYWORDS
from data_loaders.voice.tree import sound_files

WORDS = ("zero", "yes", "zoom in")
SPLIT = {"00000001": "train", "00000004": "test", "00000007": "val"}


@pytest.fixture
def tree(tmp_path, wav):
    """The published layout: 3 speakers, 3 keywords, 2 rounds."""
    for word in WORDS:
        for speaker in SPLIT:
            for number in (1, 2):
                seed = 100 * int(speaker) + 10 * WORDS.index(word) + number
                wav(tmp_path / "dataset" / word / f"{speaker}_NO_{number:02d}.wav", seed, seconds=0.3)
    wav(tmp_path / "dataset" / "background_noise" / "street.wav", 999)
    for part in ("train", "val", "test"):
        rows = [f"dataset/yes/{speaker}_NO_01.wav,yes" for speaker, own in SPLIT.items() if own == part]
        (tmp_path / f"{part}.csv").write_text("\n".join(["file,class", *rows]))
    return tmp_path


@pytest.fixture
def prepared(tmp_path, wav):
    """The prepared layout: 2 speakers, 2 keywords, 2 utterances, 8 kHz."""
    rows = []
    (tmp_path / "audio").mkdir()
    for client in ("00000001", "00000002"):
        waves = [wav(tmp_path / "x.wav", int(client) + 10 * n, 0.3, 8000) for n in range(4)]
        soundfile.write(tmp_path / "audio" / f"{client}.flac", np.concatenate(waves), 8000)
        for n, label in enumerate(("no", "no", "yes", "yes")):
            rows.append((client, label, n % 2 + 1, 2400 * n, 2400, 9000))
    (tmp_path / "x.wav").unlink()
    columns = ["client", "label", "utterance", "start_sample", "n_samples", "peak"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "manifest.csv.gz", index=False)
    (tmp_path / "speakers.csv").write_text(
        "client,f0_median_hz,official_split,pitch_group_proxy,noise_group\n"
        "00000001,131.1,train,low,quiet\n00000002,222.2,val,high,noisy\n"
    )
    return tmp_path


def load(root, **options):
    return build_source("arabic_commands", root=str(root), **options).load()


def test_the_published_tree(tree):
    samples = load(tree, seconds=0.3)
    assert samples.clients == tuple(SPLIT)
    assert samples.classes == WORDS
    assert samples.inputs.shape == (18, 28, 40)
    assert samples.targets.tolist() == [0, 0, 1, 1, 2, 2] * 3
    assert samples.attributes["official_split"].tolist() == ["train", "test", "validation"]
    assert samples.official is None
    assert samples.groups.unique().numel() == 18
    assert any("18 recordings from 16000 to 8000 Hz" in rule for rule in samples.rules)


def test_a_folder_on_top_as_in_the_archive_is_found(tree, tmp_path_factory):
    top = tmp_path_factory.mktemp("fetched")
    shutil.copytree(tree, top / "arabic-speech-commands-dataset-72f34382")
    assert load(top).fingerprint() == load(tree).fingerprint()
    assert load(top).attributes.equals(load(tree).attributes)


def test_keywords_choose_and_order_the_classes(tree):
    samples = load(tree, keywords=("zoom in", "zero"))
    assert samples.classes == ("zoom in", "zero")
    assert samples.lengths.tolist() == [4, 4, 4]
    torch.testing.assert_close(samples.inputs[:2], load(tree).inputs[4:6])


def test_the_prepared_recordings(prepared):
    samples = load(prepared, features="wave", seconds=0.3)
    assert samples.clients == ("00000001", "00000002")
    assert samples.classes == ("yes", "no")
    wave, _ = soundfile.read(prepared / "audio" / "00000002.flac", dtype="float32")
    np.testing.assert_array_equal(samples.inputs[4:, :, 0], wave.reshape(4, 2400)[[2, 3, 0, 1]])
    assert samples.attributes["f0_median_hz"].tolist() == [131.1, 222.2]
    assert samples.attributes["official_split"].tolist() == ["train", "validation"]


def test_stray_files_are_named(tree, wav, refused):
    wav(tree / "dataset" / "yes" / ".hidden.wav")
    assert len(load(tree)) == 3
    wav(tree / "dataset" / "yes" / "1_NO_1.wav")
    refused(lambda: load(tree), "1_NO_1.wav is not named <keyword>/<8 digits>_NO_<2 digits>.wav", "Rename")


def test_bad_files_are_named_or_left_out(tree, wav, refused):
    bad = tree / "dataset" / "yes" / "00000004_NO_02.wav"
    bad.write_bytes(bad.read_bytes()[:500])
    refused(lambda: load(tree), "yes/00000004_NO_02.wav is cut off")
    samples = load(tree, on_bad="skip")
    assert samples.lengths.tolist() == [6, 5, 6]
    assert any("on_bad: 1 files left out" in rule and str(bad) in rule for rule in samples.rules)
    wav(bad, channels=2)
    refused(lambda: load(tree), "00000004_NO_02.wav has 2 channels", "stereo='mean'")
    assert load(tree, stereo="mean").lengths.tolist() == [6, 6, 6]
    wav(bad, rate=44100)
    assert any("1 recordings from 44100 to 8000 Hz, ratio 80/441" in rule for rule in load(tree).rules)


def test_tables_that_contradict_each_other_are_refused(tree, refused):
    (tree / "val.csv").write_text("file,class\ndataset/yes/00000001_NO_01.wav,yes\n")
    refused(lambda: load(tree), "Speaker 00000001 is in val.csv and in the train part")
    (tree / "val.csv").write_text("path,class\nx,yes\n")
    refused(lambda: load(tree), "val.csv has no column 'file'; it has path, class")
    (tree / "val.csv").write_text("file,class\ndataset/yes/somebody.wav,yes\n")
    refused(lambda: load(tree), "'dataset/yes/somebody.wav' names no speaker")


def test_a_tree_without_tables_has_no_official_split(tree):
    for part in ("train", "val", "test"):
        (tree / f"{part}.csv").unlink()
    assert load(tree).attributes["official_split"].isna().all()


def rewrite(prepared, change):
    path = prepared / "manifest.csv.gz"
    change(pd.read_csv(path, dtype={"client": str})).to_csv(path, index=False)


def test_a_manifest_that_lies_is_refused(prepared, refused):
    rewrite(prepared, lambda table: table.assign(n_samples=table["n_samples"].replace(2400, 2401)))
    refused(lambda: load(prepared), "00000001.flac, utterance 2 of 'yes'", "samples 7200 to 9601", "has 9600")
    rewrite(prepared, lambda table: table.assign(n_samples=["2400"] * 3 + ["x"] + ["2400"] * 4))
    refused(lambda: load(prepared), "manifest.csv.gz, row 5: n_samples must be a count, got 'x'")
    rewrite(prepared, lambda table: table.assign(n_samples=2400, utterance=1))
    refused(lambda: load(prepared), "lists utterance 1 of 'no' by client '00000001' twice")
    rewrite(prepared, lambda table: table.rename(columns={"label": "word"}))
    refused(lambda: load(prepared), "lacks the columns label; it has client, word")


def test_a_damaged_manifest_or_recording_is_named(prepared, refused):
    path = prepared / "manifest.csv.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    refused(lambda: load(prepared), "Cannot read the table", "manifest.csv.gz")
    path.write_bytes(gzip.compress(b""))
    refused(lambda: load(prepared), "Cannot read the table", "manifest.csv.gz")
    path.write_bytes(whole)
    speakers = prepared / "speakers.csv"
    speakers.write_text(speakers.read_text() + "00000002,1,train,low,quiet\n")
    refused(lambda: load(prepared), "speakers.csv lists client '00000002' twice")
    speakers.unlink()
    assert load(prepared).attributes.shape == (2, 0)
    (prepared / "audio" / "00000002.flac").unlink()
    refused(lambda: load(prepared), "Cannot read", "00000002.flac")
    assert load(prepared, clients=1).clients == ("00000001",)


def test_wrong_places_and_options_say_what_to_do(tmp_path, tree, refused):
    (tmp_path / "elsewhere").mkdir()
    refused(lambda: load(tmp_path / "elsewhere"), "neither manifest.csv.gz", "nor a folder 'dataset'")
    (tmp_path / "hollow" / "dataset").mkdir(parents=True)
    refused(lambda: load(tmp_path / "hollow"), "holds no recording")
    refused(lambda: load(tree, keywords=("yes", "no")), "no recording of no; it has yes, zero, zoom in")
    error = refused(
        lambda: load(tree, keywords=("yess", "yes", "yes"), mels=0),
        "There is no keyword 'yess'. Did you mean",
    )
    assert len(error.problems) == 3


@pytest.fixture
def real(shared_data):
    return shared_data / "voice" / "arabic_speech_commands"


def test_the_real_recordings(real):
    samples = load(real, clients=4)
    assert samples.lengths.tolist() == [200] * 4
    assert set(samples.classes) < set(KEYWORDS)
    assert len(samples.classes) == 20
    assert samples.targets.reshape(4, 200).sort(1).values[0].bincount().tolist() == [10] * 20
    assert samples.attributes["pitch_group_proxy"].tolist() == ["low", "low", "low", "high"]
    assert any("0 takes equal" in rule for rule in samples.rules)
    assert samples.inputs.isfinite().all()


def test_the_real_tree_holds_the_same_recordings(real, shared_data):
    options = {"keywords": ("yes", "no", "zero", "up"), "features": "wave"}
    raw = load(shared_data / "raw_samples" / "arabic_speech_commands", **options)
    prepared = load(real, clients=4, **options)
    assert raw.clients == ("00000001", "00000004")
    assert raw.attributes["official_split"].tolist() == ["train", "test"]
    assert prepared.attributes["official_split"].iloc[[0, 3]].tolist() == ["train", "test"]
    for mine, theirs in ((0, 0), (1, 3)):
        first = prepared.inputs[prepared.rows(theirs)].reshape(4, 10, 8000)[:, 0]
        # the prepared ones were scaled by 32767 / 32768 and rounded
        torch.testing.assert_close(raw.inputs[raw.rows(mine), :, 0], first, atol=2 / 32768, rtol=0)


def test_a_folder_that_cannot_be_read_is_named(tree, monkeypatch, refused):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    found = sound_files(tree / "dataset", re.compile(".*"), "anything")
    monkeypatch.setattr("os.scandir", denied)
    refused(
        lambda: list(found), f"Cannot read the folder {tree / 'dataset'}: Permission denied", "chmod u+rx"
    )
