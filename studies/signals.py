"""Ctrl-C and SIGTERM as a flag that is read between two rounds, so that no write is cut in the middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .errors import StoppedError

STOPS = (signal.SIGINT, signal.SIGTERM)

_received: list[int] = []
_listening: list[bool] = []


def stop_requested() -> int | None:
    """The signal that asked this process to stop, if one did."""
    return _received[-1] if _received else None


def check_stop() -> None:
    """Raise :class:`StoppedError` if this process was asked to stop."""
    if _received:
        raise stopped(_received[-1])


def stopped(number: int) -> StoppedError:
    """The error of a run that a signal asked to stop."""
    return StoppedError(signal.Signals(number).name)


@contextmanager
def stop_on_signals(*, interrupt: bool = True) -> Iterator[None]:
    """Note SIGTERM (and SIGINT, unless ``interrupt`` is off) for :func:`check_stop` during the block.

    A second SIGINT raises ``KeyboardInterrupt`` at once. Outside the main thread nothing is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    before = {s: signal.getsignal(s) for s in STOPS}
    signal.signal(signal.SIGTERM, _note)
    signal.signal(signal.SIGINT, _note if interrupt else signal.SIG_IGN)
    _listening.append(True)
    try:
        yield
    finally:
        _listening.pop()
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def take_back_sigterm() -> None:
    """Note SIGTERM again where another took it over; only inside :func:`stop_on_signals`.

    Lightning's handler for it calls ``torch.distributed`` in the middle of whatever runs: all ranks may wait for ever.
    """
    if _listening and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _note)


def end_at_signals() -> None:
    """Let SIGTERM and SIGINT end this process at once, until :func:`note_signals`; only inside :func:`stop_on_signals`."""
    _handle(signal.SIG_DFL)


def note_signals() -> None:
    """Note them again after :func:`end_at_signals`."""
    if any(signal.getsignal(number) == signal.SIG_DFL for number in STOPS):
        _handle(_note)


def _handle(handler: Any) -> None:
    if _listening and threading.current_thread() is threading.main_thread():
        for number in STOPS:
            signal.signal(number, handler)


def hear_interrupts(*, on: bool, handler: Any = None) -> Any:
    """Ignore SIGINT, or give it back its ``handler``; returns the handler before. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGINT, handler if on else signal.SIG_IGN)


def _note(number: int, frame: FrameType | None) -> None:
    if _received and number == signal.SIGINT:
        raise KeyboardInterrupt
    _received.append(number)
