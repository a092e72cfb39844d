"""Voice: spoken keywords and digits, by speaker."""

from .arabic_commands import ArabicCommands
from .features import LogMel, log_mel
from .fsdd import FSDD

__all__ = ["FSDD", "ArabicCommands", "LogMel", "log_mel"]
