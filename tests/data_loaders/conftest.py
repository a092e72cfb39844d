from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import ClientSeries
from data_loaders.series import offsets_of

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def shared_data():
    if not SHARED.is_dir():
        pytest.skip(f"the shared data folder {SHARED} is not here")
    return SHARED


@pytest.fixture(scope="session")
def make_series():
    """Build a series from a list of per-client arrays, (steps,) or (steps, channels)."""

    def build(arrays, step_seconds=3600, starts=None, **fields):
        values = [np.asarray(array, np.float32).reshape(len(array), -1) for array in arrays]
        names = tuple(f"client {number}" for number in range(len(values)))
        stamps = starts or ["2013-01-01"] * len(values)
        return ClientSeries(
            name="handmade",
            values=torch.from_numpy(np.concatenate(values)),
            offsets=offsets_of([len(array) for array in values]),
            clients=names,
            attributes=pd.DataFrame({"number": range(len(values))}, index=pd.Index(names, name="client")),
            starts=np.array(stamps, "datetime64[s]"),
            step_seconds=step_seconds,
            unit="kWh",
            **fields,
        )

    return build
