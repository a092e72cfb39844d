import io
import tarfile

import pytest
import torch

from data_loaders import build_source
from data_loaders.voice.speech_commands import TEN, WORDS

SPEAKERS = ("004ae714", "0a7c2a8d", "f92e49f3")
WORD_TAKES = {"yes": 2, "no": 1, "happy": 1}


@pytest.fixture
def tree(tmp_path, wav):
    """The published layout: three speakers, three words, lists, noise, README."""
    root, seed = tmp_path / "tree", 0
    for word, takes in WORD_TAKES.items():
        for speaker in SPEAKERS:
            for number in range(takes):
                seed += 1
                wav(root / word / f"{speaker}_nohash_{number}.wav", seed, seconds=0.2)
    wav(root / "_background_noise_" / "running_tap.wav", 99, seconds=1.5)
    (root / "_background_noise_" / "README.md").write_text("noise")
    (root / "validation_list.txt").write_text("".join(f"{w}/0a7c2a8d_nohash_0.wav\n" for w in WORD_TAKES))
    (root / "testing_list.txt").write_text("".join(f"{w}/f92e49f3_nohash_0.wav\n" for w in WORD_TAKES))
    with (root / "validation_list.txt").open("a") as file:
        file.write("yes/0a7c2a8d_nohash_1.wav\n")
    with (root / "testing_list.txt").open("a") as file:
        file.write("yes/f92e49f3_nohash_1.wav\n")
    return root


def pack(tree, path, extra=()):
    """The archive as published: names start with ``./``, words in no useful order."""
    with tarfile.open(path, "w:gz") as tar:
        for file in sorted(tree.rglob("*"), reverse=True):
            tar.add(file, f"./{file.relative_to(tree)}", recursive=False)
        for info, content in extra:
            tar.addfile(info, io.BytesIO(content))
    return path


def load(root, **options):
    return build_source("speech_commands", root=str(root), **({"seconds": 0.2} | options)).load()


def test_the_published_tree(tree):
    samples = load(tree)
    assert samples.clients == SPEAKERS
    assert samples.classes == ("yes", "no", "happy")
    assert samples.targets.tolist() == [0, 0, 1, 2] * 3
    assert samples.inputs.shape == (12, 18, 40)
    assert samples.attributes["official_split"].tolist() == ["train", "validation", "test"]
    assert samples.attributes["takes"].tolist() == [4, 4, 4]
    assert samples.official is None
    assert any("'mixed' for 0 speakers" in rule for rule in samples.rules)


def test_the_archive_reads_as_the_tree_does_and_nothing_is_written(tree, tmp_path):
    archive = pack(tree, tmp_path / "speech_commands_v0.02.tar.gz")
    before = sorted(tmp_path.rglob("*"))
    for root in (archive, tmp_path):
        for keywords in (35, 10, 12):
            mine, theirs = load(root, keywords=keywords), load(tree, keywords=keywords)
            assert mine.clients == theirs.clients
            torch.testing.assert_close(mine.inputs, theirs.inputs, atol=1e-3, rtol=0)
            torch.testing.assert_close(mine.targets, theirs.targets)
            assert mine.attributes.equals(theirs.attributes)
    assert sorted(tmp_path.rglob("*")) == before


def test_ten_keywords_or_those_named(tree, refused):
    assert load(tree, keywords=("happy", "no")).targets.tolist() == [0, 1] * 3
    assert load(tree, keywords=("happy", "no")).classes == ("happy", "no")
    samples = load(tree, keywords=10)
    assert samples.lengths.tolist() == [3, 3, 3]
    assert set(samples.classes) == set(TEN)
    refused(lambda: load(tree, keywords=("yes", "bed")), "no recording of bed; it has yes")


