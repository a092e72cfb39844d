"""Voice: spoken keywords and digits, by speaker."""

from .arabic_commands import ArabicCommands
from .features import LogMel, log_mel

__all__ = ["ArabicCommands", "LogMel", "log_mel"]
