"""Random draws: functions of their names, permutations, and uniform."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from persofl.data import Stream
from persofl.draw import generator, integer_seed, keys, ranks

seeds = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=4), seed=seeds, passes=st.integers(1, 3))
def test_every_pass_is_a_permutation(sizes, seed, passes):
    counts = torch.tensor(sizes)
    drawn = ranks(keys(seed, 0, torch.arange(len(sizes)), "test"), counts, passes * max(sizes))
    for row, size in zip(drawn, sizes, strict=True):
        whole = row[: len(row) // size * size].view(-1, size)
        assert torch.equal(whole.sort(1).values, torch.arange(size).expand(len(whole), -1))
        rest = row[len(whole) * size :]  # the pass that was begun
        assert rest.unique().numel() == rest.numel()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1023, 1024, 1025, 2**16, 2**16 + 1])
def test_sizes_around_powers_of_two(size):
    drawn = ranks(keys(0, 0, torch.arange(2), "test"), torch.tensor([size, size]), size)
    assert torch.equal(drawn.sort(1).values, torch.arange(size).expand(2, -1))


def test_large_domains_are_drawn_from_without_repetition():
    size = 2**31 - 1
    drawn = ranks(keys(0, 0, torch.arange(1), "test"), torch.tensor([size]), 5000)[0]
    assert drawn.unique().numel() == 5000
    assert stats.kstest(drawn.numpy() / size, "uniform").pvalue > 1e-3


@settings(max_examples=30, deadline=None)
@given(seed=seeds, data=st.data())
def test_a_client_draws_the_same_in_any_company(seed, data):
    counts = torch.tensor(data.draw(st.lists(st.integers(1, 1500), min_size=2, max_size=6)))
    draws = data.draw(st.integers(1, 400))
    clients = torch.arange(len(counts))
    together = ranks(keys(seed, 3, clients, "shared"), counts, draws)
    for client in clients:
        alone = ranks(keys(seed, 3, client[None], "shared"), counts[client][None], draws + 37)
        assert torch.equal(alone[0, :draws], together[client])


def test_streams_do_not_depend_on_the_cohort(population):
    stream = Stream(5, 2, "shared")
    everyone = stream.positions(population, torch.arange(6), 500)
    some = torch.tensor([4, 0])
    assert torch.equal(stream.positions(population, some, 50), everyone[some, :50])
    assert torch.equal(Stream(5, 2, "shared").positions(population, torch.arange(6), 500), everyone)


def test_streams_draw_training_windows_of_their_own_client(population):
    drawn = Stream(5, 2, "shared").positions(population, torch.arange(6), 1000)
    count = population.count("train")
    for client in range(6):
        valid = population.positions("train", torch.tensor([client]), torch.arange(count[client])[None])[0]
        assert torch.equal(drawn[client].unique(), valid)  # a thousand draws pass over every window


@pytest.mark.parametrize("other", [Stream(6, 2, "shared"), Stream(5, 3, "shared"), Stream(5, 2, "personal")])
def test_seed_round_and_purpose_change_the_draw(other, population):
    drawn = Stream(5, 2, "shared").positions(population, torch.arange(6), 100)
    overlap = (drawn == other.positions(population, torch.arange(6), 100)).float().mean()
    assert overlap < 0.05


def test_passes_and_clients_differ():
    drawn = ranks(keys(0, 0, torch.arange(3), "test"), torch.tensor([500, 500, 500]), 1000)
    assert (drawn[:, :500] == drawn[:, 500:]).float().mean() < 0.02
    assert (drawn[0] == drawn[1]).float().mean() < 0.02


@pytest.mark.parametrize("size", [2, 3, 7, 30, 1000, 1024, 1500])
def test_any_rank_is_as_likely_at_any_place(size):
    clients = max(4000, 20 * size)
    drawn = ranks(keys(1, 0, torch.arange(clients), "test"), torch.full((clients,), size), 3)
    for place in range(3):
        observed = torch.bincount(drawn[:, place], minlength=size).numpy()
        assert stats.chisquare(observed).pvalue > 1e-4


@pytest.mark.parametrize("size", [3, 4, 5])
def test_every_order_of_few_examples_is_as_likely(size):
    clients = 60_000
    drawn = ranks(keys(2, 0, torch.arange(clients), "test"), torch.full((clients,), size), size).numpy()
    _, observed = np.unique(drawn @ size ** np.arange(size), return_counts=True)
    assert observed.size == np.prod(np.arange(1, size + 1))
    assert stats.chisquare(observed).pvalue > 1e-4


def test_neighbouring_ranks_are_independent():
    drawn = ranks(keys(3, 0, torch.arange(20_000), "test"), torch.full((20_000,), 1000), 2).double()
    pairs = torch.bincount((drawn[:, 0] // 100 * 10 + drawn[:, 1] // 100).long(), minlength=100).numpy()
    assert stats.chisquare(pairs).pvalue > 1e-4


def test_keys_of_neighbouring_names_look_random():
    names = [keys(seed, round_, np.arange(50), p) for seed in range(4) for round_ in range(4) for p in "ab"]
    words = np.concatenate(names)
    assert np.unique(words).size == words.size
    assert stats.kstest(words / 2.0**64, "uniform").pvalue > 1e-3
    bits = np.unpackbits(words.view(np.uint8)).reshape(words.size, 64).mean(0)
    assert np.abs(bits - 0.5).max() < 5 * 0.5 / np.sqrt(words.size)


def test_generators_are_functions_of_their_names():
    one, again, other = (torch.rand(3, generator=generator(1, r, "cohort")) for r in (4, 4, 5))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert 0 <= integer_seed(-1, 0, "x") < 2**63


def test_draws_leave_the_global_generators_alone(population):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Stream(5, 2, "shared").positions(population, torch.arange(6), 10)
    generator(0, 0, "cohort")
    assert torch.equal(torch.get_rng_state(), before)
