"""Metrics of classes and numbers against scikit-learn and torchmetrics, and how sums are put together."""

import math

import pytest
import torch
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from persofl.errors import PersoflError
from persofl.metrics import HIGHER
from persofl.tasks import METRICS, TASKS, Classify, Forecast, Judged, Regress, higher_is_better, task_of

from .people import drivers, speakers

NAN = torch.full((4,), torch.nan)


def classes(count=5, clients=4, examples=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(clients, examples, 1, count, generator=generator)
    target = torch.randint(count, (clients, examples, 1), generator=generator)
    target[1] = target[1] % 2  # a client that lacks most classes
    valid = torch.rand(clients, examples, generator=generator) < 0.8
    valid[:, 0] = True
    losses = torch.rand(clients, examples, generator=generator)
    return Judged(output, output.argmax(-1), target, losses, valid)


def numbers(outputs=2, clients=4, examples=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    point, target = 3 + torch.randn(2, clients, examples, outputs, generator=generator, dtype=torch.float64)
    valid = torch.rand(clients, examples, generator=generator) < 0.8
    valid[:, :2] = True
    return Judged(point, point, target, (point - target).square().mean(-1), valid)


def of_client(judged, client):
    valid = judged.valid[client]
    return judged.output[client][valid], judged.point[client][valid], judged.target[client][valid]


@pytest.mark.parametrize("seed", range(3))
def test_classes_are_judged_as_by_sklearn_and_torchmetrics(seed):
    judged, task = classes(seed=seed), Classify(5)
    sums = task.sums(judged)
    got = task.metrics_of(sums, NAN)
    for client in range(4):
        output, point, target = of_client(judged, client)
        true, taken = target[:, 0].numpy(), point[:, 0].numpy()
        assert (
            sums.confusion[client].tolist() == sklearn.confusion_matrix(true, taken, labels=range(5)).tolist()
        )
        want = {
            "accuracy": sklearn.accuracy_score(true, taken),
            "error": 1 - sklearn.accuracy_score(true, taken),
            "macro_f1": sklearn.f1_score(true, taken, average="macro"),
            "cross_entropy": float(torch.nn.functional.cross_entropy(output[:, 0], target[:, 0])),
            "loss": float(judged.losses[client][judged.valid[client]].mean()),
        }
        assert set(want) == set(got) == {*task.metrics, "loss"}
        for name, value in want.items():
            assert float(got[name][client]) == pytest.approx(float(value), rel=1e-6), name
        f1 = torchmetrics.classification.MulticlassF1Score(5, average="macro")(point[:, 0], target[:, 0])
        assert float(got["macro_f1"][client]) == pytest.approx(float(f1), rel=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_numbers_are_judged_as_by_sklearn(outputs):
    judged, task = numbers(outputs), Regress(outputs)
    got = task.metrics_of(task.sums(judged), NAN)
    assert set(got) == {*task.metrics, "loss"}
    for client in range(4):
        _, point, target = (part.numpy() for part in of_client(judged, client))
        raw = sklearn.mean_absolute_error(target, point, multioutput="raw_values")
        want = {
            "mae": sklearn.mean_absolute_error(target, point),
            "rmse": sklearn.root_mean_squared_error(target, point),
            "nmae": (raw / abs(target).mean(0)).mean(),
            "r2": sklearn.r2_score(target, point),
        }
        for name, value in want.items():
            assert float(got[name][client]) == pytest.approx(value, rel=1e-9), name


def test_a_mean_explains_nothing_and_a_perfect_prediction_all():
    judged, task = numbers(1), Regress(1)
    everything = torch.ones_like(judged.valid)
    mean = judged.target.mean(1, keepdim=True).expand_as(judged.target)
    for point, r2 in ((mean, 0.0), (judged.target, 1.0)):
        sums = task.sums(Judged(point, point, judged.target, judged.losses, everything))
        torch.testing.assert_close(
            task.metrics_of(sums, NAN)["r2"], torch.full((4,), r2).double(), atol=1e-9, rtol=0
        )


def test_equal_targets_have_no_r2_and_targets_of_zero_no_relative_error():
    judged = numbers(1)
    judged.target[0], judged.target[2] = 7.3, 0.0
    got = Regress(1).metrics_of(Regress(1).sums(judged), NAN)
    assert got["r2"].isnan().tolist() == [True, False, True, False]
    assert got["nmae"].isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize(("task", "judged"), [(Classify(5), classes()), (Regress(2), numbers())])
def test_sums_of_parts_are_those_of_the_whole(task, judged):
    whole = task.sums(judged)
    fields = ("output", "point", "target", "losses", "valid")
    places = [torch.tensor([0, 3]), torch.tensor([2, 1]), torch.tensor([3, 0])]
    cuts = [slice(0, 12), slice(0, 30), slice(12, 30)]
    parts = [
        task.sums(Judged(*(getattr(judged, field)[p][:, c] for field in fields)))
        for p, c in zip(places, cuts, strict=True)
    ]
    joined = task.together(places, parts, 6)
    for name, value in vars(whole).items():
        torch.testing.assert_close(getattr(joined, name)[:4], value)
        assert (getattr(joined, name)[4:] == 0).all()
    metrics = task.metrics_of(joined, torch.full((6,), torch.nan))
    assert all(values[4:].isnan().all() for values in metrics.values())  # clients without examples
    assert task.together([], [], 3).windows.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("task", "judged"), [(Classify(5), classes()), (Regress(2), numbers())])
def test_what_is_not_valid_does_not_count(task, judged):
    quiet = task.metrics_of(task.sums(judged), NAN)
    off = ~judged.valid
    for field in ("output", "point", "losses"):
        part = getattr(judged, field)
        part[off] = torch.inf if part.is_floating_point() else 0
    for name, values in task.metrics_of(task.sums(judged), NAN).items():
        torch.testing.assert_close(values, quiet[name])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 6))
def test_accuracy_does_not_mind_what_classes_are_called(seed, count):
    judged, task = classes(count, seed=seed), Classify(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    back = order.argsort()
    other = Judged(
        judged.output[..., order], back[judged.point], back[judged.target], judged.losses, judged.valid
    )
    there, here = (task.metrics_of(task.sums(each), NAN) for each in (other, judged))
    for name in task.metrics:
        torch.testing.assert_close(there[name], here[name])


def test_the_registry_says_what_each_task_is_judged_by():
    assert set(TASKS) == {"forecast", "classify", "regress"}
    assert set(METRICS) >= HIGHER == {"accuracy", "macro_f1", "r2"}
    for task in TASKS.values():
        assert task.objective in task.metrics
        assert not higher_is_better(task.objective)
    assert task_of(speakers(classes=4)) == Classify(4)
    assert task_of(drivers(outputs=3)) == Regress(3)


def test_a_forecast_is_judged_as_ever(population):
    assert task_of(population) == Forecast()
    assert Forecast.metrics == ("nmae", "mae", "rmse", "mase")


def test_an_unknown_task_is_named():
    class Odd:
        task, shape, clients = "classfy", (3, 1, 1), ("a",)

    with pytest.raises(PersoflError, match=r"Unknown task 'classfy'. Did you mean 'classify'\?"):
        task_of(Odd())


def test_no_example_no_metric():
    task, judged = Classify(3), classes(3)
    judged.valid[2] = False
    for values in task.metrics_of(task.sums(judged), NAN).values():
        assert [math.isnan(v) for v in values] == [False, False, True, False]
