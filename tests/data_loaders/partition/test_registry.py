from dataclasses import dataclass

import pytest

from data_loaders import DataError
from data_loaders.partition import (
    PARTITIONS,
    FeatureShift,
    HoldOut,
    apply_partitions,
    build_partition,
    register_partition,
)


def test_partitions_are_known_by_name():
    assert set(PARTITIONS) == {
        "concept_shift",
        "dirichlet",
        "drift",
        "feature_shift",
        "group",
        "hold_out",
        "iid",
        "k_classes",
        "quantity",
        "shards",
        "subset",
    }
    assert build_partition("feature_shift", gain=0.5) == FeatureShift(gain=0.5)


def test_unknown_names_and_options_are_refused():
    with pytest.raises(DataError, match=r"no partition 'dirichet'\. Did you mean 'dirichlet'\?"):
        build_partition("dirichet")
    with pytest.raises(DataError) as caught:
        build_partition("dirichlet", client=3)
    assert caught.value.problems == (
        "Partition 'dirichlet' has no option 'client'. Did you mean 'clients'? Known: alpha, balanced, bins, clients, "
        "min_samples, seed.",
        "Partition 'dirichlet' needs clients=...",
        "Partition 'dirichlet' needs alpha=...",
    )


def test_partitions_of_ones_own_are_registered(make_samples):
    @register_partition("reversed")
    @dataclass(frozen=True)
    class Reversed:
        def __call__(self, population):
            return population.select(range(len(population) - 1, -1, -1))

    try:
        assert build_partition("reversed")(make_samples()).clients == ("speaker 2", "speaker 1", "speaker 0")
        with pytest.raises(DataError, match="'reversed' is taken"):
            register_partition("reversed")(FeatureShift)
    finally:
        del PARTITIONS["reversed"]
    with pytest.raises(DataError, match="must be a dataclass with __call__"):
        register_partition("wrong")(int)


def test_partitions_compose(make_samples):
    steps = [build_partition("iid", clients=8), FeatureShift(gain=0.2), HoldOut(share=0.25)]
    done = apply_partitions(make_samples(), steps)
    assert [rule.split("(")[0].split(",")[0] for rule in done.rules] == [
        "partition: iid",
        "partition: feature_shift",
        "partition: hold_out",
    ]
    assert {"samples", "shift_gain", "unseen"} <= set(done.attributes.columns)
    assert done.fingerprint() == HoldOut(share=0.25)(steps[1](steps[0](make_samples()))).fingerprint()
