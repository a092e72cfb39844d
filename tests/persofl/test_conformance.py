"""What every algorithm and every method must satisfy; a new plug-in is tested by being registered."""

import dataclasses
import inspect

import pytest
import torch

from persofl import (
    ALGORITHMS,
    APFL,
    Ditto,
    FedAdam,
    FedAvg,
    FedPer,
    FedProx,
    FineTune,
    LGFedAvg,
    Local,
    Method,
)
from persofl.algorithms.base import pull
from persofl.plan import constant_plan
from personalization import MODULATORS, build_modulator

SETTINGS = {  # where the defaults would make a test slow or blind
    "fedprox": {"prox": 2.0},
    "aligned": {"align": 0.5, "personal_steps": 3},
    "best_of": {"personal_steps": 3},
    "blend": {"personal_steps": 3},
    "tuned_ditto": {"personal_steps": 3, "grid": (2.0, 0.2)},
    "ditto": {"prox": 2.0, "personal_steps": 3},
    "finetune": {"personal_steps": 3, "mix": 0.7},
    "gate": {"personal_steps": 3, "tune_lr": 0.1},
    "gated_neighbours": {"personal_steps": 3, "tune_lr": 0.1},
    "fedadam": {"server_lr": 0.05},
}


def algorithm(name, **overrides):
    return ALGORITHMS[name](**{"lr": 0.1, "local_steps": 4, **SETTINGS.get(name, {}), **overrides})


METHODS = {name: Method(algorithm(name)) for name in ALGORITHMS} | {
    f"{name}+{modulator}": Method(algorithm(name), (build_modulator(modulator),))
    for name, kind in ALGORITHMS.items()
    for modulator, steers in MODULATORS.items()
    if steers.knob in kind.knobs
}


def close(got, want, rtol=1e-4, atol=1e-5):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol, equal_nan=True)


def same(one, other, **tolerance):
    for got, want in zip(one.servers, other.servers, strict=True):
        close(got, want, **tolerance)
    assert one.store.keys() == other.store.keys()
    for name in one.store:
        close(one.store[name], other.store[name], **tolerance)
    for got, want in zip(one.losses, other.losses, strict=True):
        close(got, want, **tolerance)
    close(one.predictors, other.predictors, **tolerance)


# --- the oracles agree -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["mlp", "gru"])
@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_oracles_agree_when_every_client_has_its_own_knobs(name, model, unequal, federate, run):
    outcomes = [
        run(
            federate(algorithm(name), model=model, columns=unequal, oracle=oracle, cohort=0.7, chunk=chunk),
            3,
        )
        for oracle, chunk in (("loop", 1), ("vmap", 2), ("batched", 3))
    ]
    assert not torch.equal(outcomes[0].servers[0], outcomes[0].predictors[:1])  # something was trained
    same(outcomes[1], outcomes[0])
    same(outcomes[2], outcomes[0])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_oracles_agree_on_every_method(name, federate, run):
    loop, batched = (
        run(federate(METHODS[name], oracle=oracle, cohort=0.7)) for oracle in ("loop", "batched")
    )
    same(batched, loop)


# --- identities --------------------------------------------------------------------------------------------


def test_fedprox_without_pull_is_fedavg(federate, run):
    fedavg, fedprox = run(federate(FedAvg(local_steps=4))), run(federate(FedProx(local_steps=4, prox=0)))
    assert torch.equal(fedavg.server, fedprox.server)


def test_fedprox_with_endless_pull_stays_at_the_anchor(federate, run):
    outcome = run(federate(FedProx(local_steps=4, prox=1e12)))
    close(outcome.server, outcome.servers[0])


@pytest.mark.parametrize("prox", [0.0, 0.7, 1e12])
def test_ditto_shows_the_server_fedavg(prox, federate, run):
    fedavg, ditto = run(federate(FedAvg(local_steps=4))), run(federate(Ditto(local_steps=4, prox=prox)))
    for got, want in zip(ditto.servers, fedavg.servers, strict=True):
        assert torch.equal(got, want)


def test_ditto_without_pull_trains_alone(equals, federate, run):
    """Full batches, so that the names of the random streams do not matter."""
    size = int(equals.count("train")[0])
    ditto = run(federate(Ditto(prox=0, local_steps=2, personal_steps=3), equals, batch_size=size), 3)
    local = run(federate(Local(local_steps=3), equals, batch_size=size), 3)
    close(ditto.predictors, local.predictors)


