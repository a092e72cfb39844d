"""Log-mel spectrograms of many clips at once, on ``torch.stft`` and with bounded memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import DataError, raise_if_any

Array = npt.NDArray[np.float64]
_CELLS_AT_ONCE = 2**22  # complex numbers of a spectrogram held at a time: 32 MB


@dataclass(frozen=True)
class LogMel:
    """How a clip becomes a log-mel spectrogram.

    A frame is ``window`` seconds under a periodic Hann window, zero-padded on both sides to the next power of two for
    the Fourier transform; no frame hangs over a clip's edge. Power is ``|X|^2 / sum(window)^2``, so that a sine of
    amplitude ``a`` has ``a^2 / 4`` in its bin whatever the rate. Bands are triangles of height 1 between points equally
    spaced in mel. What comes out is the natural logarithm of a band's power, at least ``log(floor)``.

    Args:
        rate: samples a second.
        window: seconds of a frame.
        hop: seconds from one frame to the next.
        mels: bands.
        fmin: lower edge of the lowest band, Hz.
        fmax: upper edge of the highest, Hz; None: half the rate.
        scale: ``"htk"``: ``2595 log10(1 + f / 700)``; ``"slaney"``: linear up to 1 kHz, logarithmic above.
        floor: the least power, of full scale squared.
        cmvn: ``"clip"`` brings every band of a clip to mean 0 and standard deviation 1 over its frames, which takes
            channel and level away; ``"none"`` leaves them.

    Raises:
        DataError: all options out of range, or bands so narrow that they hold no frequency, in one message.
    """

    rate: int = 8000
    window: float = 0.025
    hop: float = 0.010
    mels: int = 40
    fmin: float = 60.0
    fmax: float | None = None
    scale: Literal["htk", "slaney"] = "htk"
    floor: float = 1e-10
    cmvn: Literal["none", "clip"] = "none"

    def __post_init__(self) -> None:
        raise_if_any(_problems(self))
        empty = np.flatnonzero(mel_filterbank(self).sum(axis=0) == 0)
        if len(empty):
            raise DataError(
                f"mels={self.mels} bands from {self.fmin:g} to {self.top:g} Hz leave band {empty[0]} without one of the "
                f"frequencies {self.rate / self.fft:g} Hz apart. Use fewer bands, a higher fmin or a longer window."
            )

    @property
    def top(self) -> float:
        """Upper edge of the highest band, Hz."""
        return self.rate / 2 if self.fmax is None else self.fmax

    @property
    def window_samples(self) -> int:
        """Samples of a frame."""
        return round(self.rate * self.window)

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        return round(self.rate * self.hop)

    @property
    def fft(self) -> int:
        """Length of the Fourier transform, the least power of two that holds a frame."""
        return 1 << (self.window_samples - 1).bit_length()

    def frames(self, samples: int) -> int:
        """Return the frames of a clip of ``samples``."""
        return max(0, 1 + (samples - self.window_samples) // self.hop_samples)

    def in_words(self) -> str:
        """Return one sentence for a population's rules."""
        after = ", each band of a clip to mean 0 and standard deviation 1" if self.cmvn == "clip" else ""
        return (
            f"log-mel: {self.mels} {self.scale} bands from {self.fmin:g} to {self.top:g} Hz at {self.rate} Hz, window "
            f"{1000 * self.window:g} ms, hop {1000 * self.hop:g} ms, natural logarithm of power of at least "
            f"{self.floor:g}{after}"
        )


