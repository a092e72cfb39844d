"""Natural clients merged, held out, or fewer of them."""

import dataclasses

import numpy as np
import pytest
import torch

from data_loaders import DataError, SampleSpec, make_examples
from data_loaders.partition import Group, HoldOut, Subset


def test_groups_hold_all_samples_of_their_members(make_samples):
    groups = torch.arange(125) % 7
    samples = make_samples(groups=groups)
    merged = Group(by="accent")(samples)
    assert merged.clients == ("north", "south")
    assert merged.lengths.tolist() == [100, 25]
    assert merged.inputs[:, 0, 0].tolist() == [*range(40), *range(65, 125), *range(40, 65)]
    assert merged.attributes.to_dict("list") == {"members": [2, 1], "accent": ["north", "south"]}
    # takes of two speakers that shared a number are no takes of each other
    assert len(merged.groups[:100].unique()) == 14
    assert merged.rules == ("partition: group(by accent): 3 clients in 2",)


def test_random_groups_are_of_equal_size(households):
    merged = Group(groups=4, seed=3)(households)
    assert sorted(merged.attributes["members"]) == [1, 1, 2, 2]
    assert Group(groups=4, seed=3)(households).fingerprint() == merged.fingerprint()
    assert Group(groups=4, seed=4)(households).fingerprint() != merged.fingerprint()


@pytest.mark.parametrize("how", ["mean", "sum"])
def test_series_are_taken_together_over_the_time_they_share(make_series, how):
    first = np.array([[1, 10], [2, 10], [np.nan, 10], [4, 10]], np.float32)
    second = np.array([[10, 30], [20, np.nan], [30, 30], [40, 30]], np.float32)
    series = make_series([first, second], starts=["2013-01-01T00", "2013-01-01T01"])
    merged = Group(groups=1, how=how)(series)
    assert merged.starts[0] == np.datetime64("2013-01-01T01", "s")
    target = {"mean": [6.0, 20.0, 17.0], "sum": [12.0, np.nan, 34.0]}[how]
    expected = torch.tensor(list(zip(target, [20.0, 10.0, 20.0], strict=True)))
    torch.testing.assert_close(merged.values, expected, equal_nan=True)


def test_the_sum_of_all_is_the_feeders_load(households):
    feeder = Group(groups=1, how="sum")(households)
    shared = int(households.lengths.min())
    total = torch.stack([households.of(k)[:shared, 0] for k in range(len(households))]).double().sum(0)
    torch.testing.assert_close(feeder.values[:, 0].double(), total, equal_nan=True, rtol=1e-5, atol=1e-5)


def test_groups_that_cannot_be_are_refused(make_samples, make_series, households):
    with pytest.raises(DataError, match="give either by or groups, got by=None and groups=None"):
        Group()
    with pytest.raises(DataError, match="cannot make 4 groups of 3 clients"):
        Group(groups=4)(make_samples())
    apart = make_series([np.arange(5), np.arange(5)], starts=["2013-01-01", "2014-01-01"])
    with pytest.raises(DataError, match="the 2 series of group 'group00000' share no time"):
        Group(groups=1)(apart)
    askew = make_series([np.arange(9), np.arange(9)], starts=["2013-01-01T00:00", "2013-01-01T00:30"])
    with pytest.raises(DataError, match="do not lie on one grid"):
        Group(groups=1)(askew)
    with pytest.raises(DataError, match="their series have runs"):
        Group(groups=2)(dataclasses.replace(households, breaks=torch.tensor([5])))
    attributes = make_samples().attributes.assign(age=[3, None, 5])
    with pytest.raises(
        DataError, match="1 clients of source 'handmade' have no 'age', the first is 'speaker 1'"
    ):
        Group(by="age")(make_samples(attributes=attributes))


def test_held_out_clients_are_marked_and_stay(make_samples, households):
    half = HoldOut(share=0.5, seed=1)(households)
    assert half.attributes["unseen"].dtype == bool
    assert half.attributes["unseen"].sum() == 3
    assert half.values is households.values
    south = HoldOut(by="accent", values=("south",))(make_samples())
    assert south.attributes["unseen"].tolist() == [False, True, False]
    numbers = HoldOut(by="number", values=(0, 2))(make_samples())
    assert numbers.attributes["unseen"].tolist() == [True, False, True]


def test_held_out_clients_have_no_say_in_the_populations_scale(make_samples):
    samples = make_samples(classes=0)
    outside = HoldOut(by="accent", values=("south",))(samples)
    data, inside = make_examples(outside, SampleSpec()), make_examples(samples.select([0, 2]), SampleSpec())
    torch.testing.assert_close(data.mean[0], inside.mean[0])
    torch.testing.assert_close(data.target_std[1], inside.target_std[0])


def test_holding_out_nobody_or_everybody_is_refused(make_samples):
    with pytest.raises(DataError, match="would hold out 0 of 3 clients"):
        HoldOut(by="accent", values=("east",))(make_samples())
    with pytest.raises(DataError, match="would hold out 3 of 3 clients"):
        HoldOut(share=1.0)(make_samples())
    with pytest.raises(DataError, match="give either share or by"):
        HoldOut()
    with pytest.raises(DataError, match="by and values go together"):
        HoldOut(by="accent")


def test_a_subset_is_the_first_clients_or_random_ones_in_order(households):
    assert Subset(clients=2)(households).clients == households.clients[:2]
    random = Subset(clients=4, shuffle=True, seed=1)(households)
    assert list(random.clients) == sorted(random.clients)
    assert any(
        Subset(4, shuffle=True, seed=s)(households).clients != households.clients[:4] for s in range(3)
    )
    assert Subset(clients=6)(households).fingerprint() == households.fingerprint()
    with pytest.raises(DataError, match="cannot take 7 of 6 clients of source 'simulated'"):
        Subset(clients=7)(households)
