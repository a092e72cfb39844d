"""From a pandas table to client series, and from client series to a table that describes them."""

import numpy as np
import pandas as pd
import torch

from .clocks import as_stamps
from .errors import DataError
from .series import ClientSeries, Dropped, offsets_of
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
    first, step = _regular(name, table.index)
    text = [str(column) for column in table.columns if not pd.api.types.is_numeric_dtype(table[column])]
    if text:
        raise DataError(f"Source {name!r}: columns {', '.join(text)} are not numeric.")
    buffer, kept, filled = np.empty((table.size, 1), np.float32), list[tuple[str, int, int]](), 0
    for number, column in enumerate(map(str, table.columns)):
        values = table.iloc[:, number].to_numpy(np.float32, na_value=np.nan)
        observed = np.flatnonzero(~np.isnan(values))
        if len(observed):
            low, high = int(observed[0]), int(observed[-1]) + 1
            buffer[filled : filled + high - low, 0] = values[low:high]
            filled += high - low
            kept.append((column, low, high - low))
    names = [column for column, _, _ in kept]
    with_readings = set(names)
    empty = [str(column) for column in table.columns if str(column) not in with_readings]
    if not kept:
        raise DataError(f"No column of source {name!r} has a reading, of {len(empty)}.")
    buffer.resize((filled, 1), refcheck=False)
    known = pd.DataFrame(index=names) if attributes is None else attributes
    starts = first + np.array([low for _, low, _ in kept]) * step
    return ClientSeries(
        name=name,
        values=torch.from_numpy(buffer),
        offsets=offsets_of([steps for _, _, steps in kept]),
        clients=tuple(names),
        attributes=known.reindex(index=names).rename_axis(index="client"),
        starts=starts.astype("datetime64[us]").astype("datetime64[s]"),
        step_seconds=step / 1e6 if step % 1_000_000 else step // 1_000_000,
        unit=unit,
        rules=rules,
        dropped=tuple(Dropped(column, "no reading: nothing in the table") for column in empty),
    )


def _regular(name: str, index: pd.Index) -> tuple[int, int]:
    """Return the first stamp and the step of an index, microseconds since 1970 UTC."""
    micros = np.zeros(0, np.int64)
    if isinstance(index, pd.DatetimeIndex) and not index.hasnans:
        micros = as_stamps(index).astype(np.int64)
    steps = np.unique(np.diff(micros))
    if len(steps) != 1 or steps[0] < 1:
        found = f"{type(index).__name__} with {len(steps)} different steps"
        raise DataError(
            f"Source {name!r} needs stamps at one regular step, got a {found}. Put each column on a grid "
            "(data_loaders.grid.on_grid), or resample the table."
        )
    return int(micros[0]), int(steps[0])


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