def test_ditto_with_endless_pull_is_the_global_model(federate, run):
    outcome = run(federate(Ditto(local_steps=4, personal_steps=2, prox=1e12)), 3)
    close(outcome.predictors, outcome.servers[-2].expand(6, -1))  # the anchor of the last round


def test_apfl_at_its_ends(federate, run):
    common = {"local_steps": 4, "adaptive": False}
    fedavg, local = run(federate(FedAvg(local_steps=4))), run(federate(Local(local_steps=4)))
    shared, alone = (run(federate(APFL(mix=mix, **common))) for mix in (0.0, 1.0))
    close(shared.predictors, fedavg.predictors)
    close(alone.predictors, local.predictors)
    close(alone.server, fedavg.server)


def test_apfl_moves_its_weight_down_the_slope_and_keeps_it_a_share(federate, run):
    """After the first round the personal model fits its client better than the shared one: the share grows."""
    outcome = run(federate(APFL(local_steps=8, lr=0.2, mix=0.5)), 6)
    mix = outcome.store["rows.mix"]
    assert ((mix >= 0) & (mix <= 1)).all()
    assert not torch.equal(mix, torch.full_like(mix, 0.5))


@pytest.mark.parametrize("split", [FedPer, LGFedAvg])
def test_a_model_of_shared_layers_only_is_fedavg(split, federate, run):
    fedavg, shared = (
        run(federate(a, cohort=0.7), 3) for a in (FedAvg(local_steps=4), split(local_steps=4, depth=0))
    )
    assert torch.equal(shared.predictors, fedavg.predictors)
    assert torch.equal(shared.server, fedavg.server)


@pytest.mark.parametrize("split", [FedPer, LGFedAvg])
@pytest.mark.parametrize("depth", [2, 9])
def test_a_model_of_personal_layers_only_is_local_training(split, depth, federate, run):
    """The model has two layers, so that nine are all of them too."""
    local, own = (
        run(federate(a, cohort=0.7), 3) for a in (Local(local_steps=4), split(local_steps=4, depth=depth))
    )
    assert torch.equal(own.predictors, local.predictors)
    assert torch.equal(own.server, own.servers[0])


def test_the_two_ways_to_split_a_model_are_complements(federate, run):
    """Head personal and body shared, and the other way round."""
    for split, personal in ((FedPer, "head"), (LGFedAvg, "body")):
        federation = federate(split(local_steps=4, depth=1))
        outcome = run(federation, 3)
        own = federation.oracle.layout.mask(lambda name, personal=personal: name.startswith(personal))
        assert torch.equal(outcome.server[:, own], outcome.servers[0][:, own])  # never sent
        close(outcome.predictors[:, ~own], outcome.server[:, ~own].expand(6, -1))
        spread = outcome.predictors[:, own].std(0)
        assert (spread > 0).float().mean() > 0.9


def test_clients_that_keep_a_layer_leave_it_to_the_others(federate, run):
    """The head moves by the weights of those that share it."""
    depth = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0]).unsqueeze(1)
    federation = federate(FedPer(local_steps=4), columns={"depth": depth})
    plan, outcome = federation.personaliser.whole, run(federation, 1)
    head = federation.oracle.layout.head_mask()
    moved = outcome.servers[0] - outcome.store["rows.personal"]
    share = plan.weight / plan.weight.sum()
    close(outcome.servers[0] - outcome.server, (share * moved * ~(head & (depth > 0))).sum(0, keepdim=True))


@pytest.mark.parametrize("knobs", [{"personal_steps": 0}, {"personal_steps": 5, "mix": 0.0}])
def test_finetuning_by_nothing_is_fedavg(knobs, federate, run):
    fedavg, tuned = run(federate(FedAvg(local_steps=4))), run(federate(FineTune(local_steps=4, **knobs)))
    assert torch.equal(fedavg.server, tuned.server)
    assert torch.equal(fedavg.predictors, tuned.predictors)


def test_finetuning_does_not_touch_server_or_store(federate, run):
    fedavg, tuned = run(federate(FedAvg(local_steps=4))), run(federate(FineTune(local_steps=4)))
    assert torch.equal(fedavg.server, tuned.server)
    assert set(tuned.store) == {"seen"}
    assert not torch.equal(fedavg.predictors, tuned.predictors)


