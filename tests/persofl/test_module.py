"""The Lightning shell: rounds are steps, checkpoints hold everything, and what goes wrong says so."""

import copy
import logging
import math

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from persofl import (
    ALGORITHMS,
    APFL,
    FedAdam,
    FedAvg,
    FineTune,
    Local,
    PersoflError,
    Shape,
    build_model,
)
from persofl.evaluation import group_curves

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning.*")
METHODS = [*sorted(ALGORITHMS), "ditto+prox_by_distance", "apfl+mix_by_distance"]


# --- rounds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_one_step_is_one_round(method, module, trainer):
    built, runner = module(method), trainer(3)
    runner.fit(built)
    assert runner.global_step == 3
    assert built.last_round.round == 2
    assert math.isfinite(runner.callback_metrics["train/loss"])
    assert float(runner.callback_metrics["train/loss"]) == pytest.approx(built.last_round.loss)


@pytest.mark.parametrize("method", METHODS)
def test_the_shell_runs_what_the_engine_runs(method, module, run, trainer, device):
    """Lightning adds nothing of its own."""
    built = module(method)
    trainer(3).fit(built)
    outcome = run(module(method).federation.to(device), 3)
    assert torch.equal(built.server.detach(), outcome.server)
    for name, value in outcome.store.items():
        assert torch.equal(built.federation.store.state_dict()[name], value)


def test_another_seed_is_another_run(module, trainer):
    one, other = module("fedavg"), module("fedavg", seed=3)
    for built in (one, other):
        trainer(2).fit(built)
    assert not torch.equal(one.server, other.server)


# --- looking at clients ------------------------------------------------------------------------------------


def test_the_table_has_a_row_per_client(module, population, trainer):
    built = module("ditto")
    trainer(2).fit(built)
    for span in ("validation", "test"):
        table = built.client_table(span)
        assert list(table.index) == list(population.series.clients)
        assert table.index.name == "client"
        assert list(table.columns) == ["nmae", "mae", "rmse", "mase", "loss", "windows"]
        assert table["windows"].tolist() == population.count(span).tolist()
        assert table.notna().all(axis=None)


def test_a_distance_aware_method_shows_its_distances(module, distances, trainer):
    built = module("ditto+prox_by_distance")
    trainer(1).fit(built)
    assert built.client_table("test")["distance"].tolist() == pytest.approx(distances.relative.tolist())


@pytest.mark.parametrize("method", METHODS)
def test_a_clients_model_predicts_as_the_table_says(method, module, population, trainer):
    built = module(method)
    trainer(2).fit(built)
    table = built.client_table("test")
    for client in (0, 4):
        own = built.client_model(population.series.clients[client])
        assert not own.training
        count = int(population.count("test")[client])
        places = population.positions("test", torch.tensor([client]), torch.arange(count)[None])[0]
        x, y = population.gather(places)
        with torch.no_grad():
            error = (own(x) - y).abs().mean() * population.std[client, 0]
        assert float(error) == pytest.approx(table["mae"].iloc[client], rel=1e-4)


def test_a_clients_model_is_a_copy(module, trainer):
    built = module("ditto")
    trainer(1).fit(built)
    before = built.client_table("test")
    with torch.no_grad():
        for parameter in built.client_model(1).parameters():
            parameter.zero_()
    built.metrics_of.clear()
    pd.testing.assert_frame_equal(built.client_table("test"), before)


@pytest.mark.parametrize("client", ["house00009", 6, -1, 1.0, None])
def test_a_client_that_is_not_there_is_named(client, module):
    with pytest.raises(
        PersoflError, match=f"No client {client!r}; give a name such as 'house00000', or an index below 6"
    ):
        module().client_model(client)


@pytest.mark.parametrize("method", ["fedavg", "finetune", "ditto+prox_by_distance"])
def test_validate_and_test_log_what_the_table_says(method, module, trainer):
    """In inference mode, the trainer's default."""
    built, runner = module(method), trainer(2)
    runner.fit(built)
    for call, span in ((runner.validate, "validation"), (runner.test, "test")):
        logged = call(built, verbose=False)[0]
        table = built.client_table(span)
        assert logged[f"{span}/nmae"] == pytest.approx(table["nmae"].mean(), rel=1e-6)
        assert logged[f"{span}/nmae_median"] == pytest.approx(table["nmae"].median(), rel=1e-6)
        assert logged[f"{span}/mae"] == pytest.approx(table["mae"].mean(), rel=1e-6)
        assert logged[f"{span}/nmae_worst_decile"] == pytest.approx(table["nmae"].max(), rel=1e-6)
        assert logged[f"{span}/nmae_clients"] == 6
        built.metrics_of.clear()
        pd.testing.assert_frame_equal(built.client_table(span), table)  # the same without a trainer


