"""Evaluation of all clients at once equals a loop over clients and windows, however it is cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from persofl import APFL, AbsoluteError, FedAvg, FineTune, Local, Pinball, Shape, build_model, judge
from persofl.evaluation import buckets, client_rows, evaluate, evaluate_clients


def naive(federation, rows, client, span):
    """One window after another, in the original unit."""
    data, loss = federation.data, federation.oracle.loss
    module = federation.oracle.layout.load(federation.oracle.module, rows[client]).eval()
    raw_mean, raw_std = float(data.mean[client, 0]), float(data.std[client, 0])
    errors, loads, losses = [], [], []
    for rank in range(int(data.count(span)[client])):
        x, y = data.gather(data.positions(span, torch.tensor([client]), torch.tensor([[rank]]))[0])
        with torch.no_grad():
            prediction = module(x)
        losses.append(float(loss(prediction, y)[0]))
        forecast = loss.point(prediction)[0].double().cpu().numpy() * raw_std + raw_mean
        target = y[0].double().cpu().numpy() * raw_std + raw_mean
        errors.append(forecast - target)
        loads.append(target)
    error, load = np.concatenate(errors), np.concatenate(loads)
    return {
        "nmae": np.abs(error).sum() / np.abs(load).sum(),
        "mae": np.abs(error).mean(),
        "rmse": np.sqrt((error**2).mean()),
        "mase": np.abs(error).mean() / float(data.naive_error[client]),
        "loss": np.mean(losses),
        "windows": len(losses),
    }


@pytest.fixture(scope="module")
def trained(federate, run):
    def build(loss="mse", model="mlp", **options):
        outputs = 3 if loss == "pinball" else 1
        module = build_model(model, Shape(24, 6, outputs=outputs))
        federation = federate(Local(local_steps=5), model=module, loss=loss, **options)
        return federation, run(federation, 1).server

    return build


@pytest.mark.parametrize("span", ["validation", "test"])
@pytest.mark.parametrize("loss", ["mse", "mae", "pinball"])
@pytest.mark.parametrize("at_once", [20_000, 150, 7, 1])
def test_metrics_equal_a_loop_over_windows(span, loss, at_once, trained, monkeypatch):
    monkeypatch.setattr(judge, "WINDOWS_AT_ONCE", at_once)
    federation, server = trained(loss)
    rows = client_rows(federation, server, torch.arange(6))
    got = evaluate(federation, server, span)
    for client in range(6):
        for name, want in naive(federation, rows, client, span).items():
            assert float(got[name][client]) == pytest.approx(want, rel=2e-5), (name, client)


def test_some_clients_in_any_order(trained):
    federation, server = trained()
    everyone, some = torch.arange(6), torch.tensor([4, 1, 5])
    rows = client_rows(federation, server, everyone)
    whole = evaluate_clients(federation, rows, everyone, "test")
    part = evaluate_clients(federation, rows[some], some, "test")
    for name in ("absolute", "squared", "load", "loss", "windows"):
        torch.testing.assert_close(getattr(part, name), getattr(whole, name)[some])


def test_no_clients_are_evaluated_to_nothing(trained):
    federation, server = trained()
    none = torch.empty(0, dtype=torch.int64)
    sums = evaluate_clients(federation, server[:0], none, "test")
    assert sums.windows.shape == (0,)


@pytest.mark.parametrize("at_once", [20_000, 100, 1])
def test_no_more_windows_at_once_than_allowed(at_once, trained, monkeypatch):
    monkeypatch.setattr(judge, "WINDOWS_AT_ONCE", at_once)
    monkeypatch.setattr(judge, "DEVICE_ROOM", 1)
    federation, server = trained()
    most, oracle = [], federation.oracle
    predict = oracle.predict
    monkeypatch.setattr(
        oracle, "predict", lambda rows, x: most.append(x[..., 0, 0].numel()) or predict(rows, x)
    )
    evaluate(federation, server, "test")
    assert max(most) <= at_once
    assert sum(most) >= int(federation.data.count("test").sum())


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(0, 50), max_size=30), most=st.integers(1, 120))
def test_buckets_hold_every_client_once_and_little_padding(counts, most):
    windows = torch.tensor(counts, dtype=torch.int64)
    groups = buckets(windows, most)
    members = [int(client) for group in groups for client in group]
    assert sorted(members) == [client for client, count in enumerate(counts) if count]
    for group in groups:
        largest = int(windows[group].max())
        assert len(group) == 1 or len(group) * largest <= most
    sizes = [counts[client] for client in members]
    assert sizes == sorted(sizes, reverse=True)


def test_predictors_of_some_are_rows_of_everyones(federate, run):
    for algorithm in (APFL(local_steps=3), FineTune(local_steps=3, personal_steps=4), FedAvg()):
        federation = federate(algorithm, cohort=0.5, chunk=2)
        server = run(federation, 2).server
        some = torch.tensor([5, 0, 3])
        everyone = client_rows(federation, server, torch.arange(6), 2)
        torch.testing.assert_close(
            client_rows(federation, server, some, 2), everyone[some], rtol=1e-5, atol=1e-6
        )


def test_predicting_changes_nothing(federate, run):
    federation = federate(FineTune(local_steps=3))
    server = run(federation, 1).server
    before, kept = server.clone(), federation.store.state_dict()
    evaluate(federation, server, "validation", 1)
    assert torch.equal(server, before)
    for name, value in federation.store.state_dict().items():
        assert torch.equal(value, kept[name])


def test_clients_that_never_took_part_predict_with_the_global_model(federate, run):
    federation = federate(APFL(local_steps=3), cohort=0.2)  # one client a round
    outcome = run(federation, 2)
    unseen = ~federation.store.seen
    assert int(unseen.sum()) > 0
    torch.testing.assert_close(
        outcome.predictors[unseen], outcome.server.expand(int(unseen.sum()), -1), rtol=1e-5, atol=1e-6
    )


def test_quantile_forecasts_are_judged_by_their_median(trained):
    federation, server = trained("pinball")
    assert isinstance(federation.oracle.loss, Pinball)
    got = evaluate(federation, server, "test")
    assert not torch.allclose(got["loss"], got["mae"])


def test_training_on_the_absolute_error_reports_it(trained):
    """In scaled units, so equal to the mean error over the scale."""
    federation, server = trained(AbsoluteError())
    got = evaluate(federation, server, "test")
    torch.testing.assert_close(got["loss"] * federation.data.std[:, 0], got["mae"], rtol=1e-5, atol=1e-6)
