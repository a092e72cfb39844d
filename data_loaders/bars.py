"""Progress of long steps: bars on a terminal's error output, a callback of one's own, or nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .sink import Progress

Steps = Callable[[str], Progress]  # a step in words -> what to call with the bytes done and to do


@contextmanager
def shown(progress: bool | Steps) -> Iterator[Steps]:
    """Yield what makes a callback for each step: bars for True, nothing for False, else the caller's own."""
    if progress is False:
        yield lambda step: lambda done, total: None
    elif progress is not True:
        yield progress
    else:
        from rich import progress as rich
        from rich.console import Console

        columns: list[str | rich.ProgressColumn] = ["{task.description}", rich.BarColumn()]
        columns += [rich.DownloadColumn(), rich.TransferSpeedColumn(), rich.TimeRemainingColumn()]
        with rich.Progress(*columns, console=Console(stderr=True)) as bars:
            yield lambda step: _bar(bars, step)


def _bar(bars: Any, step: str) -> Progress:
    task: list[Any] = []

    def update(done: int, total: int | None) -> None:
        if not task:
            task.append(bars.add_task(step, total=total))
        bars.update(task[0], completed=done, total=total)

    return update