def test_finetuned_models_are_trained_in_inference_mode(module, trainer):
    built = module(FineTune(local_steps=2, personal_steps=10, personal_lr=0.1))
    runner = trainer(1)
    runner.fit(built)
    tuned = runner.validate(built, verbose=False)[0]["validation/loss"]
    plain = module(FineTune(local_steps=2, personal_steps=0))
    trainer(1).fit(plain)
    assert tuned != pytest.approx(plain.client_table("validation")["loss"].mean())


def test_an_evaluation_cut_short_leaves_nothing_behind(module, trainer):
    built = module("fedavg")
    trainer(1).fit(built)
    want = built.client_table("test")
    built.metrics_of.clear()

    class Interrupt(pl.Callback):
        def on_test_batch_end(self, *_):
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer(1, callbacks=[Interrupt()]).test(built, verbose=False)
    assert "test" not in built.metrics_of
    trainer(1).test(built, verbose=False)
    pd.testing.assert_frame_equal(built.client_table("test"), want)


def test_all_models_are_learnt_from_validation_during_training(module, trainer):
    built = module("ditto", cohort=1.0)
    seen = []

    class Watch(pl.Callback):
        def on_validation_end(self, runner, built):
            seen.append(float(runner.callback_metrics["validation/nmae"]))

    trainer(6, val_check_interval=2, num_sanity_val_steps=0, callbacks=[Watch()]).fit(built)
    assert len(seen) == 3
    assert len(set(seen)) == 3


# --- models and losses of many kinds -----------------------------------------------------------------------


class Own(nn.Module):
    """A user's module of torch's layers."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(1, 4, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 6)

    def forward(self, x):
        return self.head(self.norm(self.gru(x)[1][0]))


class Normed(nn.Module):
    """One that keeps running statistics."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(24, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, 6)

    def forward(self, x):
        return self.head(self.body(x[..., 0]))


def last_of(model):
    """A client's own model, where it mixes that with the population's."""
    return model.models[-1] if hasattr(model, "models") else model


