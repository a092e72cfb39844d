"""SensIT's MATLAB cells: a fixture in exactly their layout, and a real file of the same kind."""

import numpy as np
import pytest
import scipy.io
import torch

from data_loaders import DataError, build_source
from data_loaders.vehicle.mocha_mat import read_tasks


def write(path, features, labels, **other):
    """``mat['X'][i][0]`` is (n_i, features), ``mat['Y'][i][0]`` (n_i, 1)."""
    cells = {"X": np.empty((len(features), 1), object), "Y": np.empty((len(labels), 1), object)}
    for number, x in enumerate(features):
        cells["X"][number, 0] = x
    for number, y in enumerate(labels):
        cells["Y"][number, 0] = y
    scipy.io.savemat(path, cells | other)
    return str(path)


def tasks(count=23, features=100, seed=0):
    random = np.random.default_rng(seed)
    sizes = [20 + 3 * number for number in range(count)]
    x = [random.standard_normal((size, features)) for size in sizes]
    y = [random.choice([-1, 1], (size, 1)).astype(np.int16) for size in sizes]
    return x, y


@pytest.fixture
def vehicle(tmp_path):
    x, y = tasks()
    return write(tmp_path / "vehicle.mat", x, y), x, y


def test_the_fixture_has_the_official_layout(vehicle):
    path, x, y = vehicle
    mat = scipy.io.loadmat(path)
    for number in range(23):
        np.testing.assert_array_equal(mat["X"][number][0], x[number])
        np.testing.assert_array_equal(mat["Y"][number][0], y[number])


def test_sensors_are_clients_and_labels_classes(vehicle):
    path, x, y = vehicle
    samples = build_source("sensit", root=path).load()
    assert (samples.classes, len(samples), samples.clients[0]) == (("AAV", "DW"), 23, "sensor01")
    assert samples.inputs.shape == (sum(map(len, x)), 1, 100)
    for number in range(23):
        rows = samples.rows(number)
        np.testing.assert_allclose(samples.inputs[rows, 0], x[number], rtol=1e-6)
        np.testing.assert_array_equal(samples.targets[rows], (y[number].ravel() + 1) // 2)
    assert samples.attributes["n_samples"].tolist() == list(map(len, x))
    assert samples.attributes["share_dw"].iloc[4] == pytest.approx((y[4] > 0).mean())


def test_the_folder_will_do(vehicle, tmp_path):
    path, _, _ = vehicle
    assert (
        build_source("sensit", root=str(tmp_path)).load().fingerprint()
        == build_source("sensit", root=path).load().fingerprint()
    )


def test_small_sensors_are_dropped_with_the_reason(vehicle):
    samples = build_source("sensit", root=vehicle[0], min_samples=24).load()
    assert len(samples) == 21
    assert samples.dropped[0].reason == "min_samples: 20 samples, 24 asked for"
    with pytest.raises(DataError, match="No sensor of source 'sensit' is left: 23 by min_samples"):
        build_source("sensit", root=vehicle[0], min_samples=1000).load()


def test_cells_in_a_row_are_read_too(shared_data):
    path = shared_data / "raw_samples" / "fmtl_mocha_mat" / "small.mat"
    found = read_tasks(path)
    assert len(found) == 29
    assert {x.shape[1] for x, _ in found} == {9}
    assert [len(y) for _, y in found[:4]] == [69, 69, 68, 50]
    samples = build_source("sensit", root=str(path)).load()
    assert (samples.clients[0], samples.inputs.shape[1:]) == ("task01", (1, 9))
    assert samples.targets.unique().tolist() == [0, 1]
    assert torch.equal(samples.inputs[samples.rows(3), 0], torch.from_numpy(found[3][0]))


def broken(change):
    x, y = tasks(3, 5)
    change(x, y)
    return x, y


def put(array, row, value):
    array[row] = value


BROKEN = {
    "a label too many": (lambda x, y: y.append(y[0]), "3 tasks in X and 4 in Y"),
    "other labels": (lambda x, y: put(y[1], 0, 3), "task 2: labels must be -1 or 1, found 3"),
    "a label missing": (lambda x, y: put(y, 2, y[2][1:]), "task 3: X is"),
    "unequal features": (lambda x, y: put(x, 0, x[0][:, :4]), "tasks have 4, 5 features"),
    "an infinite feature": (lambda x, y: put(x[1], (6, 2), np.inf), "task 2, row 7: a feature is not finite"),
    "text": (lambda x, y: put(x, 0, np.full((20, 5), "a")), "task 1"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_other_layouts_are_named(tmp_path, kind):
    change, message = BROKEN[kind]
    path = write(tmp_path / "vehicle.mat", *broken(change))
    with pytest.raises(DataError, match=message):
        build_source("sensit", root=path).load()


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match=r"holds 0 \.mat files"):
        build_source("sensit", root=str(tmp_path)).load()
    path = tmp_path / "vehicle.mat"
    for content in (b"", b"no matlab at all" * 40):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is no MATLAB file or is broken"):
            build_source("sensit", root=str(path)).load()
    scipy.io.savemat(path, {"X": np.ones((3, 3))})
    with pytest.raises(DataError, match="'X' must be cells, one a task, found float64"):
        build_source("sensit", root=str(path)).load()
    with pytest.raises(DataError, match="min_samples must be at least 1"):
        build_source("sensit", min_samples=0)
