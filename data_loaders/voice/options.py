"""The options every voice source shares, and the rules they stand for."""

from dataclasses import dataclass
from typing import Literal

from ..errors import DataError
from .features import LogMel

_CHOICES = {
    "features": ("log_mel", "wave"),
    "level": ("none", "peak"),
    "stereo": ("error", "mean"),
    "on_bad": ("error", "skip"),
}


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """How recordings become clips of one length, and clips features.

    Args:
        rate: samples a second; recordings with more are resampled, those with fewer refused.
        seconds: length of a clip; shorter recordings get zeros at their end, longer ones keep their middle.
        features: ``"log_mel"``: inputs ``(samples, frames, mels)``; ``"wave"``: ``(samples, clip samples, 1)``.
        mels: bands of the log-mel spectrogram, see :class:`~data_loaders.voice.features.LogMel`.
        window: seconds of a frame.
        hop: seconds from one frame to the next; 0.04 makes a quarter of the frames, for small models.
        cmvn: ``"clip"`` takes each clip's channel and level away, ``"none"`` leaves them.
        level: ``"peak"`` scales every recording to full scale, ``"none"`` leaves it.
        stereo: ``"error"`` refuses recordings of several channels, ``"mean"`` takes the channels' mean.
        min_peak: recordings with a lower peak, of full scale, are near silent and left out.
        on_bad: ``"skip"`` leaves out files that cannot be read and says which, ``"error"`` stops at the first.
        min_clips: drop speakers with fewer clips.
        clients: the first so many speakers in order of name, for quick runs; None for all.
    """

    rate: int = 8000
    seconds: float = 1.0
    features: Literal["log_mel", "wave"] = "log_mel"
    mels: int = 40
    window: float = 0.025
    hop: float = 0.010
    cmvn: Literal["none", "clip"] = "none"
    level: Literal["none", "peak"] = "none"
    stereo: Literal["error", "mean"] = "error"
    min_peak: float = 0.001
    on_bad: Literal["error", "skip"] = "error"
    min_clips: int = 1
    clients: int | None = None

    @property
    def samples(self) -> int:
        """Samples of a clip."""
        return round(self.seconds * self.rate)

    def log_mel(self) -> LogMel:
        """Return the definition of the features."""
        return LogMel(rate=self.rate, window=self.window, hop=self.hop, mels=self.mels, cmvn=self.cmvn)


def clip_problems(options: ClipOptions) -> list[str]:
    """Return what is wrong with the shared options, in sentences."""
    problems = [
        f"{name} must be {' or '.join(map(repr, choices))}, got {getattr(options, name)!r}."
        for name, choices in _CHOICES.items()
        if getattr(options, name) not in choices
    ]
    try:
        frames = options.log_mel().frames(options.samples)
    except DataError as error:
        problems += error.problems
    else:
        if frames < 1:
            problems.append(
                f"seconds must be at least one frame of {options.window:g} s, got {options.seconds}."
            )
    if not 0 <= options.min_peak < 1:
        problems.append(f"min_peak must be a fraction of full scale in [0, 1), got {options.min_peak}.")
    if options.min_clips < 1:
        problems.append(f"min_clips must be at least 1, got {options.min_clips}.")
    if options.clients is not None and options.clients < 1:
        problems.append(f"clients must be at least 1, or None for all, got {options.clients}.")
    return problems
