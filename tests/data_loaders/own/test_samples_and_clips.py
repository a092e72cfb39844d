import numpy as np
import pytest
import torch

from data_loaders import DataError, SampleSpec, make_examples
from data_loaders.own import check_file

TABLE = "who,x,y,kind,word,take,part,when\n" + "".join(
    f"{'ba'[n % 2]},{n},{n / 2},{'pq'[n % 3 == 0]},{n % 4 + 8},{n // 4},"
    f"{('train', 'test', 'dev')[n % 3]},2013-01-0{n % 9 + 1}\n"
    for n in range(24)
)
YAML = """
layout: samples
files: t.csv
client: {column: who}
time: {column: when}
labels: {features: [x, y], categories: kind, label: word, group: take, split: part}
"""


def test_a_table_of_samples_keeps_each_row_whole(load):
    samples = load(YAML, t_csv=TABLE)
    assert samples.clients == ("a", "b")
    assert samples.classes == ("8", "9", "10", "11")  # by size, not by spelling
    assert samples.channel_names == ("x", "y", "kind=p", "kind=q")
    assert samples.inputs.shape == (24, 1, 4)
    rows = samples.inputs[:, 0, 0].long()
    assert rows.tolist() == [*range(1, 24, 2), *range(0, 24, 2)]
    assert torch.equal(samples.inputs[:, 0, 1], rows / 2)
    assert torch.equal(samples.inputs[:, 0, 3], (rows % 3 == 0).float())
    assert torch.equal(samples.targets, rows % 4)
    assert samples.official.tolist() == [(0, 2, 1)[row % 3] for row in rows]
    same_take = samples.groups[:, None] == samples.groups
    assert torch.equal(same_take, rows[:, None] // 4 == rows // 4)
    days = samples.times // 86400 - np.datetime64("2013-01-01").astype("datetime64[D]").astype(int)
    assert torch.equal(days, rows % 9)


def test_number_targets_have_a_unit_and_feed_the_engine(load):
    yaml = """
    {layout: samples, files: t.csv, client: {column: who, ignore: [word, take]},
     labels: {targets: [y], unit: kWh, features: [x]}}
    """
    samples = load(yaml, t_csv=TABLE)
    assert (samples.unit, samples.target_names, samples.classes) == ("kWh", ("y",), ())
    assert torch.equal(samples.targets[:, 0], samples.inputs[:, 0, 0] / 2)
    examples = make_examples(samples, SampleSpec())
    assert examples.task == "regress"
    assert examples.count("train").tolist() == [7, 7]


def test_features_are_steps_of_channels_when_said(load):
    rows = "a,1,10,2,20,3,30,u\nb,4,40,5,50,6,60,v\n"
    yaml = """
    {layout: samples, files: t.csv, client: {column: who}, labels: {label: l, steps: STEPS}}
    """
    text = "who,s0,g0,s1,g1,s2,g2,l\n" + rows
    samples = load(yaml.replace("STEPS", "3"), t_csv=text)
    assert samples.inputs[1].tolist() == [[4, 40], [5, 50], [6, 60]]
    with pytest.raises(DataError, match="6 features do not make 4 equal steps"):
        load(yaml.replace("STEPS", "4"), t_csv=text)


def test_incomplete_rows_are_an_error_or_dropped_and_counted(load):
    text = TABLE + "a,,1,p,8,0,train,2013-01-01\n,1,1,p,8,0,train,2013-01-01\n"
    with pytest.raises(
        DataError, match=r"t\.csv, line 26: no value for 'x'.*labels\.incomplete: drop.*1 more like it"
    ):
        load(YAML, t_csv=text)
    samples = load(YAML.replace("label: word", "label: word, incomplete: drop"), t_csv=text)
    assert len(samples.targets) == 24
    assert "2 of 26 rows lack a value and are left out" in samples.rules


def test_a_client_with_few_samples_is_dropped_with_the_reason(load):
    yaml = YAML.replace("{column: who}", "{column: who, min_samples: 3}")
    samples = load(yaml, t_csv=TABLE + "c,1,1,p,8,0,train,2013-01-01\n")
    assert samples.clients == ("a", "b")
    assert [(item.client, item.reason) for item in samples.dropped] == [
        ("c", "min_samples: 1 samples, 3 asked for")
    ]


def test_an_unknown_split_and_a_text_feature_are_refused(load):
    with pytest.raises(DataError, match=r"Column 'part' holds 'later'; labels\.split knows train, training"):
        load(YAML, t_csv=TABLE.replace(",dev,", ",later,"))
    with pytest.raises(DataError, match="column 'kind': 'q' is not a number"):
        load(
            YAML.replace("features: [x, y]", "features: [x, kind]").replace("categories: kind, ", ""),
            t_csv=TABLE,
        )


@pytest.fixture
def clips(tmp_path):
    """Clips of noise in a tree, and their manifest; take 1 of each word is a copy of take 0."""
    import soundfile

    rows = ["file,speaker,word,take,split"]
    for speaker in range(3):
        for word in ("no", "yes"):
            for take in range(4):
                noise = np.random.default_rng([speaker, word == "no", max(1, take)]).normal(0, 0.1, 4000)
                path = tmp_path / word / f"{speaker}_{take}.wav"
                path.parent.mkdir(exist_ok=True)
                soundfile.write(path, noise, 8000)
                part = "test" if take == 3 else "train"
                rows.append(f"{word}/{speaker}_{take}.wav,s{speaker},{word},{take // 2}{word},{part}")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "m.csv"


WAV = """
layout: wav
files: m.csv
client: {column: speaker}
labels: {label: word, group: take, split: split}
audio: {path: file, seconds: 0.5, mels: 20}
"""


def test_clips_of_a_manifest_become_log_mel_features(load, clips):
    samples = load(WAV)
    assert samples.clients == ("s0", "s1", "s2")
    assert samples.classes == ("no", "yes")
    assert samples.inputs.shape == (24, 48, 20)
    assert samples.targets.tolist() == [0, 0, 0, 0, 1, 1, 1, 1] * 3
    assert samples.official.tolist() == [0, 0, 0, 2] * 6
    assert torch.equal(samples.inputs[0], samples.inputs[1])
    assert not torch.equal(samples.inputs[0], samples.inputs[2])


def test_groups_hold_equal_takes_and_the_manifests_groups(load, clips):
    groups = load(WAV).groups.reshape(6, 4)
    assert (groups[:, 0] == groups[:, 1]).all()
    assert (groups[:, 2] == groups[:, 3]).all()
    assert (groups[:, 0] != groups[:, 2]).all()
    # one more copy joins the two groups of a word that the manifest tells apart
    (clips.parent / "no" / "0_2.wav").write_bytes((clips.parent / "no" / "0_0.wav").read_bytes())
    joined = load(WAV).groups.reshape(6, 4)
    assert len(joined[0].unique()) == 1
    assert all(len(row.unique()) == 2 for row in joined[1:])


def test_a_bad_manifest_names_line_and_file(load, clips):
    clips.write_text(
        clips.read_text() + "no/gone.wav,s1,no,0,train\nno/0_0.wav,,no,0,train\nno/0_0.wav,s1,no,0,x\n"
    )
    with pytest.raises(DataError) as caught:
        load(WAV)
    first, second, third = caught.value.problems
    assert "File m.csv, line 26: there is no clip 'no/gone.wav'" in first
    assert "File m.csv, line 27: no value for 'speaker'" in second
    assert "File m.csv, line 28: split 'x' is none of train" in third


def test_a_check_names_every_clip_that_cannot_be_read(load, clips):
    (clips.parent / "no" / "0_0.wav").write_bytes(b"")
    (clips.parent / "yes" / "2_0.wav").write_bytes(b"RIFF")
    (clips.parent / "mine.yaml").write_text(WAV)
    report = check_file(clips.parent / "mine.yaml")
    assert not report.ok
    assert "2 files cannot be used" in report.problems[0]
    assert "0_0.wav is empty" in report.problems[0]
    assert report.totals["classes"] == {"no": 11, "yes": 11}
    with pytest.raises(DataError, match=r"0_0\.wav is empty"):
        load(WAV)
