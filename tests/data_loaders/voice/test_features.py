"""Log-mel against an implementation of its definition in plain numpy, loops and all."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import DataError
from data_loaders.voice import features
from data_loaders.voice.features import LogMel, log_mel, mel_filterbank


def hertz_of_mel(mel, scale):
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def mel_of_hertz(hertz, scale):
    """By bisection of the other direction, so that a wrong inverse shows."""
    low, high = 0.0, 5000.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if hertz_of_mel(middle, scale) < hertz else (low, middle)
    return low


def by_the_definition(clip, config):
    """(samples,) -> (frames, mels), frame by frame, band by band."""
    size, hop = round(config.rate * config.window), round(config.rate * config.hop)
    length = 1
    while length < size:
        length *= 2
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / size) for n in range(size)]
    top = config.rate / 2 if config.fmax is None else config.fmax
    low, high = mel_of_hertz(config.fmin, config.scale), mel_of_hertz(top, config.scale)
    edges = [
        hertz_of_mel(low + (high - low) * i / (config.mels + 1), config.scale) for i in range(config.mels + 2)
    ]
    rows = []
    for start in range(0, len(clip) - size + 1, hop):
        power = np.abs(np.fft.rfft(clip[start : start + size] * window, length)) ** 2 / sum(window) ** 2
        row = []
        for band in range(config.mels):
            left, centre, right = edges[band : band + 3]
            total = 0.0
            for bin_number, value in enumerate(power):
                hertz = bin_number * config.rate / length
                if left < hertz <= centre:
                    total += value * (hertz - left) / (centre - left)
                elif centre < hertz < right:
                    total += value * (right - hertz) / (right - centre)
            row.append(math.log(max(total, config.floor)))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(
    "config",
    [
        LogMel(),
        LogMel(rate=16000, mels=32, scale="slaney"),
        LogMel(rate=8000, window=0.032, hop=0.016, mels=20, fmin=100, fmax=3500),
        LogMel(rate=16000, mels=40, fmin=0, fmax=7600),
    ],
)
def test_it_equals_the_definition(config):
    clips = np.random.default_rng(0).normal(0, 0.1, (3, config.rate // 8))
    found = log_mel(torch.from_numpy(clips).float(), config).numpy()
    expected = np.stack([by_the_definition(clip, config) for clip in clips])
    assert found.shape == (3, config.frames(config.rate // 8), config.mels)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@settings(max_examples=15, deadline=None)
@given(samples=st.integers(200, 900), seed=st.integers(0, 99))
def test_it_equals_the_definition_at_every_length(samples, seed):
    clip = np.random.default_rng(seed).uniform(-1, 1, samples)
    config = LogMel(mels=12)
    found = log_mel(torch.from_numpy(clip)[None].float(), config)[0].numpy()
    np.testing.assert_allclose(found, by_the_definition(clip, config), atol=2e-4)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_a_pure_tone_is_loudest_in_its_own_band(scale):
    config = LogMel(rate=16000, scale=scale)
    low, high = mel_of_hertz(config.fmin, scale), mel_of_hertz(8000, scale)
    for band in (3, 10, 20, 30, 38):
        hertz = hertz_of_mel(low + (high - low) * (band + 1) / (config.mels + 1), scale)
        tone = torch.sin(2 * math.pi * hertz * torch.arange(16000) / 16000)[None]
        assert (log_mel(tone, config).argmax(-1) == band).all(), band


def test_a_sine_has_a_quarter_of_its_amplitude_squared_in_its_bin():
    config = LogMel(rate=8000, window=0.032, mels=10)  # 256 samples: no padding, bins 31.25 Hz apart
    tone = 0.5 * torch.sin(2 * math.pi * 1000 * torch.arange(4000) / 8000)[None]  # bin 32
    weight = mel_filterbank(config)[31:34]  # Hann's neighbours have a quarter of the power each
    expected = np.log((weight * np.array([[1 / 4], [1], [1 / 4]])).sum(0).max() * 0.5**2 / 4)
    assert float(log_mel(tone, config).max()) == pytest.approx(expected, abs=1e-3)


def test_a_gain_shifts_the_logarithm_and_cmvn_takes_it_away():
    clips = torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, (4, 4000))).float()
    loud, quiet = log_mel(clips, LogMel()), log_mel(clips / 10, LogMel())
    torch.testing.assert_close(loud - quiet, torch.full_like(loud, 2 * math.log(10)), atol=1e-3, rtol=0)
    alike = [log_mel(clips * gain, LogMel(cmvn="clip")) for gain in (1, 0.1)]
    torch.testing.assert_close(*alike, atol=1e-3, rtol=0)
    torch.testing.assert_close(alike[0].mean(1), torch.zeros(4, 40), atol=1e-4, rtol=0)
    torch.testing.assert_close(alike[0].std(1, correction=0), torch.ones(4, 40), atol=1e-3, rtol=0)


def test_silence_is_the_floor_and_stays_finite_under_cmvn():
    silence = torch.zeros(2, 8000)
    assert log_mel(silence, LogMel(floor=1e-6)).unique().tolist() == pytest.approx([math.log(1e-6)])
    assert log_mel(silence, LogMel(cmvn="clip")).abs().max() < 1e-3


def test_a_second_has_98_frames_at_either_rate():
    assert LogMel().frames(8000) == LogMel(rate=16000).frames(16000) == 98
    assert LogMel().frames(199) == 0
    assert LogMel().frames(200) == 1


def test_chunks_change_nothing(monkeypatch):
    clips = torch.from_numpy(np.random.default_rng(2).normal(0, 0.1, (7, 2000))).float()
    whole = log_mel(clips, LogMel())
    monkeypatch.setattr(features, "_CELLS_AT_ONCE", 1)
    torch.testing.assert_close(log_mel(clips, LogMel()), whole, rtol=0, atol=1e-4)
    assert log_mel(clips[:0], LogMel()).shape == (0, 23, 40)


def test_the_bands_cover_every_frequency_between_their_ends():
    weights = mel_filterbank(LogMel(rate=16000))
    inner = weights[10:240]  # between the centres of the first and the last band neighbours add up to one
    np.testing.assert_allclose(inner.sum(1), 1, atol=1e-12)
    assert not weights.flags.writeable


def test_all_problems_of_a_configuration_come_in_one_message():
    with pytest.raises(DataError) as caught:
        LogMel(mels=0, hop=-1, fmin=5000, scale="bark", cmvn="speaker")
    assert len(caught.value.problems) == 5
    with pytest.raises(DataError, match="too short for 8000 Hz"):
        LogMel(window=1e-5)
    with pytest.raises(DataError, match=r"leave band \d+ without .* Use fewer bands"):
        LogMel(mels=200)


def test_clips_that_hold_no_frame_are_refused():
    with pytest.raises(DataError, match=r"\(1, 100\) hold no frame: .* at least 200 samples"):
        log_mel(torch.zeros(1, 100), LogMel())
    with pytest.raises(DataError, match="hold no frame"):
        log_mel(torch.zeros(8000), LogMel())
