"""How series are cut into windows and spans."""

from dataclasses import dataclass
from typing import Literal

from .errors import raise_if_any

Span = Literal["train", "validation", "test"]
SPANS: tuple[Span, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class WindowSpec:
    """How a client's series is cut into windows and spans; lengths and strides in steps.

    Spans are chronological per client: the first ``train`` of its steps, the next ``validation``, the rest is
    the test span. Windows start on a grid of the span's stride from the first window the span could hold.

    Raises:
        DataError: all values out of range, in one message.
    """

    lookback: int = 168
    horizon: int = 24
    train: float = 0.6
    validation: float = 0.2
    train_stride: int = 1
    validation_stride: int = 7
    test_stride: int = 1
    max_gap: int = 3
    min_windows: int = 1
    on_short: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        at_least = {"lookback": 1, "horizon": 1, "max_gap": 0, "min_windows": 1} | {
            f"{s}_stride": 1 for s in SPANS
        }
        low = [
            f"{name} must be at least {bound}, got {getattr(self, name)}."
            for name, bound in at_least.items()
            if getattr(self, name) < bound
        ]
        outside = [
            f"{name} must be a fraction between 0 and 1, got {getattr(self, name)}."
            for name in ("train", "validation")
            if not 0 < getattr(self, name) < 1
        ]
        if not outside and self.train + self.validation >= 1 - 1e-9:
            outside.append(
                f"train + validation must leave a test span, got {self.train} + {self.validation}; "
                "make their sum less than 1."
            )
        mode = (
            []
            if self.on_short in ("error", "drop")
            else [f"on_short must be 'error' or 'drop', got {self.on_short!r}."]
        )
        raise_if_any([*low, *outside, *mode])

    @property
    def width(self) -> int:
        """Steps of a whole window."""
        return self.lookback + self.horizon

    def stride(self, span: Span) -> int:
        """Steps from one window of the span to the next."""
        return int(getattr(self, f"{span}_stride"))

    def bounds(self, steps: int) -> dict[Span, tuple[int, int]]:
        """Return each span's ``[first, last + 1)`` step for a client of ``steps`` steps."""
        # 0.6 + 0.2 times 10 steps is 8 steps, whatever the rounding of the sum says
        ends = [int(steps * part + 1e-6) for part in (self.train, self.train + self.validation)]
        return {"train": (0, ends[0]), "validation": (ends[0], ends[1]), "test": (ends[1], steps)}
