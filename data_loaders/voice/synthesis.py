"""Words from voices: a glottal pulse train and noise, shaped by formants that move, many takes at once.

The source-filter model: pulses and white noise are taken to short-time spectra, multiplied frame by frame by the
magnitude of a cascade of formants and by bands of noise, and laid over each other again.

References:
    Fant, Acoustic theory of speech production, 1960. The pulse is the derivative of Rosenberg's, JASA 49(2), 1971.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..runs import Floats
from .features import Array
from .phones import FIELDS, phones_of
from .voices import NAMES

_FRAME, _HOP = 0.032, 0.016  # seconds
_RISE, _FALL = 0.40, 0.16  # shares of a period in which the glottis opens and closes
_BANDWIDTHS = (70.0, 100.0, 160.0, 250.0)
_F4 = 3700.0
_GAIN = 0.15  # of the voice, so that peaks stay below full scale
_FALLING = 0.15  # share of the pitch lost over a clip
_PER_WORD = ("pace", "pitch", "tract", "level", "place")
_PACE, _PITCH, _TRACT, _LEVEL = 0.08, 0.05, 0.015, 1.5  # spread of one speaker's takes of a word


@dataclass(frozen=True, eq=False)
class Draws:
    """Everything random about the takes of one word by one speaker.

    Args:
        take: ``(takes, 5)`` standard normal: pace, pitch, tract, level and place of each.
        lengths: ``(takes, phones)`` standard normal.
        pitch: ``(takes, frames)`` standard normal.
        noise: ``(takes, samples)`` standard normal.
    """

    take: Array
    lengths: Array
    pitch: Array
    noise: Floats


def draw_takes(key: Sequence[int], word: str, takes: int, samples: int, rate: int) -> Draws:
    """Return the draws of a word's takes; those of take ``t`` are a function of ``(key, t)`` and the lengths alone."""
    frames, phones = 1 + samples // _hop(rate), len(phones_of(word))
    rows = [np.random.default_rng([*key, take]) for take in range(takes)]
    return Draws(
        take=np.stack([row.standard_normal(len(_PER_WORD)) for row in rows]),
        lengths=np.stack([row.standard_normal(phones) for row in rows]),
        pitch=np.stack([row.standard_normal(frames) for row in rows]),
        noise=np.stack([row.standard_normal(samples, dtype=np.float32) for row in rows]),
    )


def say(word: str, voice: Array, draws: Draws, rate: int) -> Floats:
    """Return the takes of a word, ``(takes, samples)`` float32 in [-1, 1].

    Args:
        word: a name in :data:`~data_loaders.voice.phones.WORDS`.
        voice: ``(parameters,)`` of the speaker.
        draws: of its takes of the word.
        rate: samples a second.
    """
    habit = dict(zip(NAMES, voice, strict=True))
    samples = draws.noise.shape[1]
    tracks = _tracks(word, habit, draws, samples / rate)
    pulses = _pulses(habit, draws, rate)
    window = torch.hann_window(round(_FRAME * rate))

    def spectra(waves: Tensor) -> Tensor:
        return torch.stft(
            waves, len(window), _hop(rate), window=window, return_complex=True, pad_mode="constant"
        )

    hertz = torch.linspace(0, rate / 2, len(window) // 2 + 1)[:, None]
    voiced, noisy = _gains(tracks, habit, hertz)
    sound = spectra(torch.from_numpy(pulses)) * voiced + spectra(torch.from_numpy(draws.noise)) * noisy
    waves = torch.istft(
        sound * _microphone(habit, hertz), len(window), _hop(rate), window=window, length=samples
    )
    return waves.clamp_(-1, 1).numpy()


def _hop(rate: int) -> int:
    return round(_HOP * rate)


def _tracks(word: str, habit: dict[str, float], draws: Draws, seconds: float) -> dict[str, Tensor]:
    """Return what the mouth does, by field of a phone, each ``(takes, 1, frames)`` float32."""
    phones = phones_of(word)
    pace, _, tract, level, place = draws.take.T[:, :, None]
    lengths = phones[:, FIELDS.index("milliseconds")] / 1000 * habit["pace"]
    lengths = lengths * np.exp(_PACE * pace + 0.1 * draws.lengths)
    lengths *= np.minimum(1, 0.9 * seconds / lengths.sum(axis=1, keepdims=True))  # a word fits its clip
    spare = seconds - lengths.sum(axis=1, keepdims=True)
    begin = spare * np.clip(0.5 + 0.1 * place, 0.05, 0.95)
    ends = begin + np.concatenate((np.zeros_like(begin), lengths.cumsum(axis=1)), axis=1)
    frames = draws.pitch.shape[1]
    time = np.linspace(0, seconds, frames)
    number = (time[None, :, None] >= ends[:, None, :]).sum(axis=2)  # 0 before, phones + 1 after the word
    held = phones[np.clip(number - 1, 0, len(phones) - 1)]  # (takes, frames, fields)
    spoken = (number > 0) & (number <= len(phones))
    held[..., FIELDS.index("voiced")] *= spoken
    held[..., FIELDS.index("noise")] *= spoken
    padded = np.pad(held, ((0, 0), (1, 1), (0, 0)), mode="edge")
    moving = (
        0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]
    )  # from one sound to the next
    fields = {name: moving[..., place_].astype(np.float32)[:, None, :] for place_, name in enumerate(FIELDS)}
    scale = (habit["tract"] * np.exp(_TRACT * tract))[:, :, None].astype(np.float32)
    for name in ("f1", "f2", "f3", "centre"):
        fields[name] = fields[name] * scale
    fields["f2"] = fields["f2"] * np.float32(habit["front"])
    fields["f4"] = np.broadcast_to(np.float32(_F4) * scale, fields["f1"].shape)
    loud = (10 ** ((habit["level"] + _LEVEL * level) / 20))[:, :, None].astype(np.float32)
    fields["voiced"], fields["noise"] = fields["voiced"] * loud, fields["noise"] * loud
    return {name: torch.from_numpy(np.ascontiguousarray(track)) for name, track in fields.items()}


