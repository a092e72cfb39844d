"""What a simulated speaker is like: its voice, and the dial between one law and many."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace

import numpy as np

from .features import Array


@dataclass(frozen=True)
class Voice:
    """Parameters of one speaker.

    Args:
        f0: pitch, Hz.
        jitter: standard deviation of the pitch within a word, of itself.
        tract: factor on all formants; a shorter vocal tract has a larger one.
        front: factor on the second formant alone, an accent.
        pace: factor on all durations.
        breath: noise in the voice, of its amplitude.
        level: loudness, dB.
        tilt: of the microphone, dB an octave around 1 kHz.
        noise_floor: of the room, dB of full scale.
    """

    f0: float = 150.0
    jitter: float = 0.015
    tract: float = 1.03
    front: float = 1.0
    pace: float = 1.0
    breath: float = 0.03
    level: float = 0.0
    tilt: float = 0.0
    noise_floor: float = -62.0


TYPICAL = Voice()
VOICES: Mapping[str, Voice] = {
    "low": replace(TYPICAL, f0=115.0, tract=0.98),
    "high": replace(TYPICAL, f0=205.0, tract=1.12, breath=0.06),
}
NAMES = tuple(field.name for field in fields(Voice))
_ADDITIVE = np.array([name in ("level", "tilt", "noise_floor") for name in NAMES])
# of the logarithm of a speaker's own parameters around its voice's, or of their dB
_SPREAD = np.array([0.12, 0.3, 0.06, 0.07, 0.15, 0.4, 3.0, 1.5, 7.0])


def speakers(kinds: Sequence[str], own: Array, heterogeneity: float) -> Array:
    """Return each speaker's parameters, on the straight line from the typical one's to its own.

    Args:
        kinds: names in ``VOICES``, one a speaker.
        own: ``(speakers, parameters)`` standard normal, how each differs from its kind.
        heterogeneity: 0: all alike, 1: kind and own voice in full.

    Returns:
        ``(speakers, parameters)`` in the order of ``NAMES``.
    """
    table = np.array([astuple(VOICES[kind]) for kind in kinds]).reshape(-1, len(NAMES))
    target = np.where(_ADDITIVE, table + _SPREAD * own, table * np.exp(_SPREAD * own - _SPREAD**2 / 2))
    centre = np.array(astuple(TYPICAL))
    return np.asarray(centre + heterogeneity * (target - centre))


def distance_to_law(parameters: Array, kinds: Sequence[str], heterogeneity: float) -> Array:
    """Return how far speakers lie from the mean of the law they are drawn from, ``(speakers,)``.

    Root mean square over the parameters, each in units of its standard deviation at full heterogeneity.

    Args:
        parameters: ``(speakers, parameters)`` from :func:`speakers`.
        kinds: the law's, all equally likely.
        heterogeneity: the law's.
    """
    table, centre = np.array([astuple(VOICES[kind]) for kind in kinds]), np.array(astuple(TYPICAL))
    mean = centre + heterogeneity * (table.mean(axis=0) - centre)
    own = np.where(_ADDITIVE, _SPREAD, np.sqrt(np.expm1(_SPREAD**2) * (table**2).mean(axis=0)))
    offset = (parameters - mean) / np.sqrt(table.var(axis=0) + own**2)
    return np.asarray(np.sqrt((offset**2).mean(axis=1)))
