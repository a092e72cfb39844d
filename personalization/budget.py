r"""Gaussian noise and what it costs: the analytic calibration of one release, and the budget of a whole run.

Everything here is in noise multipliers, ``sigma / sensitivity``. Releases without subsampling compose exactly: T
Gaussians with multipliers ``m_i`` are together one Gaussian with ``1 / m^2 = sum 1 / m_i^2`` (Dong et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field, replace

import torch

from .errors import check_number, check_whole

_WIDEST = 1e6


class BudgetExhaustedError(ValueError):
    """A release would cost more than the run may spend; nothing was released."""


def gaussian_delta(multiplier: float, epsilon: float) -> float:
    r"""The smallest delta for which one Gaussian release is ``(epsilon, delta)``-private.

    .. math:: \delta = \Phi\bigl(\tfrac1{2m} - \epsilon m\bigr)
              - e^\epsilon \Phi\bigl(-\tfrac1{2m} - \epsilon m\bigr)

    Args:
        multiplier: m, standard deviation of the noise over the L2 sensitivity; 0 hides nothing, inf everything.
        epsilon: at least 0.

    Raises:
        ValueError: a negative or NaN argument.

    References:
        Balle and Wang, Improving the Gaussian mechanism for differential privacy, ICML 2018, theorem 8.
    """
    if not multiplier >= 0 or not epsilon >= 0:
        raise ValueError(f"multiplier={multiplier} and epsilon={epsilon} must both be at least 0.")
    if multiplier == 0:
        return 1.0
    half, shift = 0.5 / multiplier, epsilon * multiplier
    ends = torch.tensor([half - shift, -half - shift], dtype=torch.float64)
    # In logarithms: e^epsilon overflows long before its product with the tail does.
    first, second = torch.special.log_ndtr(ends).tolist()
    return max(0.0, math.exp(first) - math.exp(min(0.0, epsilon + second)))


def gaussian_multiplier(epsilon: float, delta: float) -> float:
    """The least noise multiplier for which one Gaussian release is ``(epsilon, delta)``-private.

    Args:
        epsilon: above 0.
        delta: in (0, 1).

    Returns:
        ``sigma / sensitivity``, on the private side of the exact value by at most 1e-10 of it.

    Raises:
        ValueError: an argument out of its range, or so small that the multiplier would exceed a million.
    """
    check_guarantee(epsilon, delta)
    low, high = 0.0, 1.0
    while gaussian_delta(high, epsilon) > delta:
        low, high = high, 2 * high
        if high > _WIDEST:
            raise ValueError(f"epsilon={epsilon}, delta={delta} need noise beyond reason; raise one of them.")
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, epsilon) > delta else (low, middle)
    return high


def gaussian_epsilon(multiplier: float, delta: float) -> float:
    """The smallest epsilon for which one Gaussian release is ``(epsilon, delta)``-private; inf without noise."""
    check_guarantee(1.0, delta)
    if gaussian_delta(multiplier, 0.0) <= delta:
        return 0.0
    if multiplier == 0:
        return math.inf
    low, high = 0.0, 1.0
    while gaussian_delta(multiplier, high) > delta:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(multiplier, middle) > delta else (low, middle)
    return high


def check_guarantee(epsilon: float, delta: float) -> None:
    """Refuse what is no privacy guarantee.

    Raises:
        ValueError: epsilon is not above 0, or delta not within (0, 1).
    """
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        check_number(name, value, "one above 0, or leave the noise out for no privacy")
    if not epsilon > 0 or math.isinf(epsilon):
        raise ValueError(f"epsilon={epsilon} must be a number above 0; leave the noise out for no privacy.")
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta} must lie between 0 and 1; well below 1 / clients is usual.")


@dataclass(frozen=True)
class Spending:
    """One kind of release that a run has made.

    Attributes:
        what: in words, "summed reference".
        multiplier: noise over sensitivity.
        rate: chance of a unit to take part in a release; 1 without subsampling.
        times: how many releases.
        source: of the noise, which pays once; None where the caller sees to that.
    """

    what: str
    multiplier: float
    rate: float = 1.0
    times: int = 1
    source: Hashable = None


@dataclass
class PrivacyBudget:
    """What a run may tell about one unit (a client, or a sample), and what it has told.

    Every release is counted before it is made; one that would exceed the limit is refused, and costs nothing.
    Releases about different clients do not add up: count what is told about one client, as the protocols do.

    Args:
        limit: the largest epsilon at ``delta``; inf only counts.
        delta: the failure probability of the whole run.
        unit: what is protected, "client" or "sample"; releases that protect another unit are refused.

    Raises:
        ValueError: no guarantee, or another unit.
    """

    limit: float
    delta: float = 1e-5
    unit: str = "client"
    spent: list[Spending] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_guarantee(1.0 if self.limit == math.inf else self.limit, self.delta)
        if self.unit not in ("client", "sample"):
            raise ValueError(f"unit={self.unit!r} must be 'client' or 'sample'.")

    def spend(
        self,
        what: str,
        multiplier: float,
        *,
        rate: float = 1.0,
        times: int = 1,
        unit: str | None = None,
        source: Hashable = None,
    ) -> float:
        """Count releases, before they are made.

        Args:
            what: in words, for the record and for the refusal.
            multiplier: noise over sensitivity, above 0.
            rate: chance of a unit to take part in each, in (0, 1]; below 1 needs Opacus, ``persofl[privacy]``.
            times: how many releases.
            unit: what they protect; the budget's own unit if not said.
            source: what the noise is drawn from, such as a :class:`GaussianNoise`. Releases count as independent: a
                second from the same source is refused.

        Returns:
            Epsilon spent so far, at the budget's delta.

        Raises:
            BudgetExhaustedError: the limit would be exceeded; nothing is counted.
            ValueError: an argument out of range, another unit, or noise that was spent before.
        """
        entry = replace(self._checked(what, multiplier, rate, times, unit), source=source)
        if source is not None and any(source == past.source for past in self.spent):
            raise ValueError(
                f"{what}: a release with this noise was paid for before; a second tells by how much its data differ, "
                "whatever the noise. Give run(..., release=1), 2 and so on, or noise of another seed."
            )
        after = composed_epsilon([*self.spent, entry], self.delta)
        if after > self.limit * (1 + 1e-9):
            raise BudgetExhaustedError(
                f"{what} x {times} would bring epsilon from {self.epsilon():.3f} to {after:.3f}, beyond the limit of "
                f"{self.limit:g} at delta={self.delta:g}. Refresh less often, add more noise, or raise the limit."
            )
        self.spent.append(entry)
        return after

    def _checked(self, what: str, multiplier: float, rate: float, times: int, unit: str | None) -> Spending:
        check_number("multiplier", multiplier, "noise over sensitivity")
        if not 0 < multiplier < math.inf:
            raise ValueError(
                f"{what}: multiplier={multiplier} must be above 0 and finite; a release needs noise."
            )
        check_number("rate", rate, "the chance of a unit to take part")
        if not 0 < rate <= 1:
            raise ValueError(f"{what}: rate={rate} must lie in (0, 1].")
        check_whole("times", times, f"how often {what} is released")
        if unit is not None and unit != self.unit:
            raise ValueError(
                f"{what} protects one {unit}, this budget counts what is told about one {self.unit}; "
                "keep one budget for each."
            )
        return Spending(what, multiplier, rate, times)

    def epsilon(self, delta: float | None = None) -> float:
        """Epsilon spent so far, at ``delta`` or the budget's own."""
        return composed_epsilon(self.spent, self.delta if delta is None else delta)


def composed_epsilon(spent: list[Spending], delta: float) -> float:
    """Epsilon of all releases together: exact without subsampling, Opacus' RDP bound with it.

    Raises:
        ImportError: a release is subsampled and Opacus is not installed.
    """
    if not spent:
        return 0.0
    if all(entry.rate == 1 for entry in spent):
        precision = sum(entry.times / entry.multiplier**2 for entry in spent)
        return gaussian_epsilon(1 / math.sqrt(precision), delta)
    try:
        from opacus.accountants import RDPAccountant
    except ImportError as error:
        raise ImportError(
            "Subsampled releases are counted by Opacus: pip install 'persofl[privacy]'."
        ) from error
    accountant = RDPAccountant()
    accountant.history = [(entry.multiplier, entry.rate, entry.times) for entry in spent]
    return float(accountant.get_epsilon(delta))
