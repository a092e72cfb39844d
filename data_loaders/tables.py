"""From a pandas table to client series, and from client series to a table that describes them."""

from dataclasses import replace

import numpy as np
import pandas as pd

from .electricity.households import Household, HouseholdRules, assemble
from .errors import DataError
from .series import ClientSeries
from .windows import SPANS, ForecastWindows


def series_from_table(
    name: str,
    table: pd.DataFrame,
    *,
    unit: str,
    attributes: pd.DataFrame | None = None,
    rules: tuple[str, ...] = (),
) -> ClientSeries:
    """Return a wide table, one column a client, as client series; each from its first to its last reading.

    Args:
        name: of the source.
        table: numbers, NaN = missing, on a regular ``DatetimeIndex``; columns without a reading are dropped.
        unit: of the values.
        attributes: one row a client, indexed by column name; None for none.
        rules: what was done to the table, in words.

    Raises:
        DataError: no regular stamps, a column that is not numeric, or no client left.
    """
    index, seconds = table.index, np.zeros(0, np.int64)
    if isinstance(index, pd.DatetimeIndex):
        utc = index if index.tz is None else index.tz_convert(None)
        seconds = utc.to_numpy().astype("datetime64[s]").astype(np.int64)
    steps = np.unique(np.diff(seconds))
    if len(steps) != 1 or steps[0] < 1:
        found = f"{type(index).__name__} with {len(steps)} different steps"
        raise DataError(
            f"Source {name!r} needs stamps at one regular step, got a {found}. Resample the table."
        )
    text = [str(column) for column in table.columns if not pd.api.types.is_numeric_dtype(table[column])]
    if text:
        raise DataError(f"Source {name!r}: columns {', '.join(text)} are not numeric.")
    start, step = int(seconds[0]), int(steps[0])
    meters = (
        Household(str(column), start, step, table[column].to_numpy(np.float32, na_value=np.nan))
        for column in table.columns
    )
    anything = HouseholdRules(min_days=0, min_coverage=0, max_zero_share=1)
    series = assemble(name, meters, anything, capacity=table.size, step_seconds=step)
    known = pd.DataFrame(index=list(series.clients)) if attributes is None else attributes
    known = known.reindex(index=list(series.clients)).rename_axis(index="client")
    return replace(series, unit=unit, rules=rules, attributes=known)


def describe(data: ClientSeries | ForecastWindows) -> pd.DataFrame:
    """Return one row a client: first stamp, days, and for series what was observed, for windows their counts.

    Args:
        data: series, giving ``observed`` (share), ``mean`` and ``zeros`` (share) of the target; or windows, giving
            training ``mean`` and ``std`` and ``naive_error`` in the original unit and the windows of each span.
    """
    series = data.series if isinstance(data, ForecastWindows) else data
    about: dict[str, object] = {
        "start": series.starts,
        "days": series.lengths.numpy() * series.step_seconds / 86400,
    }
    if isinstance(data, ForecastWindows):
        about |= {"mean": data.mean[:, 0].numpy(), "std": data.std[:, 0].numpy()}
        about |= {"naive_error": data.naive_error.numpy()}
        about |= {f"{span}_windows": data.count(span).numpy() for span in SPANS}
    else:
        targets = [series.of(client)[:, 0] for client in range(len(series))]
        about["observed"] = [float((~target.isnan()).float().mean()) for target in targets]
        about["mean"] = [float(target.nanmean()) for target in targets]
        about["zeros"] = [float((target == 0).float().mean()) for target in targets]
    return pd.DataFrame(about, index=pd.Index(series.clients, name="client"))
