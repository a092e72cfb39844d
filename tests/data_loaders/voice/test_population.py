"""What all voice sources share: takes in, a population out, and nothing dropped without a word."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import DataError
from data_loaders.errors import raise_if_any
from data_loaders.voice.audio import Sound
from data_loaders.voice.features import LogMel, log_mel
from data_loaders.voice.options import ClipOptions, clip_problems
from data_loaders.voice.population import to_population
from data_loaders.voice.takes import Take, collect


def noise(seed, samples=4000, gain=0.1):
    return (gain * np.random.default_rng(seed).normal(size=samples)).astype(np.float32)


def take(client, label, number, wave, rate=8000, official=-1):
    return Take(client, label, number, f"{client}/{label}/{number}", lambda: Sound(wave, rate), official)


def population(takes, attributes=None, **options):
    settings = ClipOptions(**({"seconds": 0.5} | options))
    known = pd.DataFrame() if attributes is None else attributes
    return to_population("made", collect(takes, settings), settings, classes=("no", "yes"), attributes=known)


def some(clients="ab", per=3):
    return [
        take(client, label, number, noise([ord(client), number, label == "yes"]))
        for number in range(per)
        for label in ("yes", "no")
        for client in reversed(clients)
    ]


def test_samples_lie_by_speaker_class_and_number_whatever_their_order():
    forth, back = (population(takes, features="wave") for takes in (some(), some()[::-1]))
    assert forth.fingerprint() == back.fingerprint()
    assert forth.clients == ("a", "b")
    assert forth.targets.tolist() == [0, 0, 0, 1, 1, 1] * 2
    expected = log_mel(torch.from_numpy(noise([ord("b"), 2, 0]))[None], LogMel())
    samples = population(some())
    torch.testing.assert_close(samples.inputs[8:9], expected, atol=1e-3, rtol=0)
    assert samples.inputs.shape == (12, 48, 40)
    assert forth.official is None


def test_waves_are_the_clips_themselves():
    samples = population(some(), features="wave")
    assert samples.inputs.shape == (12, 4000, 1)
    np.testing.assert_array_equal(samples.inputs[4, :, 0], noise([ord("a"), 1, 1]))


def test_batches_change_nothing(monkeypatch):
    whole = population(some(per=5))
    monkeypatch.setattr("data_loaders.voice.takes._AT_ONCE", 4)
    torch.testing.assert_close(population(some(per=5)).inputs, whole.inputs, atol=1e-3, rtol=0)


def test_copies_of_a_take_share_a_group_and_the_most_held_out_part():
    copies = [
        take("a", "no", 8, noise([ord("a"), 1, 0]), official=2),
        take("a", "yes", 9, noise([ord("a"), 1, 0]), official=0),
    ]
    samples = population([*some(), *copies])
    one = [index for index in range(8) if samples.groups[index] == samples.groups[1]]
    assert one == [1, 3, 7]
    assert samples.groups.unique().numel() == 12
    assert [int(samples.official[index]) for index in one] == [2, 2, 2]
    assert samples.official[0] == -1
    assert any("2 takes equal an earlier one" in rule for rule in samples.rules)


def test_a_copy_of_another_speakers_take_is_left_out_and_counted():
    samples = population([*some(), take("b", "no", 9, noise([ord("a"), 0, 0]))])
    assert samples.lengths.tolist() == [6, 6]
    assert any("1 copies of an earlier speaker's take" in rule for rule in samples.rules)


def test_near_silent_recordings_are_left_out_and_counted():
    quiet = [take("a", "no", 8, noise(1, gain=1e-5)), take("c", "no", 1, np.zeros(4000, np.float32) + 0.5)]
    samples = population([*some(), *quiet])
    assert samples.clients == ("a", "b")
    assert [(item.client, item.reason) for item in samples.dropped] == [
        ("c", "min_clips: 0 clips, 1 asked for")
    ]
    assert any("2 recordings with a peak below 0.001" in rule for rule in samples.rules)


def test_speakers_with_few_clips_are_dropped_and_the_first_of_the_others_kept():
    takes = [*some("abd", per=3), take("c", "no", 0, noise(5))]
    samples = population(takes, min_clips=2, clients=2)
    assert samples.clients == ("a", "b")
    assert [item.client for item in samples.dropped] == ["c"]
    assert population(takes, min_clips=2).clients == ("a", "b", "d")
    assert any("only the first 2 speakers" in rule for rule in samples.rules)


def test_lengths_rates_and_levels_are_stated():
    takes = [
        take("a", "no", 0, noise(0, 8000), rate=16000),
        take("a", "no", 1, noise(1, 3000)),
        take("a", "yes", 0, noise(2, 5001)),
    ]
    samples = population(takes, level="peak", features="wave")
    rules = "; ".join(samples.rules)
    assert "zeros at their end (1 of 3)" in rules
    assert "keep their middle (1)" in rules
    assert "1 recordings from 16000 to 8000 Hz, ratio 1/2" in rules
    torch.testing.assert_close(samples.inputs[:2].abs().amax((1, 2)), torch.ones(2))
    assert (samples.inputs[1, 3000:] == 0).all()


def test_a_rate_above_the_recorded_one_is_refused():
    with pytest.raises(DataError, match="a/no/0 has 8000 samples a second; rate=16000 asks for more"):
        population([take("a", "no", 0, noise(0))], rate=16000)


def broken():
    raise DataError("x.wav is empty (0 bytes).")


def test_a_bad_file_stops_the_load_or_is_left_out_with_its_reason():
    takes = [*some(), *(Take("a", "no", 9 + n, "x.wav", broken) for n in range(5))]
    with pytest.raises(DataError, match=r"x\.wav is empty"):
        population(takes)
    samples = population(takes, on_bad="skip")
    assert samples.lengths.tolist() == [6, 6]
    rule = next(rule for rule in samples.rules if rule.startswith("on_bad"))
    assert rule.startswith("on_bad: 5 files left out: x.wav is empty (0 bytes).")
    assert rule.endswith("and 2 more")


def test_nothing_left_is_an_error_that_says_why():
    with pytest.raises(DataError, match=r"No clip of source 'made' is left: 1 by min_clips.*1 recordings"):
        population([take("a", "no", 0, np.zeros(4000, np.float32))])
    with pytest.raises(DataError, match="none was found"):
        population([])


def test_attributes_follow_the_speakers_and_unknown_ones_are_missing():
    known = pd.DataFrame({"age": [30, 40]}, index=["z", "b"])
    samples = population(some(), attributes=known)
    assert samples.attributes["age"].isna().tolist() == [True, False]


def test_all_problems_of_the_options_come_in_one_message():
    @dataclass(frozen=True)
    class Made(ClipOptions):
        root: str = ""

        def __post_init__(self):
            raise_if_any(clip_problems(self))

    with pytest.raises(DataError) as caught:
        Made(
            features="mfcc",
            level="rms",
            stereo="left",
            on_bad="no",
            mels=0,
            min_peak=1,
            min_clips=0,
            clients=0,
        )
    assert len(caught.value.problems) == 8
    with pytest.raises(DataError, match="at least one frame"):
        Made(seconds=0.01)
    assert Made("x").root == "x"
