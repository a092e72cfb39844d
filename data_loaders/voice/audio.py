"""Sound files and waves: reading what libsndfile reads, one channel, other rates, one length, one level."""

import io
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from ..runs import Floats

Stereo = Literal["error", "mean"]
_LARGEST_RATIO = 1000  # 44.1 to 8 kHz is 80 / 441


@dataclass(frozen=True, eq=False)
class Sound:
    """What a file holds.

    Args:
        wave: ``(samples,)`` mono, or ``(samples, channels)``; float32, full scale is 1.
        rate: samples a second.
    """

    wave: Floats
    rate: int


def read_sound(path: Path) -> Sound:
    """Return a WAV, FLAC or OGG file's samples.

    Raises:
        DataError: unreadable, empty, no sound file, cut off, or not finite; names the file and the remedy.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"Cannot read {path}: {error.strerror or error}. Check that it is a file and that you may read it "
            f"(chmod u+r)."
        ) from error
    return decode_sound(content, str(path))


def decode_sound(content: bytes, where: str) -> Sound:
    """Return the samples of a sound file's bytes; see :func:`read_sound`.

    Args:
        content: of the file.
        where: its name, for messages.
    """
    if not content:
        raise DataError(f"{where} is empty (0 bytes). {_AGAIN}")
    lacking = _missing_bytes(content)
    if lacking:
        raise DataError(f"{where} is cut off: its header promises {lacking} bytes more. {_AGAIN}")
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            wave, rate, promised = file.read(dtype="float32"), int(file.samplerate), int(file.frames)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise DataError(
            f"{where} is no sound file that can be read (WAV, FLAC or OGG): {error}. {_AGAIN}"
        ) from error
    if len(wave) != promised:
        raise DataError(f"{where} is cut off: {len(wave)} of {promised} samples can be read. {_AGAIN}")
    if not len(wave):
        raise DataError(f"{where} holds no sample. {_AGAIN}")
    if not np.isfinite(wave).all():
        at = int(np.flatnonzero(~np.isfinite(wave.reshape(len(wave), -1)).all(axis=1))[0])
        raise DataError(f"{where} holds a value that is not finite at sample {at}. {_AGAIN}")
    return Sound(wave, rate)


_AGAIN = "Get the file again or delete it, or leave such files out with on_bad='skip'."
_STREAMED = (0, 0xFFFFFFFF)  # lengths that a writer to a pipe leaves in a header


def _missing_bytes(content: bytes) -> int:
    """Return how many bytes a WAV's data chunk lacks; libsndfile reads what is there and says nothing."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return 0
    at = 12
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        if content[at : at + 4] == b"data":
            return 0 if size in _STREAMED else max(0, at + 8 + size - len(content))
        at += 8 + size + size % 2
    return 0


def to_mono(sound: Sound, stereo: Stereo, where: str) -> Sound:
    """Return one channel: the only one, or the mean of several where ``stereo`` says so.

    Raises:
        DataError: several channels and ``stereo="error"``.
    """
    if sound.wave.ndim == 1:
        return sound
    if stereo == "error":
        raise DataError(
            f"{where} has {sound.wave.shape[1]} channels; mono is needed. Take their mean with stereo='mean', or "
            "convert the file."
        )
    return Sound(sound.wave.mean(axis=1, dtype=np.float32), sound.rate)


def resample(sound: Sound, rate: int, where: str = "a clip") -> Sound:
    """Return a mono sound at another rate, by a polyphase filter and the exact ratio of the two.

    Raises:
        DataError: a ratio whose terms are above 1000, so that the rate is most likely wrong.
    """
    if sound.rate == rate:
        return sound
    divisor = gcd(sound.rate, rate)
    up, down = rate // divisor, sound.rate // divisor
    if max(up, down) > _LARGEST_RATIO:
        raise DataError(
            f"{where} has {sound.rate} samples a second, which is {down}/{up} of rate={rate}: no ratio that a recorder "
            "makes. Check the file's header."
        )
    from scipy.signal import resample_poly

    return Sound(resample_poly(sound.wave, up, down, window=_filter(up, down)).astype(np.float32), rate)


@lru_cache(maxsize=16)
def _filter(up: int, down: int) -> Any:
    """Return the low-pass that ``resample_poly`` would design anew for every clip."""
    from scipy.signal import firwin

    widest = max(up, down)
    return firwin(20 * widest + 1, 1 / widest, window=("kaiser", 5.0)).astype(np.float32)


def fit_length(wave: Floats, samples: int) -> Floats:
    """Return ``samples`` samples: zeros at the end of a shorter wave, the middle of a longer one."""
    surplus = len(wave) - samples
    if surplus < 0:
        return np.pad(wave, (0, -surplus))
    return wave[surplus // 2 : surplus // 2 + samples]


def peak_of(wave: Floats) -> float:
    """Return half the distance between the highest and the lowest sample, so that an offset does not count."""
    return (float(wave.max()) - float(wave.min())) / 2 if len(wave) else 0.0


def at_peak(wave: Floats) -> Floats:
    """Return a wave scaled so that its largest sample has absolute value 1; silence as it is."""
    largest = float(np.abs(wave).max(initial=0))
    return wave / np.float32(largest) if largest > 0 else wave
