import pytest
import torch

from personalization import build_distance, combine, summarise
from personalization.population import client_statistics

SIZES = (30, 7, 200, 30, 3)


@pytest.fixture(params=["sliced", "gaussian"])
def kind(request):
    return build_distance(request.param)


@pytest.fixture
def features():
    return [
        torch.randn(n, 4, generator=torch.Generator().manual_seed(n + k)) + k for k, n in enumerate(SIZES)
    ]


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_leaving_out_equals_the_reference_built_without(kind, features, weighting):
    messages = [summarise(kind.statistics(x), len(x), weighting=weighting) for x in features]
    total = combine(messages)
    for k, message in enumerate(messages):
        left = total.without(message)
        built = combine(m for j, m in enumerate(messages) if j != k)
        for name, expected in built.mean().items():
            assert torch.allclose(left.mean()[name], expected, rtol=1e-10, atol=1e-10)
        assert torch.allclose(left.effective_size(), built.effective_size())


def test_the_reference_is_the_weighted_mean(kind, features):
    own = [kind.statistics(x) for x in features]
    mean = combine(summarise(o, n) for o, n in zip(own, SIZES, strict=True)).mean()
    expected = sum(n * o["mean"] for o, n in zip(own, SIZES, strict=True)) / sum(SIZES)
    assert torch.allclose(mean["mean"], expected)


def test_a_stack_of_messages_is_their_list(kind, features):
    stacked = summarise(client_statistics(kind, features), torch.tensor(SIZES))
    total, listed = stacked.summed(), combine(summarise(kind.statistics(x), len(x)) for x in features)
    for name, expected in listed.totals.items():
        assert torch.allclose(total.totals[name], expected, atol=1e-4)
    # Equal but for the leading axis: the bytes of one message, once a client.
    assert stacked.wire_bytes() == len(SIZES) * listed.wire_bytes()


def test_effective_size_is_the_number_of_samples(kind, features):
    by_samples = combine(summarise(kind.statistics(x), len(x)) for x in features)
    assert float(by_samples.effective_size()) == pytest.approx(sum(SIZES))
    uniform = combine(summarise(kind.statistics(x), len(x), weighting="uniform") for x in features)
    assert float(uniform.effective_size()) == pytest.approx(25 / sum(1 / n for n in SIZES))


def test_messages_have_one_size_whatever_the_client(kind, features):
    sizes = {summarise(kind.statistics(x), len(x)).wire_bytes() for x in features}
    assert len(sizes) == 1


def test_the_sum_hides_the_order_of_clients(kind, features):
    messages = [summarise(kind.statistics(x), len(x)) for x in features]
    one, two = combine(messages).mean(), combine(messages[::-1]).mean()
    assert all(torch.allclose(one[name], two[name]) for name in one)


def test_no_clients_is_refused():
    with pytest.raises(ValueError, match="at least one client"):
        combine([])


def test_unknown_weighting_names_the_nearest(kind, features):
    with pytest.raises(ValueError, match="did you mean 'uniform'"):
        summarise(kind.statistics(features[0]), 30, weighting="uniforn")
