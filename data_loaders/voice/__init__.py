"""Voice: spoken keywords and digits, by speaker."""

from .arabic_commands import ArabicCommands
from .audiomnist import AudioMNIST
from .features import LogMel, log_mel
from .fsdd import FSDD
from .speakers import SimulatedSpeakers
from .speech_commands import SpeechCommands

__all__ = [
    "FSDD",
    "ArabicCommands",
    "AudioMNIST",
    "LogMel",
    "SimulatedSpeakers",
    "SpeechCommands",
    "log_mel",
]
