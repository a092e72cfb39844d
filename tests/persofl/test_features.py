"""What clients are compared by, checked against the plain module and pandas; and distances that follow the model."""

import dataclasses
import logging

import pandas as pd
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from data_loaders import SimulatedHouseholds, WindowSpec, make_windows, series_from_table
from persofl import DistanceConfig, Ditto, Method, PersoflError, Shape, build_model, measure_distances
from persofl import personaliser as personaliser_module
from persofl.embedding import watch_head
from persofl.features import (
    FEATURES,
    MODEL_FEATURES,
    Snapshot,
    embeddings,
    residuals,
    weekdays_of,
)
from persofl.models import MODELS
from persofl.models.forecast import moving_average
from personalization import build_modulator

from .conftest import SMALL
from .people import drivers, speakers

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
TINY = {**SMALL, "dscnn": {"channels": 4, "blocks": 1, "groups": 2}, "transformer": {"width": 8, "heads": 2}}


@pytest.fixture
def snapshot(federate):
    """The model of a federation, with weights of its own."""

    def build(data=None, model="mlp", loss=None, seed=1):
        options = {} if data is None else {"data": data}
        if isinstance(model, str):
            lookback, horizon, channels = (24, 6, 1) if data is None else data.shape
            outputs = 3 if loss == "pinball" else max(1, len(getattr(data, "classes", ())))
            model = build_model(
                model, Shape(lookback, horizon, channels, outputs), seed=seed, **TINY.get(model, {})
            )
        oracle = federate(Ditto(), model=model, loss=loss, **options).to("cpu").oracle
        return Snapshot.of(oracle, oracle.layout.row(model))

    return build


def training_of(data, client, stride):
    ranks = torch.arange(0, int(data.count("train")[client]), stride).unsqueeze(0)
    return data.gather(data.positions("train", torch.tensor([client]), ranks)[0])


# --- as the global model sees them -------------------------------------------------------------------------


def test_residuals_are_the_models_errors_about_one_a_horizon(population, snapshot):
    model = snapshot()
    for client, got in enumerate(residuals(population, model)):
        x, y = training_of(population, client, 6)
        torch.testing.assert_close(got, (y - model.module(x)).detach())


def test_residuals_of_quantiles_are_the_medians(population, snapshot):
    model = snapshot(loss="pinball")
    x, y = training_of(population, 2, 6)
    torch.testing.assert_close(residuals(population, model)[2], (y - model.module(x)[..., 1]).detach())


def test_residuals_of_classes_are_what_the_probabilities_lack(snapshot):
    data = speakers()
    model = snapshot(data)
    for client, got in enumerate(residuals(data, model)):
        x, y = training_of(data, client, 1)
        torch.testing.assert_close(got.sum(1), torch.zeros(len(x)), atol=1e-6, rtol=0)
        loss = -torch.log(1 - got.gather(1, y)).mean()  # the true class lacks 1 - p
        expected = nn.functional.cross_entropy(model.module(x)[:, 0], y[:, 0]).detach()
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)


def test_residuals_of_numbers(snapshot):
    data = drivers()
    model = snapshot(data)
    x, y = training_of(data, 3, 1)
    torch.testing.assert_close(residuals(data, model)[3], (y - model.module(x)).detach())


def test_embeddings_are_what_reaches_the_head(population, snapshot):
    model = snapshot()
    x, _ = training_of(population, 4, 6)
    hidden = torch.relu(model.module.body[0](x.flatten(1)))
    torch.testing.assert_close(embeddings(population, model)[4], hidden.detach())


