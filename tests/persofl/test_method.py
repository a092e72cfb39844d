"""Methods by name: what is written is what is built, and mistakes name what was meant."""

import dataclasses

import pytest
import torch

from data_loaders import SimulatedHouseholds, WindowSpec, make_windows
from persofl import (
    ALGORITHMS,
    APFL,
    DistanceConfig,
    Ditto,
    FedAvg,
    Method,
    PersoflError,
    measure_distances,
    method_params,
    parse_method,
    search_space,
)
from persofl.errors import unknown_name
from persofl.features import FEATURES, daily_profiles, training_windows
from persofl.method import as_method
from persofl.plan import KNOBS, constant_plan
from personalization import MODULATORS, build_modulator
from personalization.modulators import KNOBS as MODULATOR_KNOBS

NAMES = [*ALGORITHMS] + [
    f"{name}+{modulator}"
    for name, kind in ALGORITHMS.items()
    for modulator, steers in MODULATORS.items()
    if steers.knob in kind.knobs
]


@pytest.mark.parametrize("name", NAMES)
def test_a_method_is_its_name_and_its_parameters(name):
    method = parse_method(name)
    assert method.name == name
    assert parse_method(name, method_params(method)) == method
    assert set(search_space(method)) <= set(method_params(method))
    assert search_space(name) == search_space(method)


@pytest.mark.parametrize("name", NAMES)
def test_every_range_holds_values_that_the_method_takes(name):
    space = search_space(name)
    assert "lr" in space
    for key, range_ in space.items():
        assert ("choices" in range_) != ("low" in range_)
        for value in range_.get("choices") or (range_["low"], range_["high"]):
            assert method_params(parse_method(name, {key: value}))[key] == value
        if "low" in range_:
            assert range_["low"] < range_["high"]
            assert not range_.get("log") or range_["low"] > 0


@pytest.mark.parametrize("name", [name for name in NAMES if "+" in name])
def test_a_modulators_parameters_are_written_with_its_name(name):
    modulator = name.split("+")[1]
    own = {item.name for item in dataclasses.fields(MODULATORS[modulator])}
    assert {f"{modulator}.{field}" for field in own} <= set(method_params(parse_method(name)))


def test_parameters_reach_the_part_they_belong_to():
    method = parse_method(
        "ditto + prox_by_distance+lr_by_distance",
        {"lr": 0.3, "prox": 2.0, "prox_by_distance.tau": 4.0, "lr_by_distance.slope": 0.1},
        DistanceConfig("gaussian"),
    )
    assert method.algorithm == Ditto(lr=0.3, prox=2.0)
    assert [modulator.knob for modulator in method.modulators] == ["prox", "lr"]
    assert (method.modulators[0].tau, method.modulators[1].slope) == (4.0, 0.1)
    assert method.distance.kind == "gaussian"


def test_as_method_takes_names_algorithms_and_methods():
    assert as_method("fedavg") == as_method(FedAvg()) == as_method(Method(FedAvg()))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("fedagv", {}, r"Unknown method 'fedagv'. Did you mean 'fedavg'\? Known: aligned"),
        ("zzz", {}, r"Unknown method 'zzz'. Known: aligned"),
        (
            "ditto+prox_by_distanc",
            {},
            r"Unknown modulator 'prox_by_distanc'. Did you mean 'prox_by_distance'\?",
        ),
        ("ditto+", {}, "Unknown modulator ''"),
        ("ditto", {"proxx": 1.0}, r"parameter of method 'ditto': 'proxx'. Did you mean 'prox'\?"),
        ("fedavg", {"prox": 1.0}, "parameter of method 'fedavg': 'prox'"),
        ("ditto", {"prox_by_distance.tau": 1.0}, "parameter of method 'ditto'"),
        (
            "ditto+prox_by_distance",
            {"prox_by_distance.tua": 1.0},
            r"'prox_by_distance.tua'. Did you mean 'prox_by_distance.tau'\?",
        ),
        ("ditto+prox_by_distance", {"tau": 1.0}, "parameter of method 'ditto.prox_by_distance': 'tau'"),
        ("ditto", {"lr": -1.0}, "Method 'ditto': lr=-1.0: must be positive"),
        ("ditto", {"lr": float("nan")}, "lr=nan: must be positive"),
        ("ditto+prox_by_distance", {"prox_by_distance.tau": 0.0}, "tau=0.0 must be greater than 0"),
        ("apfl", {"mix": 1.5}, "mix=1.5: lies between 0 and 1"),
        ("fedadam", {"beta1": 1.0, "tau": 0.0}, r"beta1=1.0: lies in \[0, 1\); tau=0.0: must be positive"),
        ("finetune", {"personal_lr": 0.0, "personal_steps": -1}, "personal_steps=-1.*personal_lr=0.0"),
        ("fedavg", {"local_epochs": 0.0}, "local_epochs=0.0: must be positive"),
    ],
)
def test_mistakes_name_what_was_meant(name, params, message):
    with pytest.raises(ValueError, match=message):
        parse_method(name, params)


