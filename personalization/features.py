"""Features of load for distances: days, days given the calendar, and errors of a forecast. Pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import check_floating, check_tensors, check_whole
from .numeric import power_unit, safe_root, wide


def daily_profiles(values: Tensor, steps_per_day: int, *, first: int = 0) -> Tensor:
    """Complete days of a series, one row a day.

    Args:
        values: one client's series, ``(steps,)`` or ``(steps, channels)``; NaN is missing.
        steps_per_day: 24 for hours, 48 for half hours.
        first: step of the day at which the series starts; the part of a day before the first midnight is left out.

    Returns:
        Shape ``(days, steps_per_day)``, channels side by side: ``(days, steps_per_day * channels)``. Days with a missing
        or infinite value are left out.

    Raises:
        ValueError: another shape, or steps that are no day.
    """
    check_tensors(values=values)
    check_whole("steps_per_day", steps_per_day, "24 for hours, 48 for half hours")
    check_whole("first", first, "the step of the day at which the series starts", least=0)
    if values.ndim not in (1, 2) or first >= steps_per_day:
        raise ValueError(
            f"values of shape {tuple(values.shape)}, steps_per_day={steps_per_day}, first={first}; give (steps,) or "
            "(steps, channels), at least one step a day, and first below steps_per_day."
        )
    start = (steps_per_day - first) % steps_per_day
    columns = (values.unsqueeze(1) if values.ndim == 1 else values)[start:]
    days = len(columns) // steps_per_day
    by_day = columns[: days * steps_per_day].reshape(days, steps_per_day, columns.shape[1]).mT.flatten(1)
    return by_day[torch.isfinite(by_day).all(1)]


def calendar_cells(weekdays: Tensor, months: Tensor) -> Tensor:
    """Number of each day's cell: one per month of workdays, of Saturdays, and of Sundays and holidays; in 0..35.

    Args:
        weekdays: 0 for Monday to 6 for Sunday (give 6 for a holiday), integers, any shape.
        months: 1 to 12, of the same shape.

    Raises:
        ValueError: a weekday or month out of range, no whole number, or not one of each.
    """
    check_tensors(weekdays=weekdays, months=months)
    if weekdays.shape != months.shape or weekdays.is_floating_point() or months.is_floating_point():
        raise ValueError(
            f"weekdays of shape {tuple(weekdays.shape)} and {weekdays.dtype}, months of {tuple(months.shape)} and "
            f"{months.dtype}; give one whole number of each a day."
        )
    for name, x, low, high in (("weekdays", weekdays, 0, 6), ("months", months, 1, 12)):
        if x.numel() and not (low <= int(x.min()) and int(x.max()) <= high):
            raise ValueError(
                f"{name} from {int(x.min())} to {int(x.max())}; give whole numbers in {low}..{high}."
            )
    return (months.long() - 1) * 3 + (weekdays.long() - 4).clamp(0, 2)


def calendar_conditional(profiles: Sequence[Tensor], cells: Sequence[Tensor]) -> list[Tensor]:
    """Each day less the population's mean day of its calendar cell, so that conditional laws are compared.

    Clients observed in different seasons differ in their marginal law without living differently. What is left here
    differs only if, on the same kind of day, the client does. Needs the population's sum and count per cell only, so
    secure aggregation can compute it.

    Args:
        profiles: each client's days, ``(n_k, F)`` with one F.
        cells: cell of each day, integers from 0, ``(n_k,)``; see :func:`calendar_cells`.

    Returns:
        Residuals, each of the shape and dtype of its profiles. A day alone in its cell has residual zero.

    Raises:
        ValueError: clients without one cell a day, NaN, or unlike shapes.
    """
    if not profiles or len(profiles) != len(cells):
        raise ValueError(
            f"{len(profiles)} clients with profiles, {len(cells)} with cells; give both for each, one at least."
        )
    for k, (x, c) in enumerate(zip(profiles, cells, strict=True)):
        check_tensors(**{f"profiles[{k}]": x, f"cells[{k}]": c})
        if (
            x.ndim != 2
            or x.shape[1] != profiles[0].shape[-1]
            or c.shape != x.shape[:1]
            or c.is_floating_point()
        ):
            raise ValueError(
                f"Client {k} has profiles of shape {tuple(x.shape)} and cells {tuple(c.shape)} of {c.dtype}; give "
                f"(days, {profiles[0].shape[-1]}) and one whole number a day."
            )
        if not torch.isfinite(x).all() or (len(c) and int(c.min()) < 0):
            raise ValueError(
                f"Client {k} has a NaN or infinite profile or a negative cell; leave such days out."
            )
    if not profiles[0].is_floating_point():
        raise ValueError(f"Profiles are {profiles[0].dtype}; convert them to floating point.")
    # By their places among those that there are: a cell may be any number, such as a day since 1970.
    places = torch.cat(list(cells)).unique(return_inverse=True)[1].split([len(c) for c in cells])
    means = _cell_means(profiles, places)
    return [(wide(x) - means[c]).to(x.dtype) for x, c in zip(profiles, places, strict=True)]


def _cell_means(profiles: Sequence[Tensor], cells: Sequence[Tensor]) -> Tensor:
    count = 1 + max((int(c.max()) for c in cells if len(c)), default=0)
    total = wide(profiles[0]).new_zeros(count, profiles[0].shape[1])
    number = total.new_zeros(count, 1)
    for x, c in zip(profiles, cells, strict=True):
        total.index_add_(0, c, wide(x))
        number.index_add_(0, c, torch.ones_like(c, dtype=total.dtype).unsqueeze(1))
    return total / number.clamp_min(1)


def residual_profile(errors: Tensor) -> Tensor:
    """Mean error per step ahead: where in the day a model that serves all is wrong for this client.

    Args:
        errors: target less forecast, ``(n, horizon)``; NaN is missing.

    Returns:
        Shape ``(horizon,)``, in the unit of the errors; 0 at a step without any error known.

    Raises:
        ValueError: another shape, infinite errors, or no floating-point numbers.
    """
    known = _known(errors)
    return (torch.where(known, wide(errors), 0.0).sum(0) / known.sum(0).clamp_min(1)).to(errors.dtype)


def residual_norm(errors: Tensor) -> Tensor:
    r"""Length of the mean residual profile, less the noise of its mean: a bias of the forecast, calibrated by n.

    .. math:: \sqrt{\max(0,\; \tfrac1H \sum_h (\bar e_h^2 - s_h^2 / n_h))}

    Args:
        errors: as in :func:`residual_profile`. Days count as independent.

    Returns:
        Scalar, in the unit of the errors; steps with fewer than two errors do not count, and without any it is 0.

    Raises:
        ValueError: as :func:`residual_profile`.
    """
    known = _known(errors)
    number = known.sum(0)
    filled = torch.where(known, wide(errors), 0.0)
    unit = power_unit(filled, 2, (0, 1)) if len(filled) else 1.0
    filled = filled / unit
    mean = filled.sum(0) / number.clamp_min(1)
    noise = torch.where(known, filled - mean, 0.0).square().sum(0) / (
        (number - 1).clamp_min(1) * number.clamp_min(1)
    )
    counts = number >= 2
    excess = torch.where(counts, mean.square() - noise, 0.0).sum() / counts.sum().clamp_min(1)
    return (safe_root(excess) * unit).reshape(()).to(errors.dtype)


def _known(errors: Tensor) -> Tensor:
    check_floating(errors=errors)
    if errors.ndim != 2 or errors.shape[1] == 0 or bool(torch.isinf(errors).any()):
        raise ValueError(
            f"errors of shape {tuple(errors.shape)}; give (n, horizon), NaN where missing, never infinite."
        )
    return ~errors.isnan()
