"""Arabic Speech Commands: 40 keywords by 30 speakers, ten times each; prepared FLAC or the original WAV tree.

References:
    Ghandoura, Hjabo and Al Dakkak, Building and benchmarking an Arabic speech commands dataset for small-footprint
    keyword spotting, Engineering Applications of Artificial Intelligence 102, 2021.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from ..cache import cached
from ..errors import DataError, raise_if_any
from ..home import find_root
from ..registry import About, register_source
from ..remote import Remote
from ..samples import ClientSamples
from .keywords import choose_classes, keyword_problems
from .options import ClipOptions, clip_problems
from .population import to_population
from .prepared import MANIFEST, prepared_takes, read_manifest, read_speakers, read_table
from .takes import Take, collect
from .tree import file_take, find_below, of_first_speakers, sound_files

# the names of the folders; the speech is Arabic
# fmt: off
KEYWORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "right", "left",
    "up", "down", "forward", "backward", "yes", "no", "ok", "cancel", "start", "stop", "open", "close",
    "enable", "disable", "next", "previous", "send", "receive", "record", "move", "rotate", "undo",
    "enter", "digit", "direction", "options", "zoom in", "zoom out",
)
# fmt: on
_FILE = re.compile(r"([^/]+)/(\d{8})_NO_(\d{2})\.wav", re.IGNORECASE)
_PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


@register_source("arabic_commands")
@dataclass(frozen=True)
class ArabicCommands(ClipOptions):
    """Keywords of the Arabic Speech Commands data set; a client is a speaker.

    Reads, whichever ``root`` holds: prepared recordings (``manifest.csv.gz``, ``audio/<speaker>.flac``, ``speakers.csv``;
    20 keywords at 8 kHz), or the original tree (``dataset/<keyword>/<speaker>_NO_<round>.wav`` at 16 kHz, with
    ``train.csv``, ``val.csv`` and ``test.csv``).

    The published split deals whole speakers, so it is the attribute ``official_split`` and no split of a speaker's own
    clips: these are dealt class by class. For unseen speakers hold out clients by that attribute.

    Args:
        root: folder; None for what was fetched or prepared.
        keywords: which, in the order of the classes; None for all there are, in the order published.

    Raises:
        DataError: all options out of range, in one message.
    """

    about: ClassVar[About] = About(
        kind="speaker",
        what="40 keywords in Arabic, ten takes each, 1 s at 16 kHz (prepared: 20 keywords at 8 kHz)",
        clients="30",
        licence="CC BY 4.0",
        attributes=("f0_median_hz", "pitch_group_proxy", "noise_group", "official_split"),
        needs="root=FOLDER, or persofl data fetch arabic_commands",
        task="classify",
        size="384 MB",
        attribution="Ghandoura, Hjabo and Al Dakkak: Building and benchmarking an Arabic speech commands dataset for "
        "small-footprint keyword spotting. Engineering Applications of Artificial Intelligence 102, 2021.",
        remotes=(
            Remote(
                "https://github.com/abdulkaderghandoura/arabic-speech-commands-dataset/archive/72f34382.zip",
                "arabic-speech-commands-dataset.zip",
                unpack="zip",
                members=("*/dataset/*/*.wav", "*/train.csv", "*/val.csv", "*/test.csv", "*/LICENSE"),
            ),
        ),
    )

    root: str | None = None
    keywords: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        problems = clip_problems(self)
        if self.keywords is not None:
            problems += keyword_problems(self.keywords, KEYWORDS)
        raise_if_any(problems)

    def load(self) -> ClientSamples:
        """Return the speakers' clips.

        Raises:
            DataError: nothing to read at ``root``, a file that cannot be read, or no clip left.
        """
        root = find_root("arabic_commands", self.root)
        return cached(self, "arabic_commands", root, lambda: self._read(root))

    def _read(self, root: Path) -> ClientSamples:
        manifest = find_below(root, MANIFEST)
        if manifest is not None:
            return self._read_prepared(manifest.parent)
        tree = find_below(root, "dataset")
        if tree is None:
            raise DataError(
                f"{root} holds neither {MANIFEST} (prepared) nor a folder 'dataset' (original). Point root at the folder "
                "of either."
            )
        return self._read_tree(tree)

    def _read_prepared(self, root: Path) -> ClientSamples:
        classes = choose_classes(set(read_manifest(root)["label"]), self.keywords, KEYWORDS, root)
        listed, takes = prepared_takes(root, self, classes)
        return self._population(listed, takes, classes, _split_in_words(read_speakers(root)))

    def _read_tree(self, tree: Path) -> ClientSamples:
        expected = "<keyword>/<8 digits>_NO_<2 digits>.wav"
        takes = [
            file_take(path, match[2], match[1], int(match[3]))
            for path, match in sound_files(tree, _FILE, expected, ignored=("background_noise",))
        ]
        classes = choose_classes({take.label for take in takes}, self.keywords, KEYWORDS, tree)
        listed, chosen = of_first_speakers([take for take in takes if take.label in classes], self)
        known = read_speakers(tree.parent).drop(columns="official_split", errors="ignore")
        split = read_split(tree.parent)
        return self._population(listed, chosen, classes, known.join(split, how="outer"))

    def _population(
        self, listed: Counter[str], takes: Iterator[Take], classes: tuple[str, ...], known: pd.DataFrame
    ) -> ClientSamples:
        return to_population(
            "arabic_commands",
            collect(takes, self, listed),
            self,
            classes=classes,
            attributes=known,
            rules=("official_split: the published split deals whole speakers; it is an attribute",),
        )


def _split_in_words(speakers: pd.DataFrame) -> pd.DataFrame:
    if "official_split" not in speakers:
        return speakers
    return speakers.assign(official_split=speakers["official_split"].map(_PARTS))


def read_split(root: Path) -> pd.DataFrame:
    """Return the column ``official_split`` by speaker from ``train.csv``, ``val.csv`` and ``test.csv`` in ``root``.

    Raises:
        DataError: a table without the column ``file``, a path that names no speaker, or a speaker in two tables.
    """
    parts: dict[str, str] = {}
    for path in (root / f"{name}.csv" for name in ("train", "val", "test")):
        if not path.is_file():
            continue
        table = read_table(path)
        if "file" not in table:
            raise DataError(f"{path} has no column 'file'; it has {', '.join(table.columns)}.")
        speakers = table["file"].str.extract(r"(\d{8})_NO_\d{2}\.wav$")[0]
        if speakers.isna().any():
            raise DataError(f"{path}: {table['file'][speakers.isna()].iloc[0]!r} names no speaker.")
        part = _PARTS[path.stem]
        for speaker in sorted(speakers.unique()):
            if parts.setdefault(speaker, part) != part:
                raise DataError(
                    f"Speaker {speaker} is in {path.name} and in the {parts[speaker]} part; the published split deals "
                    f"whole speakers. Get the tables in {root} again."
                )
    return pd.DataFrame({"official_split": pd.Series(parts, dtype=object)}).rename_axis(index="client")