@pytest.mark.parametrize(
    ("name", "able"),
    [("fedavg+prox_by_distance", "ditto, fedprox"), ("local+weight_by_distance", "aligned, apfl, best_of")],
)
def test_a_knob_the_algorithm_lacks_is_named_with_those_that_have_it(name, able):
    with pytest.raises(
        PersoflError, match=rf"which '\w+' does not have \(it has .*Methods that have it: {able}"
    ):
        parse_method(name)


@pytest.mark.parametrize(
    "name", ["apfl+mix_by_distance+mix_by_shrinkage", "ditto+prox_by_distance+prox_by_distance"]
)
def test_two_modulators_on_one_knob_are_refused(name):
    with pytest.raises(PersoflError, match=r"two modulators steer the knob '(mix|prox)'; keep one"):
        parse_method(name)


def test_modulators_on_other_knobs_are_applied_in_order(federate, distances):
    method = parse_method("ditto+prox_by_distance+work_by_distance+weight_by_distance")
    federation = federate(method)
    plan, plain = federation.personaliser.whole, federate(Ditto()).personaliser.whole
    assert plan.steered == {"prox", "personal_steps", "weight"}
    assert plain.steered == frozenset()
    for modulator in method.modulators:
        want = modulator(getattr(plain, modulator.knob), distances)
        assert (getattr(plan, modulator.knob) == want).all()
    assert (plan.lr == plain.lr).all()


def test_a_modulator_keeps_apfl_from_adapting(federate, run):
    federation = federate(Method(APFL(local_steps=3), (build_modulator("mix_by_distance"),)))
    run(federation, 2)
    assert (federation.store.rows["mix"].cpu() == federation.personaliser.whole.mix).all()


def test_engine_and_modulators_mean_the_same_knobs():
    assert set(KNOBS) == set(MODULATOR_KNOBS)
    assert all(kind.knobs <= set(KNOBS) for kind in ALGORITHMS.values())


def test_a_plan_left_alone_is_neutral(population):
    plan = constant_plan(population.count("train"), lr=0.3)
    assert len(plan) == 6
    assert (plan.lr == torch.tensor(0.3)).all()
    assert (plan.prox == 0).all()
    assert (plan.mix == 1).all()
    assert (plan.weight.flatten() == population.count("train")).all()
    taken = plan.take(torch.tensor([4, 1]))
    assert (taken.weight == plan.weight[[4, 1]]).all()


def test_distances_see_the_training_span_only():
    """Another future leaves them as they are, to the last bit."""
    spec = WindowSpec(lookback=24, horizon=6)
    now = SimulatedHouseholds(clients=4, days=20, min_days=12, seed=5).load()
    values = now.values.clone()
    for begin, end in zip(now.offsets[:-1].tolist(), now.offsets[1:].tolist(), strict=True):
        first = begin + spec.bounds(end - begin)["train"][1]
        values[first:end] = 9 * torch.randn(end - first, 1, generator=torch.Generator().manual_seed(first))
    one, other = (make_windows(series, spec) for series in (now, dataclasses.replace(now, values=values)))
    for features in FEATURES:
        measured = [measure_distances(w, DistanceConfig("gaussian", features)) for w in (one, other)]
        assert torch.equal(measured[0].value, measured[1].value)
        assert torch.equal(measured[0].relative, measured[1].relative)


def test_features_have_the_shapes_that_distances_need(population):
    assert all(days.shape[1] == 24 and days.isfinite().all() for days in daily_profiles(population))
    pairs = training_windows(population)
    assert all(own.shape[1] == 24 + 6 and own.isfinite().all() for own in pairs)
    for own, count in zip(pairs, population.count("train").tolist(), strict=True):
        assert len(own) == -(-count // 6)  # about one per horizon


def test_unknown_features_and_kinds_name_the_nearest(population):
    with pytest.raises(PersoflError, match=r"Unknown features 'profile'. Did you mean 'profiles'\?"):
        measure_distances(population, DistanceConfig(features="profile"))
    with pytest.raises(ValueError, match=r"'slice'.*did you mean 'sliced'"):
        measure_distances(population, DistanceConfig(kind="slice"))


def test_permuted_distances_are_the_same_dealt_to_others(population):
    real, dealt = (
        measure_distances(population, DistanceConfig("gaussian", permute=p)) for p in (False, True)
    )
    assert sorted(real.relative.tolist()) == sorted(dealt.relative.tolist())
    assert (real.n == dealt.n).all()


def test_unknown_name_lists_what_is_known():
    assert "Known: a, b." in str(unknown_name("thing", "zzzz", ["b", "a"]))
    assert isinstance(unknown_name("thing", None, ["a"]), ValueError)


@pytest.mark.parametrize("method", ["apfl+mix_by_distance", "apfl+mix_by_shrinkage"])
def test_a_knob_that_a_modulator_replaces_is_not_tuned(method):
    """A modulator that ignores the base leaves an idle dimension in the search."""
    assert "mix" in search_space("apfl")
    assert "mix" not in search_space(method)
    assert "prox" in search_space("ditto+prox_by_distance")  # scales the base, which stays a parameter
