"""Classes and numbers through the whole engine: evaluation, oracles, held-out clients, features, refusals."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from persofl import (
    ALGORITHMS,
    CrossEntropy,
    FederatedModule,
    PersoflError,
    RoundConfig,
    Shape,
    build_model,
    judge,
    parse_method,
)
from persofl.evaluation import client_rows, evaluate
from persofl.features import FEATURES
from persofl.personaliser import DistanceConfig, measure_distances
from persofl.server import SeenOnly, UniformSampler

from .people import drivers, speakers

METHODS = {
    name: parse_method(name, {"local_steps": 4})
    for name in (*ALGORITHMS, "ditto+prox_by_distance", "apfl+mix_by_distance")
}
SMALL = {
    "mlp": {"hidden": (8,)},
    "gru": {"hidden": 4},
    "dscnn": {"channels": 4, "blocks": 1, "kernel": (4, 3), "groups": 2},
    "transformer": {"width": 8, "heads": 2, "layers": 1, "feedforward": 8},
}
SPEAKERS, DRIVERS = speakers(), drivers()


def network(data, name="mlp"):
    lookback, horizon, channels = data.shape
    return build_model(name, Shape(lookback, horizon, channels, max(1, len(data.classes))), **SMALL[name])


@pytest.fixture
def tasked(federate):
    def build(method, data=SPEAKERS, model="mlp", **options):
        return federate(method, data=data, model=network(data, model), loss=None, **options)

    return build


def one_after_another(federation, rows, client, span):
    """Outputs and targets of a client's examples, each by itself, with its own plain module."""
    data = federation.data
    module = federation.oracle.layout.load(federation.oracle.module, rows[client]).eval()
    outputs, targets = [], []
    for rank in range(int(data.count(span)[client])):
        x, y = data.gather(data.positions(span, torch.tensor([client]), torch.tensor([[rank]]))[0])
        with torch.no_grad():
            outputs.append(module(x)[0])
        targets.append(y[0])
    return torch.stack(outputs).cpu(), torch.stack(targets).cpu()


@pytest.mark.parametrize("model", sorted(SMALL))
@pytest.mark.parametrize("at_once", [20_000, 7, 1])
def test_classes_are_evaluated_as_one_after_another(model, at_once, tasked, run, monkeypatch):
    monkeypatch.setattr(judge, "WINDOWS_AT_ONCE", at_once)
    federation = tasked(METHODS["local"], model=model)
    server = run(federation, 1).server
    got, rows = evaluate(federation, server, "test"), client_rows(federation, server, torch.arange(6))
    for client in range(6):
        output, target = one_after_another(federation, rows, client, "test")
        taken, true = output[:, 0].argmax(-1).numpy(), target[:, 0].numpy()
        loss = float(torch.nn.functional.cross_entropy(output[:, 0], target[:, 0]))
        want = {
            "accuracy": (taken == true).mean(),
            "error": (taken != true).mean(),
            "macro_f1": sklearn.f1_score(true, taken, average="macro"),
            "cross_entropy": loss,
            "loss": loss,
            "examples": len(true),
        }
        assert set(got) == set(want)
        for name, value in want.items():
            assert float(got[name][client]) == pytest.approx(float(value), rel=1e-4), (name, client)


def test_numbers_are_evaluated_in_their_own_unit(tasked, run):
    federation = tasked(METHODS["fedavg"], data=DRIVERS)
    server = run(federation, 2).server
    got, rows = evaluate(federation, server, "test"), client_rows(federation, server, torch.arange(5))
    for client in range(5):
        output, target = one_after_another(federation, rows, client, "test")
        ours, true = (
            (part * DRIVERS.std[client] + DRIVERS.mean[client]).double().numpy() for part in (output, target)
        )
        assert float(got["mae"][client]) == pytest.approx(sklearn.mean_absolute_error(true, ours), rel=1e-4)
        assert float(got["r2"][client]) == pytest.approx(sklearn.r2_score(true, ours), rel=1e-3, abs=1e-4)
        assert float(got["loss"][client]) == pytest.approx(float((output - target).square().mean()), rel=1e-4)


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize("data", [SPEAKERS, DRIVERS], ids=["classes", "numbers"])
def test_oracles_agree_on_every_method(name, data, tasked, run):
    outcomes = [
        run(tasked(METHODS[name], data=data, oracle=oracle), 2) for oracle in ("loop", "vmap", "batched")
    ]
    for other in outcomes[1:]:
        torch.testing.assert_close(other.server, outcomes[0].server, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.predictors, outcomes[0].predictors, rtol=1e-4, atol=1e-5)


