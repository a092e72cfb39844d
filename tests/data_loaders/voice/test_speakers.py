import numpy as np
import pytest
import torch

from data_loaders import DataError, SampleSpec, build_source, make_examples
from data_loaders.voice.phones import PHONES, WORDS, phones_of
from data_loaders.voice.speakers import SimulatedSpeakers
from data_loaders.voice.voices import NAMES, TYPICAL, VOICES, distance_to_law, speakers
from personalization import distance_to_population


def load(**options):
    return SimulatedSpeakers(**({"clients": 6, "takes": 3} | options)).load()


def attributes(**options):
    return load(takes=1, words=("no",), **options).attributes


def mean_features(samples):
    """Mean log-mel of each clip, (clips, mels), by speaker."""
    return [samples.inputs[samples.rows(k)].mean(1) for k in range(len(samples))]


def accuracy_of_centroids(samples):
    """Share of the second half of the speakers' clips nearest to the right word's mean of the first half."""
    half = int(samples.offsets[len(samples) // 2])
    flat, labels = samples.inputs.flatten(1), samples.targets
    words = range(len(samples.classes))
    centroids = torch.stack([flat[:half][labels[:half] == word].mean(0) for word in words])
    return float((torch.cdist(flat[half:], centroids).argmin(1) == labels[half:]).float().mean())


def test_the_schema_is_that_of_the_arabic_commands():
    samples = build_source("speakers", clients=5, takes=2).load()
    assert samples.inputs.shape == (100, 98, 40)
    assert samples.classes[:4] == ("up", "down", "left", "right")
    assert samples.targets.bincount().tolist() == [10] * 10
    assert samples.lengths.tolist() == [20] * 5
    assert samples.official is None
    assert samples.groups.unique().numel() == 100
    assert samples.attributes["official_split"].tolist() == ["train"] * 3 + ["validation", "test"]
    published = {
        "n_clips",
        "seconds",
        "f0_median_hz",
        "noise_floor_dbfs_median",
        "pitch_group_proxy",
        "noise_group",
    }
    assert published < set(samples.attributes)
    assert load(rate=16000, features="wave", clients=1, takes=1).inputs.shape == (10, 16000, 1)
    examples = make_examples(samples, SampleSpec())
    assert examples.task == "classify"


def test_a_speaker_does_not_depend_on_the_others_nor_a_take_on_the_number_of_takes():
    few = load(features="wave")
    many = load(features="wave", clients=12)
    assert many.select(range(6)).fingerprint() == few.fingerprint()
    assert many.attributes.iloc[:6].equals(few.attributes)
    more = load(features="wave", takes=5)
    first = more.inputs.reshape(6, 10, 5, -1)[:, :, :3].reshape(180, -1)
    torch.testing.assert_close(first, few.inputs[..., 0], atol=1e-5, rtol=0)
    chosen = load(features="wave", words=("no", "up"))
    torch.testing.assert_close(chosen.inputs[3:6], few.inputs[:3], atol=1e-5, rtol=0)


def test_seeds_reproduce_and_differ():
    first, again, other = (load(seed=seed, clients=2) for seed in (3, 3, 4))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_words_can_be_told_apart_by_speakers_never_heard():
    assert accuracy_of_centroids(load(clients=16, takes=3, heterogeneity=0.0)) > 0.45  # chance is 0.1
    assert accuracy_of_centroids(load(clients=16, takes=3, heterogeneity=1.0)) > 0.35


def test_distances_between_speakers_grow_with_the_dial():
    found = []
    for dial in (0.0, 0.3, 0.6, 1.0):
        samples = load(clients=12, takes=3, heterogeneity=dial)
        found.append(distance_to_population(mean_features(samples), standardise=True, seed=1))
    assert (np.diff([float(distances.value.mean()) for distances in found]) > 0).all()
    assert float(found[0].p_value.median()) > 0.05
    assert float(found[-1].p_value.median()) < 0.05
    calibrated = [float(distances.calibrated.mean()) for distances in found]
    assert calibrated[-1] > 5 * max(calibrated[0], 0.05)


def test_true_distances_lie_on_a_straight_line():
    none, half, full = (attributes(heterogeneity=dial)["true_distance"] for dial in (0.0, 0.5, 1.0))
    assert (none == 0).all()
    np.testing.assert_allclose(2 * half, full, rtol=1e-9)
    assert attributes(clients=60, heterogeneity=1.0)["true_distance"].mean() == pytest.approx(1, abs=0.15)


def test_the_law_has_the_moments_that_the_distance_takes_for_granted():
    kinds = list(VOICES) * 4000
    own = np.random.default_rng(0).standard_normal((len(kinds), len(NAMES)))
    parameters = speakers(kinds, own, 1.0)
    expected = [np.mean([getattr(voice, name) for voice in VOICES.values()]) for name in NAMES]
    np.testing.assert_allclose(parameters.mean(0), expected, rtol=0.02, atol=0.15)
    assert (distance_to_law(parameters, tuple(VOICES), 1.0) ** 2).mean() == pytest.approx(1, abs=0.03)
    assert speakers(["high"], own[:1], 0.0)[0].tolist() == [getattr(TYPICAL, name) for name in NAMES]


def pitch_of(wave, rate=8000):
    """The lag of the highest autocorrelation between 70 and 300 Hz, around the loudest place."""
    middle = int(np.convolve(wave**2, np.ones(800), "same").argmax())
    part = wave[max(0, middle - 400) : middle + 400]
    part = part - part.mean()
    correlation = np.correlate(part, part, "full")[len(part) - 1 :]
    low, high = rate // 300, rate // 70
    return rate / (low + int(correlation[low:high].argmax()))


def test_speakers_are_heard_at_their_pitch():
    samples = load(features="wave", clients=8, heterogeneity=1.0, words=("no", "nine"), takes=6)
    for client, f0 in enumerate(samples.attributes["f0"]):
        heard = [pitch_of(wave[:, 0].numpy()) for wave in samples.inputs[samples.rows(client)]]
        assert np.median(heard) == pytest.approx(f0, rel=0.1)


def test_rooms_are_as_noisy_as_they_say():
    samples = load(features="wave", clients=8, heterogeneity=1.0, words=("up",), takes=6)
    known = samples.attributes
    for client in range(8):
        before = samples.inputs[samples.rows(client), 20:320, 0]  # the word has not begun
        level = 20 * np.log10(float(before.square().mean().sqrt()))
        # the microphone's tilt of a few dB an octave counts too
        expected, tilt = known["noise_floor"].iloc[client], abs(known["tilt"].iloc[client])
        assert level == pytest.approx(expected, abs=1 + 2 * tilt)
    order = known["noise_floor"].argsort().to_numpy()
    assert known["noise_group"].iloc[order[0]] in ("quiet", "medium")


def test_a_hiss_is_high_and_a_vowel_low():
    samples = load(features="log_mel", clients=2, heterogeneity=0.0, words=("six", "four"), takes=8)
    power = samples.inputs.exp()
    six, four = (power[samples.targets == label].mean((0, 1)) for label in (0, 1))
    share = [float(part[34:].sum() / part.sum()) for part in (six, four)]
    assert share[0] > 5 * share[1]


def test_short_clips_hold_whole_words_and_waves_stay_in_range():
    samples = load(features="wave", seconds=0.25, clients=3, heterogeneity=1.0)
    assert samples.inputs.shape == (90, 2000, 1)
    assert samples.inputs.abs().max() <= 1
    loud = samples.inputs[..., 0].square().reshape(90, 20, 100).mean(2)
    assert (loud[:, 5:15].amax(1) > 5 * loud[:, 0]).float().mean() > 0.9


def test_every_word_is_made_of_known_sounds():
    assert all(set(word) <= set(PHONES) for word in WORDS.values())
    assert phones_of("six").shape == (5, 8)
    assert len(WORDS) == 20


def test_all_problems_of_the_options_come_in_one_message():
    with pytest.raises(DataError) as caught:
        SimulatedSpeakers(
            clients=0,
            takes=0,
            heterogeneity=2,
            seed=-1,
            words=("yess",),
            voices=("hi",),
            rate=-1,
            features="mfcc",
        )
    assert len(caught.value.problems) >= 8
    assert "There is no keyword 'yess'. Did you mean 'yes'?" in str(caught.value)
    assert "There is no voice 'hi'. Did you mean 'high'?" in str(caught.value)
    with pytest.raises(DataError, match="at least one"):
        SimulatedSpeakers(words=(), voices=())