def test_the_embedding_of_a_head_of_two_parts_is_both_inputs(population, snapshot):
    model = snapshot(model="dlinear")
    x, _ = training_of(population, 0, 6)
    trend = moving_average(x, 5)
    expected = torch.cat([(x - trend).flatten(1), trend.flatten(1)], 1)
    torch.testing.assert_close(embeddings(population, model)[0], expected)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_has_an_embedding(name, population, snapshot):
    model = snapshot(model=name)
    got = embeddings(population, model)
    assert len(got) == len(population)
    width = sum(part.weight.shape[0] for part in _parts(model.module.head))
    for own, windows in zip(got, population.count("train").tolist(), strict=True):
        assert own.shape == (-(-windows // 6), width)
        assert own.isfinite().all()
    assert not any(layer._forward_pre_hooks for layer in model.module.modules())  # nothing is left behind


def _parts(head):
    return list(head.values()) if isinstance(head, nn.ModuleDict) else [head]


def test_blocks_of_any_size_read_the_same(population, snapshot, monkeypatch):
    model = snapshot(model="gru")
    whole = [read(population, model) for read in MODEL_FEATURES.values()]
    monkeypatch.setattr("persofl.features._NUMBERS_AT_ONCE", 24 * 7)
    for read, expected in zip(MODEL_FEATURES.values(), whole, strict=True):
        for got, want in zip(read(population, model), expected, strict=True):
            torch.testing.assert_close(got, want)


def test_clients_with_few_windows_still_give_two_examples(snapshot):
    series = SimulatedHouseholds(clients=3, days=9, seed=1).load()
    data = make_windows(series, WindowSpec(lookback=24, horizon=60, train=0.4, validation=0.3))
    assert data.count("train").tolist() == [3, 3, 3]  # a horizon apart there is one
    model = snapshot(data, model=build_model("linear", Shape(24, 60)))
    assert [len(own) for own in embeddings(data, model)] == [2, 2, 2]


def test_a_model_without_a_head_is_named(population, snapshot):
    model = nn.Sequential(nn.Flatten(-2), nn.Linear(24, 6))
    with pytest.raises(PersoflError, match=r"Sequential has no layer called 'head'.*self\.head = "):
        embeddings(population, snapshot(model=model))


def test_the_hook_goes_even_if_the_model_fails():
    model = build_model("mlp", Shape(24, 6))
    with pytest.raises(RuntimeError), watch_head(model):
        model(torch.zeros(2, 7, 1))
    assert not model.head._forward_pre_hooks


def test_a_snapshot_is_a_copy(snapshot, population):
    model = build_model("mlp", Shape(24, 6), hidden=(8,))
    taken = snapshot(model=model)
    before = residuals(population, taken)[0]
    nn.init.zeros_(model.head.weight)
    assert torch.equal(residuals(population, taken)[0], before)
    assert not taken.module.training


# --- the calendar ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def commuters():
    """Two clients whose series start at odd hours of unlike days; high on weekends, one of them everywhere higher."""
    frames = []
    for client, start in enumerate(("2013-01-05 13:00", "2013-01-08 02:00")):
        index = pd.date_range(start, periods=24 * 40, freq="h")
        load = 1 + 0.5 * (index.day_of_week >= 5) + 0.01 * index.hour + 0.1 * client
        frames.append(pd.Series(load, index=index, name=f"client {client}"))
    table = pd.concat(frames, axis=1)
    return make_windows(series_from_table("commuters", table, unit="kWh"), WindowSpec(lookback=24, horizon=6))


def test_weekdays_are_those_of_the_stamps(commuters):
    for client in range(2):
        weekend = weekdays_of(commuters, client) >= 5
        level = commuters.profiles(client).mean(1)
        assert level[weekend].min() > level[~weekend].max()


def test_conditional_days_have_lost_the_populations_mean_for_their_weekday(population):
    days = torch.cat(FEATURES["profiles"](population))
    left = torch.cat(FEATURES["conditional"](population))
    on = torch.cat([weekdays_of(population, client) for client in range(len(population))])
    for weekday in range(7):
        chosen = on == weekday
        assert chosen.any()
        torch.testing.assert_close(left[chosen], days[chosen] - days[chosen].mean(0))


def test_what_the_calendar_explains_is_no_distance(commuters):
    """Scaled, the two clients differ by the weekdays they were observed on and nothing else."""
    marginal, conditional = (
        float(torch.stack([own.square().mean() for own in FEATURES[name](commuters)]).max())
        for name in ("profiles", "conditional")
    )
    assert conditional < 0.01 * marginal


# --- distances that follow the model -----------------------------------------------------------------------

FOLLOWING = DistanceConfig("gaussian", "residuals", refresh=2)


def steered(config=FOLLOWING):
    return Method(Ditto(local_steps=3, personal_steps=3), (build_modulator("prox_by_distance"),), config)


@pytest.mark.parametrize("features", sorted(MODEL_FEATURES))
def test_distances_are_measured_on_the_servers_row_of_the_refresh(features, federate, run):
    config = dataclasses.replace(FOLLOWING, features=features)
    federation = federate(steered(config))
    outcome = run(federation, 4)  # rounds 0 to 3: the last refresh was in round 2, before it trained
    row = outcome.servers[2][0]
    expected = measure_distances(federation.data, config, None, Snapshot.of(federation.oracle, row))
    assert torch.equal(federation.personaliser.distances.value, expected.value)
    prox = 0.1 * torch.exp(-expected.relative).unsqueeze(1)
    torch.testing.assert_close(federation.personaliser.whole.prox, prox)
    assert not torch.equal(outcome.servers[2], outcome.servers[0])


def test_before_the_first_round_the_model_is_the_one_that_was_built(federate):
    one, other = federate(steered()), federate(steered())
    one.personaliser.__dict__.pop("distances")
    other.personaliser.refresh(0, other.initial_row())
    assert torch.equal(one.personaliser.distances.value, other.personaliser.distances.value)


def count_measurements(monkeypatch):
    calls, measure = [], personaliser_module._plainly

    def counted(*args, **kwargs):
        calls.append(args)
        return measure(*args, **kwargs)

    monkeypatch.setattr(personaliser_module, "_plainly", counted)
    return calls


@pytest.mark.parametrize(
    ("method", "measured"),
    [
        (steered(), 3),  # in rounds 0, 2 and 4
        (steered(DistanceConfig("gaussian")), 0),  # the fixture's distances stay
        (dataclasses.replace(steered(), modulators=()), 0),  # nobody asks
    ],
)
def test_refreshing_costs_what_it_must(method, measured, federate, run, monkeypatch):
    federation, calls = federate(method), count_measurements(monkeypatch)
    run(federation, 5)
    assert len(calls) == measured


def test_dealt_distances_follow_the_model_too(federate, run):
    real, dealt = (
        federate(steered(dataclasses.replace(FOLLOWING, permute=permute))) for permute in (False, True)
    )
    run(real, 1)
    run(dealt, 1)
    one, other = real.personaliser.distances, dealt.personaliser.distances
    assert not torch.equal(one.relative, other.relative)
    assert torch.equal(one.relative.sort().values, other.relative.sort().values)


@pytest.mark.parametrize("stop", [2, 3])  # before a refresh, and between two
def test_a_run_resumed_between_refreshes_ends_as_one_that_was_not(stop, module, trainer, tmp_path):
    whole, half, rest = module(steered()), module(steered()), module(steered())
    trainer(5).fit(whole)
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=1)
    trainer(stop, callbacks=[keep]).fit(half)
    trainer(5).fit(rest, ckpt_path=tmp_path / f"step={stop}.ckpt", weights_only=True)
    assert torch.equal(rest.server, whole.server)
    for name, rows in whole.federation.store.state_dict().items():
        assert torch.equal(rest.federation.store.state_dict()[name], rows)
    assert torch.equal(
        rest.federation.personaliser.distances.relative, whole.federation.personaliser.distances.relative
    )


def test_a_checkpoint_loaded_to_evaluate_has_the_plan_it_was_trained_by(module, trainer, tmp_path):
    trained, loaded = module(steered()), module(steered())
    runner = trainer(4, callbacks=[ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1)])
    runner.fit(trained)
    runner.save_checkpoint(tmp_path / "end.ckpt")
    loaded.on_load_checkpoint(torch.load(tmp_path / "end.ckpt", weights_only=True))
    plans = [built.federation.personaliser.whole.prox for built in (trained, loaded)]
    assert torch.equal(*plans)
    assert len(plans[0].unique()) > 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"features": "residuals"}, "features='residuals' change with the model: give refresh"),
        ({"features": "embeddings", "refresh": -1}, "give refresh, every how many rounds"),
        ({"refresh": 3}, r"refresh=3: features='auto' never change; .* residuals, embeddings"),
    ],
)
def test_a_refresh_that_makes_no_sense_is_refused(options, text):
    with pytest.raises(PersoflError, match=text):
        DistanceConfig(**options)


def test_features_of_a_model_need_one(population):
    with pytest.raises(PersoflError, match=r"features='residuals' are read off a model; give its Snapshot"):
        measure_distances(population, FOLLOWING)
