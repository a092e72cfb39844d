from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from data_loaders import (
    ClientSamples,
    SampleSpec,
    SimulatedHouseholds,
    WindowSpec,
    build_partition,
    build_source,
    make_examples,
    make_windows,
)
from data_loaders.series import offsets_of
from persofl import heterogeneity
from persofl.skew import gini, label_skew, principal, scores


def pooled_samples(inputs, targets, classes=0):
    index = pd.Index(["all"], name="client")
    return ClientSamples(
        name="blobs",
        inputs=torch.from_numpy(inputs.astype(np.float32)).unsqueeze(1),
        targets=torch.from_numpy(targets if classes else targets.astype(np.float32)),
        offsets=offsets_of([len(inputs)]),
        clients=("all",),
        attributes=pd.DataFrame(index=index),
        classes=tuple(f"class {k}" for k in range(classes)),
    )


@pytest.fixture(scope="module")
def blobs():
    """3,000 points around six centres."""
    generator = np.random.default_rng(0)
    labels, centres = generator.integers(0, 6, 3000), 1.5 * generator.normal(size=(6, 8))
    return pooled_samples(centres[labels] + generator.normal(size=(3000, 8)), labels, 6)


@pytest.fixture(scope="module")
def line():
    """3,000 points whose two targets are linear in eight inputs, with noise."""
    generator = np.random.default_rng(0)
    inputs, weight = generator.normal(size=(3000, 8)), generator.normal(size=(8, 2))
    return pooled_samples(inputs, inputs @ weight + 0.5 * generator.normal(size=(3000, 2)))


def measured(population, *partitions):
    for name, options in partitions:
        population = build_partition(name, **options)(population)
    return heterogeneity(make_examples(population, SampleSpec(on_short="drop")))


IID = ("iid", {"clients": 20, "seed": 1})


def uniform(p_values):
    return stats.kstest(p_values, "uniform").pvalue > 0.001


def test_an_iid_partition_shows_nothing(blobs, line):
    for report in (measured(blobs, IID), measured(line, IID)):
        table, summary = report.table(), report.summary()
        for column in table.columns:
            if column.endswith("_distance"):
                assert (table[column] == 0).mean() > 0.6
                assert summary[column] < 0.06
            if column.endswith("_p_value"):
                assert uniform(table[column])
        assert summary["samples_gini"] == 0
    labels = measured(blobs, IID).summary()
    assert labels["label_tv"] == pytest.approx(labels["label_tv_null"], rel=0.15)


def test_label_skew_falls_with_the_dirichlets_alpha(blobs):
    skews = [
        measured(blobs, ("dirichlet", {"clients": 20, "alpha": alpha})).summary() for alpha in (0.1, 1, 100)
    ]
    assert skews[0]["label_tv"] > 1.5 * skews[1]["label_tv"]
    assert skews[1]["label_tv"] > 1.5 * skews[2]["label_tv"]
    assert skews[0]["label_js"] > skews[1]["label_js"] > skews[2]["label_js"]
    assert skews[0]["label_told_apart"] == 1
    assert skews[2]["label_told_apart"] < 0.3


def test_quantity_skew_shows_in_sizes_alone(blobs):
    summary = measured(blobs, ("quantity", {"clients": 20, "spread": 1.5, "min_samples": 10})).summary()
    assert summary["samples_gini"] > 0.4
    assert summary["samples_max_over_median"] > 3
    assert summary["feature_distance"] < 0.06
    assert summary["label_tv"] - summary["label_tv_null"] < 0.03


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_concept_shift_shows_in_the_relation_but_not_in_the_features(blobs, line, kind):
    population = blobs if kind == "classes" else line
    plain, shifted = measured(population, IID), measured(population, IID, ("concept_shift", {}))
    assert shifted.summary()["feature_distance"] < 0.06
    assert shifted.summary()["feature_told_apart"] < 0.2
    assert shifted.summary()["conditional_distance"] > 0.15
    assert plain.summary()["conditional_distance"] < 0.06
    assert shifted.summary()["conditional_told_apart"] > 0.9
    if kind == "classes":
        assert shifted.summary()["label_told_apart"] < 0.2
    else:
        assert shifted.summary()["target_told_apart"] < 0.2