def _pulses(habit: dict[str, float], draws: Draws, rate: int) -> Floats:
    """Return the glottal pulse trains, ``(takes, samples)``: the derivative of Rosenberg's pulse along the phase."""
    samples = draws.noise.shape[1]
    frames = draws.pitch.shape[1]
    own = habit["f0"] * np.exp(_PITCH * draws.take[:, _PER_WORD.index("pitch"), None])
    smooth = np.apply_along_axis(np.convolve, 1, draws.pitch, np.full(3, 3**-0.5), "same")
    pitch = own * (1 + habit["jitter"] * smooth) * np.linspace(1 + _FALLING / 2, 1 - _FALLING / 2, frames)
    at = np.arange(samples) / samples * (frames - 1)
    low = at.astype(np.int64)
    share = (at - low).astype(np.float32)
    pitch = pitch.astype(np.float32)
    hertz = pitch[:, low] * (1 - share) + pitch[:, np.minimum(low + 1, frames - 1)] * share
    phase = np.cumsum(hertz / np.float32(rate), axis=1, dtype=np.float64).astype(np.float32) % 1
    opening = _FALL / _RISE * np.sin(np.float32(np.pi / _RISE) * phase)
    closing = -np.sin(np.float32(np.pi / 2 / _FALL) * (phase - np.float32(_RISE)))
    return np.where(phase < _RISE, opening, np.where(phase < _RISE + _FALL, closing, 0)).astype(np.float32)


def _gains(tracks: dict[str, Tensor], habit: dict[str, float], hertz: Tensor) -> tuple[Tensor, Tensor]:
    """Return what to multiply pulses and white noise by, each ``(takes, frequencies, frames)``."""
    power = torch.ones(())
    for name, bandwidth in zip(("f1", "f2", "f3", "f4"), _BANDWIDTHS, strict=True):
        formant = tracks[name]
        corner = formant**2 + (bandwidth / 2) ** 2
        power = power * corner**2 / ((hertz**2 + corner) ** 2 - 4 * (hertz * formant) ** 2)
    formants = power.sqrt_()
    voiced = _GAIN * tracks["voiced"] * formants
    # noises that do not depend on each other add up in power
    band = (-(((hertz - tracks["centre"]) / tracks["width"]) ** 2) / 2).exp_()
    hiss = (_GAIN * tracks["noise"] * band) ** 2
    hiss += (habit["breath"] * voiced) ** 2 + 10 ** (habit["noise_floor"] / 10)
    return voiced, hiss.sqrt_()


def _microphone(habit: dict[str, float], hertz: Tensor) -> Tensor:
    octaves = (hertz.clamp(min=60) / 1000).log2()
    return torch.asarray(10 ** (habit["tilt"] * octaves / 20))
