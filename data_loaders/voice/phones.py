"""What simulated speakers say: sounds as formants and noise, and words as sequences of sounds.

References:
    Vowels: rounded averages of men in Peterson and Barney, Control methods used in a study of the vowels, JASA 24(2),
    1952. Consonants: typical values after Klatt, Software for a cascade/parallel formant synthesizer, JASA 67(3), 1980.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np

from .features import Array


@dataclass(frozen=True)
class Phone:
    """One sound, held for a while.

    Args:
        f1: first formant, Hz.
        f2: second formant, Hz.
        f3: third formant, Hz.
        milliseconds: how long.
        voiced: amplitude of the voice, 0 to 1.
        noise: amplitude of the noise, 0 to 1.
        centre: of the noise's band, Hz.
        width: of the band, Hz, one standard deviation.
    """

    f1: float
    f2: float
    f3: float
    milliseconds: float = 110
    voiced: float = 1.0
    noise: float = 0.0
    centre: float = 2000.0
    width: float = 800.0


def _hiss(
    f2: float, centre: float, width: float, noise: float, milliseconds: float, voiced: float = 0
) -> Phone:
    return Phone(300, f2, 2500, milliseconds, voiced, noise, centre, width)


PHONES: Mapping[str, Phone] = {
    "i": Phone(270, 2290, 3010),
    "I": Phone(390, 1990, 2550, 80),
    "e": Phone(450, 2050, 2600, 90),
    "E": Phone(530, 1840, 2480),
    "a": Phone(700, 1300, 2500),
    "A": Phone(730, 1090, 2440, 140),
    "O": Phone(570, 840, 2410, 140),
    "o": Phone(500, 900, 2400, 90),
    "U": Phone(440, 1020, 2240, 80),
    "u": Phone(300, 870, 2240, 140),
    "V": Phone(640, 1190, 2390, 120),
    "@": Phone(500, 1500, 2500, 60),
    "m": Phone(250, 1000, 2200, 70, 0.35),
    "n": Phone(250, 1600, 2600, 80, 0.35),
    "l": Phone(350, 1050, 2800, 60, 0.6),
    "r": Phone(330, 1060, 1500, 70, 0.6),
    "w": Phone(300, 650, 2200, 60, 0.6),
    "j": Phone(270, 2200, 3000, 60, 0.6),
    "s": _hiss(1700, 3600, 500, 0.5, 110),
    "z": _hiss(1700, 3600, 500, 0.3, 80, 0.4),
    "f": _hiss(1200, 2500, 1500, 0.2, 90),
    "v": _hiss(1200, 2500, 1500, 0.1, 60, 0.4),
    "T": _hiss(1500, 3000, 1200, 0.15, 90),
    "-": Phone(300, 1500, 2500, 50, 0.0),  # a stop's closure
    "P": _hiss(900, 800, 500, 0.6, 20),  # and the bursts of p, t, k and d
    "D": _hiss(1700, 3300, 700, 0.6, 25),
    "K": _hiss(1900, 1900, 400, 0.6, 30),
    "B": _hiss(1700, 3000, 700, 0.4, 15, 0.3),
}
FIELDS = ("f1", "f2", "f3", "milliseconds", "voiced", "noise", "centre", "width")
WORDS: Mapping[str, str] = {
    "up": "V-P",
    "down": "BaUn",
    "left": "lEf-D",
    "right": "raI-D",
    "yes": "jEs",
    "no": "noU",
    "stop": "s-DA-P",
    "start": "s-DAr-D",
    "open": "oU-P@n",
    "close": "-KloUz",
    "zero": "zIroU",
    "one": "wVn",
    "two": "-Du",
    "three": "Tri",
    "four": "fOr",
    "five": "faIv",
    "six": "sI-Ks",
    "seven": "sEv@n",
    "eight": "eI-D",
    "nine": "naIn",
}


def phones_of(word: str) -> Array:
    """Return the sounds of a word, ``(phones, 8)`` in the order of ``FIELDS``."""
    return np.array([astuple(PHONES[letter]) for letter in WORDS[word]], np.float64)
