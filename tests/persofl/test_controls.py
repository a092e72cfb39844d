"""The controls that a measured distance has to beat: by size alone, by what the simulator knows, and dealt to others."""

import dataclasses

import pytest
import torch

from data_loaders import SimulatedHouseholds, WindowSpec, make_windows
from persofl import DistanceConfig, Ditto, Method, PersoflError, measure_distances
from personalization import build_modulator

from .people import drivers, speakers


@pytest.fixture(scope="module")
def households():
    """Households of unlike lengths, of which the short are dropped."""
    series = SimulatedHouseholds(clients=11, days=40, min_days=20, seed=2, heterogeneity=1.0).load()
    data = make_windows(series, WindowSpec(lookback=24, horizon=6, min_windows=20, on_short="drop"))
    assert 3 < len(data) < 11
    return data


def test_size_is_the_number_of_training_examples_over_its_median(households):
    counts = households.count("train")
    distances = measure_distances(households, DistanceConfig(features="size"))
    assert torch.equal(distances.n, counts)
    torch.testing.assert_close(distances.value, counts.float())
    torch.testing.assert_close(distances.relative, counts / counts.float().quantile(0.5))
    assert float(distances.relative.median()) == pytest.approx(1, rel=0.2)


def test_an_attribute_stays_with_its_client(households):
    truth = households.series.attributes["true_distance"]
    distances = measure_distances(households, DistanceConfig(features="attribute:true_distance"))
    torch.testing.assert_close(distances.value, torch.tensor(truth.to_numpy(), dtype=torch.float32))
    torch.testing.assert_close(distances.relative.double(), torch.tensor((truth / truth.median()).to_numpy()))
    assert torch.equal(distances.n, households.count("train"))
    assert (distances.p_value == 1).all()


@pytest.mark.parametrize("features", ["size", "attribute:true_distance"])
def test_controls_are_dealt_like_any_distance(features, households):
    real, dealt = (
        measure_distances(households, DistanceConfig(features=features, permute=permute))
        for permute in (False, True)
    )
    assert not torch.equal(real.relative, dealt.relative)
    assert torch.equal(real.relative.sort().values, dealt.relative.sort().values)
    assert torch.equal(real.n, dealt.n)


@pytest.mark.parametrize("features", ["size", "attribute:true_distance"])
def test_a_knob_steered_by_a_control(features, population, federate):
    config = DistanceConfig(features=features)
    method = Method(Ditto(prox=2.0), (build_modulator("prox_by_distance", tau=0.5),), config)
    federation = federate(method)
    federation.personaliser.__dict__.pop("distances")
    u = measure_distances(population, config).relative
    torch.testing.assert_close(federation.personaliser.whole.prox[:, 0], 2 * torch.exp(-u / 0.5))
    assert len(u.unique()) > 3


@pytest.mark.parametrize("data", [speakers(), drivers()], ids=["classes", "numbers"])
def test_size_is_known_of_any_data(data):
    distances = measure_distances(data, DistanceConfig(features="size"))
    assert torch.equal(distances.value, data.count("train").float())


# --- what cannot be ----------------------------------------------------------------------------------------


def with_attribute(data, values):
    attributes = data.series.attributes.assign(mine=values)
    return dataclasses.replace(data, series=dataclasses.replace(data.series, attributes=attributes))


@pytest.mark.parametrize("bad", [float("nan"), -0.5, float("inf"), "far", None])
def test_an_attribute_that_is_no_distance_is_named_with_its_client(bad, population):
    values = [1.0, 2.0, bad, 1.0, 1.0, 1.0]
    name = population.clients[2]
    with pytest.raises(
        PersoflError, match=rf"attribute:mine': client '{name}' has .*finite number of at least 0"
    ):
        measure_distances(with_attribute(population, values), DistanceConfig(features="attribute:mine"))


def test_all_alike_is_a_distance_of_one_and_none_is_none(population):
    for value, u in ((3.0, 1.0), (0.0, 0.0)):
        data = with_attribute(population, [value] * 6)
        assert measure_distances(data, DistanceConfig(features="attribute:mine")).relative.tolist() == [u] * 6


def test_an_attribute_that_nobody_has_is_told_with_the_nearest(population):
    with pytest.raises(
        PersoflError, match=r"Unknown attribute .* 'true_distanc'. Did you mean 'true_distance'"
    ):
        measure_distances(population, DistanceConfig(features="attribute:true_distanc"))
    with pytest.raises(PersoflError, match="Unknown attribute of the clients 'age'"):
        measure_distances(
            drivers(), DistanceConfig(features="attribute:age")
        )  # they have no attributes at all


@pytest.mark.parametrize("options", [{"kind": "gaussian"}, {"options": {"projections": 8}}])
def test_options_without_effect_are_refused(options):
    with pytest.raises(
        PersoflError, match="features='size' are given, so that kind and options have no effect"
    ):
        DistanceConfig(features="size", **options)
