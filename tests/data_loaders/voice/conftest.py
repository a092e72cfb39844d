import io

import numpy as np
import pytest
import soundfile

from data_loaders import DataError


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("PERSOFL_NO_CACHE", "1")


@pytest.fixture
def wav():
    """Write a tone in a little noise as a WAV, all of it a function of the seed; return its samples."""

    def write(path, seed=0, seconds=1.0, rate=16000, channels=1, gain=0.3, **options):
        time = np.arange(round(seconds * rate)) / rate
        random = np.random.default_rng(seed)
        wave = gain * np.sin(2 * np.pi * (300 + 50 * (seed % 40)) * time) + gain * 0.1 * random.normal(
            size=len(time)
        )
        wave = wave if channels == 1 else np.stack([wave] * channels, 1) * np.linspace(1, 0.5, channels)
        if not isinstance(path, io.BytesIO):
            path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, rate, subtype=options.pop("subtype", "PCM_16"), **options)
        return wave

    return write


@pytest.fixture
def refused():
    """Call something that must raise a DataError whose message holds all the words."""

    def check(call, *words):
        with pytest.raises(DataError) as caught:
            call()
        missing = [word for word in words if word not in str(caught.value)]
        assert not missing, f"{missing} not in: {caught.value}"
        return caught.value

    return check
