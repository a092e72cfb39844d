"""What is measured on a GPU, where there is one, is what the processor measures."""

from dataclasses import fields

import pytest
import torch

from personalization import DISTANCES, distance_to_population, pairwise_distances
from personalization.null import Draws
from personalization.sliced import SlicedDistance

from ..pretend import Pretend, There

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
LAST = {"label_marginal", "label_aware"}  # kinds whose last column is a class


def clients(kind):
    g = torch.Generator().manual_seed(0)
    drawn = [
        torch.randn(n, 4, generator=g, dtype=torch.float64) + shift
        for n, shift in ((40, 1), (30, 0), (50, 0), (35, 0))
    ]
    for x in drawn:
        if kind in LAST:
            x[:, -1] = (x[:, -1] > 0).double()
    return drawn


@needs_gpu
@pytest.mark.parametrize("measure", [distance_to_population, pairwise_distances])
@pytest.mark.parametrize("kind", sorted(DISTANCES))
def test_a_gpu_measures_the_same(kind, measure):
    here, there = (measure([x.to(place) for x in clients(kind)], kind) for place in ("cpu", "cuda"))
    for field in fields(here):
        want, got = getattr(here, field.name), getattr(there, field.name)
        if isinstance(want, torch.Tensor):
            assert got.device.type == "cuda", field.name
            torch.testing.assert_close(
                got.cpu(), want, rtol=1e-3, atol=1e-6, msg=lambda m, f=field: f"{f.name}: {m}"
            )


@pytest.mark.parametrize("measure", [distance_to_population, pairwise_distances])
@pytest.mark.parametrize("kind", sorted(DISTANCES))
def test_nothing_mixes_host_and_device(kind, measure):
    """Where there is no GPU: a processor in disguise refuses what a GPU would."""
    want = measure(clients(kind), kind)
    with Pretend():
        got = measure([x.to("cuda") for x in clients(kind)], kind)
    for field in fields(want):
        value = getattr(got, field.name)
        if isinstance(value, torch.Tensor):
            assert isinstance(value, There), field.name
            torch.testing.assert_close(value.as_subclass(torch.Tensor), getattr(want, field.name))


def test_the_disguise_refuses_what_a_gpu_would():
    with Pretend():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert there.device == torch.device("cuda", 0)
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        with pytest.raises(RuntimeError, match="indices should be"):
            here[there.long()]
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert float((there + torch.tensor(1.0)).sum()) == 6  # a number may come from anywhere
        assert there[torch.tensor([0, 2])].device == there.device
        assert there.cpu().device.type == "cpu"


def test_a_null_keeps_what_is_compared_and_no_more():
    """Of sliced distances the sketches: their covariances would fill gigabytes at a thousand features."""
    kind, seen = SlicedDistance(projections=4), []

    class Watched(SlicedDistance):
        def squared(self, own, reference):
            seen.append(set(own))
            return super().squared(own, reference)

    watched = Watched(projections=4)
    g = torch.Generator().manual_seed(0)
    reference = {name: x.mean(0) for name, x in kind.statistics(torch.randn(6, 40, 3, generator=g)).items()}
    draws = Draws(watched, reference, lambda n, count: kind.draw(reference, n, count, g), 64, rows=200)
    plain = Draws(kind, reference, lambda n, count: kind.draw(reference, n, count, g), 64, rows=200)
    g.manual_seed(1)
    to_reference, to_own = draws.squared(20, 64, apart=True)
    g.manual_seed(1)
    at_once = plain.squared(20, 64, apart=True)
    assert seen[-1] == {"sketch"}
    assert torch.equal(to_reference, at_once[0])
    assert to_own.mean() < to_reference.mean() * 1.2
    assert to_own.shape == (64,)
