"""Vehicle Sensor (SensIT): 23 sensors beside a road tell tracked from wheeled vehicles."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from ..cache import cached
from ..errors import DataError, raise_if_any
from ..home import find_root
from ..registry import About, register_source
from ..samples import ClientSamples
from ..series import Dropped, count_reasons, offsets_of
from .mocha_mat import Task, read_tasks

FILE = "vehicle.mat"
SENSORS, FEATURES = 23, 100
# assault amphibian vehicle, tracked, and dragon wagon, wheeled; the file does not say which label is which, so that
# label -1 is AAV is our reading
CLASSES = ("AAV", "DW")


@register_source("sensit")
@dataclass(frozen=True)
class SensIT:
    """Sensors of the Vehicle Sensor network; a sample has 50 acoustic and 50 seismic features and a class.

    Any MATLAB file of this layout is read: 23 tasks of 100 features are the sensors, others are ``task01``, ...

    Args:
        root: ``vehicle.mat`` or its folder; None for what was prepared.
        min_samples: drop sensors with fewer.

    Raises:
        DataError: all options out of range, in one message.

    References:
        Duarte, Hu, Vehicle classification in distributed sensor networks, J. Parallel and Distributed Computing 64(7),
        2004. The cells are those of Smith et al., Federated multi-task learning, NeurIPS 2017.
    """

    about: ClassVar[About] = About(
        kind="vehicle sensing",
        what="acoustic and seismic features of passing vehicles, tracked (AAV) or wheeled (DW)",
        clients=str(SENSORS),
        licence="not stated; for research, ask the authors",
        attributes=("n_samples", "share_dw"),
        needs="root=FILE (vehicle.mat, from those who use it: MOCHA, Ditto)",
        task="classify",
        attribution="Duarte and Hu (2004), J. Parallel and Distributed Computing 64(7)",
    )

    root: str | None = None
    min_samples: int = 1

    def __post_init__(self) -> None:
        low = [f"min_samples must be at least 1, got {self.min_samples}."] if self.min_samples < 1 else []
        raise_if_any(low)

    def load(self) -> ClientSamples:
        """Return one step of 100 channels a sample; class 0 is AAV (label -1), 1 is DW.

        Raises:
            DataError: no file, a file of another layout, or no sensor left.
        """
        root = find_root("sensit", self.root)
        return cached(self, "sensit", root, lambda: _population(_find(root), self.min_samples))


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    found = sorted(root.rglob("*.mat"))
    named = [path for path in found if path.name == FILE] or found
    if len(named) != 1:
        raise DataError(f"Folder {root} holds {len(named)} .mat files, one is needed. Give root=.../{FILE}.")
    return named[0]


def _population(path: Path, min_samples: int) -> ClientSamples:
    tasks = read_tasks(path)
    sensors = len(tasks) == SENSORS and tasks[0][0].shape[1] == FEATURES
    names = [f"{'sensor' if sensors else 'task'}{number + 1:02d}" for number in range(len(tasks))]
    few = [len(y) < min_samples for _, y in tasks]
    dropped = tuple(
        Dropped(name, f"min_samples: {len(y)} samples, {min_samples} asked for")
        for name, (_, y), short in zip(names, tasks, few, strict=True)
        if short
    )
    kept = [number for number, short in enumerate(few) if not short]
    if not kept:
        raise DataError(f"No sensor of source 'sensit' is left: {count_reasons(dropped)}. Lower min_samples.")
    return _samples([names[k] for k in kept], [tasks[k] for k in kept], dropped, min_samples)


def _samples(
    names: list[str], tasks: list[Task], dropped: tuple[Dropped, ...], min_samples: int
) -> ClientSamples:
    labels = [(y > 0).astype(np.int64) for _, y in tasks]
    attributes = pd.DataFrame(
        {"n_samples": [len(y) for y in labels], "share_dw": [float(y.mean()) for y in labels]},
        index=pd.Index(names, name="client"),
    )
    return ClientSamples(
        name="sensit",
        inputs=torch.from_numpy(np.concatenate([x for x, _ in tasks])[:, None]),
        targets=torch.from_numpy(np.concatenate(labels)),
        offsets=offsets_of([len(y) for y in labels]),
        clients=tuple(names),
        attributes=attributes,
        classes=CLASSES,
        rules=(
            "label -1 is read as AAV, 1 as DW (the file does not say); features as they are",
            f"min_samples: a sensor with fewer than {min_samples} samples is dropped",
        ),
        dropped=dropped,
    )
