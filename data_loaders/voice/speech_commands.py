"""Google's Speech Commands v0.02: 35 words by 2,618 speakers; the archive, read as it is, or the tree it holds.

References:
    Warden, Speech Commands: a dataset for limited-vocabulary speech recognition, arXiv 1804.03209, 2018.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd

from ..cache import cached
from ..errors import raise_if_any
from ..home import find_root
from ..registry import About, register_source
from ..remote import Remote
from ..samples import ClientSamples
from .keywords import choose_classes, keyword_problems
from .options import ClipOptions, clip_problems
from .population import to_population
from .speech_archive import Contents, Vocabulary, archive_takes, silences, tree_takes
from .takes import Collected, Take, collect
from .tree import of_first_speakers

TEN = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
# fmt: off
WORDS = (
    *TEN, "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "backward", "bed", "bird",
    "cat", "dog", "follow", "forward", "happy", "house", "learn", "marvin", "sheila", "tree", "visual", "wow",
)
# fmt: on
UNKNOWN, SILENCE = "_unknown_", "_silence_"
ARCHIVE = "speech_commands_v0.02.tar.gz"


@register_source("speech_commands")
@dataclass(frozen=True)
class SpeechCommands(ClipOptions):
    """Keywords of Speech Commands v0.02; a client is a speaker, the part of a file's name before ``_nohash_``.

    Reads the ``.tar.gz`` as it is, member by member and without unpacking it, or the tree it holds. A speaker has
    40 takes on average, many have few: choose ``min_clips``. The published split deals whole speakers, so it is the
    attribute ``official_split`` and no split of a speaker's own clips.

    Args:
        root: the archive, or the folder with it or with the tree; None for what was fetched.
        keywords: ``35`` all words; ``10`` the commands yes, no, up, down, left, right, on, off, stop, go; ``12`` these,
            ``_unknown_`` (one in 17 takes of other words, chosen by name) and ``_silence_`` (cut from
            ``_background_noise_`` at random volume, as many as a speaker has takes of the average other class);
            or the words themselves, in the order of the classes.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="speaker",
        what="35 words in English, 105,829 takes of about 1 s at 16 kHz",
        clients="2,618",
        licence="CC BY 4.0",
        attributes=("official_split", "takes"),
        needs="root=ARCHIVE or FOLDER, or persofl data fetch speech_commands",
        task="classify",
        size="2.4 GB",
        attribution="Warden: Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition. arXiv 1804.03209, 2018.",
        remotes=(
            Remote(
                f"http://download.tensorflow.org/data/{ARCHIVE}",
                ARCHIVE,
                sha256="af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
                size=2_428_923_189,
            ),
        ),
    )

    rate: int = 16000
    root: str | None = None
    keywords: Literal[10, 12, 35] | tuple[str, ...] = 35

    def __post_init__(self) -> None:
        problems = clip_problems(self)
        if isinstance(self.keywords, int):
            if self.keywords not in (10, 12, 35):
                problems.append(f"keywords must be 10, 12, 35 or words, got {self.keywords}.")
        else:
            problems += keyword_problems(self.keywords, WORDS)
        raise_if_any(problems)

    def load(self) -> ClientSamples:
        """Return the speakers' clips.

        Raises:
            DataError: nothing to read at ``root``, a file that cannot be read, or no clip left.
        """
        root = find_root("speech_commands", self.root)
        return cached(self, "speech_commands", root, lambda: self._read(root))

    def _read(self, root: Path) -> ClientSamples:
        contents = Contents()
        archive = root if root.is_file() else next(iter(sorted(root.glob("*.tar.gz"))), None)
        if archive is not None:
            listed = Counter[str]()
            takes = archive_takes(archive, self._vocabulary(), contents, listed)
        else:
            every = list(tree_takes(root, self._vocabulary(), contents))
            listed, takes = of_first_speakers(every, self)
        spoken = chain(takes, self._silences(contents))
        return self._population(collect(spoken, self, listed), contents, root)

    def _vocabulary(self) -> Vocabulary:
        if self.keywords == 12:
            return Vocabulary(TEN, UNKNOWN, noise=True)
        words = {35: None, 10: TEN}.get(self.keywords) if isinstance(self.keywords, int) else self.keywords
        return Vocabulary(words)

    def _silences(self, contents: Contents) -> Iterator[Take]:
        """Yield takes of background noise, once all others have been read."""
        if self.keywords == 12:
            yield from silences(contents, SILENCE, per_take=1 / (len(TEN) + 1), seconds=self.seconds)

    def _classes(self, contents: Contents, root: Path) -> tuple[str, ...]:
        if self.keywords == 10:
            return TEN
        if self.keywords == 12:
            return (*TEN, UNKNOWN, SILENCE)
        wished = None if isinstance(self.keywords, int) else self.keywords
        return choose_classes(contents.labels, wished, WORDS, root)

    def _population(self, collected: Collected, contents: Contents, root: Path) -> ClientSamples:
        classes = self._classes(contents, root)
        attributes, mixed = official_split(collected, contents)
        rules = [
            "official_split: the published lists deal whole speakers; it is an attribute, 'mixed' for "
            f"{mixed} speakers with takes in several parts"
        ]
        if self.keywords == 12:
            rules.append(
                "keywords=12: _unknown_ is one in 17 takes of other words, _silence_ cut from the background noise"
            )
        return to_population(
            "speech_commands", collected, self, classes=classes, attributes=attributes, rules=rules
        )


def official_split(collected: Collected, contents: Contents) -> tuple[pd.DataFrame, int]:
    """Return each speaker's part of the published split and its recordings, and how many speakers are in several parts.

    A take in neither list is a training one; without lists nobody has a part.
    """
    listed = pd.Series(collected.listed, dtype="int64").rename_axis(index="client").rename("takes")
    if not contents.lists:
        return listed.to_frame().assign(official_split=None), 0
    spoken = collected.table[collected.table["label"] != SILENCE]
    parts = spoken["where"].str.split("/").str[-2:].str.join("/").map(contents.lists).fillna("train")
    by_speaker = parts.groupby(spoken["client"])
    split = by_speaker.first().where(by_speaker.nunique() == 1, "mixed")
    return listed.to_frame().assign(official_split=split), int((split == "mixed").sum())
