"""Who was taken for whom: every client's confusion matrix as a table, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from persofl import FederatedModule

    from .results import Results

CONFUSION = "confusion.csv"
NAMED = 40
"""Up to so many classes are named at the axes."""


def confusion_table(module: FederatedModule) -> pd.DataFrame | None:
    """Every client's confusions on the test span, without the zeros; ``None`` for a task without classes.

    Returns:
        Index ``client``; columns ``true``, ``predicted`` (names of classes) and ``count``.
    """
    if module.federation.task.floats:
        return None
    matrices = module.confusion("test")
    client, true, predicted = (part.numpy() for part in matrices.nonzero(as_tuple=True))
    classes = np.array(module.federation.data.classes, dtype=object)
    names = np.array(module.federation.names, dtype=object)
    columns = {
        "true": classes[true],
        "predicted": classes[predicted],
        "count": matrices[matrices > 0].numpy(),
    }
    return pd.DataFrame(columns, index=pd.Index(names[client], name="client"))


def matrix_of(table: pd.DataFrame, classes: list[str]) -> npt.NDArray[np.float64]:
    """The counts of a table as ``(classes, classes)``, rows the true ones."""
    place = {name: k for k, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)))
    rows, columns = (table[name].astype(str).map(place).to_numpy() for name in ("true", "predicted"))
    np.add.at(matrix, (rows, columns), table["count"].to_numpy())
    return matrix


def draw_confusion(results: Results, path: Path) -> Path:
    """Draw the best method's confusions over all clients, and over the worst tenth of them, as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    method, worst = best_and_worst(results)
    table = pd.DataFrame(results.confusion)
    own = table[table["method"] == method]
    figure = Figure(figsize=(12, 6.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _panel(left, matrix_of(own, results.classes), results.classes, f"{method}: all clients")
    few = own[own["client"].astype(str).isin(worst)]
    title = f"{method}: the worst tenth, {', '.join(worst[:3])}{', ...' if len(worst) > 3 else ''}"
    _panel(right, matrix_of(few, results.classes), results.classes, title)
    figure.savefig(path, dpi=130)
    return path


def best_and_worst(results: Results) -> tuple[str, list[str]]:
    """The method with the best mean, and the tenth of its clients that fare worst, the worst first."""
    higher = results.higher
    means = results.scores.groupby("method", sort=False)[results.metric].mean()
    best = str(means.idxmax() if higher else means.idxmin())
    own = results.scores[results.scores["method"] == best]
    clients = own.groupby("client")[results.metric].mean().dropna().sort_values(ascending=higher)
    return best, [str(name) for name in clients.index[: max(1, round(len(clients) / 10))]]


def _panel(axes: Axes, matrix: npt.NDArray[np.float64], classes: list[str], title: str) -> None:
    """Shares of each true class; a class that does not occur is a row of zeros."""
    total = matrix.sum(1, keepdims=True)
    axes.imshow(matrix / np.maximum(total, 1), cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    axes.set_title(f"{title} ({int(total.sum())} examples)", fontsize=9)
    if len(classes) <= NAMED:
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
        axes.set_yticks(range(len(classes)), classes, fontsize=7)
