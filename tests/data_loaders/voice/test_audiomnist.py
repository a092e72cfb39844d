import json

import pandas as pd
import pytest
import torch

from data_loaders import build_source
from data_loaders.voice.audiomnist import META, read_meta

RECORD = {
    "accent": "German",
    "age": "26",
    "gender": "female",
    "native speaker": "no",
    "origin": "Europe, Germany, Berlin",
    "recordingdate": "17-07-19-17-05-31",
    "recordingroom": "Kino",
}


@pytest.fixture
def tree(tmp_path, wav):
    """The published layout: 2 speakers, 2 digits, 2 takes at 48 kHz."""
    for speaker in ("01", "12"):
        for digit in (0, 9):
            for number in range(2):
                seed = 100 * int(speaker) + 10 * digit + number
                wav(
                    tmp_path / "data" / speaker / f"{digit}_{speaker}_{number}.wav",
                    seed,
                    0.6,
                    48000,
                    gain=0.01,
                )
    (tmp_path / "data" / META).write_text(json.dumps({"01": RECORD | {"age": 30}, "12": RECORD}))
    return tmp_path


def load(root, **options):
    return build_source("audiomnist", root=str(root), **options).load()


def test_the_published_tree(tree):
    samples = load(tree)
    assert samples.clients == ("01", "12")
    assert samples.classes == ("0", "9")
    assert samples.targets.tolist() == [0, 0, 1, 1] * 2
    assert samples.inputs.shape == (8, 98, 40)
    assert samples.attributes["age"].tolist() == [30, 26]
    rules = "; ".join(samples.rules)
    assert "8 recordings from 48000 to 8000 Hz, ratio 1/6" in rules
    assert "zeros at their end (8 of 8)" in rules
    assert load(tree, rate=16000, features="wave").inputs.shape == (8, 16000, 1)
    assert load(tree, digits=("9",), clients=1).targets.tolist() == [0, 0]


def test_the_data_folder_itself_will_do(tree):
    torch.testing.assert_close(load(tree / "data").inputs, load(tree).inputs)


def test_the_real_metadata_are_cleaned(shared_data):
    table, rules = read_meta(shared_data / "raw_samples" / "audiomnist" / "audioMNIST_meta_excerpt.txt")
    assert table.index.tolist() == ["01", "12", "32", "45", "52", "60"]
    assert table["age"].tolist()[:3] == [30, 26, 23]
    assert table["age"].isna().tolist() == [False, False, False, True, False, False]
    assert table["accent"].tolist() == ["german", "german", "egyptian american", "german", "french", "tamil"]
    assert table["room"].tolist() == ["kino", "kino", *["vr-room"] * 4]
    assert table["native_speaker"].tolist() == ["no"] * 5 + ["yes"]
    assert table.loc["60", ["continent", "country"]].tolist() == ["asia", "india"]
    assert table.loc["01", "recorded"] == pd.Timestamp("2017-06-22 11:04:28")
    assert rules[0] == "age: 1 that are no number from 1 to 120 are missing (45: '1234')"


@pytest.mark.parametrize("age", [0, -3, "young", "1234", "nan", "inf", [30], ""])
def test_impossible_ages_are_missing_and_named(tmp_path, age):
    (tmp_path / META).write_text(json.dumps({"07": RECORD | {"age": age}, "08": RECORD}))
    table, rules = read_meta(tmp_path / META)
    assert table["age"].isna().tolist() == [True, False]
    assert f"(07: {age!r})" in rules[0]


def test_facts_left_out_are_missing(tmp_path):
    (tmp_path / META).write_text(json.dumps({"07": {"recordingdate": "yesterday"}, "08": RECORD}))
    table, _ = read_meta(tmp_path / META)
    assert table.loc["07"].isna().all()
    assert table.loc["08"].notna().all()


def test_metadata_that_cannot_be_read_are_refused(tree, refused):
    path = tree / "data" / META
    path.write_text('{"01": {')
    refused(lambda: load(tree), f"{META} is no JSON", "Get the file again")
    path.write_text('{"01": {"age": 1}, "01": {"age": 2}}')
    refused(lambda: load(tree), f"{META}: '01' is there twice", "Delete one")
    path.write_text('[{"age": 1}]')
    refused(lambda: load(tree), "must be an object of one object a speaker")
    path.write_bytes(b"\xff\xff")
    refused(lambda: load(tree), f"{META} is no JSON")
    path.unlink()
    assert load(tree).attributes.shape == (2, 0)
    assert any(f"there is no {META}" in rule for rule in load(tree).rules)


def test_files_in_the_wrong_place_are_named(tree, wav, refused):
    stray = tree / "data" / "01" / "3_12_0.wav"
    wav(stray)
    refused(lambda: load(tree), "3_12_0.wav lies in the folder of speaker 01 and names 12")
    stray.unlink()
    wav(tree / "data" / "01" / "03.wav")
    refused(lambda: load(tree), "03.wav is not named <speaker>/<digit>_<speaker>_<number>.wav")
    (tree / "data" / "01" / "03.wav").write_bytes(b"")
    (tree / "data" / "01" / "03.wav").rename(tree / "data" / "01" / "3_01_1.wav")
    refused(lambda: load(tree), "3_01_1.wav is empty")
    (tree / "nothing").mkdir()
    refused(lambda: load(tree / "nothing"), "neither a folder 'data'")
    refused(lambda: load(tree / "absent"), "no file or folder")
