"""From a local clock to UTC: the hour that is missing in spring and the one that comes twice in autumn."""

from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pandas as pd

from .errors import DataError
from .runs import Booleans, Ints

Stamps = npt.NDArray[np.datetime64]
Ambiguous = Literal["order", "summer", "winter", "missing", "error"]
Nonexistent = Literal["error", "shift", "missing"]

_DAY = np.timedelta64(1, "D")
_NIGHT = np.timedelta64(12, "h")  # ambiguous stamps further apart belong to different clock changes


def as_stamps(stamps: object) -> Stamps:
    """Return stamps as ``(n,)`` datetime64[us]; those with a time zone become UTC, numbers are seconds since 1970.

    Args:
        stamps: datetime64 array, DatetimeIndex, Series of stamps, ISO strings, or numbers.

    Raises:
        DataError: text that is no ISO stamp, or objects that are no stamps.
    """
    zone = getattr(getattr(stamps, "dtype", None), "tz", None)
    if zone is not None:
        return np.asarray(pd.DatetimeIndex(stamps).tz_convert(None), "datetime64[us]")  # type: ignore[arg-type]
    array = np.asarray(stamps)
    if array.dtype.kind in "iuf":
        micros = np.where(np.isfinite(array), np.rint(array.astype(np.float64) * 1e6), 0).astype(np.int64)
        return np.where(np.isfinite(array), micros.astype("datetime64[us]"), np.datetime64("NaT", "us"))
    try:
        return array.astype("datetime64[us]")
    except (ValueError, TypeError) as error:
        raise DataError(
            f"Stamps that are neither ISO text nor datetimes: {error}. Parse them first."
        ) from error


def to_utc(
    stamps: object,
    tz: str,
    *,
    ambiguous: Ambiguous = "order",
    nonexistent: Nonexistent = "error",
    client: str = "",
) -> Stamps:
    """Return the UTC stamps of a local clock, ``(n,)`` datetime64[us].

    Args:
        stamps: ``(n,)`` of the local clock, see :func:`as_stamps`; NaT stays NaT, those with a zone are converted.
        tz: name of the zone, ``"Europe/Lisbon"``.
        ambiguous: what a stamp of the autumn hour means, which the clock shows twice. ``"order"``: rows are in the
            order they were recorded; the hour is summer time up to the row where the clock goes back, winter time
            from there on. Without such a row, the first of two equal stamps is summer time and the second
            winter time, and stamps that come once are summer time. ``"summer"`` and ``"winter"``: always that one.
            ``"missing"``: NaT. ``"error"``: refuse.
        nonexistent: what a stamp of the spring hour means, which the clock skips. ``"error"``: refuse. ``"shift"``:
            the clock was not yet put forward. ``"missing"``: NaT.
        client: for errors.

    Raises:
        DataError: no such zone; a clock that goes back where no clock change explains it (``"order"`` only; sort the
            rows, or choose another rule); an autumn hour that order does not resolve; a stamp that is refused.
    """
    _check_zone(tz)
    if getattr(getattr(stamps, "dtype", None), "tz", None) is not None:
        return as_stamps(stamps)
    local = as_stamps(stamps)
    first, second = _both(local, tz)
    twice = ~np.isnat(first) & (first != second)
    skipped = np.isnat(first) & ~np.isnat(local)
    if skipped.any():
        first = _skipped(first, local, skipped, tz, nonexistent, client)
    if ambiguous == "order":
        return _in_order(first, second, local, twice, client)
    if ambiguous == "error" and twice.any():
        raise DataError(
            f"{who(client)}stamp {local[twice][0]} comes twice in {tz}, when the clocks go back. Choose "
            "ambiguous='order', 'summer', 'winter' or 'missing'."
        )
    if ambiguous == "winter":
        return np.where(twice, second, first)
    return np.where(twice, np.datetime64("NaT", "us"), first) if ambiguous == "missing" else first


def to_local(stamps: Stamps, tz: str) -> Stamps:
    """Return what the local clock shows at UTC stamps, ``(n,)`` datetime64[us].

    Raises:
        DataError: no such zone.
    """
    _check_zone(tz)
    local = pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(tz).tz_localize(None)
    return np.asarray(local, "datetime64[us]")


