import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import SPANS, ClientSamples, DataError, SampleSpec, make_examples
from data_loaders.series import offsets_of
from data_loaders.splits import split_samples

DROP = {"on_short": "drop"}


def make_samples(lengths, classes=3, steps=4, channels=2, outputs=1, seed=0, **fields):
    """Random samples of clients of these lengths; ``classes=0`` gives float targets."""
    generator = np.random.default_rng(seed)
    total = sum(lengths)
    shift = np.repeat(np.arange(len(lengths)), lengths)[:, None, None]
    inputs = generator.normal(shift, 1 + shift, (total, steps, channels)).astype(np.float32)
    labels = torch.from_numpy(generator.integers(0, max(classes, 1), total))
    numbers = torch.from_numpy(generator.normal(50, 9, (total, outputs)).astype(np.float32))
    names = tuple(f"speaker {k}" for k in range(len(lengths)))
    return ClientSamples(
        **{
            "name": "handmade",
            "inputs": torch.from_numpy(inputs),
            "targets": labels if classes else numbers,
            "offsets": offsets_of(lengths),
            "clients": names,
            "attributes": pd.DataFrame({"number": range(len(lengths))}, index=pd.Index(names, name="client")),
            "classes": tuple(f"word {k}" for k in range(classes)),
            **fields,
        }
    )


def rows_of(data, span, client):
    count = int(data.count(span)[client])
    return data.positions(span, torch.tensor([client]), torch.arange(count)[None])[0]


@st.composite
def populations(draw):
    """Clients of all sizes; with or without classes, groups, times and a split of the source's own."""
    lengths = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    seed, total = draw(st.integers(0, 2**31)), sum(lengths)
    generator = np.random.default_rng(seed)
    fields = {}
    if draw(st.booleans()):
        fields["groups"] = torch.from_numpy(generator.integers(0, draw(st.integers(1, 40)), total))
    if draw(st.booleans()):
        fields["times"] = torch.from_numpy(generator.integers(0, 100, total))
    if draw(st.booleans()):
        own = generator.choice([-1, 0, 0, draw(st.sampled_from([0, 1])), 2], total)
        fields["official"] = torch.from_numpy(own.astype(np.int8))
    return make_samples(lengths, draw(st.sampled_from([0, 1, 5])), seed=seed, **fields)


@st.composite
def specs(draw):
    return SampleSpec(
        train=draw(st.sampled_from([0.3, 0.6, 0.7])),
        validation=draw(st.sampled_from([0.1, 0.2, 0.25])),
        seed=draw(st.integers(0, 5)),
        **DROP,
    )


@given(populations(), specs())
@settings(max_examples=150, deadline=None)
def test_spans_are_disjoint_cover_and_keep_groups_together(samples, spec):
    spans, rules = split_samples(samples, spec)
    official = rules[0] == "split: the source's own"
    left_out = samples.official < 0 if official else torch.zeros(len(spans), dtype=torch.bool)
    assert torch.equal(spans < 0, left_out)
    enough = [all((spans[samples.rows(k)] == place).any() for place in range(3)) for k in range(len(samples))]
    if not any(enough):
        with pytest.raises(DataError, match="No client"):
            make_examples(samples, spec)
        return
    data = make_examples(samples, spec)
    assert data.clients == tuple(name for name, fits in zip(samples.clients, enough, strict=True) if fits)
    kept = data.samples
    for client in range(len(data)):
        parts = [rows_of(data, span, client) for span in SPANS]
        every = torch.cat(parts)
        assert len(every.unique()) == len(every)
        assert all(len(part) >= spec.min_samples for part in parts)
        inside = torch.arange(kept.rows(client).start, kept.rows(client).stop)
        taken = inside if not official else inside[kept.official[inside] >= 0]
        assert torch.equal(every.sort().values, taken)
        if kept.groups is not None:
            sides = [set(kept.groups[part].tolist()) for part in parts]
            assert sum(map(len, sides)) == len(set.union(*sides))


