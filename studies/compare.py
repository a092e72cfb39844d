"""The comparison as pure functions on per-client scores.

``scores`` is one long table with the columns ``method``, ``seed``, ``client`` and one column per metric, a row
for each client of each final run. Lower is better, but of the metrics in ``persofl.metrics.HIGHER``. The order of its
rows does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from persofl.metrics import HIGHER, share_worse, summarise

SUMMARIES = ("mean", "median", "std", "worst_decile", "jain")
REFERENCES = ("local", "fedavg")
Array = npt.NDArray[np.float64]


def summary_table(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row per method: summaries over clients, averaged over seeds.

    Args:
        scores: per-client scores, see the module.
        metric: column to summarise.

    Returns:
        Index: methods in order of appearance. Columns: ``mean``, ``mean_low`` and ``mean_high`` (95 % t-interval
        over seeds, NaN with one seed), ``median``, ``std``, ``worst_decile``, ``jain``, ``worse_than_local`` and
        ``worse_than_fedavg`` (share of clients, matched by seed; NaN without that method), ``harmed`` (share that fares
        worse than with the better of the two, with ``harmed_low`` and ``harmed_high``), ``seeds``, ``clients``.
    """
    rows = {method: _method_row(scores, str(method), metric) for method in pd.unique(scores["method"])}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def paired_table(
    scores: pd.DataFrame, metric: str, reference: str = "fedavg", draws: int = 2000
) -> pd.DataFrame:
    """How each method differs from ``reference``; negative is better where lower is.

    Two intervals answer two questions. Over *seeds*: would the difference in the mean (or in the worst decile)
    come out the same with other initial weights and batches? Over *clients* (bootstrap of the per-client
    differences, averaged over seeds): would it with other clients of the same kind?

    Args:
        scores: per-client scores, see the module.
        metric: column to compare.
        reference: the method to compare with; the table is empty where the study has none of that name.
        draws: bootstrap draws.

    Returns:
        Index: the other methods. Columns: ``mean``, ``mean_low``, ``mean_high``, ``worst_decile``,
        ``worst_decile_low``, ``worst_decile_high`` (95 % over seeds), ``clients_low``, ``clients_high`` (95 %
        over clients, of the mean difference), ``harmed``, ``harmed_low``, ``harmed_high`` (95 % over seeds, of the
        difference in the share of harmed clients, see :func:`summary_table`), ``seeds``.
    """
    wide = _wide(scores, metric)
    methods = [str(m) for m in pd.unique(scores["method"]) if m != reference]
    if reference not in set(scores["method"]):
        return pd.DataFrame()
    rows = {m: _paired_row(wide, m, reference, draws, metric in HIGHER) for m in methods}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def control_table(
    scores: pd.DataFrame, metric: str, controls: Mapping[str, Sequence[str]], draws: int = 2000
) -> pd.DataFrame:
    """How each steered method differs from each of its controls; the columns are those of :func:`paired_table`.

    Args:
        scores: per-client scores, see the module.
        metric: column to compare.
        controls: method -> the methods that it is to beat; those without scores are left out.
        draws: bootstrap draws.

    Returns:
        Index: ``method``, ``control``.
    """
    if scores.empty:
        return pd.DataFrame()
    wide = _wide(scores, metric)
    there = set(wide.index.get_level_values(0))
    rows = {
        (method, control): _paired_row(wide, method, control, draws, metric in HIGHER)
        for method, others in controls.items()
        for control in others
        if {method, control} <= there
    }
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["method", "control"])


def group_table(scores: pd.DataFrame, metric: str, groups: pd.Series) -> pd.DataFrame:
    """Mean of ``metric`` per group of clients (rows) and method (columns), over clients and seeds.

    Args:
        scores: per-client scores, see the module.
        metric: column to average.
        groups: client -> group; clients without one are left out.
    """
    known = {str(client): group for client, group in groups.dropna().items()}
    grouped = scores.assign(group=scores["client"].astype(str).map(known)).dropna(subset=["group"])
    table = grouped.pivot_table(index="group", columns="method", values=metric, aggfunc="mean", sort=False)
    counts = grouped.groupby("group")["client"].nunique().rename("clients")
    order = [m for m in pd.unique(scores["method"]) if m in table.columns]
    return pd.concat([counts, table[order]], axis=1).sort_index()


