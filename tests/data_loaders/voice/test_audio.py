import os

import numpy as np
import pytest
import soundfile

from data_loaders import DataError
from data_loaders.voice.audio import (
    Sound,
    at_peak,
    decode_sound,
    fit_length,
    peak_of,
    read_sound,
    resample,
    to_mono,
)


@pytest.mark.parametrize(
    ("name", "subtype"), [("a.wav", "PCM_16"), ("a.wav", "PCM_24"), ("a.wav", "FLOAT"), ("a.flac", "PCM_16")]
)
def test_reading_gives_back_what_was_written(tmp_path, wav, name, subtype):
    wave = wav(tmp_path / name, subtype=subtype)
    sound = read_sound(tmp_path / name)
    assert sound.rate == 16000
    assert sound.wave.dtype == np.float32
    np.testing.assert_allclose(sound.wave, wave, atol=1 / 32768)


@pytest.mark.parametrize(
    ("rate", "target"), [(16000, 8000), (44100, 8000), (44100, 16000), (48000, 8000), (48000, 16000)]
)
def test_resampling_keeps_a_tone_and_removes_what_does_not_fit(rate, target):
    time, new_time = np.arange(rate) / rate, np.arange(target) / target
    tone = Sound(np.sin(2 * np.pi * 440 * time).astype(np.float32), rate)
    found = resample(tone, target)
    assert found.rate == target
    assert len(found.wave) == target
    inner = slice(target // 10, -target // 10)
    np.testing.assert_allclose(found.wave[inner], np.sin(2 * np.pi * 440 * new_time)[inner], atol=5e-3)
    too_high = Sound(np.sin(2 * np.pi * 0.7 * target * time).astype(np.float32), rate)
    if 0.7 * target < rate / 2:
        assert np.abs(resample(too_high, target).wave[inner]).max() < 0.01


def test_the_same_rate_is_left_alone_and_an_odd_one_refused(refused):
    sound = Sound(np.ones(100, np.float32), 8000)
    assert resample(sound, 8000) is sound
    refused(
        lambda: resample(Sound(sound.wave, 44101), 8000, "x.wav"), "x.wav", "44101", "Check the file's header"
    )


def test_short_waves_get_zeros_behind_and_long_ones_keep_their_middle():
    wave = np.arange(1, 8, dtype=np.float32)
    assert fit_length(wave, 9).tolist() == [1, 2, 3, 4, 5, 6, 7, 0, 0]
    assert fit_length(wave, 3).tolist() == [3, 4, 5]
    assert fit_length(wave, 4).tolist() == [2, 3, 4, 5]
    assert fit_length(wave, 7).tolist() == wave.tolist()


def test_peaks_do_not_count_an_offset():
    wave = 0.2 + 0.1 * np.sin(np.arange(100, dtype=np.float32))
    assert peak_of(wave) == pytest.approx(0.1, rel=0.01)
    assert np.abs(at_peak(wave)).max() == pytest.approx(1)
    assert (at_peak(np.zeros(5, np.float32)) == 0).all()


def test_several_channels_are_refused_or_averaged(tmp_path, wav, refused):
    wave = wav(tmp_path / "two.wav", channels=2)
    sound = read_sound(tmp_path / "two.wav")
    refused(lambda: to_mono(sound, "error", "two.wav"), "two.wav has 2 channels", "stereo='mean'")
    np.testing.assert_allclose(to_mono(sound, "mean", "two.wav").wave, wave.mean(1), atol=1 / 16000)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_file_cut_off_anywhere_is_noticed(tmp_path, wav, refused, suffix):
    path = tmp_path / f"cut.{suffix}"
    wav(path)
    whole = path.read_bytes()
    for length in (len(whole) - 2, len(whole) // 2, 60, 30, 5):
        path.write_bytes(whole[:length])
        refused(lambda: read_sound(path), str(path), "Get the file again")


def test_a_header_written_to_a_pipe_is_not_called_cut_off(tmp_path, wav):
    path = tmp_path / "pipe.wav"
    wav(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff\xff\xff\xff"
    assert len(decode_sound(bytes(content), "pipe.wav").wave) == 16000


def test_what_is_no_sound_is_refused_by_name(tmp_path, refused):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("I am not a sound file, whatever my name says.")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan, 0], np.float32), 8000, subtype="FLOAT")
    refused(lambda: read_sound(tmp_path / "empty.wav"), "empty.wav is empty (0 bytes)", "on_bad='skip'")
    refused(lambda: read_sound(tmp_path / "text.wav"), "text.wav is no sound file")
    refused(lambda: read_sound(tmp_path / "none.wav"), "none.wav holds no sample")
    refused(lambda: read_sound(tmp_path / "nan.wav"), "nan.wav", "not finite at sample 1")
    refused(lambda: read_sound(tmp_path / "absent.wav"), "absent.wav", "No such file")
    refused(lambda: read_sound(tmp_path), str(tmp_path), "Check that it is a file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused_by_name(tmp_path, wav):
    wav(tmp_path / "locked.wav")
    (tmp_path / "locked.wav").chmod(0)
    with pytest.raises(DataError, match=r"locked\.wav: Permission denied.*chmod"):
        read_sound(tmp_path / "locked.wav")


def test_a_file_that_cannot_be_opened_is_refused_by_name(tmp_path, wav, monkeypatch, refused):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    wav(tmp_path / "locked.wav")
    monkeypatch.setattr("pathlib.Path.read_bytes", denied)
    refused(lambda: read_sound(tmp_path / "locked.wav"), "locked.wav: Permission denied", "chmod u+r")