def test_twelve_keywords_add_unknown_words_and_silence(tree, wav):
    for number in range(200):
        wav(tree / "bed" / f"{SPEAKERS[0]}_nohash_{number}.wav", 1000 + number, seconds=0.2)
    samples = load(tree, keywords=12, features="wave")
    assert samples.classes == (*TEN, "_unknown_", "_silence_")
    counts = [samples.targets[samples.rows(k)].bincount(minlength=12).tolist() for k in range(3)]
    unknown = [count[10] for count in counts]
    assert 3 < unknown[0] < 30  # 200 / 17 expected
    assert [count[11] for count in counts] == [-(-(3 + extra) // 11) for extra in unknown]
    # the same speaker has the same silences without the others
    (tree / "yes" / f"{SPEAKERS[2]}_nohash_0.wav").unlink()
    again = load(tree, keywords=12, features="wave")
    torch.testing.assert_close(again.inputs[again.rows(0)], samples.inputs[samples.rows(0)])


def test_silence_needs_noise(tree, refused):
    refused(lambda: load(tree, keywords=12, seconds=1.6), "_background_noise_", "at least 1.6 s")
    (tree / "_background_noise_" / "running_tap.wav").unlink()
    refused(lambda: load(tree, keywords=12), "found 0 files", "keywords=10")
    assert load(tree).lengths.tolist() == [4, 4, 4]


def test_speakers_with_few_takes_are_dropped_by_name(tree):
    (tree / "yes" / f"{SPEAKERS[1]}_nohash_1.wav").unlink()
    samples = load(tree, min_clips=4)
    assert samples.clients == (SPEAKERS[0], SPEAKERS[2])
    assert [(item.client, item.reason) for item in samples.dropped] == [
        (SPEAKERS[1], "min_clips: 3 clips, 4 asked for")
    ]
    assert load(tree, min_clips=4, clients=1).clients == (SPEAKERS[0],)


def test_a_speaker_in_several_parts_is_mixed(tree):
    with (tree / "testing_list.txt").open("a") as file:
        file.write(f"no/{SPEAKERS[0]}_nohash_0.wav\n")
    samples = load(tree)
    assert samples.attributes["official_split"].tolist() == ["mixed", "validation", "test"]
    assert any("'mixed' for 1 speakers" in rule for rule in samples.rules)


def test_without_lists_nobody_has_a_part(tree):
    (tree / "testing_list.txt").unlink()
    (tree / "validation_list.txt").unlink()
    assert load(tree).attributes["official_split"].isna().all()


def named(name, size=0, **fields):
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def test_hostile_members_write_nothing_and_links_are_passed_over(tree, tmp_path):
    sound = (tree / "yes" / f"{SPEAKERS[0]}_nohash_0.wav").read_bytes()
    outside = tmp_path / "outside_nohash_0.wav"
    extra = [
        (named("../../yes/outside_nohash_0.wav", len(sound)), sound),
        (named(f"/{tmp_path}/yes/absolute_nohash_0.wav", len(sound)), sound),
        (named("yes/link_nohash_0.wav", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
        (named("yes/hard_nohash_0.wav", type=tarfile.LNKTYPE, linkname="/etc/passwd"), b""),
    ]
    before = sorted(tmp_path.rglob("*"))
    samples = load(pack(tree, tmp_path / "a.tar.gz", extra))
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "a.tar.gz"])
    assert not outside.exists()
    assert "link" not in samples.clients
    assert "hard" not in samples.clients


def test_damaged_archives_are_named(tree, tmp_path, refused):
    path = pack(tree, tmp_path / "a.tar.gz")
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) // 10, 0):
        path.write_bytes(whole[:length])
        refused(lambda: load(path), "a.tar.gz cannot be read to its end", "get it again")
    path.write_text("not an archive")
    refused(lambda: load(path), "a.tar.gz cannot be read to its end", "no .tar.gz")
    pack(tree, path, [(named("yes/abc_nohash_0.wav", 2**24 + 1), bytes(2**24 + 1))])
    refused(lambda: load(path), "yes/abc_nohash_0.wav has 16777217 bytes", "more than a recording")
    pack(tree, path, [(named("yes/abc.wav", 4), b"RIFF")])
    refused(lambda: load(path), "a.tar.gz/yes/abc.wav is not named <word>/<speaker>_nohash_<number>.wav")
    pack(tree, path, [(named("yes/abc_nohash_0.wav", 4), b"RIFF")])
    refused(lambda: load(path), "a.tar.gz/yes/abc_nohash_0.wav is no sound file")
    assert load(path, on_bad="skip").clients == SPEAKERS


def test_bad_files_in_the_tree_are_named(tree, wav, refused):
    (tree / "validation_list.txt").write_bytes(b"\xff\xfe\x00")
    refused(lambda: load(tree), "validation_list.txt is no text")
    (tree / "validation_list.txt").unlink()
    wav(tree / "yes" / "somebody.wav")
    refused(lambda: load(tree), "somebody.wav is not named <word>/<speaker>_nohash_<number>.wav")
    refused(lambda: load(tree / "_background_noise_" / "README.md"), "README.md cannot be read to its end")
    (tree / "yes" / "somebody.wav").unlink()
    for word in WORD_TAKES:
        for path in (tree / word).iterdir():
            path.unlink()
    refused(lambda: load(tree), "holds no recording")


def test_options_are_checked(refused):
    error = refused(lambda: load("x", keywords=11, rate=0), "keywords must be 10, 12, 35 or words, got 11")
    assert len(error.problems) > 1
    refused(lambda: load("x", keywords=("wowe",)), "Did you mean 'wow'?")
    assert len(set(WORDS)) == 35