def interval(values: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Student t interval of the mean of ``values`` (one per seed); NaN with fewer than two."""
    from scipy import stats

    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return (np.nan, np.nan)
    half = stats.t.ppf(0.5 + level / 2, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample))
    return (float(sample.mean() - half), float(sample.mean() + half))


def bootstrap(values: npt.ArrayLike, draws: int, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values`` (one per client)."""
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return (np.nan, np.nan)
    rng = np.random.default_rng(seed)
    means = [sample[rng.integers(0, len(sample), len(sample))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return (float(low), float(high))


def _method_row(scores: pd.DataFrame, method: str, metric: str) -> dict[str, float]:
    wide = _wide(scores, metric)
    own = wide.loc[method]
    higher = metric in HIGHER
    per_seed = pd.DataFrame([_summaries(own.loc[seed], higher) for seed in own.index])
    low, high = interval(per_seed["mean"])
    row = {name: float(per_seed[name].mean()) for name in SUMMARIES}
    worse = {f"worse_than_{ref}": _share_worse(wide, method, ref, higher) for ref in ("local", "fedavg")}
    return {
        "mean": row.pop("mean"),
        "mean_low": low,
        "mean_high": high,
        **row,
        **worse,
        **_spread("harmed", _harmed(wide, method, higher)),
        "seeds": len(own),
        "clients": int(own.notna().any().sum()),
    }


def _share_worse(wide: pd.DataFrame, method: str, reference: str, higher: bool) -> float:
    """Mean over the seeds both have of the share of clients worse off than with ``reference``."""
    if reference not in wide.index.get_level_values(0) or method == reference:
        return np.nan
    own, other = wide.loc[method], wide.loc[reference]
    seeds = own.index.intersection(other.index)
    shares = [share_worse(*_both(own.loc[s], other.loc[s]), higher=higher) for s in seeds]
    return float(np.mean(shares)) if shares else np.nan


def _harmed(wide: pd.DataFrame, method: str, higher: bool) -> pd.Series:
    """By seed: the share of clients worse off than with the better of local and FedAvg; empty without both."""
    if not set(REFERENCES) <= set(wide.index.get_level_values(0)):
        return pd.Series(dtype=float)
    own, local, fedavg = (wide.loc[[name]].droplevel(0) for name in (method, *REFERENCES))
    better = local.combine(fedavg, np.fmax if higher else np.fmin)
    seeds = own.index.intersection(local.index).intersection(fedavg.index)
    shares = {s: share_worse(*_both(own.loc[s], better.loc[s]), higher=higher) for s in seeds}
    return pd.Series(shares, dtype=float)


def _spread(name: str, values: pd.Series | list[float]) -> dict[str, float]:
    """A mean over seeds with its interval."""
    low, high = interval(values)
    return {name: float(np.mean(values)) if len(values) else np.nan, f"{name}_low": low, f"{name}_high": high}


def _paired_row(
    wide: pd.DataFrame, method: str, reference: str, draws: int, higher: bool
) -> dict[str, float]:
    own, other = (wide.loc[[name]].droplevel(0) for name in (method, reference))
    seeds = own.index.intersection(other.index)
    row: dict[str, float] = {}
    for name in ("mean", "worst_decile"):
        gaps = [_summaries(own.loc[s], higher)[name] - _summaries(other.loc[s], higher)[name] for s in seeds]
        row |= _spread(name, gaps)
    harm = (_harmed(wide, method, higher) - _harmed(wide, reference, higher)).dropna()
    row |= _spread("harmed", harm)
    per_client = (own.loc[seeds] - other.loc[seeds]).mean(axis=0).dropna()
    row["clients_low"], row["clients_high"] = bootstrap(per_client, draws)
    return {**row, "seeds": len(seeds)}


def _wide(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows (method, seed), columns clients."""
    return scores.pivot_table(
        index=["method", "seed"], columns="client", values=metric, aggfunc="first", dropna=False
    ).dropna(how="all")


def _summaries(values: pd.Series, higher: bool) -> dict[str, float]:
    return dict(summarise(values.dropna().to_numpy(dtype=float), higher=higher))


def _both(own: pd.Series, other: pd.Series) -> tuple[Array, Array]:
    known = own.notna() & other.notna()
    return own[known].to_numpy(dtype=float), other[known].to_numpy(dtype=float)
