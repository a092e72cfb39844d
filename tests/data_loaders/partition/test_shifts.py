"""Feature shift, concept shift and drift."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import DataError, SampleSpec, make_examples
from data_loaders.partition import ConceptShift, Drift, FeatureShift


def owners(samples):
    return torch.repeat_interleave(torch.arange(len(samples)), samples.lengths)


@pytest.mark.parametrize("kind", ["samples", "series"])
def test_gain_and_offset_are_those_in_the_attributes(make_samples, households, kind):
    before = make_samples() if kind == "samples" else households
    after = FeatureShift(gain=0.5, offset=0.3, seed=1)(before)
    values, shifted = (before.inputs, after.inputs) if kind == "samples" else (before.values, after.values)
    flat = values.reshape(-1, values.shape[-1])
    spread = torch.from_numpy(np.nanstd(flat.double().numpy(), axis=0))
    who = owners(before)
    gain, offset = (torch.tensor(after.attributes[f"shift_{name}"].to_numpy()) for name in ("gain", "offset"))
    shape = (-1,) + (1,) * (values.dim() - 1)
    expected = values * gain[who].view(shape) + offset[who].view(shape) * spread
    torch.testing.assert_close(shifted.double(), expected, equal_nan=True, rtol=1e-4, atol=1e-4)
    assert gain.log().std() > 0.1
    assert torch.equal(torch.isnan(shifted), torch.isnan(values))


def test_noise_has_the_spread_in_the_attributes(make_samples):
    before = make_samples(lengths=(3000, 3000))
    before.inputs[:, 0, 0] = 0
    after = FeatureShift(noise=2.0)(before)
    for client in range(2):
        rows = before.rows(client)
        added = (after.inputs[rows] - before.inputs[rows])[..., 1].std() / before.inputs[..., 1].std()
        assert float(added) == pytest.approx(after.attributes["shift_noise"].iloc[client], rel=0.05)


def test_a_clients_shift_does_not_depend_on_the_others(make_samples):
    samples = make_samples()
    samples.inputs[:] = samples.inputs.clone().fill_(1.0)
    shift = FeatureShift(gain=0.5, noise=0.5, seed=3)
    alone = shift(samples.select([1]))
    assert torch.equal(alone.inputs, shift(samples).inputs[samples.rows(1)])


def moved(values, steps):
    """Later by ``steps``, missing where nothing moved to."""
    rolled = values.roll(steps)
    rolled[:steps] = float("nan") if steps > 0 else rolled[:steps]
    rolled[len(values) + min(steps, 0) :] = float("nan")
    return rolled


def test_rotation_moves_runs_and_leaves_what_is_known(households):
    hours = np.arange(len(households.values)) % 24
    values = torch.cat([households.values, torch.from_numpy(hours.astype(np.float32))[:, None]], 1)
    first = int(households.lengths[0])
    series = dataclasses.replace(
        households,
        values=values,
        channel_names=("load", "hour"),
        known=("hour",),
        breaks=torch.tensor([100, first + 7]),
    )
    rotated = FeatureShift(rotation=6.0, seed=5)(series)
    steps = [round(hours) for hours in rotated.attributes["shift_hours"]]
    assert max(map(abs, steps)) > 1
    assert torch.equal(rotated.values[:, 1], values[:, 1])
    own = series.of(0)[:, 0]
    expected = torch.cat([moved(own[:100], steps[0]), moved(own[100:], steps[0])])
    torch.testing.assert_close(rotated.of(0)[:, 0], expected, equal_nan=True)
    assert torch.equal(rotated.breaks, series.breaks)


def test_rotation_brings_no_later_value_round_to_the_start(make_series):
    """Every value is its own step number, so that each tells where it came from."""
    series = make_series([np.arange(100.0)] * 8)
    rotated = FeatureShift(rotation=12.0, seed=2)(series)
    steps = [round(hours) for hours in rotated.attributes["shift_hours"]]
    assert min(steps) < -3 < 3 < max(steps)
    for client, step in enumerate(steps):
        values = rotated.of(client)[:, 0]
        there = ~values.isnan()
        assert int(there.sum()) == 100 - abs(step)
        assert torch.equal(values[there], torch.arange(100.0)[there] - step)
        assert float(values[:60].nan_to_num(0).max()) < 80  # no training value is of the test span
    gone = FeatureShift(rotation=1e4, seed=2)(series)
    assert int(gone.of(0).isnan().sum()) == 100


def test_shifts_that_change_nothing_or_do_not_fit_are_refused(make_samples):
    with pytest.raises(DataError, match="feature_shift changes nothing"):
        FeatureShift()
    with pytest.raises(DataError, match="rotation moves a series in time; source 'handmade' holds samples"):
        FeatureShift(rotation=2.0)(make_samples())
    with pytest.raises(DataError, match="noise must be at least 0, got -1"):
        FeatureShift(noise=-1)


@pytest.mark.parametrize("clusters", [2, 3])
def test_classes_change_places_within_clusters(make_samples, clusters):
    before = make_samples(lengths=(60,) * 7)
    after = ConceptShift(clusters=clusters, seed=1)(before)
    number = after.attributes["cluster"].to_numpy()
    assert np.bincount(number).max() - np.bincount(number).min() <= 1
    assert torch.equal(after.inputs, before.inputs)
    maps = set()
    for cluster in range(clusters):
        rows = torch.tensor(number)[owners(before)] == cluster
        pairs = set(zip(before.targets[rows].tolist(), after.targets[rows].tolist(), strict=True))
        renamed = dict(pairs)
        assert len(pairs) == len(renamed) == len(set(renamed.values())) == 5
        same = sum(old == new for old, new in pairs)
        assert same == (5 if cluster == 0 else 0)
        maps.add(tuple(sorted(pairs)))
    assert len(maps) == clusters


def test_a_share_of_the_classes_changes_places(make_samples):
    before = make_samples(lengths=(200, 200), classes=10)
    after = ConceptShift(share=0.4)(before)
    changed = before.targets != after.targets
    assert len(before.targets[changed].unique()) == 4
    with pytest.raises(DataError, match=r"exchanges share=0\.1 of 10 classes; that is fewer than two"):
        ConceptShift(share=0.1)(before)


def test_clusters_may_be_an_attribute(make_samples):
    after = ConceptShift(by="accent")(make_samples())
    assert after.attributes["cluster"].tolist() == [0, 1, 0]
    with pytest.raises(DataError, match=r"no attribute 'acent'\. Did you mean 'accent'"):
        ConceptShift(by="acent")(make_samples())


def test_float_targets_are_flipped_or_scaled(make_samples):
    before = make_samples(classes=0)
    flipped = ConceptShift(map="flip", by="accent")(before)
    odd = owners(before) == 1
    mean = before.targets.mean(0)
    torch.testing.assert_close(flipped.targets[odd] - mean, mean - before.targets[odd])
    assert torch.equal(flipped.targets[~odd], before.targets[~odd])
    scaled = ConceptShift(map="scale", factor=3.0, by="accent")(before)
    torch.testing.assert_close(scaled.targets[odd], 3 * before.targets[odd])
    with pytest.raises(DataError, match="turns the days of series"):
        ConceptShift(map="reverse")(before)


@pytest.mark.parametrize("kind", ["flip", "reverse"])
def test_maps_of_series_are_their_own_inverse(households, kind):
    shift = ConceptShift(map=kind, seed=2)
    once = shift(households)
    number = once.attributes["cluster"].to_numpy()
    for client in range(len(households)):
        same = torch.allclose(once.of(client), households.of(client), equal_nan=True)
        assert same == (number[client] == 0)
    torch.testing.assert_close(shift(once).values, households.values, equal_nan=True, rtol=1e-4, atol=1e-4)


def test_reversed_days_keep_their_energy(households):
    after = ConceptShift(map="reverse")(households)
    client = int(np.flatnonzero(after.attributes["cluster"])[0])
    days = [series.of(client)[: 24 * 20, 0].view(20, 24) for series in (households, after)]
    torch.testing.assert_close(days[0].flip(1), days[1], equal_nan=True)


def test_more_clusters_than_clients_are_refused(make_samples):
    with pytest.raises(DataError, match="cannot make 4 clusters of 3 clients"):
        ConceptShift(clusters=4)(make_samples())


def test_shares_of_classes_drift_along_the_order(make_samples):
    before = make_samples(lengths=(400, 300))
    after = Drift(labels=1.0)(before)
    data = make_examples(after, SampleSpec())
    assert after.targets is before.targets
    for client in range(2):
        early = data.gather(data.positions("train", torch.tensor([client]), torch.arange(50)[None])[0])[1]
        late = data.gather(data.positions("test", torch.tensor([client]), torch.arange(50)[None])[0])[1]
        assert not set(early.flatten().tolist()) & set(late.flatten().tolist())
    # without the dial the order is random: train and test have all classes
    weak = make_examples(Drift(labels=0.01)(before), SampleSpec())
    for span in ("train", "test"):
        at = weak.positions(span, torch.tensor([0]), torch.arange(50)[None])
        assert len(weak.gather(at)[1].unique()) == 5


def test_drift_keeps_the_times_and_says_what_it_overrules(make_samples):
    times = torch.from_numpy(np.random.default_rng(0).integers(0, 10**9, 125))
    before = make_samples(times=times, official=torch.zeros(125, dtype=torch.int8))
    after = Drift(labels=0.7, individual=True)(before)
    for client in range(3):
        rows = before.rows(client)
        assert torch.equal(after.times[rows].sort().values, times[rows].sort().values)
    assert after.official is None
    assert "own split is left out" in after.rules[0]


def test_float_targets_drift_upwards(make_samples):
    after = Drift(labels=1.0)(make_samples(classes=0, lengths=(50,)))
    assert (after.targets[after.times.argsort(), 0].diff() >= 0).all()


def test_gain_grows_along_a_series(households):
    after = Drift(gain=np.log(3.0))(households)
    for client in range(len(households)):
        old, new = households.of(client)[:, 0], after.of(client)[:, 0]
        ratio = (new / old).numpy()
        expected = 3.0 ** (np.arange(len(old)) / (len(old) - 1))
        fine = np.isfinite(ratio)
        np.testing.assert_allclose(ratio[fine], expected[fine], rtol=1e-4)


def test_hours_grow_along_a_series(households):
    after = Drift(rotation=12.0)(households)
    old, new = households.of(0)[:, 0], after.of(0)[:, 0]
    torch.testing.assert_close(new[:12], old[:12], equal_nan=True)
    torch.testing.assert_close(new[-1:], old[-13:-12], equal_nan=True)
    own = Drift(rotation=12.0, gain=1.0, individual=True)(households)
    assert not torch.equal(own.of(0), after.of(0))


def test_drift_of_the_wrong_kind_is_refused(make_samples, households):
    with pytest.raises(DataError, match="changes nothing in source 'simulated': set gain or rotation"):
        Drift(labels=1.0)(households)
    with pytest.raises(DataError, match="changes nothing in source 'handmade': set labels above 0"):
        Drift(gain=1.0)(make_samples())


@pytest.mark.parametrize("shift", [FeatureShift(gain=0.3), ConceptShift(), Drift(labels=1.0, gain=1.0)])
def test_populations_given_stay_as_they_are(make_samples, households, shift):
    for population in (make_samples(times=torch.arange(125)), households):
        before = population.fingerprint()
        after = shift(population)
        assert population.fingerprint() == before != after.fingerprint()
        assert shift(population).fingerprint() == after.fingerprint()
        pd.testing.assert_frame_equal(
            after.attributes[list(population.attributes.columns)], population.attributes
        )
