import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import ClientSamples, SimulatedHouseholds
from data_loaders.series import offsets_of


@pytest.fixture(scope="session")
def make_samples():
    """Random samples whose first input tells them apart; ``classes=0`` gives float targets."""

    def build(lengths=(40, 25, 60), classes=5, seed=0, **fields):
        generator, total = np.random.default_rng(seed), sum(lengths)
        names = tuple(f"speaker {k}" for k in range(len(lengths)))
        inputs = generator.normal(size=(total, 3, 2)).astype(np.float32)
        inputs[:, 0, 0] = np.arange(total)
        labels = torch.from_numpy(generator.integers(0, max(classes, 1), total))
        numbers = torch.from_numpy(generator.normal(50, 9, (total, 2)).astype(np.float32))
        table = {
            "accent": [("north", "south")[k % 2] for k in range(len(lengths))],
            "number": range(len(lengths)),
        }
        return ClientSamples(
            **{
                "name": "handmade",
                "inputs": torch.from_numpy(inputs),
                "targets": labels if classes else numbers,
                "offsets": offsets_of(lengths),
                "clients": names,
                "attributes": pd.DataFrame(table, index=pd.Index(names, name="client")),
                "classes": tuple(f"word {k}" for k in range(classes)),
                **fields,
            }
        )

    return build


@pytest.fixture(scope="session")
def households():
    """Six households of unequal length with gaps."""
    return SimulatedHouseholds(clients=6, days=30, min_days=20, missing=0.01, seed=2).load()
