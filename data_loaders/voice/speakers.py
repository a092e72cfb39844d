"""Simulated speakers: formant-synthesised keywords, with a dial for how far the voices differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from ..errors import did_you_mean, raise_if_any
from ..registry import About, register_source
from ..samples import ClientSamples
from .audio import Sound
from .features import Array
from .keywords import keyword_problems
from .options import ClipOptions, clip_problems
from .phones import WORDS
from .population import to_population
from .synthesis import draw_takes, say
from .takes import Take, collect
from .voices import NAMES, VOICES, distance_to_law
from .voices import speakers as voices_of

COMMANDS = tuple(WORDS)[:10]
_NUMBER = {word: number for number, word in enumerate(WORDS)}
_PARTS = ("train", "train", "train", "validation", "test")


@register_source("speakers")
@dataclass(frozen=True)
class SimulatedSpeakers:
    """Speakers of ten English commands (and ten digits), synthesised from pulses, noise and formants.

    Speaker ``k`` has a voice of kind ``voices[k % len(voices)]`` and is the same in a population of any size; a take is the
    same whatever other words and takes there are. The attributes are those of the Arabic Speech Commands (the published
    split deals whole speakers there: of five here three train), the true parameters, and ``true_distance``.

    Args:
        clients: how many speakers.
        words: which, in the order of the classes.
        takes: of each word by each speaker.
        heterogeneity: the dial, 0 (all speakers one law) to 1 (kinds of voices, own voices, rooms and microphones in
            full); every parameter lies on the straight line between.
        seed: of everything random, together with the speaker's number.
        voices: kinds of voices, in turn.
        rate: samples a second.
        seconds: of a clip; slow words are spoken faster where they would not fit.
        features: ``"log_mel"`` or ``"wave"``, as in all voice sources.
        mels: bands of the log-mel spectrogram.
        window: seconds of a frame.
        hop: seconds from one frame to the next.
        cmvn: ``"clip"`` takes each clip's channel and level away.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="speaker",
        what="simulated keywords, with a dial for how far the voices differ",
        clients="any number",
        licence="Apache-2.0",
        attributes=("voice", "true_distance", "f0_median_hz", "pitch_group_proxy", "noise_group", *NAMES),
        needs="nothing",
        task="classify",
    )

    clients: int = 30
    words: tuple[str, ...] = COMMANDS
    takes: int = 10
    heterogeneity: float = 0.5
    seed: int = 0
    voices: tuple[str, ...] = tuple(VOICES)
    rate: int = 8000
    seconds: float = 1.0
    features: Literal["log_mel", "wave"] = "log_mel"
    mels: int = 40
    window: float = 0.025
    hop: float = 0.010
    cmvn: Literal["none", "clip"] = "none"

    def __post_init__(self) -> None:
        raise_if_any(_problems(self))

    def load(self) -> ClientSamples:
        """Return the population; ``attributes`` holds each speaker's true parameters and distance from the law."""
        kinds = [self.voices[client % len(self.voices)] for client in range(self.clients)]
        own = [
            np.random.default_rng([self.seed, client]).standard_normal(len(NAMES))
            for client in range(self.clients)
        ]
        parameters = voices_of(kinds, np.stack(own), self.heterogeneity)
        options = _options(self)
        return to_population(
            "speakers",
            collect(self._takes(parameters), options),
            options,
            classes=self.words,
            attributes=self._attributes(kinds, parameters),
            rules=(f"simulated with heterogeneity {self.heterogeneity:g} and seed {self.seed}",),
        )

    def _takes(self, parameters: Array) -> Iterator[Take]:
        samples = round(self.seconds * self.rate)
        for client, voice in enumerate(parameters):
            for word in self.words:
                draws = draw_takes((self.seed, client, _NUMBER[word]), word, self.takes, samples, self.rate)
                for number, wave in enumerate(say(word, voice, draws, self.rate)):
                    read = partial(Sound, wave, self.rate)
                    yield Take(_name(client), word, number, f"{_name(client)}/{word}/{number}", read)

    def _attributes(self, kinds: list[str], parameters: Array) -> pd.DataFrame:
        values = dict(zip(NAMES, parameters.T, strict=True))
        f0, floor = values["f0"], values["noise_floor"]
        known = {
            "voice": kinds,
            "true_distance": distance_to_law(parameters, self.voices, self.heterogeneity),
            "n_clips": len(self.words) * self.takes,
            "seconds": len(self.words) * self.takes * self.seconds,
            "f0_median_hz": f0,
            "noise_floor_dbfs_median": floor,
            "official_split": [_PARTS[client % 5] for client in range(self.clients)],
            "pitch_group_proxy": np.select([f0 < 165, f0 < 190], ["low", "ambiguous"], "high"),
            "noise_group": np.select([floor < -65, floor < -59], ["quiet", "medium"], "noisy"),
            **values,
        }
        return pd.DataFrame(known, index=[_name(client) for client in range(self.clients)])


def _name(client: int) -> str:
    return f"speaker{client:05d}"


def _options(source: SimulatedSpeakers) -> ClipOptions:
    return ClipOptions(
        rate=source.rate,
        seconds=source.seconds,
        features=source.features,
        mels=source.mels,
        window=source.window,
        hop=source.hop,
        cmvn=source.cmvn,
        min_peak=0.0,
    )


def _problems(source: SimulatedSpeakers) -> list[str]:
    problems = [
        f"{name} must be at least 1, got {getattr(source, name)}."
        for name in ("clients", "takes")
        if getattr(source, name) < 1
    ]
    if source.seed < 0:
        problems.append(f"seed must not be negative, got {source.seed}.")
    if not 0 <= source.heterogeneity <= 1:
        problems.append(f"heterogeneity must lie between 0 and 1, got {source.heterogeneity}.")
    problems += keyword_problems(source.words, WORDS)
    if not source.voices:
        problems.append(f"voices must name at least one of {', '.join(VOICES)}.")
    unknown = [name for name in source.voices if name not in VOICES]
    problems += [f"There is no voice {name!r}. {did_you_mean(name, VOICES)}" for name in unknown]
    return problems + clip_problems(_options(source))