def test_feature_shift_shows_in_the_features_but_not_in_the_targets(line):
    summary = measured(line, IID, ("feature_shift", {"gain": 0.5, "offset": 0.3})).summary()
    assert summary["feature_distance"] > 0.2
    assert summary["feature_told_apart"] > 0.7
    assert summary["target_told_apart"] < 0.2


def test_the_dial_of_simulated_households_raises_feature_skew():
    summaries = []
    for dial in (0, 0.5, 1):
        series = SimulatedHouseholds(clients=12, days=60, heterogeneity=dial).load()
        summaries.append(heterogeneity(make_windows(series, WindowSpec(48, 24))).summary())
    distances = [summary["feature_distance"] for summary in summaries]
    assert distances[0] < 0.2 < 0.35 < distances[1] < distances[2]
    assert "label_tv" not in summaries[0]


def test_speakers_differ_in_their_voices_and_not_in_their_words():
    root = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "voice" / "fsdd"
    if not root.is_dir():
        pytest.skip(f"the spoken digits are not in {root}")
    samples = build_source("fsdd", root=str(root)).load()
    natural, dealt = measured(samples).summary(), measured(samples, ("iid", {"clients": 6})).summary()
    assert natural["feature_distance"] > 0.3 > 0.06 > dealt["feature_distance"]
    assert natural["label_told_apart"] == 0


def test_windows_without_days_are_compared_by_their_inputs():
    series = SimulatedHouseholds(clients=3, days=20).load()
    object.__setattr__(series, "step_seconds", 0.7)
    report = heterogeneity(make_windows(series, WindowSpec(24, 6)))
    assert report.features is not None
    assert report.features.n.max() <= 288 // 6 + 1


def test_few_samples_give_nan_and_not_an_error(blobs):
    owners = torch.tensor([0, 0, 0] + [1] * 60 + [2] * 60)
    rows = [torch.nonzero(owners == k)[:, 0] for k in range(3)]
    names = ("tiny", "one", "two")
    samples = blobs.take(rows, names, pd.DataFrame(index=pd.Index(names, name="client")))
    report = heterogeneity(make_examples(samples, SampleSpec(train=0.34, validation=0.34)))
    table = report.table()
    assert table.loc["tiny", "samples"] == 1
    assert table.loc["tiny", ["feature_distance", "conditional_p_value"]].isna().all()
    assert table.loc[["one", "two"]].notna().all().all()
    assert np.isfinite(list(report.summary().values())).all()
    assert report.features.n.tolist() == [0, 20, 20]


def test_one_client_has_nobody_to_differ_from(blobs):
    report = heterogeneity(make_examples(blobs, SampleSpec()))
    assert report.summary()["feature_distance"] == 0
    assert np.isnan(report.summary()["label_tv"])


def test_the_report_depends_on_the_seed_alone(blobs):
    data = make_examples(build_partition("iid", clients=5)(blobs), SampleSpec())
    first, again, other = heterogeneity(data, 3), heterogeneity(data, 3), heterogeneity(data, 4)
    pd.testing.assert_frame_equal(first.table(), again.table())
    assert not first.table().equals(other.table())


def test_the_text_names_every_kind_of_skew(blobs, line):
    text = measured(blobs, IID).text().splitlines()
    assert text[0] == "20 clients, 1800 training examples (classify)"
    assert [row.split()[0] for row in text[1:]] == ["quantity", "labels", "feature", "conditional"]
    text = measured(line, IID).text().splitlines()
    assert [row.split()[0] for row in text[1:]] == ["quantity", "feature", "target", "conditional"]
    series = SimulatedHouseholds(clients=3, days=20).load()
    text = heterogeneity(make_windows(series, WindowSpec(24, 6))).text()
    assert text.endswith("p-values are too small, the order of clients holds")


