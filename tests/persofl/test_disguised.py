"""A federation on a device, where there is none: on a processor in disguise that refuses to mix what a GPU would."""

import copy
import dataclasses
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from persofl import (
    PersoflError,
    RoundConfig,
    Shape,
    build_federation,
    build_model,
    parse_method,
    run_round,
)
from persofl.algorithms import ALGORITHMS
from persofl.diskstore import DiskStore
from persofl.evaluation import evaluate
from persofl.heterogeneity import heterogeneity
from persofl.pairwise import _measured, measure_pairwise
from persofl.placed import HOST, placed
from persofl.store import ClientStore

from ..pretend import Pretend, module_to
from .conftest import SMALL

STEERED = [
    "ditto+prox_by_distance",
    "finetune+work_by_distance",
    "fedavg+weight_by_distance",
    "fedper+depth_by_distance",
    "blend+mix_by_trend",
    "gate+work_by_distance",
    "aligned+align_by_distance",
    "ditto+lr_by_distance",
]


@pytest.fixture(autouse=True)
def _disguised(monkeypatch):
    @contextmanager
    def host_noise(device, seed):  # there are no generators in the disguise
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield

    monkeypatch.setattr("persofl.training.forked_noise", host_noise)
    monkeypatch.setattr(nn.Module, "to", module_to)


def build(data, method, model="mlp", store=None, **options):
    method = parse_method(method, {}) if isinstance(method, str) else method
    if isinstance(model, str):
        model = build_model(model, Shape(24, 6), seed=0, **SMALL[model])
    config = RoundConfig(batch_size=8, seed=11, **options)
    return build_federation(data, model, method, config=config, store=store)


def trained(federation, rounds=2):
    """The server's rows, and every client's errors."""
    server = federation.initial_rows()
    for round_ in range(rounds):
        run_round(federation, server, round_, server.sub_)
    return server, evaluate(federation, server, "validation", rounds)


def same_there(data, method, **options):
    here = trained(build(data, method, **options))
    with Pretend():
        federation = build(data, method, **options).to("cuda")
        there = trained(federation)
        assert federation.device.type == there[0].device.type == "cuda"
        found = {name: values.cpu() for name, values in there[1].items()}
        server, back = there[0].cpu(), federation.to("cpu")
    torch.testing.assert_close(server.as_subclass(torch.Tensor), here[0], rtol=1e-4, atol=1e-5)
    for name, values in here[1].items():
        got = found[name].as_subclass(torch.Tensor)
        torch.testing.assert_close(got, values, rtol=1e-3, atol=1e-4, equal_nan=True)
    assert {type(rows) for rows in back.store.rows.values()} <= {torch.Tensor}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ALGORITHMS)
def test_every_algorithm_trains_there(method, precision, population):
    same_there(population, method, precision=precision, cohort=0.7, clip=5.0)


@pytest.mark.parametrize("method", STEERED)
def test_steered_methods_train_there(method, population):
    same_there(population, method)


@pytest.mark.parametrize("features", ["residuals", "embeddings"])
def test_features_of_the_model_are_read_there(features, population):
    method = parse_method("ditto+prox_by_distance", {})
    distance = dataclasses.replace(method.distance, features=features, refresh=1)
    same_there(population, dataclasses.replace(method, distance=distance))


# vmap hides its tensors from the disguise.
@pytest.mark.parametrize("oracle", ["batched", "loop"])
@pytest.mark.parametrize("model", SMALL)
def test_every_model_trains_there(model, oracle, population):
    same_there(population, "fedavg", model=model, oracle=oracle)


@pytest.mark.parametrize("on_disk", [False, True])
def test_states_of_a_device_go_on_in_any_store(on_disk, population, tmp_path):
    """``torch.load(map_location="cuda")`` brings all of a checkpoint there, flags included."""
    with Pretend():
        first = build(population, "ditto").to("cuda")
        server, _ = trained(first, 1)
        state = {name: x.to("cuda") for name, x in first.store.state_dict().items()}
        store = DiskStore(len(population), tmp_path) if on_disk else ClientStore(len(population))
        store.load_state_dict(state)
        again = build(population, "ditto", store=store).to("cuda")
        trained_on, once_more = server.clone(), server.clone()
        run_round(first, trained_on, 1, trained_on.sub_)
        run_round(again, once_more, 1, once_more.sub_)
        assert torch.equal(trained_on.cpu(), once_more.cpu())


def test_distances_of_a_device_come_back_to_the_host(population):
    method = parse_method("ditto+prox_by_distance", {})
    distance = dataclasses.replace(method.distance, features="residuals", refresh=5)
    with Pretend():
        federation = build(population, dataclasses.replace(method, distance=distance)).to("cuda")
        server, _ = trained(federation, 1)
        state = {name: x.to("cuda") for name, x in federation.personaliser.state_dict().items()}
        federation.personaliser.load_state_dict(state)
        assert federation.personaliser.distances.relative.device.type == "cpu"
        run_round(federation, server, 1, server.sub_)


def test_pairs_are_measured_once_wherever_runs_are(population):
    data = copy.copy(population)
    config = parse_method("neighbours", {}).distance
    here = measure_pairwise(data, config)
    with Pretend():
        assert measure_pairwise(placed(data, torch.device("cuda")), config) is here
    assert len(_measured[data]) == 1


def test_what_the_data_are_like_is_told_on_the_host(population):
    with Pretend():
        there = heterogeneity(build(population, "fedavg").to("cuda").data)
    here = heterogeneity(population)
    torch.testing.assert_close(there.features.value, here.features.value)


class NoScale:
    """Data in the units that they are trained in."""

    def __init__(self, data, moves=True):
        self._data, self._moves = data, moves

    def __len__(self):
        return len(self._data)

    def __getattr__(self, name):
        if name.startswith("__") or name in ("unscale", "_data", "_moves"):
            raise AttributeError(name)
        if name == "to":
            if not self._moves:
                raise AttributeError(name)
            return lambda device: NoScale(self._data.to(device))
        return getattr(self._data, name)


def test_data_without_units_need_no_scale_there(population):
    same_there(NoScale(population), "fedavg")


def test_a_refused_move_moves_nothing(population):
    federation = build(NoScale(population, moves=False), "ditto")
    server, _ = trained(federation, 1)
    with Pretend(), pytest.raises(PersoflError, match="has no method to"):
        federation.to("cuda")
    assert all(rows.device == HOST for rows in federation.store.rows.values())
    run_round(federation, server, 1, server.sub_)


def test_a_device_of_the_datas_own_is_not_ours(population):
    data = NoScale(population)
    data.device = "meter 7"
    federation = build(data, "fedavg")
    assert federation.device == HOST
    assert federation.to("cpu") is federation
