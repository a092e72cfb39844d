import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from data_loaders import build_source

METADATA = "metadata = {'ann': {'gender': 'female', 'accent': 'USA/neutral'}, 'bob': {'gender': 'male'}}\n"


@pytest.fixture
def recordings(tmp_path, wav):
    """The published layout: 2 speakers, 2 digits, utterances 3 to 6 of lengths that differ."""
    for digit in (0, 7):
        for speaker in ("ann", "bob"):
            for number in range(3, 7):
                path = tmp_path / "recordings" / f"{digit}_{speaker}_{number}.wav"
                seed = 100 * digit + 10 * len(speaker) * ord(speaker[0]) + number
                wav(path, seed, seconds=0.1 * number, rate=8000, gain=0.01 * number)
    (tmp_path / "metadata.py").write_text(METADATA)
    return tmp_path


def load(root, **options):
    return build_source("fsdd", root=str(root), **options).load()


def test_the_published_files(recordings):
    samples = load(recordings, seconds=0.5, features="wave")
    assert samples.clients == ("ann", "bob")
    assert samples.classes == ("0", "7")
    assert samples.inputs.shape == (16, 4000, 1)
    assert samples.official.tolist() == [2, 2, 0, 0] * 4
    assert samples.attributes["gender"].tolist() == ["female", "male"]
    assert samples.attributes["accent"].isna().tolist() == [False, True]
    assert (samples.inputs[0, 2400:] == 0).all()
    peaks = samples.inputs.abs().amax((1, 2)).reshape(4, 4)
    torch.testing.assert_close(peaks[:, :3], torch.ones(4, 3))
    assert (peaks[:, 3] > 0.8).all()  # the peak may lie in what was cut off
    rules = "; ".join(samples.rules)
    assert "(8 of 16), longer ones keep their middle (4)" in rules
    assert "utterances 0 to 4" in rules


def test_levels_may_stay_as_recorded(recordings):
    samples = load(recordings, level="none", features="wave")
    assert samples.inputs.abs().max() < 0.1


def test_digits_choose_the_classes(recordings, refused):
    assert load(recordings, digits=("7",)).classes == ("7",)
    refused(lambda: load(recordings, digits=("7", "3")), "no recording of 3; it has 0, 7")
    refused(lambda: load(recordings, digits=("x",)), "There is no keyword 'x'")


def test_the_prepared_recordings_equal_the_files(recordings, tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    (root / "audio").mkdir()
    rows = []
    for speaker in ("ann", "bob"):
        waves, start = [], 0
        for digit in (0, 7):
            for number in range(3, 7):
                wave, _ = soundfile.read(
                    recordings / "recordings" / f"{digit}_{speaker}_{number}.wav", dtype="int16"
                )
                rows.append((speaker, digit, number, start, len(wave)))
                start += len(wave)
                waves.append(wave)
        soundfile.write(root / "audio" / f"{speaker}.flac", np.concatenate(waves), 8000)
    columns = ["client", "label", "utterance", "start_sample", "n_samples"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "manifest.csv.gz", index=False)
    prepared, published = load(root), load(recordings)
    assert prepared.fingerprint() == published.fingerprint()
    torch.testing.assert_close(prepared.official, published.official)


def test_metadata_is_parsed_and_never_run(recordings, refused, tmp_path):
    marker = tmp_path / "ran"
    path = recordings / "metadata.py"
    path.write_text(f"open({str(marker)!r}, 'w')\n{METADATA}")
    assert load(recordings).attributes["gender"].tolist() == ["female", "male"]
    path.write_text(f"metadata = {{'ann': {{'gender': open({str(marker)!r}, 'w')}}}}\n")
    refused(
        lambda: load(recordings), "metadata.py does not hold metadata = {speaker: {...}", "Get the file again"
    )
    assert not marker.exists()
    for text in ("metadata = {", "other = 1", "metadata = [1]", "metadata = {'ann': 3}"):
        path.write_text(text)
        refused(lambda: load(recordings), "metadata.py does not hold")
    path.unlink()
    assert load(recordings).attributes.shape == (2, 0)


def test_files_that_do_not_belong_are_named(recordings, wav, refused):
    wav(recordings / "recordings" / "10_ann_1.wav")
    refused(lambda: load(recordings), "10_ann_1.wav is not named <digit>_<speaker>_<number>.wav")
    (recordings / "recordings" / "10_ann_1.wav").unlink()
    (recordings / "recordings" / "0_ann_3.wav").write_bytes(b"")
    refused(lambda: load(recordings), "0_ann_3.wav is empty")
    refused(lambda: load(recordings / "recordings"), "neither manifest.csv.gz", "nor a folder 'recordings'")
    refused(lambda: load(recordings, rate=16000, on_bad="skip"), "No clip of source 'fsdd'", "Use rate=8000")


def test_the_real_recordings(shared_data):
    samples = load(shared_data / "voice" / "fsdd")
    assert len(samples) == 6
    assert samples.lengths.tolist() == [500] * 6
    assert samples.targets.bincount().tolist() == [300] * 10
    assert samples.official.bincount().tolist() == [2700, 0, 300]
    assert samples.attributes["gender"].tolist() == ["male"] * 6
    assert samples.attributes["accent"].iloc[0] == "GRC/Greek"


def test_the_real_files_equal_the_prepared_ones(shared_data):
    raw = load(shared_data / "raw_samples" / "fsdd")
    prepared = load(shared_data / "voice" / "fsdd", digits=("0", "7"))
    assert raw.clients == prepared.clients
    assert raw.attributes["accent"].tolist() == prepared.attributes["accent"].tolist()
    first = prepared.inputs.unflatten(0, (6, 2, 50))[:, :, 0].flatten(0, 1)
    torch.testing.assert_close(raw.inputs, first, atol=0.01, rtol=0)  # rounding in batches, near the floor
