"""How far each simulated household's own forecast of tomorrow lies from that of all: an oracle that no meter could compute.

Marginal distances see that a household heats at night; they do not see that one on shifts, whose days look like everybody's
over three weeks, is forecast by other rules. This one compares the rules: the best linear forecast of the next day from the
last week, both normalised by the week's own mean and spread, learnt from years that the population's data do not hold.
"""

from collections.abc import Iterator

import numpy as np

from ..dial import Array
from .household_load import Clock, draw_client, net_load, stack_draws, temperature

DAYS = 1100
WEEK = 7
RIDGE = 50.0
_AT_ONCE = 32
_OTHER_YEARS = 2**29  # numbers of clients whose draws no population has


def forecast_distance(parameters: Array, seed: int, days: int = DAYS) -> Array:
    r"""Root mean squared difference between a household's forecasts and those of the pooled rule, ``(clients,)``.

    .. math:: d_k^2 = \mathrm{mean}_{x \sim k}\, |x^\top (B_k - B)|^2 / 24, \quad
        B_k = (X_k^\top X_k + \rho I)^{-1} X_k^\top Y_k

    with B the same over all clients' days. In units of a week's standard deviation; it holds the noise of ``days`` days.

    Args:
        parameters: habits of the clients, ``(clients, parameters)``.
        seed: of the population, for its weather and for draws of other years.
        days: to learn from.
    """
    gram, cross, count = 0.0, 0.0, 0
    for own_gram, own_cross in _moments(parameters, seed, days):
        gram, cross, count = gram + own_gram.sum(0), cross + own_cross.sum(0), count + len(own_gram)
    pooled = _solve(np.asarray(gram) / count, np.asarray(cross) / count)
    parts = []
    for own_gram, own_cross in _moments(parameters, seed, days):
        gap = _solve(own_gram, own_cross) - pooled
        parts.append(
            np.sqrt(np.einsum("kfh,kfg,kgh->k", gap, own_gram, gap, optimize=True) / (days - WEEK) / 24)
        )
    return np.concatenate(parts)


def _moments(parameters: Array, seed: int, days: int) -> Iterator[tuple[Array, Array]]:
    """Products ``X' X`` and ``X' Y`` of blocks of clients."""
    clock = Clock(days, 60)
    weather = temperature(seed, clock)
    for begin in range(0, len(parameters), _AT_ONCE):
        block = parameters[begin : begin + _AT_ONCE]
        draws = stack_draws([draw_client(seed, _OTHER_YEARS + begin + k, clock) for k in range(len(block))])
        inputs, targets = _weeks(net_load(block, draws, weather, clock))
        yield inputs.transpose(0, 2, 1) @ inputs, inputs.transpose(0, 2, 1) @ targets


def _weeks(load: Array) -> tuple[Array, Array]:
    """Weeks ``(clients, days - 7, 7 * 24 + 1)`` with a constant, and the day after each, normalised by the week."""
    days = load.shape[1]
    past = np.concatenate([load[:, day : days - WEEK + day] for day in range(WEEK)], 2)
    mean, spread = past.mean(2, keepdims=True), past.std(2, keepdims=True) + 1e-3
    one = np.ones((*past.shape[:2], 1))
    return np.concatenate([(past - mean) / spread, one], 2), (load[:, WEEK:] - mean) / spread


def _solve(gram: Array, cross: Array) -> Array:
    return np.asarray(np.linalg.solve(gram + RIDGE * np.eye(gram.shape[-1]), cross))
