"""A population as files: arrays as ``.npy``, attributes as parquet, the rest as JSON; back again bit by bit."""

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .errors import DataError
from .manifest import sha256_of
from .samples import ClientSamples
from .series import ClientSeries, Dropped

KINDS: dict[str, type[ClientSeries] | type[ClientSamples]] = {
    "ClientSeries": ClientSeries,
    "ClientSamples": ClientSamples,
}
ATTRIBUTES = "attributes.parquet"


def write_population(folder: Path, population: ClientSeries | ClientSamples) -> dict[str, Any]:
    """Write a population's arrays and attributes into ``folder``; return the rest of it, and checksums, JSON-able.

    Raises:
        DataError: a field of a type that does not come back as it was.
        OSError: the folder cannot be written.
    """
    kind = type(population)
    if KINDS.get(kind.__name__) is not kind:
        raise DataError(f"A {kind.__qualname__} cannot be kept, only {' and '.join(KINDS)}.")
    content: dict[str, Any] = {"type": kind.__name__, "arrays": {}, "values": {}}
    for field in fields(population):
        value = getattr(population, field.name)
        if isinstance(value, (Tensor, np.ndarray)):
            content["arrays"][field.name] = _write_array(folder / f"{field.name}.npy", value)
        elif isinstance(value, pd.DataFrame):
            content["attributes"] = _write_attributes(folder / ATTRIBUTES, value)
        elif field.name != "clients":  # they are the index of the attributes
            content["values"][field.name] = _plain(field.name, value)
    return content


def read_population(folder: Path, content: dict[str, Any]) -> ClientSeries | ClientSamples:
    """Return the population that :func:`write_population` wrote.

    Raises:
        DataError: a file differs from its checksum.
        OSError, ValueError, KeyError, TypeError: a file is missing, cut off or of another form.
    """
    read: dict[str, Any] = {name: _back(value) for name, value in content["values"].items()}
    read["dropped"] = tuple(Dropped(*item) for item in read["dropped"])
    for name, noted in content["arrays"].items():
        read[name] = _read_array(folder / f"{name}.npy", noted)
    read["attributes"] = _read_attributes(folder / ATTRIBUTES, content["attributes"])
    return KINDS[content["type"]](clients=tuple(read["attributes"].index), **read)


def _write_array(path: Path, value: Tensor | np.ndarray) -> dict[str, Any]:
    tensor = isinstance(value, Tensor)
    array = np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)
    np.save(path, array, allow_pickle=False)
    return {"sha256": _digest(array), "tensor": tensor}


def _read_array(path: Path, noted: dict[str, Any]) -> Tensor | np.ndarray:
    array: np.ndarray = np.load(path, allow_pickle=False)
    if _digest(array) != noted["sha256"]:
        raise DataError(f"{path} differs from its checksum.")
    return torch.from_numpy(array) if noted["tensor"] else array


def _digest(array: np.ndarray) -> str:
    head = f"{array.dtype.str} {array.shape} ".encode()
    digest = hashlib.sha256(head)
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _write_attributes(path: Path, table: pd.DataFrame) -> dict[str, Any]:
    if not all(isinstance(name, str) for name in table.columns):
        raise DataError(f"Attributes need names that are text to be kept, got {list(table.columns)}.")
    table.to_parquet(path)
    types = {str(name): str(kind) for name, kind in table.dtypes.items()}
    noted = {"sha256": sha256_of(path), "types": types, "index": str(table.index.dtype)}
    try:
        pd.testing.assert_frame_equal(_read_attributes(path, noted), table, check_exact=True)
    except AssertionError as error:
        what = str(error).splitlines()[0]
        raise DataError(f"Attributes that parquet changes cannot be kept: {what}") from error
    return noted


def _read_attributes(path: Path, noted: dict[str, Any]) -> pd.DataFrame:
    if sha256_of(path) != noted["sha256"]:
        raise DataError(f"{path} differs from its checksum.")
    table = pd.read_parquet(path)
    if str(table.index.dtype) != noted["index"]:
        table.index = table.index.astype(noted["index"])
    # parquet has no columns of Python objects: text comes back as text, and is turned back
    other = {
        name: kind
        for name, kind in noted["types"].items()
        if str(table[name].dtype) != kind and kind == "object"
    }
    return table.astype(other) if other else table


def _plain(name: str, value: Any) -> Any:
    """Return a field's value as JSON has it; tuples become lists."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Dropped):
        return [value.client, value.reason]
    if isinstance(value, tuple):
        return [_plain(name, item) for item in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise DataError(f"The field {name!r} holds a {type(value).__name__}, which cannot be kept.")


def _back(value: Any) -> Any:
    return tuple(_back(item) for item in value) if isinstance(value, list) else value
