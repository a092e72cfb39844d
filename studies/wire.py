"""What measuring distances sent and spent, as a run's metrics and text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from persofl.wire import Toll

TRANSCRIPT = "distance_protocol.txt"


def wire_metrics(tolls: Sequence[Toll]) -> dict[str, float]:
    """Bytes that a client sent and received in all measurements, how many there were, and epsilon where there was noise."""
    if not tolls:
        return {}
    found = {
        "distance/bytes_up": sum(toll.up for toll in tolls),
        "distance/bytes_down": sum(toll.down for toll in tolls),
        "distance/measured": float(len(tolls)),
    }
    epsilon = max((toll.epsilon for toll in tolls if not math.isnan(toll.epsilon)), default=math.nan)
    return found if math.isnan(epsilon) else {**found, "distance/epsilon": epsilon}


def wire_text(tolls: Sequence[Toll]) -> str:
    """The messages of the last measurement and what they tell; empty where nothing was sent."""
    last = next((toll for toll in reversed(tolls) if toll.table), None)
    if last is None:
        return ""
    return f"{last.protocol}, {last.rounds} round(s). The server learns: {last.learns}\n\n{last.table}\n"


def wire_line(tolls: Sequence[Toll]) -> str:
    """The same in one line for the terminal; empty where nothing was sent."""
    metrics = wire_metrics(tolls)
    if not metrics:
        return ""
    up, down = (metrics[f"distance/bytes_{way}"] / 1024 for way in ("up", "down"))
    spent = f", epsilon {metrics['distance/epsilon']:.2f} spent" if "distance/epsilon" in metrics else ""
    return (
        f"Distances by {tolls[-1].protocol}: measured {len(tolls)} time(s), {up:.1f} KiB up and {down:.1f} KiB down per "
        f"client{spent}."
    )