def test_label_distances_are_the_textbooks():
    counts = np.random.default_rng(0).integers(0, 20, (4, 5))
    skew = label_skew(counts)
    for client, own in enumerate(counts):
        others = counts.sum(axis=0) - own
        p, q = own / own.sum(), others / others.sum()
        assert skew.tv[client] == pytest.approx(np.abs(p - q).sum() / 2)
        assert skew.js[client] == pytest.approx(jensenshannon(p, q, base=2))


def test_disjoint_labels_are_as_far_as_can_be():
    skew = label_skew(np.array([[30, 0], [0, 50]]))
    assert skew.tv.tolist() == [1, 1]
    assert skew.js.tolist() == pytest.approx([1, 1])
    assert (skew.p_value < 0.01).all()


def test_clients_without_labels_have_no_law():
    skew = label_skew(np.array([[3, 4], [0, 0], [5, 1]]))
    assert np.isnan([skew.tv[1], skew.js[1], skew.tv_null[1], skew.p_value[1]]).all()
    assert np.isfinite(skew.p_value[[0, 2]]).all()


def test_the_labels_null_is_the_law_of_random_deals():
    """Mean distance and p-values of many deals of the same labels at random agree with the null."""
    generator = np.random.default_rng(5)
    labels = np.repeat(np.arange(4), [90, 60, 30, 20])
    found, p_values, expected = [], [], None
    for _ in range(150):
        dealt = generator.permutation(labels)
        counts = np.stack([np.bincount(part, minlength=4) for part in (dealt[:40], dealt[40:])])
        skew = label_skew(counts, draws=400)
        found.append(skew.tv[0])
        p_values.append(skew.p_value[0])
        expected = skew.tv_null[0]
    assert np.mean(found) == pytest.approx(expected, rel=0.1)
    # p-values of a discrete law lie a little high
    assert np.mean(np.array(p_values) < 0.1) < 0.16


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_gini_is_half_the_relative_mean_difference(sizes):
    sizes = np.array(sizes)
    reference = np.abs(sizes[:, None] - sizes).mean() / (2 * sizes.mean()) if sizes.sum() else 0
    assert gini(sizes) == pytest.approx(reference, abs=1e-9)
    assert gini(7 * sizes) == pytest.approx(gini(sizes), abs=1e-9)


def test_principal_components_are_white_and_leave_out_what_is_constant():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator)
    parts = [torch.randn(n, 6, generator=generator) @ mixing for n in (40, 70)]
    parts = [torch.cat([x, torch.ones(len(x), 1)], 1) for x in parts]
    white = torch.cat(principal(parts, 5)).double()
    assert white.shape[0] == 110
    torch.testing.assert_close(white.mean(0), torch.zeros(white.shape[1]).double(), atol=1e-4, rtol=0)
    covariance = white.T @ white / len(white)
    torch.testing.assert_close(covariance, torch.eye(white.shape[1]).double(), atol=1e-3, rtol=0)
    assert white.shape[1] == 5
    assert principal(parts, 99)[0].shape == (40, 6)


def test_scores_have_mean_zero_over_the_population(line):
    inputs, targets = line.inputs[:, 0], line.targets
    parts = [slice(0, 1000), slice(1000, 3000)]
    few = principal([inputs[part] for part in parts], 16)
    found = scores(few, [targets[part] for part in parts], ridge=1e-9)
    assert found[0].shape == (1000, 2 * 9)
    torch.testing.assert_close(torch.cat(found).mean(0), torch.zeros(18), atol=1e-5, rtol=0)
    # the residuals' own law comes first: uncorrelated, of variance 1
    torch.testing.assert_close(torch.cat(found)[:, :2].T.cov(), torch.eye(2), atol=1e-2, rtol=0)