def log_mel(clips: Tensor, config: LogMel) -> Tensor:
    """Return the log-mel spectrograms of clips of one length.

    Args:
        clips: ``(clips, samples)`` float32 in [-1, 1], at ``config.rate``.
        config: see there for the definition.

    Returns:
        ``(clips, frames, mels)`` float32, natural logarithm of power.

    Raises:
        DataError: clips are not ``(clips, samples)``, or shorter than one frame.
    """
    if clips.dim() != 2 or config.frames(clips.shape[1]) < 1:
        raise DataError(
            f"Clips of shape {tuple(clips.shape)} hold no frame: log_mel needs (clips, samples) with at least "
            f"{config.window_samples} samples, {config.window:g} s at {config.rate} Hz."
        )
    frames = config.frames(clips.shape[1])
    out = torch.empty(len(clips), frames, config.mels)
    filters, window = (
        torch.tensor(mel_filterbank(config), dtype=torch.float32),
        torch.hann_window(config.window_samples),
    )
    together = max(1, _CELLS_AT_ONCE // (frames * (config.fft // 2 + 1)))
    for begin in range(0, len(clips), together):
        part = slice(begin, begin + together)
        out[part] = _log_mel(clips[part], filters, window, config)
    return out


def _log_mel(clips: Tensor, filters: Tensor, window: Tensor, config: LogMel) -> Tensor:
    # torch.stft centres a short window in its frame: padding by the rest makes frame t start at sample t * hop
    rest = config.fft - config.window_samples
    padded = torch.nn.functional.pad(clips.float(), (rest // 2, rest - rest // 2))
    spectrum = torch.stft(
        padded,
        config.fft,
        config.hop_samples,
        config.window_samples,
        window,
        center=False,
        return_complex=True,
    )
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag).transpose(1, 2)
    power /= window.sum() ** 2
    logs = (power @ filters).clamp_(min=config.floor).log_()
    if config.cmvn == "clip":
        logs -= logs.mean(dim=1, keepdim=True)
        logs /= logs.std(dim=1, keepdim=True, correction=0).clamp_(min=0.01)  # silence stays near 0
    return logs


@lru_cache(maxsize=32)
def mel_filterbank(config: LogMel) -> Array:
    """Return the weights of frequencies in bands, ``(fft // 2 + 1, mels)``; triangles of height 1."""
    to_mel, to_hertz = _SCALES[config.scale]
    ends = to_mel(np.array([config.fmin, config.top]))
    edges = to_hertz(np.linspace(ends[0], ends[1], config.mels + 2))
    hertz = np.arange(config.fft // 2 + 1)[:, None] * config.rate / config.fft
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (hertz - low) / (centre - low), (high - hertz) / (high - centre)
    weights: Array = np.maximum(0, np.minimum(rising, falling))
    weights.setflags(write=False)
    return weights


def _htk_mel(hertz: Array) -> Array:
    return np.asarray(2595 * np.log10(1 + hertz / 700))


def _htk_hertz(mel: Array) -> Array:
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


_LINEAR, _KNEE = 200 / 3, 15.0  # Slaney's scale: Hz a mel below 1 kHz, which is 15 mel
_GROWTH = np.log(6.4) / 27  # and 27 mel from there to 6.4 kHz


def _slaney_mel(hertz: Array) -> Array:
    above = _KNEE + np.log(np.maximum(hertz, 1000) / 1000) / _GROWTH
    return np.asarray(np.where(hertz < 1000, hertz / _LINEAR, above))


def _slaney_hertz(mel: Array) -> Array:
    above = 1000 * np.exp(_GROWTH * (np.maximum(mel, _KNEE) - _KNEE))
    return np.asarray(np.where(mel < _KNEE, mel * _LINEAR, above))


_Scale = Callable[[Array], Array]
_SCALES: dict[str, tuple[_Scale, _Scale]] = {
    "htk": (_htk_mel, _htk_hertz),
    "slaney": (_slaney_mel, _slaney_hertz),
}


def _problems(config: LogMel) -> list[str]:
    positive = ("rate", "window", "hop", "mels", "floor")
    problems = [
        f"{name} must be positive, got {getattr(config, name)}."
        for name in positive
        if getattr(config, name) <= 0
    ]
    if not problems and (config.window_samples < 2 or config.hop_samples < 1):
        problems.append(
            f"window={config.window:g} s and hop={config.hop:g} s are too short for {config.rate} Hz: a frame "
            "needs 2 samples, a hop 1."
        )
    if not 0 <= config.fmin < config.top <= config.rate / 2:
        problems.append(
            f"fmin and fmax must satisfy 0 <= fmin < fmax <= rate / 2 = {config.rate / 2:g} Hz, got "
            f"{config.fmin:g} and {config.top:g}."
        )
    if config.scale not in _SCALES:
        problems.append(f"scale must be 'htk' or 'slaney', got {config.scale!r}.")
    if config.cmvn not in ("none", "clip"):
        problems.append(f"cmvn must be 'none' or 'clip', got {config.cmvn!r}.")
    return problems