def test_chunks_do_not_matter_to_a_network_of_images(tasked, run):
    outcomes = [run(tasked(METHODS["fedavg"], model="dscnn", chunk=chunk), 2) for chunk in (1, 4, 6)]
    for other in outcomes[1:]:
        torch.testing.assert_close(other.server, outcomes[0].server, rtol=1e-4, atol=1e-5)


def test_training_tells_classes_apart(trainer):
    data = speakers(classes=3, seed=4)
    module = FederatedModule(data, network(data), "fedavg", config=RoundConfig(batch_size=8))
    before = module.client_table("test")["accuracy"].mean()
    trainer(40).fit(module)
    after = module.client_table("test")
    assert after["accuracy"].mean() > max(0.8, before)
    assert list(after.columns) == ["error", "accuracy", "macro_f1", "cross_entropy", "loss", "examples"]
    np.testing.assert_allclose(after["error"] + after["accuracy"], 1)


def test_the_module_logs_the_metrics_of_its_task(trainer):
    module = FederatedModule(SPEAKERS, network(SPEAKERS), "fedavg")
    logged = trainer(1).validate(module, verbose=False)[0]
    assert {"validation/error", "validation/accuracy_worst_decile", "validation/cross_entropy_jain"} <= set(
        logged
    )
    assert not any("nmae" in name or "unseen" in name for name in logged)
    accuracy = module.metrics_of["validation"]["accuracy"]
    assert logged["validation/accuracy_worst_decile"] == pytest.approx(float(accuracy.min()), rel=1e-6)
    assert logged["validation/error_worst_decile"] == pytest.approx(float(1 - accuracy.min()), rel=1e-6)
    numbers = FederatedModule(DRIVERS, network(DRIVERS), "fedavg")
    assert {"validation/nmae", "validation/r2"} <= set(trainer(1).validate(numbers, verbose=False)[0])


def test_confusions_are_each_clients_own(trainer):
    module = FederatedModule(SPEAKERS, network(SPEAKERS), "local")
    trainer(3).fit(module)
    matrices, table = module.confusion("test"), module.client_table("test")
    assert matrices.dtype == torch.int64
    assert matrices.shape == (6, 3, 3)
    assert matrices.sum((1, 2)).tolist() == SPEAKERS.count("test").tolist()
    right = matrices.diagonal(dim1=1, dim2=2).sum(1) / matrices.sum((1, 2))
    np.testing.assert_allclose(table["accuracy"], right.numpy())
    trainer(6).fit(module)  # other weights, other confusions
    assert "test" not in module.sums_of
    with pytest.raises(PersoflError, match="Task 'regress' has no classes to confuse"):
        FederatedModule(DRIVERS, network(DRIVERS), "fedavg").confusion()


# --- clients held out of training --------------------------------------------------------------------------


@pytest.mark.parametrize("cohort", [1.0, 0.5])
def test_held_out_clients_are_in_no_cohort_and_are_evaluated(cohort, tasked, run):
    data = speakers(unseen=(1, 4))
    federation = tasked(METHODS["ditto"], data=data, cohort=cohort)
    assert isinstance(federation.sampler, SeenOnly)
    cohorts = [federation.sampler(6, round_, 0).tolist() for round_ in range(30)]
    assert set().union(*cohorts) == {0, 2, 3, 5}
    assert all(len(set(cohort_)) == round(4 * cohort) for cohort_ in cohorts)
    server = run(federation, 3).server
    assert federation.store.seen[[1, 4]].tolist() == [False, False]
    assert evaluate(federation, server, "test")["error"].isfinite().all()
    everyone = client_rows(federation, server, torch.arange(6))
    torch.testing.assert_close(
        everyone[[1, 4]].cpu(), server.expand(2, -1)
    )  # they predict with the shared model


def test_what_a_server_learns_does_not_depend_on_held_out_clients(tasked, run):
    """Whatever their data are: the same federation with other data there comes to the same row."""
    data, other = speakers(unseen=(5,)), speakers(unseen=(5,))
    first = int(sum(sum(other.counts[span][:5]) for span in other.counts))
    other.inputs[first:] = 99.0
    outcomes = [run(tasked(METHODS["fedavg"], data=each), 2) for each in (data, other)]
    assert torch.equal(outcomes[0].server, outcomes[1].server)


