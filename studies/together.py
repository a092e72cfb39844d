"""The processes of one machine that train together: the first starts the others, and none ends without a word.

Lightning would start them too, but it kills the first outright when another has died, before that one can say so.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from .config import TrainerConfig
from .errors import StudyError

NOTICE, GRACE = 3.0, 15.0
"""Seconds in which a process finds out by itself that another died, and in which it ends once it was told."""

FIRST = "PERSOFL_FIRST"
RESUME = "The last checkpoint, where there is one, is whole: go on with --resume."


def is_helper() -> bool:
    """Whether this process is one of several that train together, and not the first: it trains and says nothing."""
    return any(os.environ.get(name, "0") != "0" for name in ("LOCAL_RANK", "NODE_RANK"))


def refuse_unmet(config: TrainerConfig) -> None:
    """Refuse several machines that nobody told where they meet: each would wait for the others at a place of its own.

    Raises:
        StudyError: names what is not set.
    """
    missing = [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if config.num_nodes > 1 and missing and not _launched():
        raise StudyError(
            f"trainer.num_nodes={config.num_nodes}: {', '.join(missing)} not set, so that the machines would not find each "
            "other. Set NODE_RANK (0 on the first machine), and MASTER_ADDR and MASTER_PORT (the first one's) on each."
        )


@contextmanager
def helped(config: TrainerConfig) -> Iterator[None]:
    """Start the other processes of this machine, where several train together, and end with them.

    One that dies meanwhile ends the block with an error, or where this process cannot be reached, it with the same words.
    Where a launcher started all of them (it sets ``LOCAL_RANK``), nothing is started.

    Raises:
        StudyError: another process ended too early.
    """
    if config.strategy != "ddp" or _launched():
        _end_with_the_first()
        yield
        return
    with _named() as names:
        started = [
            subprocess.Popen(_command(), env={**names, "LOCAL_RANK": str(rank)})
            for rank in range(1, config.devices)
        ]
        patience = NOTICE
        try:
            with _Watch(started).listening():
                yield
            patience = GRACE
        finally:
            _reap(started, patience)


class _Watch(threading.Thread):
    """Looks after helpers; when one dies, the main thread hears of it.

    Args:
        helpers: in the order of their ranks, from 1.
    """

    def __init__(self, helpers: list[subprocess.Popen[bytes]]) -> None:
        super().__init__(daemon=True, name="helpers")
        self.helpers, self.over, self.words = helpers, threading.Event(), ""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Watch during the block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGUSR1, self._tell)
        self.start()
        try:
            yield
        finally:
            self.over.set()
            signal.signal(signal.SIGUSR1, before)

    def run(self) -> None:
        """Wait for a death, then for the main thread to notice; tell it; then end the process."""
        while not self._dead():
            if self.over.wait(0.3):
                return
        if self.over.wait(NOTICE):
            return
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        if self.over.wait(GRACE):
            return
        _end(self.words)  # in a call that no signal ends, such as waiting for the others to come

    def _dead(self) -> bool:
        for rank, helper in enumerate(self.helpers, 1):
            if helper.poll():
                self.words = (
                    f"Process {rank} of {len(self.helpers) + 1} ended {_how(helper.returncode)}. {RESUME}"
                )
                return True
        return False

    def _tell(self, number: int, frame: FrameType | None) -> NoReturn:
        raise StudyError(self.words)


def _launched() -> bool:
    """Whether something else starts all processes, this one too."""
    return "LOCAL_RANK" in os.environ or "SLURM_NTASKS" in os.environ


def _how(code: int) -> str:
    if code > 0:
        return f"with code {code}; its own words are above"
    killed = ", which usually means that memory ran out" if code == -signal.SIGKILL else ""
    return f"by {signal.Signals(-code).name}{killed}"


def _end(words: str) -> NoReturn:
    print(f"error: {words}", file=sys.stderr, flush=True)
    os._exit(1)


def _end_with_the_first() -> None:
    """A first process that was killed outright cannot tell those that it started; they look."""
    first = int(os.environ.get(FIRST, "0"))
    if not first:
        return

    def look() -> None:
        while os.getppid() == first:
            time.sleep(0.3)
        time.sleep(NOTICE)
        _end(f"The first process ended. {RESUME}")

    threading.Thread(target=look, daemon=True, name="first").start()


@contextmanager
def _named() -> Iterator[dict[str, str]]:
    """The environment that tells Lightning who is who, as long as the block lasts."""
    before = dict(os.environ)
    names = {
        "MASTER_ADDR": before.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": before.get("MASTER_PORT") or str(_free_port()),
        "NODE_RANK": before.get("NODE_RANK", before.get("GROUP_RANK", "0")),
        "LOCAL_RANK": "0",
    }
    os.environ.update(names)
    try:
        yield {**os.environ, FIRST: str(os.getpid())}
    finally:
        for name in names:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _command() -> list[str]:
    """This process's own command."""
    module = sys.modules["__main__"].__spec__
    return [
        sys.executable,
        *(["-m", module.name] if module else [os.path.abspath(sys.argv[0])]),
        *sys.argv[1:],
    ]


def _reap(helpers: list[subprocess.Popen[bytes]], patience: float) -> None:
    """Helpers have done what this process has; those that wait for it in vain are ended."""
    deadline = time.monotonic() + patience
    for helper in helpers:
        with suppress(subprocess.TimeoutExpired):
            helper.wait(max(0.1, deadline - time.monotonic()))
        if helper.poll() is None:
            helper.kill()
            helper.wait()
