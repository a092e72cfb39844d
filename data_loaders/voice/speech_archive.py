"""The layout of Speech Commands: word folders, lists and background noise, in an archive or in a tree."""

import io
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import DataError
from .audio import Sound, decode_sound, read_sound
from .takes import Take
from .tree import find_below, sound_files

NOISE = "_background_noise_"
LISTS = {"validation_list.txt": "validation", "testing_list.txt": "test"}
_FILE = re.compile(r"([^/]+)/([^/]+)_nohash_(\d+)\.wav", re.IGNORECASE)
_EXPECTED = "<word>/<speaker>_nohash_<number>.wav"
_KEEP_ONE_IN = 17  # of the other words' takes: 17 times as many as of one keyword
_LARGEST = 2**24  # bytes of a member; a second is 32 kB, the longest noise 3 MB


@dataclass(frozen=True)
class Vocabulary:
    """Which takes count, and as what.

    Args:
        words: their labels are the words themselves; None for all words.
        others: label of a sample of all other words' takes; None to pass them over.
        noise: whether background noise is wanted.
    """

    words: tuple[str, ...] | None
    others: str | None = None
    noise: bool = False

    def label(self, word: str, name: str) -> str | None:
        """Return the label of the take of a word with a file name, None to pass it over."""
        if self.words is None or word in self.words:
            return word
        draw = int.from_bytes(blake2b(f"{word}/{name}".encode(), digest_size=4).digest(), "little")
        return self.others if draw % _KEEP_ONE_IN == 0 else None


@dataclass(frozen=True, eq=False)
class Contents:
    """What else lies beside the takes, filled while these are read.

    Args:
        lists: part of the published split by ``word/file``.
        noises: background noise, by name.
        takes: how many count, by speaker.
        labels: of all of them.
    """

    lists: dict[str, str] = field(default_factory=dict)
    noises: dict[str, Sound] = field(default_factory=dict)
    takes: Counter[str] = field(default_factory=Counter)
    labels: set[str] = field(default_factory=set)

    def add_list(self, name: str, text: str) -> None:
        """Take in one of the published lists."""
        self.lists.update(dict.fromkeys(text.split(), LISTS[name]))

    def count(self, speaker: str, label: str) -> None:
        """Count one take."""
        self.takes[speaker] += 1
        self.labels.add(label)


def tree_takes(root: Path, vocabulary: Vocabulary, contents: Contents) -> Iterator[Take]:
    """Yield the takes of the words in a tree, by word, speaker and number.

    Raises:
        DataError: a folder or list that cannot be read, or a WAV file of another name.
    """
    tree = next((path.parent for path in (find_below(root, name) for name in (*LISTS, NOISE)) if path), root)
    for name in LISTS:
        if (tree / name).is_file():
            contents.add_list(name, _text((tree / name).read_bytes(), str(tree / name)))
    if vocabulary.noise and (tree / NOISE).is_dir():
        contents.noises.update({path.name: read_sound(path) for path in sorted((tree / NOISE).glob("*.wav"))})
    for path, match in sound_files(tree, _FILE, _EXPECTED, ignored=(NOISE, "prepared", "downloads")):
        label = vocabulary.label(match[1], path.name)
        if label is not None:
            contents.count(match[2], label)
            yield Take(match[2], label, int(match[3]), path.as_posix(), partial(read_sound, path))


def archive_takes(
    archive: Path, vocabulary: Vocabulary, contents: Contents, listed: Counter[str]
) -> Iterator[Take]:
    """Yield the takes of the words in a ``.tar.gz`` in the order they lie there; nothing is written to disk.

    Args:
        archive: the file.
        vocabulary: which words.
        contents: takes in lists and noises met on the way.
        listed: counts the takes of each speaker.

    Raises:
        DataError: an archive that is cut off or none, a member far too large, or a WAV file of another name.
    """
    for name, content in _members(archive, vocabulary):
        where = f"{archive}/{name}"
        folder, file = PurePosixPath(name).parts[-2:] if "/" in name else ("", name)
        if file in LISTS:
            contents.add_list(file, _text(content, where))
        elif folder == NOISE:
            contents.noises[file] = decode_sound(content, where)
        else:
            match = _match(folder, file, where)
            label = vocabulary.label(match[1], file)
            if label is not None:
                contents.count(match[2], label)
                listed[match[2]] += 1
                yield Take(match[2], label, int(match[3]), where, partial(decode_sound, content, where))


def _match(folder: str, file: str, where: str) -> re.Match[str]:
    match = _FILE.fullmatch(f"{folder}/{file}")
    if match is None:
        raise DataError(f"{where} is not named {_EXPECTED}. Check that it is the Speech Commands archive.")
    return match


def _members(archive: Path, vocabulary: Vocabulary) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files in an archive that may matter; links and other things are passed over."""
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                sound = path.suffix.lower() == ".wav" and not path.name.startswith(".")
                noise = len(path.parts) > 1 and path.parts[-2] == NOISE
                if (
                    not member.isfile()
                    or not (path.name in LISTS or sound)
                    or (noise and not vocabulary.noise)
                ):
                    continue
                if member.size > _LARGEST:
                    raise DataError(
                        f"{archive}: {member.name} has {member.size} bytes, more than a recording of a word can have. "
                        "Check that it is the Speech Commands archive."
                    )
                file = tar.extractfile(member) or io.BytesIO()
                yield str(path), file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{archive} cannot be read to its end: {error}. It is cut off, damaged or no .tar.gz: get it again, or "
            "check that you may read it."
        ) from error


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no text: {error}. Get it again.") from error


def silences(contents: Contents, label: str, per_take: float, seconds: float) -> Iterator[Take]:
    """Yield cuts of background noise at a random volume, drawn by the speaker's name alone.

    Args:
        contents: with all takes counted and all noises read.
        label: of these takes.
        per_take: how many for each take of a speaker, rounded up.
        seconds: of a cut.

    Raises:
        DataError: there is no background noise, or a shorter one.
    """
    noises = [contents.noises[name] for name in sorted(contents.noises)]
    if not noises or min(len(noise.wave) / noise.rate for noise in noises) < seconds:
        raise DataError(
            f"_silence_ needs background noise of at least {seconds:g} s in a folder {NOISE}, found {len(noises)} files. "
            "Add it, or use keywords=10."
        )
    for speaker, takes in sorted(contents.takes.items()):
        random = np.random.default_rng(list(speaker.encode()))
        for number in range(int(np.ceil(takes * per_take))):
            noise = noises[int(random.integers(len(noises)))]
            samples = round(seconds * noise.rate)
            start = int(random.integers(len(noise.wave) - samples + 1))
            cut = np.float32(random.uniform(0.1, 1)) * noise.wave[start : start + samples]
            yield Take(speaker, label, number, f"{NOISE}/{number}", partial(Sound, cut, noise.rate))