def test_held_out_clients_have_logs_of_their_own(trainer):
    data = speakers(unseen=(1, 4))
    module = FederatedModule(data, network(data), "fedavg")
    logged = trainer(1).validate(module, verbose=False)[0]
    error = module.metrics_of["validation"]["error"]
    assert logged["validation/error"] == pytest.approx(float(error[[0, 2, 3, 5]].mean()), rel=1e-6)
    assert logged["validation/unseen_error"] == pytest.approx(float(error[[1, 4]].mean()), rel=1e-6)
    assert logged["validation/error_clients"] == 4


def test_somebody_has_to_train():
    data = speakers(unseen=range(6))
    with pytest.raises(PersoflError, match="All clients have the attribute unseen=true"):
        FederatedModule(data, network(data), "fedavg")


def test_a_sampler_of_ones_own_is_kept_to_the_others_too():
    sampler = SeenOnly(UniformSampler(0.5), torch.tensor([3, 5, 8, 9]))
    assert all(set(sampler(10, round_, 1).tolist()) <= {3, 5, 8, 9} for round_ in range(20))


# --- features ----------------------------------------------------------------------------------------------


def training_of(data, client):
    ranks = torch.arange(int(data.count("train")[client])).unsqueeze(0)
    return data.gather(data.positions("train", torch.tensor([client]), ranks)[0])


def test_features_of_samples():
    for client in range(6):
        x, y = training_of(SPEAKERS, client)
        torch.testing.assert_close(FEATURES["auto"](SPEAKERS)[client], SPEAKERS.features(client))
        moments = FEATURES["inputs"](SPEAKERS)[client]
        torch.testing.assert_close(moments, torch.cat([x.mean(1), x.std(1, correction=0)], 1))
        labels = FEATURES["labels"](SPEAKERS)[client]
        assert torch.equal(labels.argmax(1), y[:, 0])
        assert (labels.sum(1) == 1).all()
    x, y = training_of(DRIVERS, 2)
    torch.testing.assert_close(FEATURES["labels"](DRIVERS)[2], y)
    torch.testing.assert_close(FEATURES["inputs"](DRIVERS)[2], x[:, 0])  # one step has no spread
    torch.testing.assert_close(FEATURES["windows"](DRIVERS)[2], torch.cat([x[:, 0], y], 1))


@pytest.mark.parametrize("features", ["auto", "inputs", "labels"])
def test_distances_of_samples(features):
    distances = measure_distances(SPEAKERS, DistanceConfig(features=features))
    assert distances.relative.shape == (6,)
    assert distances.relative.isfinite().all()


@pytest.mark.parametrize(
    ("features", "text"), [("profiles", "have no days"), ("windows", "puts classes beside")]
)
def test_features_that_samples_do_not_have_are_named(features, text):
    with pytest.raises(PersoflError, match=text):
        measure_distances(SPEAKERS, DistanceConfig(features=features))


# --- what does not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "options", "text"),
    [
        (SPEAKERS, {"loss": "mse"}, "'mse' compares floats, and the targets are numbers of 3 classes"),
        (DRIVERS, {"loss": "cross_entropy"}, "'cross_entropy' needs classes, and the targets are floats"),
        (SPEAKERS, {"loss": CrossEntropy(4)}, "is of 4 classes, and the data have 3"),
    ],
)
def test_a_loss_that_does_not_fit_the_data_is_refused(data, options, text):
    with pytest.raises(PersoflError, match=text):
        FederatedModule(data, network(data), "fedavg", **options)


def test_a_model_of_too_few_outputs_and_a_level_that_classes_lack_are_refused():
    shape = Shape(12, 1, 4, 2)
    with pytest.raises(PersoflError, match=r"with CrossEntropy it must give \(batch, horizon, outputs\)"):
        FederatedModule(SPEAKERS, build_model("mlp", shape), "fedavg")
    with pytest.raises(PersoflError, match="targets of task 'classify' do not have"):
        FederatedModule(SPEAKERS, build_model("mlp", Shape(12, 1, 4, 3), instance_norm=True), "fedavg")