@given(populations(), specs(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_clients_changes_nothing(samples, spec, random):
    order = random.sample(range(len(samples)), len(samples))
    shuffled = samples.select(order)
    spans, _ = split_samples(samples, spec)
    moved, _ = split_samples(shuffled, spec)
    for place, client in enumerate(order):
        assert torch.equal(moved[shuffled.rows(place)], spans[samples.rows(client)])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), specs())
@settings(max_examples=150, deadline=None)
def test_a_stratified_split_keeps_each_class_to_one_sample(counts, spec):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    samples = make_samples([len(labels)], len(counts), targets=labels)
    spans, _ = split_samples(samples, spec)
    for place, part in enumerate(spec.parts):
        for number, count in enumerate(counts):
            dealt = int(((spans == place) & (labels == number)).sum())
            assert abs(dealt - count * part) < 1 + 1e-6
        assert abs(int((spans == place).sum()) - len(labels) * part) < 1 + 1e-6


def test_the_split_of_a_client_does_not_depend_on_the_others():
    alone = make_samples([30], seed=4)
    names = ("newcomer", "speaker 0")
    crowd = make_samples([11, 30], clients=names, attributes=pd.DataFrame(index=names))
    crowd.targets[11:] = alone.targets
    spec = SampleSpec(split="stratified")
    assert torch.equal(split_samples(alone, spec)[0], split_samples(crowd, spec)[0][11:])
    other = split_samples(alone, SampleSpec(split="stratified", seed=1))[0]
    assert not torch.equal(split_samples(alone, spec)[0], other)


def test_time_puts_the_past_before_the_future():
    times = torch.tensor([5, 3, 9, 1, 7, 2, 8, 4, 6, 0])
    data = make_examples(make_samples([10], times=times), SampleSpec(split="time"))
    assert [times[rows_of(data, span, 0)].tolist() for span in SPANS] == [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9]]
    assert data.samples.rules[0] == "split: by time, 60% train, 20% validate, 20% test, per client"


def test_a_group_lies_where_its_earliest_sample_does():
    times, groups = torch.arange(10), torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 4])
    spans, _ = split_samples(make_samples([10], times=times, groups=groups), SampleSpec())
    assert spans.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 0]


def test_the_sources_own_split_is_kept_and_lends_training_samples_to_validation():
    official = torch.tensor([0] * 8 + [2] * 3, dtype=torch.int8)
    data = make_examples(make_samples([11], official=official), SampleSpec(seed=3))
    assert data.count("train").tolist() == [6]
    assert data.count("validation").tolist() == [2]
    assert rows_of(data, "test", 0).tolist() == [8, 9, 10]
    assert data.samples.rules[:2] == (
        "split: the source's own",
        "split: it has no validation part; 25% of each client's training part are it",
    )


def test_what_the_source_left_open_or_leaked_is_said():
    official = torch.tensor([0, 0, 1, 2, 2, -1], dtype=torch.int8)
    groups = torch.tensor([0, 1, 2, 3, 0, 5])
    spans, rules = split_samples(make_samples([6], official=official, groups=groups), SampleSpec())
    assert spans.tolist() == [0, 0, 1, 2, 0, -1]
    assert rules[1:] == (
        "split: 1 samples without an official span are left out",
        "split: 1 samples join the training part of their group",
    )


def test_a_group_in_validation_and_test_goes_to_validation_and_that_is_said():
    official = torch.tensor([0, 1, 1, 2, 2, 2, 0, 2], dtype=torch.int8)
    groups = torch.tensor([0, 1, 2, 2, 2, 3, 4, 4])
    spans, rules = split_samples(make_samples([8], official=official, groups=groups), SampleSpec())
    assert spans.tolist() == [0, 1, 1, 1, 1, 2, 0, 0]
    assert rules[1:] == (
        "split: 1 samples join the training part of their group",
        "split: 2 samples join the validation part of their group",
    )


