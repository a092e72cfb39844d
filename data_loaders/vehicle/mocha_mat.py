"""MATLAB files of multi-task learning, as MOCHA and Ditto use them: cells ``X{t}`` of features and ``Y{t}`` of labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError

Task = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def read_tasks(path: Path) -> list[Task]:
    """Return each task's features ``(n, features)`` float32 and labels ``(n,)`` int64, -1 or 1.

    Args:
        path: a ``.mat`` of version 7 or older whose ``X`` and ``Y`` are cells, one a task, in a row or a column.

    Raises:
        DataError: no such cells, tasks of unequal shape, labels other than -1 and 1, or values that are not finite.
    """
    cells = _load(path)
    features, labels = (_cells(cells, name, path) for name in ("X", "Y"))
    if len(features) != len(labels):
        raise DataError(f"File {path}: {len(features)} tasks in X and {len(labels)} in Y. {_remedy()}")
    tasks = [_task(x, y, number, path) for number, (x, y) in enumerate(zip(features, labels, strict=True))]
    widths = sorted({x.shape[1] for x, _ in tasks})
    if len(widths) > 1:
        raise DataError(
            f"File {path}: tasks have {', '.join(map(str, widths))} features, not one number. {_remedy()}"
        )
    return tasks


def _load(path: Path) -> dict[str, Any]:
    import scipy.io

    try:
        cells: dict[str, Any] = scipy.io.loadmat(path, variable_names=["X", "Y"])
    except NotImplementedError as error:
        raise DataError(f"File {path} is of MATLAB 7.3 (HDF5). Save it again with `save -v7`.") from error
    except (ValueError, TypeError, OSError, EOFError, IndexError, scipy.io.matlab.MatReadError) as error:
        raise DataError(f"File {path} is no MATLAB file or is broken ({error}). {_remedy()}") from error
    return cells


def _cells(cells: dict[str, Any], name: str, path: Path) -> Sequence[Any]:
    found = cells.get(name)
    if not isinstance(found, np.ndarray) or found.dtype != object or not found.size:
        what = "nothing" if found is None else f"{getattr(found, 'dtype', type(found).__name__)}"
        raise DataError(f"File {path}: {name!r} must be cells, one a task, found {what}. {_remedy()}")
    return list(found.ravel())


def _task(x: Any, y: Any, number: int, path: Path) -> Task:
    where = f"File {path}, task {number + 1}"
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or y.size != x.shape[0]:
        raise DataError(f"{where}: X is {x.shape} and Y {y.shape}, not (n, features) and (n, 1). {_remedy()}")
    if not (np.issubdtype(x.dtype, np.number) and np.issubdtype(y.dtype, np.number)):
        raise DataError(f"{where}: X is {x.dtype} and Y {y.dtype}, not numbers. {_remedy()}")
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise DataError(f"{where}, row {row + 1}: a feature is not finite. Fill or remove the row.")
    odd = np.setdiff1d(y, [-1, 1])
    if len(odd):
        raise DataError(f"{where}: labels must be -1 or 1, found {odd[0]}. {_remedy()}")
    return x.astype(np.float32), y.ravel().astype(np.int64)


def _remedy() -> str:
    return "It needs X{t} (n, features) and Y{t} (n, 1) with -1 and 1, one cell a task, like vehicle.mat of MOCHA."
