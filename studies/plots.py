"""The comparison as pictures: who gains, by how much, and when training stopped helping."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .confusion import draw_confusion
from .results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart by colour-blind readers; dashes tell the second round of it from the first
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = ("-", "--", ":")


def write_plots(results: Results, folder: Path) -> list[Path]:
    """Write the plots that the results allow as PNG files.

    Returns:
        The files: ``clients.png``, ``curves.png``, where distances were measured ``distance.png``, and of classes
        ``confusion.png``.
    """
    plots = {"clients.png": clients_plot, "curves.png": curves_plot}
    if _with_distance(results):
        plots["distance.png"] = distance_plot
    folder.mkdir(parents=True, exist_ok=True)
    files = [_draw(plot, results, folder / name) for name, plot in plots.items()]
    if results.confusion is not None and len(results.scores):
        files.append(draw_confusion(results, folder / "confusion.png"))
    return files


def clients_plot(results: Results, axes: Axes) -> None:
    """Share of clients whose error is at most x, a line per method; each client's mean over seeds."""
    metric = results.metric
    for method, rows in results.scores.groupby("method", sort=False):
        errors = np.sort(rows.groupby("client")[metric].mean().dropna().to_numpy())
        share = np.arange(1, len(errors) + 1) / len(errors)
        axes.step(errors, share, where="post", label=str(method), **_style(results, str(method)))
    axes.set_xlabel(f"{metric} of a client on the test span ({_unit(results)})")
    what = metric if results.higher else "error"
    axes.set_ylabel(f"share of clients with at most this {what}")
    axes.set_title(
        f"{results.study}: {'scores' if results.higher else 'errors'} of the {results.scores['client'].nunique()} clients"
    )
    axes.legend(fontsize=8)


def curves_plot(results: Results, axes: Axes) -> None:
    """The objective on the validation span by round, mean over seeds with their range."""
    for method in (m for m in results.methods if m.curves):
        table = pd.DataFrame({seed: dict(curve) for seed, curve in method.curves.items()}).sort_index()
        style = _style(results, method.label)
        axes.plot(table.index, table.mean(axis=1), label=method.label, **style)
        axes.fill_between(table.index, table.min(axis=1), table.max(axis=1), alpha=0.15, color=style["color"])
    axes.set_xlabel("round")
    axes.set_ylabel(f"{results.objective} ({_unit(results)})")
    axes.set_title(f"{results.study}: training, final seeds")
    axes.legend(fontsize=8)


def distance_plot(results: Results, axes: Axes) -> None:
    """What clients gain over training alone, against their distance from the population."""
    wide = results.scores.groupby(["method", "client"])[results.metric].mean().unstack(0)
    distance = results.scores.dropna(subset=["distance"]).groupby("client")["distance"].first()
    methods = [m.label for m in results.methods if m.label in wide and m.label != "local"]
    for method in methods:
        gain = (wide["local"] - wide[method]).reindex(distance.index) * (-1 if results.higher else 1)
        axes.scatter(distance, gain, s=14, alpha=0.7, label=method, color=_style(results, method)["color"])
    axes.axhline(0, color="#444444", linewidth=0.8)
    axes.set_xlabel("calibrated distance to the population, in medians of all clients (no unit)")
    less, more = ("method", "local") if results.higher else ("local", "method")
    metric = results.metric
    axes.set_ylabel(f"gain over local: {metric}({less}) - {metric}({more}) ({_unit(results)})")
    axes.set_title(f"{results.study}: who gains from the others")
    axes.legend(fontsize=8)


def _draw(plot: object, results: Results, path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.grid(alpha=0.25)
    plot(results, axes)  # type: ignore[operator]
    figure.savefig(path, dpi=130)
    return path


def _with_distance(results: Results) -> bool:
    scores = results.scores
    known = "distance" in scores.columns and scores["distance"].notna().any()
    return bool(known) and "local" in set(scores["method"])


def _style(results: Results, method: str) -> dict[str, Any]:
    """Colour and dashes of a method, the same in every plot of a study."""
    place = [m.label for m in results.methods].index(method)
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place // len(COLOURS) % len(DASHES)]}


def _unit(results: Results) -> str:
    forecast = results.facts.get("task", "forecast") == "forecast"
    units = {
        "nmae": "share of mean load" if forecast else "share of the mean target",
        "mase": "ratio to lag-24",
        "error": "share of examples",
        "accuracy": "share of examples",
        "macro_f1": "no unit",
        "r2": "share of the variance",
        "cross_entropy": "nats",
    }
    return units.get(results.metric, str(results.facts["unit"]))
