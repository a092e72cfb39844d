"""Ctrl-C and SIGTERM as a flag that is read between two rounds, so that no write is cut in the middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .errors import StoppedError

_received: list[int] = []


def stop_requested() -> int | None:
    """The signal that asked this process to stop, if one did."""
    return _received[-1] if _received else None


def check_stop() -> None:
    """Raise :class:`StoppedError` if this process was asked to stop."""
    if _received:
        raise StoppedError(signal.Signals(_received[-1]).name)


@contextmanager
def stop_on_signals(*, interrupt: bool = True) -> Iterator[None]:
    """Note SIGTERM (and SIGINT, unless ``interrupt`` is off) for :func:`check_stop` during the block.

    A second SIGINT raises ``KeyboardInterrupt`` at once. Outside the main thread nothing is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, _note)
    signal.signal(signal.SIGINT, _note if interrupt else signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def hear_interrupts(*, on: bool, handler: Any = None) -> Any:
    """Ignore SIGINT, or give it back its ``handler``; returns the handler before. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGINT, handler if on else signal.SIG_IGN)


def _note(number: int, frame: FrameType | None) -> None:
    if _received and number == signal.SIGINT:
        raise KeyboardInterrupt
    _received.append(number)