@pytest.mark.parametrize("method", sorted(ALGORITHMS))
def test_a_module_of_ones_own_runs(method, module, trainer):
    torch.manual_seed(0)
    own = Own()
    built, looped = module(method, model=own), module(method, model=own, oracle="loop")
    assert built.federation.oracle.name == "vmap"
    for each in (built, looped):
        trainer(2).fit(each)
    torch.testing.assert_close(built.server, looped.server, rtol=1e-3, atol=1e-5)
    assert isinstance(last_of(built.client_model(0)), Own)
    tables = [built.client_table(), looped.client_table()]
    if (
        built.federation.algorithm.gates()
    ):  # which of two mixtures that are level is taken may turn on rounding
        pairs = [[each.client_model(client) for each in (built, looped)] for client in range(6)]
        for one, other in pairs:
            for weight, other_weight in zip(one.parameters(), other.parameters(), strict=True):
                torch.testing.assert_close(weight, other_weight, rtol=1e-3, atol=1e-5)
        alike = [torch.equal(one.weights, other.weights) for one, other in pairs]
        everyone = torch.arange(6)
        curves = [group_curves(each.federation, each.server, everyone, 2).errors for each in (built, looped)]
        torch.testing.assert_close(*curves, rtol=1e-3, atol=1e-5)
        assert any(alike)
        tables = [table[alike] for table in tables]
    pd.testing.assert_frame_equal(*tables, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_batchnorm_trains_under_the_loop_with_statistics_of_each_clients_own(method, module, trainer):
    torch.manual_seed(0)
    built = module(method, model=Normed(), oracle="loop", cohort=1.0)
    trainer(3).fit(built)
    table = built.client_table()
    assert table["nmae"].notna().all()
    models = [last_of(built.client_model(client)) for client in range(6)]
    means = torch.stack([model.body[1].running_mean for model in models])
    variances = torch.stack([model.body[1].running_var for model in models])
    assert not torch.allclose(means, torch.zeros_like(means))  # they moved from where they began
    assert (variances > 0).all()
    personal = method.split("+")[0] in (
        "aligned",
        "apfl",
        "best_of",
        "blend",
        "cluster_fedavg",
        "ditto",
        "finetune",
        "gate",
        "gated_neighbours",
        "lgfedavg",
        "local",
        "neighbours",
        "tuned_ditto",
        "tuned_neighbours",
    )
    spread = (means - means.mean(0)).abs().amax(1)
    assert bool((spread > 1e-6).any()) == personal


def test_batchnorm_statistics_follow_the_mixture_that_apfl_predicts_with(module, trainer):
    """At mix = 1 the client predicts with its personal model: statistics must be those of that model's data."""
    torch.manual_seed(0)
    own = Normed()
    apfl = module(APFL(local_steps=3, mix=1.0, adaptive=False), model=own, oracle="loop", cohort=1.0)
    local = module(Local(local_steps=3), model=own, oracle="loop", cohort=1.0)
    for built in (apfl, local):
        trainer(3).fit(built)
    for client in range(6):
        one, other = (built.client_model(client).state_dict() for built in (apfl, local))
        for name in ("body.1.running_mean", "body.1.running_var", "head.weight"):
            torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_batchnorm_without_the_loop_is_refused_by_name(module):
    with pytest.raises(PersoflError, match=r"Layer 'body\.1' \(BatchNorm1d\)"):
        module("fedavg", model=Normed())


def test_server_optimisers_of_other_kinds_average_statistics(module, trainer):
    """Adam's steps have no meaning for a variance: whatever the rate, it is the clients' mean."""
    torch.manual_seed(0)
    own = Normed()
    states = []
    for method in (FedAdam(local_steps=2, server_lr=3.0), FedAvg(local_steps=2)):
        built = module(method, model=own, oracle="loop", cohort=1.0)
        trainer(1).fit(built)
        states.append(built.client_model(0).body[1])
    torch.testing.assert_close(states[0].running_var, states[1].running_var)
    torch.testing.assert_close(states[0].running_mean, states[1].running_mean)


@pytest.mark.parametrize("method", ["fedavg", "apfl+mix_by_distance"])
@pytest.mark.parametrize("name", ["mlp", "gru"])
def test_quantiles_end_to_end(name, method, module, trainer):
    model = build_model(name, Shape(24, 6, outputs=3), hidden=(8,) if name == "mlp" else 4)
    built = module(method, model=model, loss="pinball", cohort=1.0)
    before = built.client_table("test")["loss"].mean()
    trainer(5).fit(built)
    built.metrics_of.clear()
    assert built.client_table("test")["loss"].mean() < before
    assert built.client_model(0)(torch.randn(2, 24, 1)).shape == (2, 6, 3)


@pytest.mark.parametrize("method", ["fedavg", "ditto", "finetune"])
def test_instance_normalisation_end_to_end(method, module, trainer):
    model = build_model("mlp", Shape(24, 6), instance_norm=True, hidden=(8,))
    built = module(method, model=model, cohort=1.0)
    assert built.federation.oracle.name == "batched"
    before = built.client_table("test")["mae"].mean()
    trainer(5).fit(built)
    built.metrics_of.clear()
    assert built.client_table("test")["mae"].mean() < before


@pytest.mark.parametrize("method", sorted(ALGORITHMS))
def test_training_helps(method, module, trainer):
    """The least one may ask: a few rounds lower every method's validation loss."""
    built = module(method, cohort=1.0)
    before = built.client_table("validation")["loss"].mean()
    trainer(8).fit(built)
    built.metrics_of.clear()
    assert built.client_table("validation")["loss"].mean() < before


def test_the_model_given_is_a_start_and_stays_as_it_was(module, trainer):
    model = build_model("mlp", Shape(24, 6), hidden=(8,))
    before = copy.deepcopy(model.state_dict())
    built = module("ditto", model=model)
    trainer(2).fit(built)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_client_without_training_windows_is_named(module, population):
    empty = copy.copy(population)
    object.__setattr__(empty, "count", lambda span: population.count(span) * torch.tensor([1, 1, 0, 1, 1, 1]))
    with pytest.raises(PersoflError, match="Client 'house00002' has no training example"):
        module("fedavg", empty)


def test_a_model_that_does_not_fit_the_data_says_how(module):
    with pytest.raises(PersoflError, match=r"to \(2, 7\); with SquaredError it must give \(batch, horizon\)"):
        module("fedavg", model=build_model("mlp", Shape(24, 7)))


def test_a_second_fit_goes_on_where_the_first_ended(module, trainer):
    parts, whole = module("ditto"), module("ditto")
    trainer(2).fit(parts)
    trainer(3).fit(parts)
    trainer(5).fit(whole)
    assert int(parts.rounds) == 5
    assert torch.equal(parts.server, whole.server)


@pytest.mark.parametrize("method", ["fedavg", "ditto"])
def test_frozen_parameters_stay_as_they_are(method, module, trainer):
    model = build_model("mlp", Shape(24, 6))
    model.body[0].weight.requires_grad_(False)
    built = module(method, model=model)
    assert built.server.shape[1] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    trainer(2).fit(built)
    own = built.client_model(0)
    assert torch.equal(own.body[0].weight, model.body[0].weight)
    assert not torch.equal(own.head.weight, model.head.weight)
