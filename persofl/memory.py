"""Memory that stays with the process from step to step."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of malloc.h, for ``mallopt``."""

_LARGEST, _KEPT = 32 << 20, 64 << 20
_OWN_WORDS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


@cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 64 MB that tensors free, instead of handing them back to the system at once.

    A step frees what it made, some MB a tensor, and the next asks for as much. Handed back in between, every page is
    mapped and zeroed anew, which takes convolutions as long as their arithmetic. Done once a process, with glibc alone;
    whoever sets ``MALLOC_TRIM_THRESHOLD_`` or the like, or ``glibc.malloc`` in ``GLIBC_TUNABLES``, keeps what was set.

    Returns:
        Whether memory is kept from now on.
    """
    chosen = any(word in os.environ for word in _OWN_WORDS) or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # what passes for glibc need not have it
    return set_option is not None and bool(
        set_option(_MMAP_THRESHOLD, _LARGEST) and set_option(_TRIM_THRESHOLD, _KEPT)
    )
