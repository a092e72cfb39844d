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


@dataclass(frozen=True)
class SampleSpec:
    """How a client's labelled samples are split, and what they are scaled by.

    Args:
        train: share of a client's samples that train.
        validation: share that validates; the rest tests.
        split: ``"time"``: the first samples train, the last ones test. ``"stratified"``: each class is dealt by these
            shares. ``"official"``: the source's own; where it has no validation part, one is cut from its training
            samples. ``"auto"``: official, else time, else stratified, whichever the samples can give.
        scale: moments of the training inputs (and of float targets): of all clients but those held out,
            ``"population"``, of each by itself, ``"client"``, or ``"none"``.
        min_samples: in every span, else the client is an error or dropped.
        on_short: ``"error"`` or ``"drop"``.
        seed: of the stratified split, together with the client's name.

    Raises:
        DataError: all values out of range, in one message.
    """

    train: float = 0.6
    validation: float = 0.2
    split: Literal["auto", "time", "stratified", "official"] = "auto"
    scale: Literal["client", "population", "none"] = "population"
    min_samples: int = 1
    on_short: Literal["error", "drop"] = "error"
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "split": ("auto", "time", "stratified", "official"),
            "scale": ("client", "population", "none"),
            "on_short": ("error", "drop"),
        }
        problems = [
            f"{name} must be a fraction between 0 and 1, got {getattr(self, name)}."
            for name in ("train", "validation")
            if not 0 < getattr(self, name) < 1
        ]
        if not problems and self.train + self.validation >= 1 - 1e-9:
            problems.append(
                f"train + validation must leave a test span, got {self.train} + {self.validation}; "
                "make their sum less than 1."
            )
        problems += [
            f"{name} must be one of {', '.join(map(repr, known))}, got {getattr(self, name)!r}."
            for name, known in choices.items()
            if getattr(self, name) not in known
        ]
        problems += [
            f"{name} must be at least {bound}, got {getattr(self, name)}."
            for name, bound in (("min_samples", 1), ("seed", 0))
            if getattr(self, name) < bound
        ]
        raise_if_any(problems)

    @property
    def parts(self) -> tuple[float, float, float]:
        """Shares of the three spans, in the order of ``SPANS``."""
        return (self.train, self.validation, 1 - self.train - self.validation)