def who(client: str) -> str:
    """Return the beginning of an error about a client, empty without one."""
    return f"Client {client!r}: " if client else ""


def check_order(stamps: Stamps, client: str = "", shown: Stamps | None = None) -> None:
    """Raise :class:`DataError` with client and stamps where stamps decrease; NaT is skipped.

    Args:
        stamps: ``(n,)`` UTC.
        client: for the error.
        shown: the same stamps as the file has them, for the error.
    """
    present = np.flatnonzero(~np.isnat(stamps))
    back = np.flatnonzero(np.diff(stamps[present]) < np.timedelta64(0, "us"))
    if len(back):
        shown = stamps if shown is None else shown
        before, after = present[back[0]], present[back[0] + 1]
        raise DataError(
            f"{who(client)}the clock goes back from {shown[before]} to {shown[after]} at row {after}, and no clock "
            f"change explains it ({len(back)} such rows). Sort the rows, or cut the series there."
        )


def _check_zone(tz: str) -> None:
    try:
        ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise DataError(f"There is no time zone {tz!r}. Use a name like 'Europe/London'.") from error


def _both(local: Stamps, tz: str) -> tuple[Stamps, Stamps]:
    """Return the earlier and the later UTC stamp that shows as each local one; NaT for a stamp that is skipped."""
    index = pd.DatetimeIndex(local)
    flags = (np.ones(len(local), np.bool_), np.zeros(len(local), np.bool_))
    one, other = (
        np.asarray(
            index.tz_localize(tz, ambiguous=flag, nonexistent="NaT").tz_convert(None), "datetime64[us]"
        )
        for flag in flags
    )
    return np.minimum(one, other), np.maximum(one, other)


def _skipped(
    utc: Stamps, local: Stamps, skipped: Booleans, tz: str, nonexistent: Nonexistent, client: str
) -> Stamps:
    """Return the UTC stamps with a rule for those that the clock skips in spring."""
    if nonexistent == "error":
        raise DataError(
            f"{who(client)}stamp {local[skipped][0]} does not exist in {tz}, where the clocks go forward "
            f"({int(skipped.sum())} such stamps). Are they UTC? Else choose nonexistent='shift' or 'missing'."
        )
    if nonexistent == "missing":
        return utc
    before, _ = _both(local[skipped] - _DAY, tz)
    result = utc.copy()
    result[skipped] = before + _DAY
    return result


def _in_order(first: Stamps, second: Stamps, local: Stamps, twice: Booleans, client: str) -> Stamps:
    """Return the UTC stamps of rows in the order recorded."""
    utc, rows = first.copy(), np.flatnonzero(twice)
    paired = np.zeros(len(local), np.bool_)
    if len(rows):
        apart = np.abs(np.diff(local[rows])) > _NIGHT
        for night in np.split(rows, np.flatnonzero(apart) + 1):
            winter, by_pairs = _winter(local[night], client)
            utc[night] = np.where(winter, second[night], first[night])
            paired[night] = by_pairs
    # an hour whose rows were sorted by the local clock is out of order by nature
    check_order(np.where(paired, np.datetime64("NaT", "us"), utc), client, local)
    return utc


def _winter(local: Stamps, client: str) -> tuple[Booleans, bool]:
    """Return which rows of one autumn hour are winter time, and whether equal stamps told so."""
    steps = np.diff(local)
    back = np.flatnonzero(steps < np.timedelta64(0, "us"))
    if len(back) == 1:
        return np.arange(len(local)) > back[0], False
    _, inverse, counts = np.unique(local, return_inverse=True, return_counts=True)
    if not len(back) and (counts == 1).all():
        return np.zeros(len(local), np.bool_), False
    if not len(back) and (counts == 2).all():
        seen: Ints = np.flatnonzero(np.concatenate(([False], inverse[1:] == inverse[:-1])))
        winter = np.zeros(len(local), np.bool_)
        winter[seen] = True
        return winter, True
    raise DataError(
        f"{who(client)}the order of the rows does not tell summer from winter time in the hour from {local.min()}, "
        f"which the clock shows twice: {len(back)} steps back, {int((counts > 1).sum())} repeated stamps. Choose "
        "ambiguous='summer', 'winter' or 'missing', or remove duplicated rows first."
    )
