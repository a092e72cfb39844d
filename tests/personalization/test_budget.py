import builtins
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.budget import (
    BudgetExhaustedError,
    PrivacyBudget,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_multiplier,
)

EPSILONS = st.floats(0.05, 20)
DELTAS = st.floats(1e-10, 0.1)


@given(epsilon=EPSILONS, delta=DELTAS)
@settings(max_examples=60, deadline=None)
def test_the_noise_is_the_least_that_keeps_the_promise(epsilon, delta):
    m = gaussian_multiplier(epsilon, delta)
    assert gaussian_delta(m, epsilon) <= delta
    assert gaussian_delta(m * (1 - 1e-6), epsilon) > delta
    assert gaussian_epsilon(m, delta) == pytest.approx(epsilon, rel=1e-6)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-6), (1.0, 1e-5), (8.0, 1e-5), (0.5, 1e-3)])
def test_one_release_agrees_with_dp_accounting(epsilon, delta):
    oracle = pytest.importorskip("dp_accounting").gaussian_mechanism
    assert gaussian_multiplier(epsilon, delta) == pytest.approx(
        oracle.get_sigma_gaussian(epsilon, delta), rel=1e-3
    )
    assert gaussian_epsilon(2.0, delta) == pytest.approx(oracle.get_epsilon_gaussian(2.0, delta), rel=1e-3)


def test_it_beats_the_classical_noise():
    classical = math.sqrt(2 * math.log(1.25 / 1e-5))
    assert 0.7 * classical < gaussian_multiplier(1.0, 1e-5) < classical


def test_many_releases_agree_with_dp_accounting_by_loss_distributions():
    dp = pytest.importorskip("dp_accounting")
    from dp_accounting.pld import PLDAccountant

    oracle, budget = PLDAccountant(), PrivacyBudget(math.inf)
    for multiplier, times in [(4.0, 5), (9.0, 20), (2.5, 1)]:
        oracle.compose(dp.GaussianDpEvent(multiplier), times)
        budget.spend("a release", multiplier, times=times)
    assert budget.epsilon() == pytest.approx(oracle.get_epsilon(1e-5), rel=1e-3)
    assert budget.epsilon(1e-3) < budget.epsilon()


def test_subsampled_releases_agree_with_dp_accounting_by_renyi():
    pytest.importorskip("opacus")
    dp = pytest.importorskip("dp_accounting")
    from dp_accounting.rdp import RdpAccountant

    oracle, budget = RdpAccountant(), PrivacyBudget(math.inf, delta=1e-5)
    oracle.compose(dp.PoissonSampledDpEvent(0.05, dp.GaussianDpEvent(1.1)), 200)
    oracle.compose(dp.GaussianDpEvent(8.0), 3)
    budget.spend("training", 1.1, rate=0.05, times=200)
    budget.spend("distances", 8.0, times=3)
    assert budget.epsilon() == pytest.approx(oracle.get_epsilon(1e-5), rel=0.02)


def test_subsampling_without_opacus_names_the_extra(monkeypatch):
    real = builtins.__import__

    def blocked(name, *args, **kwargs):
        if name.startswith("opacus"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(ImportError, match=r"persofl\[privacy\]"):
        PrivacyBudget(1.0).spend("training", 1.0, rate=0.5)


def test_a_budget_is_spent_to_its_limit_and_no_further():
    m = gaussian_multiplier(1.0, 1e-5)
    budget = PrivacyBudget(1.0)
    assert budget.epsilon() == 0
    for _ in range(4):
        budget.spend("a refresh", 2 * m)
    assert budget.epsilon() == pytest.approx(1.0, rel=1e-6)
    before = list(budget.spent)
    with pytest.raises(
        BudgetExhaustedError, match=r"a refresh x 1 would bring epsilon from 1\.000 to 1\.\d+"
    ):
        budget.spend("a refresh", 2 * m)
    assert budget.spent == before


def test_the_order_of_releases_does_not_matter():
    one, two = PrivacyBudget(math.inf), PrivacyBudget(math.inf)
    for a, b in [(3.0, 7.0), (7.0, 3.0)]:
        one.spend("x", a)
        two.spend("x", b)
    assert one.epsilon() == pytest.approx(two.epsilon(), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_multiplier(0.0, 1e-5), r"epsilon=0\.0 must be a number above 0"),
        (lambda: gaussian_multiplier(math.nan, 1e-5), "epsilon=nan"),
        (lambda: gaussian_multiplier(math.inf, 1e-5), "epsilon=inf"),
        (lambda: gaussian_multiplier(1.0, 0.0), r"delta=0\.0 must lie between"),
        (lambda: gaussian_multiplier(1e-9, 1e-12), "beyond reason"),
        (lambda: gaussian_delta(-1.0, 1.0), "multiplier=-1"),
        (lambda: PrivacyBudget(-1.0), r"epsilon=-1\.0"),
        (lambda: PrivacyBudget(1.0, delta=2.0), r"delta=2\.0"),
        (lambda: PrivacyBudget(1.0, unit="user"), "unit='user' must be 'client' or 'sample'"),
        (lambda: PrivacyBudget(1.0).spend("x", 0.0), "a release needs noise"),
        (lambda: PrivacyBudget(1.0).spend("x", 1.0, rate=0.0), r"rate=0\.0"),
        (lambda: PrivacyBudget(1.0).spend("x", 1.0, times=0), "times=0"),
        (lambda: PrivacyBudget(1.0).spend("x", 9.0, unit="sample"), "x protects one sample"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_noise_promises_nothing():
    assert gaussian_delta(0.0, 5.0) == 1.0
    assert gaussian_epsilon(0.0, 1e-5) == math.inf
    assert gaussian_delta(math.inf, 0.0) == 0.0
