"""Distances between clients, from which the server's rows are made."""

import pytest
import torch

from persofl import PersoflError
from persofl.algorithms import ClusterFedAvg
from persofl.method import Method
from persofl.pairwise import measure_pairwise
from persofl.personaliser import DistanceConfig
from persofl.routes import OneRow


def close(got, want, rtol=1e-4, atol=1e-5):
    torch.testing.assert_close(got.cpu(), want.cpu(), rtol=rtol, atol=atol, equal_nan=True)


def test_distances_are_measured_once_and_only_when_asked_for(population, module, monkeypatch):
    import persofl.pairwise as pairwise

    config = DistanceConfig(seed=123)
    first = measure_pairwise(population, config)
    monkeypatch.setattr(pairwise, "pairwise_distances", None)  # another call would fail
    assert measure_pairwise(population, config) is first
    module("fedavg")
    module("neighbours")  # until the first round


def test_the_permuted_control_deals_distances_to_other_clients(population):
    plain = measure_pairwise(population, DistanceConfig(seed=3))
    dealt = measure_pairwise(population, DistanceConfig(seed=3, permute=True))
    assert not torch.equal(dealt.calibrated, plain.calibrated)
    assert torch.equal(dealt.calibrated.flatten().sort().values, plain.calibrated.flatten().sort().values)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    assert torch.equal(dealt.calibrated, plain.calibrated[order][:, order])
    assert torch.equal(dealt.z, plain.z[order][:, order])
    assert (dealt.calibrated.diagonal() == 0).all()
    assert measure_pairwise(population, DistanceConfig(seed=3, permute=True)) is dealt


@pytest.mark.parametrize("kind", ["sliced", "gaussian"])
@pytest.mark.parametrize("features", ["auto", "profiles", "windows", "inputs", "labels"])
def test_any_kind_and_features_serve(kind, features, population):
    found = measure_pairwise(population, DistanceConfig(kind=kind, features=features))
    assert found.calibrated.shape == (6, 6)
    assert (found.calibrated.diagonal() == 0).all()
    close(found.calibrated, found.calibrated.T)


def test_controls_give_the_difference_of_two_clients_numbers(population):
    found = measure_pairwise(population, DistanceConfig(features="size"))
    n = population.count("train").float()
    assert torch.equal(found.calibrated, (n[:, None] - n).abs())
    assert found.z is None


def test_identical_clients_are_one_cluster(twins, federate):
    assert isinstance(federate(ClusterFedAvg(), twins).routes, OneRow)


def test_features_of_the_model_are_refused(federate):
    method = Method(ClusterFedAvg(), distance=DistanceConfig(features="residuals", refresh=1))
    with pytest.raises(PersoflError, match="graphs and clusters are made once, before it is trained"):
        build_federation_of(method, federate).routes  # noqa: B018


def build_federation_of(method, federate):
    federation = federate(method)
    federation.personaliser.__dict__.pop("pairwise")  # measured, not the fixture's
    return federation


def test_data_that_cannot_be_remembered_are_measured_each_time(population):
    class Forgetful:
        __hash__ = None

        def __getattr__(self, name):
            return getattr(population, name)

        def __len__(self):
            return len(population)

    data = Forgetful()
    first, second = (measure_pairwise(data, DistanceConfig(seed=7)) for _ in range(2))
    assert first is not second
    assert torch.equal(first.calibrated, second.calibrated)