def test_auto_passes_over_a_split_that_deals_whole_clients():
    official = torch.tensor([0] * 10 + [2] * 10, dtype=torch.int8)
    samples = make_samples([10, 10], official=official)
    assert make_examples(samples, SampleSpec()).count("test").tolist() == [2, 2]
    with pytest.raises(DataError, match=r"Client 'speaker 0' has too few samples: 10 give 0 in test"):
        make_examples(samples, SampleSpec(split="official"))


@pytest.mark.parametrize("scale", ["population", "client", "none"])
def test_scales_are_those_of_training_samples(scale):
    samples = make_samples([30, 50], classes=0, outputs=2)
    data = make_examples(samples, SampleSpec(scale=scale))
    training = [rows_of(data, "train", client) for client in range(2)]
    sets = {"population": [torch.cat(training)] * 2, "client": training, "none": []}[scale]
    for client, rows in enumerate(sets):
        x, y = samples.inputs[rows].flatten(0, 1), samples.targets[rows]
        torch.testing.assert_close(data.mean[client], x.mean(0))
        torch.testing.assert_close(data.std[client], x.std(0, correction=0))
        torch.testing.assert_close(data.target_mean[client], y.mean(0))
        torch.testing.assert_close(data.target_std[client], y.std(0, correction=0))
    clients, ranks = torch.tensor([1, 0]), torch.tensor([[0, 3, 1], [2, 2, 0]])
    at = data.positions("test", clients, ranks)
    x, y = data.gather(at)
    assert x.shape == (2, 3, 4, 2)
    assert y.shape == (2, 3, 2)
    mean, std = data.mean[clients][:, None, None], data.std[clients][:, None, None]
    torch.testing.assert_close(x * std + mean, samples.inputs[at])
    torch.testing.assert_close(data.unscale(clients, y), samples.targets[at])
    if scale == "none":
        assert torch.equal(x, samples.inputs[at])


def test_a_client_alone_has_the_populations_scale():
    samples = make_samples([40], classes=0)
    both = [make_examples(samples, SampleSpec(scale=scale)) for scale in ("client", "population")]
    torch.testing.assert_close(both[0].gather(torch.arange(40)), both[1].gather(torch.arange(40)))


def test_a_constant_channel_is_only_centred():
    samples = make_samples([20])
    samples.inputs[..., 1] = 1e4
    data = make_examples(samples, SampleSpec())
    assert (data.std[:, 1] == 1).all()
    assert (data.gather(torch.arange(20))[0][..., 1] == 0).all()


def test_classes_are_targets_of_horizon_one():
    samples = make_samples([30, 30])
    data = make_examples(samples, SampleSpec())
    x, y = data.gather(torch.arange(6).view(2, 3))
    assert (data.task, data.classes, data.shape) == ("classify", ("word 0", "word 1", "word 2"), (4, 1, 2))
    assert (x.shape, y.shape, y.dtype) == ((2, 3, 4, 2), (2, 3, 1), torch.int64)
    assert torch.equal(y[..., 0], samples.targets[:6].view(2, 3))
    assert data.unscale(torch.arange(2), y) is y
    assert make_examples(make_samples([30], 0, outputs=3), SampleSpec()).shape == (4, 3, 2)


def test_gathering_leaves_the_samples_alone():
    samples = make_samples([30], classes=0)
    before = samples.fingerprint()
    data = make_examples(samples, SampleSpec())
    data.gather(torch.arange(30))
    assert samples.fingerprint() == before
    assert data.samples.inputs is samples.inputs


def test_features_are_the_inputs_or_their_moments_over_time():
    short = make_examples(make_samples([30]), SampleSpec())
    rows = rows_of(short, "train", 0)
    assert torch.equal(short.features(0), short.gather(rows)[0].flatten(1))
    long = make_examples(make_samples([30], steps=50), SampleSpec())
    x = long.gather(rows_of(long, "train", 0))[0]
    torch.testing.assert_close(long.features(0), torch.cat([x.mean(1), x.std(1, correction=0)], 1))
    vector = make_examples(make_samples([30], steps=1, channels=99), SampleSpec())
    assert vector.features(0).shape == (18, 99)