def test_fedadam_with_endless_tau_is_fedavg(federate, run):
    """Without moments the step is ``server_lr * delta / (|delta| + tau)``, which tends to delta for server_lr = tau."""
    adam = FedAdam(local_steps=4, beta1=0.0, beta2=0.0, tau=1e4, server_lr=1e4)
    close(run(federate(adam), 3).server, run(federate(FedAvg(local_steps=4)), 3).server, rtol=1e-3, atol=1e-4)


def test_fedadam_steps_by_its_rate_at_most(federate, run):
    """In the first round Adam's step is ``server_lr`` in every coordinate that moved by much more than tau."""
    outcome = run(federate(FedAdam(local_steps=4, server_lr=0.05)), 1)
    assert ((outcome.server - outcome.servers[0]).abs() <= 0.05 * (1 + 1e-5)).all()


@pytest.mark.parametrize(
    "name", ["aligned", "fedavg", "apfl", "best_of", "ditto", "finetune", "fedprox", "tuned_ditto"]
)
def test_a_population_of_one_trains_alone(name, hermit, federate, run):
    knobs = {"fedprox": {"prox": 0.0}, "ditto": {"prox": 0.0, "personal_steps": 4}}.get(name, {})
    knobs = {"finetune": {"personal_steps": 0}, "apfl": {"mix": 1.0, "adaptive": False}}.get(name, knobs)
    knobs = {
        "aligned": {"align": 0.0, "personal_steps": 4},
        "best_of": {"personal_steps": 4},
        "tuned_ditto": {"grid": (0.0,), "personal_steps": 4},
    }.get(name, knobs)
    size = int(hermit.count("train")[0])
    federated = run(federate(ALGORITHMS[name](local_steps=4, **knobs), hermit, batch_size=size), 3)
    alone = run(federate(Local(local_steps=4), hermit, batch_size=size), 3)
    close(federated.predictors, alone.predictors)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_identical_clients_get_identical_models(name, twins, federate, run):
    outcome = run(federate(algorithm(name), twins, batch_size=int(twins.count("train")[0])), 3)
    close(outcome.predictors, outcome.predictors[:1].expand(3, -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_identical_clients_are_one(name, twins, hermit, federate, run):
    size = int(twins.count("train")[0])
    many, one = (run(federate(algorithm(name), data, batch_size=size), 3) for data in (twins, hermit))
    close(many.predictors[:1], one.predictors)
    close(many.server, one.server.expand_as(many.server))


@pytest.mark.parametrize("name", sorted(name for name, kind in ALGORITHMS.items() if "prox" in kind.knobs))
def test_the_pull_changes_the_path(name, federate, run):
    """A stronger pull ends nearer to the anchor: it acts on the gradient, not only on the loss reported."""
    ends = []
    for prox in (0.0, 1.0, 10.0, 100.0):
        outcome = run(federate(algorithm(name, prox=prox), oracle="batched"), 1)
        moved = outcome.predictors if name == "ditto" else outcome.server
        ends.append(float((moved - outcome.servers[0]).norm()))
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] < 0.5 * ends[0]


def test_the_proximal_step_is_the_explicit_one_to_first_order():
    """Their difference falls with the square of the learning rate."""
    generator = torch.Generator().manual_seed(0)
    start, anchor, grad = (torch.randn(2, 50, generator=generator, dtype=torch.float64) for _ in range(3))

    def difference(lr):
        plan = constant_plan(torch.ones(2), lr=lr, prox=3.0)
        plan = dataclasses.replace(plan, lr=plan.lr.double(), prox=plan.prox.double())
        rows = {"w": start - plan.lr * grad, "anchor": anchor}
        pull("w", rows, plan)
        return float((rows["w"] - (start - plan.lr * (grad + plan.prox * (start - anchor)))).norm())

    for lr in (1e-2, 1e-3):
        assert difference(lr) / difference(lr / 2) == pytest.approx(4, rel=0.05)


def test_the_proximal_step_minimises_the_proximal_objective():
    """``argmin_w |w - v|^2 / (2 lr) + prox / 2 |w - a|^2``, whose gradient vanishes there."""
    point, anchor = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = constant_plan(torch.ones(4), lr=0.5, prox=7.0)
    plan = dataclasses.replace(plan, lr=plan.lr.double(), prox=plan.prox.double())
    rows = {"w": point.clone(), "anchor": anchor}
    pull("w", rows, plan)
    slope = (rows["w"] - point) / plan.lr + plan.prox * (rows["w"] - anchor)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)


