"""Small populations with every field set, and a reader that counts, for the tests of the cache."""

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from data_loaders import About, ClientSamples, ClientSeries, Dropped

NAMES = ("MAC 1", "é", "c")


@dataclass(frozen=True)
class Toy:
    about: ClassVar[About] = About(licence="CC BY 4.0", attribution="Toy et al., 2020")
    root: str = ""
    frequency: str = "1h"
    weather: str | None = None
    kinds: tuple[str, ...] = ("a",)


def attributes():
    table = {
        "tariff": ["Std", None, "ToU"],
        "group": pd.Categorical(["x", "y", "x"], ["y", "x"], ordered=True),
        "area": [1.5, np.nan, 3.0],
        "rooms": np.array([1, 2, 3], np.int8),
        "maybe": pd.array([True, None, False], "boolean"),
        "since": pd.to_datetime(["2013-01-01", None, "2014-02-03"]),
    }
    made = pd.DataFrame(table, index=pd.Index(NAMES, name="client"))
    return made.assign(mixed=pd.Series(["one", None, "three"], made.index, dtype=object))


def series(seed=0, **changes):
    values = torch.randn(9, 2, generator=torch.Generator().manual_seed(seed))
    values[3, 0] = torch.nan
    made = ClientSeries(
        name="toy",
        values=values,
        offsets=torch.tensor([0, 4, 4, 9]),
        clients=NAMES,
        attributes=attributes(),
        starts=np.array(["2013-01-01", "NaT", "2014-02-03T04:05:06"], "datetime64[s]"),
        step_seconds=0.1,
        unit="kWh",
        rules=("summed", 'with "quotes"'),
        dropped=(Dropped("d", "min_days: 3"),),
        channel_names=("load", "weather"),
        known=("weather",),
        breaks=torch.tensor([2, 6]),
    )
    return replace(made, **changes)


def samples(**changes):
    made = ClientSamples(
        name="toy",
        inputs=torch.randn(5, 3, 2),
        targets=torch.tensor([0, 1, 1, 0, 1]),
        offsets=torch.tensor([0, 2, 2, 5]),
        clients=NAMES,
        attributes=attributes(),
        classes=("yes", "no"),
        groups=torch.tensor([0, 0, 1, 2, 2]),
        times=torch.tensor([5, 4, 3, 2, 1]),
        official=torch.tensor([0, 1, 2, -1, 0], dtype=torch.int8),
        channel_names=("mel", "delta"),
        rules=("trimmed",),
        dropped=(Dropped("d", "silent: all"),),
    )
    return replace(made, **changes)


def assert_equal(one, other):
    assert type(one) is type(other)
    for field in fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, torch.Tensor):
            assert mine.dtype == theirs.dtype, field.name
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
        elif isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
        elif isinstance(mine, pd.DataFrame):
            pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
        else:
            assert mine == theirs, field.name
            assert type(mine) is type(theirs), field.name
    assert one.fingerprint() == other.fingerprint()


class Reader:
    """Counts how often the files are parsed."""

    def __init__(self, result):
        self.result, self.times = result, 0

    def __call__(self):
        self.times += 1
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result
