import math
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization import (
    KNOBS,
    MODULATORS,
    Modulator,
    build_modulator,
    modulator_name,
    register_modulator,
)

from .steering import INCREASING, NAMES, STEPS, WHOLE, apply, at, column


def test_the_knobs_of_the_issue_are_all_there():
    assert {MODULATORS[name].knob for name in NAMES} == set(KNOBS)
    assert set(NAMES) == {
        "align_by_distance",
        "depth_by_distance",
        "lr_by_distance",
        "mix_by_distance",
        "mix_by_shrinkage",
        "mix_by_trend",
        "prox_by_bayes",
        "prox_by_distance",
        "prox_by_inverse_distance",
        "shared_work_by_distance",
        "weight_by_distance",
        "work_by_distance",
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_field_can_be_searched_and_its_default_lies_in_the_range(name):
    modulator = build_modulator(name)
    assert modulator_name(modulator) == name
    for f in fields(modulator):
        search = f.metadata["search"]
        assert set(search) <= {"low", "high", "log", "step", "choices"}
        assert search["low"] <= getattr(modulator, f.name) <= search["high"]
        for end in ("low", "high"):
            build_modulator(name, **{f.name: search[end]})


@pytest.mark.parametrize("name", NAMES)
def test_modulators_are_frozen(name):
    modulator = build_modulator(name)
    with pytest.raises(FrozenInstanceError):
        setattr(modulator, fields(modulator)[0].name, 3.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_finiteness(name, dtype):
    u = torch.tensor([0.0, 1e-30, 1.0, 1e6, torch.finfo(torch.float32).max], dtype=dtype)
    base = column(20.0, 5, dtype)
    out = build_modulator(name)(base, at(u, dtype=dtype))
    assert out.shape == (5, 1)
    assert out.dtype == dtype
    assert torch.isfinite(out).all()
    assert (out >= 0).all()
    assert torch.equal(base, column(20.0, 5, dtype))


@pytest.mark.parametrize("name", NAMES)
def test_a_base_of_whole_numbers(name):
    out = build_modulator(name)(torch.full((3, 1), 20), at([0.0, 1.0, 3.0]))
    assert out.is_floating_point() == (name not in WHOLE)


@pytest.mark.parametrize("name", NAMES)
@given(u=st.lists(st.floats(0, 50), min_size=2, max_size=20))
@settings(deadline=None, max_examples=20)
def test_monotone_in_distance(name, u):
    u = sorted(u)
    steps = apply(name, u).diff()
    assert ((steps >= -1e-9) if name in INCREASING else (steps <= 1e-9)).all()


# --- every one is its formula, within its bounds, and what it says it is at its limits ---------------------


@pytest.mark.parametrize("name", NAMES)
def test_equal_distances_give_equal_columns(name):
    assert len(apply(name, [0.7] * 4).unique()) == 1


@given(
    u=st.lists(st.floats(0, 1e4), min_size=1, max_size=10), tau=st.floats(0.1, 10), power=st.floats(0.5, 4)
)
@settings(deadline=None, max_examples=30)
def test_exponential_mixing(u, tau, power):
    a = apply("mix_by_distance", u, tau=tau, power=power)
    assert ((a >= 0) & (a <= 1)).all()
    assert torch.allclose(a, 1 - torch.exp(-((torch.tensor(u).double() / tau) ** power)))


def test_exponential_mixing_limits():
    assert apply("mix_by_distance", [0.0, 1e9]).tolist() == [0, 1]
    assert float(apply("mix_by_distance", [1.0], tau=1e9)) == pytest.approx(0, abs=1e-8)
    assert float(apply("mix_by_distance", [1.0], tau=1e-9)) == 1
    assert float(apply("mix_by_distance", [2.0], tau=2.0, power=3.0)) == pytest.approx(1 - 2.718281828**-1)


@given(
    clients=st.lists(st.tuples(st.floats(0, 100), st.integers(2, 5000)), min_size=1, max_size=10),
    kappa=st.floats(1e-3, 1e3),
    v=st.floats(1e-3, 1e3),
)
@settings(deadline=None, max_examples=40)
def test_shrinkage_is_the_formula_of_its_source(clients, kappa, v):
    u, n = torch.tensor([c[0] for c in clients]).double(), torch.tensor([c[1] for c in clients])
    signal = kappa * u**2 + v / n.sum()
    expected = signal / (signal + v / n)
    a = apply("mix_by_shrinkage", u.tolist(), n=n, ratio=kappa / v * float(n.double().median()))
    assert torch.allclose(a, expected)
    assert ((a >= n.double() / (n + n.sum()) - 1e-9) & (a <= 1)).all()


def test_shrinkage_limits():
    n = [100, 300, 500]
    assert torch.allclose(
        apply("mix_by_shrinkage", [0.0] * 3, n=n), torch.tensor([1 / 10, 1 / 4, 5 / 14]).double()
    )
    assert torch.allclose(apply("mix_by_shrinkage", [1e200] * 3, n=n), torch.ones(3).double())
    assert (apply("mix_by_shrinkage", [1.0] * 3, n=n).diff() > 0).all()
    nobody = apply("mix_by_shrinkage", [math.inf, 1.0, 1.0], n=[0, 5, 5], ratio=100.0)
    assert float(nobody[0]) == 0


@given(u=st.lists(st.floats(0, 1e3), min_size=1, max_size=10), tau=st.floats(0.1, 10), base=st.floats(0, 100))
@settings(deadline=None, max_examples=30)
def test_exponential_prox(u, tau, base):
    out = apply("prox_by_distance", u, base=base, tau=tau)
    assert ((out >= 0) & (out <= base)).all()
    assert torch.allclose(out, base * torch.exp(-torch.tensor(u).double() / tau))


def test_prox_limits():
    assert apply("prox_by_distance", [0.0, 1e9]).tolist() == [20, 0]
    assert float(apply("prox_by_distance", [3.0], tau=1e12)) == pytest.approx(20)
    assert apply("prox_by_inverse_distance", [0.0, 1.0, 2.0], eps=0.0, ceiling=5.0).tolist() == [100, 20, 5]
    assert float(apply("prox_by_inverse_distance", [1e9])) == pytest.approx(0, abs=1e-12)


@given(
    u=st.lists(st.floats(0, 100), min_size=1, max_size=10), base=st.integers(0, 200), slope=st.floats(0, 5)
)
@settings(deadline=None, max_examples=40)
def test_steps_are_whole_and_bounded(u, base, slope):
    more = apply("work_by_distance", u, base=float(base), slope=slope, max_factor=3.0)
    fewer = apply("shared_work_by_distance", u, base=float(base), slope=slope)
    for steps in (more, fewer):
        assert torch.equal(steps, steps.round())
    assert ((more >= base) & (more <= 3 * base)).all()
    assert ((fewer >= min(1, base)) & (fewer <= base)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_no_distance_and_no_slope_keep_the_steps(dtype):
    for name in STEPS:
        for base in (*range(300), 200_000, 200_001, 10_000_019):
            steps = torch.full((2, 1), base, dtype=dtype)
            assert torch.equal(build_modulator(name)(steps, at([0.0, 0.0])), steps)
            assert torch.equal(build_modulator(name, slope=0.0)(steps, at([7.0, 1e5])), steps)


def test_steps_by_hand():
    assert apply("work_by_distance", [0.0, 0.1, 1.0, 99.0], slope=0.5).tolist() == [20, 21, 30, 80]
    assert apply("shared_work_by_distance", [0.0, 0.1, 1.0, 1e6], slope=1.0).tolist() == [20, 18, 10, 1]


def test_rate_limits():
    assert apply("lr_by_distance", [0.0, 2.0], base=0.1).tolist() == [0.1, 0.05]
    assert float(apply("lr_by_distance", [1e12])) == pytest.approx(0, abs=1e-9)


@given(
    u=st.lists(st.floats(0, 1e3), min_size=1, max_size=12),
    slope=st.floats(0, 2),
    offset=st.floats(0, 2),
)
@settings(deadline=None, max_examples=40)
def test_weights_keep_their_sum_and_are_never_all_zero(u, slope, offset):
    base = torch.rand(len(u), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1
    out = build_modulator("weight_by_distance", slope=slope, offset=offset)(base, at(u))
    assert (out >= 0).all()
    assert torch.allclose(out.sum(), base.sum())


def test_weight_limits():
    base = torch.tensor([[1.0], [2.0], [5.0]])
    same = build_modulator("weight_by_distance", slope=0.0, offset=0.0)(base, at([0.0, 1.0, 9.0]))
    assert torch.allclose(same, base)
    assert torch.equal(
        build_modulator("weight_by_distance", slope=2.0, offset=0.0)(base, at([99.0] * 3)), base
    )
    cut = build_modulator("weight_by_distance", slope=1.0, offset=0.0)(column(1.0, 3), at([0.0, 0.0, 50.0]))
    assert cut.squeeze(1).tolist() == [1.5, 1.5, 0]


@pytest.mark.parametrize("name", NAMES)
def test_a_base_of_another_shape_is_refused(name):
    with pytest.raises(ValueError, match=r"base has shape \(3,\); give one column \(3, 1\)"):
        build_modulator(name)(torch.ones(3), at([1.0] * 3))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("mix_by_distance", {"tau": 0.0}),
        ("mix_by_distance", {"power": -1.0}),
        ("mix_by_shrinkage", {"ratio": -0.1}),
        ("prox_by_distance", {"tau": float("nan")}),
        ("prox_by_inverse_distance", {"eps": -1.0}),
        ("prox_by_inverse_distance", {"ceiling": 0.0}),
        ("prox_by_bayes", {"ceiling": 0.0}),
        ("work_by_distance", {"max_factor": 0.5}),
        ("work_by_distance", {"max_factor": float("inf")}),
        ("shared_work_by_distance", {"slope": -1.0}),
        ("lr_by_distance", {"slope": -1.0}),
        ("align_by_distance", {"tau": 0.0}),
        ("depth_by_distance", {"quantile": -0.1}),
        ("depth_by_distance", {"quantile": 1.1}),
        ("weight_by_distance", {"offset": -1.0}),
        ("weight_by_distance", {"offset": float("inf")}),
    ],
)
def test_parameters_out_of_range_are_named(name, params):
    (field,) = params
    with pytest.raises(ValueError, match=f"{MODULATORS[name].__name__}: {field}="):
        build_modulator(name, **params)


def test_unknown_names_get_the_nearest():
    with pytest.raises(
        ValueError, match="Unknown modulator 'prox_by_distanse'; did you mean 'prox_by_distance'"
    ):
        build_modulator("prox_by_distanse")
    with pytest.raises(
        ValueError, match="Unknown parameter of modulator 'mix_by_distance' 'taus'; did you mean 'tau'"
    ):
        build_modulator("mix_by_distance", taus=1.0)


def test_registering():
    @register_modulator("flat_for_test")
    @dataclass(frozen=True)
    class Flat(Modulator):
        knob: ClassVar[str] = "lr"

        def __call__(self, base, distances):
            return base

    try:
        assert isinstance(build_modulator("flat_for_test"), Flat)
        with pytest.raises(ValueError, match="belongs to"):
            register_modulator("flat_for_test")(MODULATORS["lr_by_distance"])
    finally:
        del MODULATORS["flat_for_test"]
    with pytest.raises(ValueError, match="Unknown knob of modulator 'x' 'rate'"):
        register_modulator("x")(type("Bad", (Modulator,), {"knob": "rate"}))
    with pytest.raises(ValueError, match="Bad2 is not registered"):
        modulator_name(type("Bad2", (Modulator,), {"__call__": lambda self, base, distances: base})())


@given(st.lists(st.floats(0, 50), min_size=2, max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_trend_mixing_turns_about_the_base(u, base, slope):
    got = apply("mix_by_trend", u, base=base, slope=slope)
    scale = torch.log1p(torch.tensor(u, dtype=torch.float64))
    line = base + slope * (scale - scale.mean())
    torch.testing.assert_close(got, line.clamp(0, 1))
    torch.testing.assert_close(line.mean(), torch.tensor(base, dtype=torch.float64))


def test_trend_mixing_without_a_slope_is_the_constant_knob():
    assert apply("mix_by_trend", [0.0, 1.0, 9.0], base=0.25, slope=0.0).tolist() == [0.25] * 3


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("lr_by_distance", {"slope": math.inf}),
        ("work_by_distance", {"slope": math.inf}),
        ("shared_work_by_distance", {"slope": math.inf}),
        ("weight_by_distance", {"slope": math.inf}),
        ("mix_by_trend", {"slope": math.inf}),
        ("mix_by_shrinkage", {"ratio": math.inf}),
        ("prox_by_bayes", {"ceiling": math.inf}),
        ("prox_by_inverse_distance", {"ceiling": math.inf, "eps": 0.0}),
    ],
)
def test_an_infinity_that_would_be_nan_at_no_distance_is_refused(name, params):
    with pytest.raises(ValueError, match="must be finite"):
        build_modulator(name, **params)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_base_and_no_distance_steers_nobody(name):
    modulator, base, known = build_modulator(name), column(1.0, 3), at([0.0, 1.0, 2.0])
    for wrong, said in (
        (base.numpy(), "base is of type ndarray; give a tensor"),
        (1.0, "base is of type float; give a tensor"),
        (base.to(torch.complex64), "base is of type torch.complex64"),
        (base.squeeze(1), r"base has shape \(3,\); give one column \(3, 1\)"),
        (base * math.nan, "base of client 0 is NaN"),
        (base * math.inf, "base of client 0 is inf; give finite numbers, at least 0"),
        (base - 2, "base of client 0 is -1; give finite numbers, at least 0"),
    ):
        with pytest.raises(ValueError, match=said):
            modulator(wrong, known)
    for wrong, said in (
        (None, "distances are of type NoneType; give those to a population"),
        (known.relative, "distances are of type Tensor; give those to a population"),
        (replace(known, relative=known.relative - 1.5), "distance of client 0 is -1.5; none is below 0"),
        (replace(known, relative=known.relative * math.nan), "distance of client 0 is NaN"),
    ):
        with pytest.raises(ValueError, match=said):
            modulator(base, wrong)
    assert modulator(base[:0], known.select([])).shape == (0, 1)


@pytest.mark.parametrize("name", ["mix_by_shrinkage", "prox_by_bayes"])
def test_a_population_without_samples_has_no_unit_of_them(name):
    for n in ([0, 0, 0], [-1, 5, 5]):
        with pytest.raises(ValueError, match="give the clients' numbers of samples"):
            apply(name, [0.0, 1.0, 2.0], n=n)
    assert apply(name, [0.0, 1.0, 2.0], n=[0, 5, 5]).isfinite().all()
