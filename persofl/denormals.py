"""Numbers too small to matter and slow to compute with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take float32 numbers below 1.2e-38 for zero in this thread, and leave the processor as it was.

    Gradients that vanish over a hundred time steps pass through this range, where some processors multiply fifty
    times more slowly.
    """
    before = not bool(torch.full((), 1e-39).mul(1.0))
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
