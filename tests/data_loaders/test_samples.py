import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import ClientSamples, DataError
from data_loaders.series import offsets_of


def make_samples(**fields):
    """Six samples of three clients, two classes."""
    names = ("ann", "bo", "cy")
    return ClientSamples(
        **{
            "name": "handmade",
            "inputs": torch.arange(24.0).view(6, 2, 2),
            "targets": torch.tensor([0, 1, 1, 0, 0, 1]),
            "offsets": offsets_of([3, 0, 3]),
            "clients": names,
            "attributes": pd.DataFrame({"age": [30, 40, 50]}, index=pd.Index(names, name="client")),
            "classes": ("no", "yes"),
            "groups": torch.tensor([0, 0, 1, 0, 1, 2]),
            "times": torch.arange(6),
            "official": torch.tensor([0, 0, 2, 0, 0, 2], dtype=torch.int8),
            **fields,
        }
    )


def test_clients_own_slices_of_one_buffer():
    samples = make_samples()
    assert len(samples) == 3
    assert samples.lengths.tolist() == [3, 0, 3]
    assert [samples.rows(k) for k in range(3)] == [slice(0, 3), slice(3, 3), slice(3, 6)]


def test_selected_clients_take_everything_along():
    chosen = make_samples().select([2, 0])
    assert chosen.clients == ("cy", "ann")
    assert chosen.attributes["age"].tolist() == [50, 30]
    assert chosen.inputs[:, 0, 0].tolist() == [12, 16, 20, 0, 4, 8]
    assert chosen.targets.tolist() == [0, 0, 1, 0, 1, 1]
    assert chosen.groups.tolist() == [0, 1, 2, 0, 0, 1]
    assert chosen.times.tolist() == [3, 4, 5, 0, 1, 2]
    assert chosen.official.tolist() == [0, 0, 2, 0, 0, 2]
    assert make_samples().select([]).lengths.tolist() == []


def test_samples_dealt_anew_keep_what_is_missing_missing():
    index = pd.Index(["new"], name="client")
    samples = make_samples(groups=None, times=None, official=None)
    dealt = samples.take([torch.tensor([5, 0])], ["new"], pd.DataFrame(index=index))
    assert dealt.inputs[:, 0, 0].tolist() == [20, 0]
    assert (dealt.groups, dealt.times, dealt.official) == (None, None, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": torch.zeros(6, 4)}, r"inputs must be \(samples, steps, channels\) float32, got \(6, 4\)"),
        ({"inputs": torch.zeros(6, 2, 2).double()}, "torch.float64"),
        ({"inputs": torch.full((6, 2, 2), torch.nan)}, "not finite; fill or drop"),
        ({"inputs": torch.tensor([0.0, torch.inf]).expand(6, 2, 2)}, "not finite; fill or drop"),
        ({"targets": torch.tensor([0, 1, 2, 0, 0, 1])}, "targets of 2 classes and 6 samples"),
        ({"targets": torch.tensor([0, 1, -1, 0, 0, 1])}, "int64 below the number of classes"),
        ({"targets": torch.zeros(6, 1)}, r"got \(6, 1\) torch.float32"),
        ({"classes": ()}, "float32 without classes"),
        ({"classes": (), "targets": torch.full((6, 1), torch.nan)}, "float32 without classes"),
        ({"offsets": offsets_of([3, 0, 4])}, r"3 clients need 4 offsets from 0 to 6"),
        ({"clients": ("ann", "bo", "bo")}, "client names are not unique"),
        ({"clients": ("bo", "ann", "cy")}, "the index of attributes differs"),
        ({"groups": torch.zeros(5)}, r"groups must be \(6,\), one a sample"),
        ({"times": torch.zeros(7)}, r"times must be \(6,\), one a sample"),
        ({"official": torch.zeros(6, 1)}, r"official must be \(6,\), one a sample"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(DataError, match=message):
        make_samples(**fields)


def test_samples_without_rows_are_samples():
    empty = make_samples().select([1])
    assert empty.inputs.shape == (0, 2, 2)


def test_the_fingerprint_is_of_content_and_of_what_splits_it():
    samples = make_samples()
    assert samples.fingerprint() == make_samples(name="other", rules=("cut",)).fingerprint()
    changed = [
        {"inputs": samples.inputs + 1},
        {"targets": 1 - samples.targets},
        {"classes": ("no", "yea")},
        {"groups": None},
        {"times": samples.times + 1},
        {"official": None},
        {"times": None, "groups": samples.times},
    ]
    prints = [dataclasses.replace(samples, **fields).fingerprint() for fields in changed]
    assert len({samples.fingerprint(), *prints}) == 1 + len(changed)


def test_on_another_device_inputs_and_targets_move():
    moved = make_samples().to("cpu")
    np.testing.assert_array_equal(moved.inputs, make_samples().inputs)
    assert moved.fingerprint() == make_samples().fingerprint()