# --- modulators at their limits ----------------------------------------------------------------------------

CONSTANT = [  # parameters at which a modulator leaves a knob to the algorithm, and the algorithm that remains
    ("prox_by_distance", {"tau": 1e9}, lambda name: algorithm(name)),
    ("prox_by_inverse_distance", {"eps": 1e9, "ceiling": 1e-9}, lambda name: algorithm(name, prox=0.0)),
    ("prox_by_bayes", {"ceiling": 1e-9}, lambda name: algorithm(name, prox=0.0)),
    ("work_by_distance", {"slope": 0.0}, lambda name: algorithm(name)),
    ("shared_work_by_distance", {"slope": 0.0}, lambda name: algorithm(name)),
    ("lr_by_distance", {"slope": 0.0}, lambda name: algorithm(name)),
    ("weight_by_distance", {"slope": 0.0, "offset": 0.0}, lambda name: algorithm(name)),
    ("depth_by_distance", {"quantile": 1.0}, lambda name: algorithm(name, depth=0)),
    ("mix_by_distance", {"tau": 1e9}, lambda name: algorithm(name, mix=0.0, **fixed(name))),
    ("align_by_distance", {"tau": 1e9}, lambda name: algorithm(name)),
    ("mix_by_trend", {"slope": 0.0}, lambda name: algorithm(name, **fixed(name))),
]


def test_every_modulator_has_its_limit_here():
    """But shrinkage, whose limits are no constant: they depend on the clients' sizes."""
    assert {modulator for modulator, *_ in CONSTANT} == set(MODULATORS) - {"mix_by_shrinkage"}


def fixed(name):
    return {"adaptive": False} if name == "apfl" else {}


LIMITS = [
    pytest.param(name, modulator, params, remains, id=f"{name}+{modulator}")
    for modulator, params, remains in CONSTANT
    for name, kind in ALGORITHMS.items()
    if MODULATORS[modulator].knob in kind.knobs
]


@pytest.mark.parametrize(("name", "modulator", "params", "remains"), LIMITS)
@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_a_modulator_at_its_limit_is_the_plain_method(
    name, modulator, params, remains, weighting, federate, run
):
    steered = Method(algorithm(name), (build_modulator(modulator, **params),))
    outcomes = [
        run(federate(method, weighting=weighting, cohort=0.7)) for method in (steered, Method(remains(name)))
    ]
    close(outcomes[0].server, outcomes[1].server)
    close(outcomes[0].predictors, outcomes[1].predictors)


@pytest.mark.parametrize("name", sorted(name for name in METHODS if "+" in name))
def test_a_modulator_changes_the_result(name, federate, run):
    plain = METHODS[name.split("+")[0]]
    outcomes = [run(federate(method)) for method in (plain, METHODS[name])]
    assert not torch.allclose(outcomes[0].predictors, outcomes[1].predictors, rtol=1e-3, atol=1e-4)


# --- the plug-ins themselves -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_functions_of_an_algorithm_leave_the_anchor_alone(name, federate, run):
    federation = federate(algorithm(name))
    plan = federation.personaliser.plan(torch.arange(6))
    anchor = federation.initial_row().expand(6, -1)
    before = anchor.clone()
    state = federation.algorithm.new_client(anchor, plan)
    rows = {**federation.algorithm.begin(anchor, state, plan), "anchor": anchor}
    for key, matrix in rows.items():
        if key != "anchor":
            assert matrix.shape[0] == 6
            matrix.fill_(1)  # a shared memory would show
    assert torch.equal(anchor, before)
    assert all(torch.equal(value, before) or value.shape[1] == 1 for value in state.values())


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_an_algorithm_is_described_and_tunable(name):
    kind = ALGORITHMS[name]
    assert kind.__doc__
    assert "lr" in {item.name for item in dataclasses.fields(kind) if "search" in item.metadata}
    if name != "local":
        assert "References:" in (inspect.getmodule(kind).__doc__ or "")
    knobs = {phase.steps for phase in (*algorithm(name).phases(), algorithm(name).adaptation()) if phase}
    assert knobs <= kind.knobs


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_all_bad_hyperparameters_come_in_one_message(name):
    with pytest.raises(ValueError, match=rf"Method '{name}': lr=-1: must be positive; local_steps=0"):
        ALGORITHMS[name](lr=-1, local_steps=0)