@pytest.mark.parametrize("scale", ["population", "client", "none"])
def test_features_keep_what_tells_clients_apart_on_any_scale(scale):
    samples = make_samples([30, 30, 40], 0)
    samples.inputs[30:60] += 5.0
    data, common = (make_examples(samples, SampleSpec(scale=kind)) for kind in (scale, "population"))
    for client in range(3):
        assert torch.equal(data.features(client), common.features(client))
        x, y = common.gather(rows_of(common, "train", client))
        torch.testing.assert_close(
            data.features(client), torch.cat([x.flatten(1), y], 1), rtol=1e-4, atol=1e-5
        )
    assert data.features(1)[:, 0].mean() - data.features(0)[:, 0].mean() > 1


def test_short_clients_are_dropped_with_the_reason():
    data = make_examples(make_samples([20, 2, 30]), SampleSpec(min_samples=3, **DROP))
    assert data.clients == ("speaker 0", "speaker 2")
    assert data.attributes["number"].tolist() == [0, 2]
    (gone,) = data.samples.dropped
    assert gone.client == "speaker 1"
    assert gone.reason.startswith("too few samples: 2 give")
    assert gone.reason.endswith("min_samples=3")


def test_short_clients_are_an_error_that_names_them():
    with pytest.raises(DataError, match=r"Client 'speaker 0' has too few.* So have 2 more clients\. Drop"):
        make_examples(make_samples([1] * 7), SampleSpec())
    with pytest.raises(DataError, match=r"No client of source 'handmade' is left: 2 by too few samples"):
        make_examples(make_samples([1, 1]), SampleSpec(**DROP))


def test_a_split_the_samples_cannot_give_is_refused():
    with pytest.raises(DataError, match="no times to order"):
        make_examples(make_samples([20]), SampleSpec(split="time"))
    with pytest.raises(DataError, match="no split of its own"):
        make_examples(make_samples([20]), SampleSpec(split="official"))


def test_ranks_beyond_the_span_are_refused():
    data = make_examples(make_samples([20, 10]), SampleSpec())
    with pytest.raises(DataError, match="Client number 1 has 6 samples in this span, rank 6 was asked for"):
        data.positions("train", torch.tensor([0, 1]), torch.tensor([[0, 7], [1, 6]]))


def test_all_problems_of_a_spec_come_in_one_message():
    with pytest.raises(DataError) as caught:
        SampleSpec(train=1.0, split="random", scale="batch", min_samples=0, on_short="skip", seed=-1)
    assert len(caught.value.problems) == 6
    with pytest.raises(DataError, match="must leave a test span"):
        SampleSpec(train=0.8, validation=0.2)


def test_on_another_device_everything_moves():
    data = make_examples(make_samples([20, 30], classes=0), SampleSpec(scale="client"))
    moved = data.to("cpu")
    assert torch.equal(moved.gather(torch.arange(50))[0], data.gather(torch.arange(50))[0])
    assert torch.equal(moved.count("train"), data.count("train"))


MEMORY = """
import pandas as pd, torch
from data_loaders import ClientSamples, SampleSpec, make_examples
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
def samples(clients, each=200):
    names = tuple(map(str, range(clients)))
    inputs = torch.rand(clients * each, 98, 40)
    targets = torch.randint(0, 35, (clients * each,))
    words, index = tuple(map(str, range(35))), pd.DataFrame(index=names)
    return ClientSamples("clips", inputs, targets, each * torch.arange(clients + 1), names, index, words)
make_examples(samples(2), SampleSpec())
before = peak()
data = make_examples(samples(100), SampleSpec())
print(peak() - before, data.samples.inputs.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_clips_are_held_once():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    grown, buffer = (int(word) for word in done.stdout.split())
    assert grown < 1.3 * buffer
